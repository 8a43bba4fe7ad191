/**
 * How endpoints answer with a generation: with a stream of its events, or with one object made from
 * all of them.
 */
import type { GenerationRequest } from "../../generation/events.ts";
import type { AppContext, ServerDeps } from "../deps.ts";
import { answerJson } from "../http/json-answer.ts";
import { admit, type EventRenderer, pump } from "../http/pump.ts";
import { type SseStream, streamSse } from "../http/sse.ts";
import { ChoiceStream, type ChunkWriter, type Collected, collect } from "../openai/choices.ts";
import { errorCodeOf, toHttpError } from "../openai/errors.ts";
import type { CompletionsTask } from "../openai/fields.ts";

export interface GenerationTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal">;
  readonly stream: boolean;
}

export interface Rendering {
  readonly renderer: (stream: SseStream) => EventRenderer;
  /** After all events, if the generation has not failed. */
  readonly end?: (stream: SseStream) => void;
  /** For `answerJson`. */
  readonly answer: (collected: Collected) => object;
}

/** With the chunks of completions and chats. @throws as `answerGeneration` does */
export function answerChoices(
  context: AppContext,
  deps: ServerDeps,
  task: CompletionsTask,
  { chunks, answer }: Pick<Rendering, "answer"> & { readonly chunks: () => ChunkWriter },
): Promise<Response> {
  return answerGeneration(context, deps, task, {
    renderer: (stream) => new ChoiceStream(chunks(), task, (json) => stream.data(json)),
    end: (stream) => stream.done(),
    answer,
  });
}

/**
 * @throws whatever the generation was refused with, and, without a stream, whatever it failed with
 */
export async function answerGeneration(
  context: AppContext,
  deps: ServerDeps,
  task: GenerationTask,
  rendering: Rendering,
): Promise<Response> {
  if (task.stream) return streamGeneration(context, deps, task, rendering);
  const request = { ...task.request, owner: context.get("owner"), signal: context.req.raw.signal };
  const collected = await collect(deps.generator.generate(request), deps.generator.tokenizer);
  context.set("usage", collected.usage);
  return answerJson(context, deps.options, rendering.answer(collected));
}

/**
 * The first event is awaited before the header is sent, so that a refusal is still an HTTP status.
 */
async function streamGeneration(
  context: AppContext,
  deps: ServerDeps,
  { request }: GenerationTask,
  rendering: Rendering,
): Promise<Response> {
  const gone = new AbortController();
  const abort = () => gone.abort();
  const clientSignal = context.req.raw.signal;
  if (clientSignal.aborted) abort();
  else clientSignal.addEventListener("abort", abort, { once: true });
  const owner = context.get("owner");
  const admitted = await admit(deps.generator.generate({ ...request, owner, signal: gone.signal }));

  return streamSse(context, deps.options, abort, async (stream) => {
    const usage = await pump(admitted, {
      renderer: rendering.renderer(stream),
      sink: stream,
      throttle: { engine: deps.engine, gapMs: deps.options.streamGapMs },
      onFailure: (error) => {
        abort();
        context.set("errorCode", errorCodeOf(error));
        const fields = { err: error, requestId: context.get("requestId") };
        if (toHttpError(error).isFault) deps.log.error(fields, "stream failed");
        else deps.log.debug(fields, "stream cut off");
      },
    });
    context.set("usage", usage);
    if (usage !== undefined) rendering.end?.(stream);
  });
}
