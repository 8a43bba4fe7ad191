/**
 * How completions and chat answer: with a stream of chunks, or with one object made from all
 * events.
 */
import type { AppContext, ServerDeps } from "../deps.ts";
import { answerJson } from "../http/json-answer.ts";
import { admit, pump } from "../http/pump.ts";
import { streamSse } from "../http/sse.ts";
import { ChoiceStream, type ChunkWriter, type Collected, collect } from "../openai/choices.ts";
import { toHttpError } from "../openai/errors.ts";
import type { CompletionsTask } from "../openai/fields.ts";

export interface Rendering {
  readonly chunks: () => ChunkWriter;
  /** For `answerJson`. */
  readonly answer: (collected: Collected) => object;
}

/**
 * @throws whatever the generation was refused with, and, without a stream, whatever it failed with
 */
export async function answerChoices(
  context: AppContext,
  deps: ServerDeps,
  task: CompletionsTask,
  rendering: Rendering,
): Promise<Response> {
  if (task.stream) return streamChoices(context, deps, task, rendering.chunks());
  const request = { ...task.request, owner: context.get("owner"), signal: context.req.raw.signal };
  const collected = await collect(deps.generator.generate(request), deps.generator.tokenizer);
  context.set("usage", collected.usage);
  return answerJson(context, deps.options, rendering.answer(collected));
}

/**
 * The first event is awaited before the header is sent, so that a refusal is still an HTTP status.
 */
async function streamChoices(
  context: AppContext,
  deps: ServerDeps,
  task: CompletionsTask,
  chunks: ChunkWriter,
): Promise<Response> {
  const gone = new AbortController();
  const abort = () => gone.abort();
  const clientSignal = context.req.raw.signal;
  if (clientSignal.aborted) abort();
  else clientSignal.addEventListener("abort", abort, { once: true });
  const owner = context.get("owner");
  const admitted = await admit(deps.generator.generate({ ...task.request, owner, signal: gone.signal }));

  return streamSse(context, deps.options, abort, async (stream) => {
    const usage = await pump(admitted, {
      choices: new ChoiceStream(chunks, task, (json) => stream.data(json)),
      sink: stream,
      throttle: { engine: deps.engine, gapMs: deps.options.streamGapMs },
      onFailure: (error) => {
        abort();
        const fields = { err: error, requestId: context.get("requestId") };
        if (toHttpError(error).isFault) deps.log.error(fields, "stream failed");
        else deps.log.debug(fields, "stream cut off");
      },
    });
    context.set("usage", usage);
    if (usage !== undefined) stream.done();
  });
}
