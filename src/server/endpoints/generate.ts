/** What the generating routes share: parsed requests in, the answer's head, and the two ways out of a generation. */
import type { GenerationEvent, GenerationRequest } from "../../generation/events.ts";
import type { AppContext } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { admit, pump } from "../http/pump.ts";
import { streamSse } from "../http/sse.ts";
import { toHttpError } from "../openai/errors.ts";
import type { Bounds } from "../openai/fields.ts";
import { systemFingerprint } from "../openai/models.ts";
import type { AnswerHead, Emit, StreamRenderer } from "../openai/renderer.ts";

export function boundsOf({ options, model }: ServerDeps): Bounds {
  const { limits, trustRequestTemplates } = options;
  return { ...limits, vocabSize: model.manifest.sizes.vocabSize, trustRequestTemplates };
}

export function answerHead(deps: ServerDeps, idPrefix: "cmpl" | "chatcmpl"): AnswerHead {
  return {
    id: `${idPrefix}-${deps.newId()}`,
    createdS: Math.floor(deps.nowMs() / 1000),
    model: deps.model.name,
    fingerprint: systemFingerprint(deps.model),
  };
}

/** Generates until the client goes away. */
export function generateFor(
  context: AppContext,
  deps: ServerDeps,
  request: Omit<GenerationRequest, "owner" | "signal">,
): AsyncIterable<GenerationEvent> {
  return deps.generator.generate({ ...request, owner: context.get("owner"), signal: context.req.raw.signal });
}

/**
 * Streams a generation as `data:` lines. The first event is awaited before the header is sent: refusals keep their HTTP status.
 * @throws whatever the generation was refused with
 */
export async function answerSse(
  context: AppContext,
  deps: ServerDeps,
  request: Omit<GenerationRequest, "owner" | "signal">,
  renderer: (emit: Emit) => StreamRenderer,
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
      renderer: renderer((json) => stream.data(json)),
      sink: stream,
      pacing: { engine: deps.engine, gapMs: deps.options.streamGapMs },
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
