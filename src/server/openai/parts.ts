/** Parts of a `GenerationRequest` that several endpoints make from the shared fields, and rules between those fields. */
import { DenseMambaError } from "../../errors.ts";
import type { GenerationRequest } from "../../generation/events.ts";
import type { SamplingParams } from "../../sampling/params.ts";
import { type Bounds, NO_TOOLS, type SamplingBody } from "./fields.ts";
import { invalid } from "./validate.ts";

export function toSampling(body: SamplingBody, vocabSize: number): SamplingParams {
  const topK = body.top_k ?? 0;
  return {
    temperature: body.temperature ?? 1,
    topK: topK === -1 || topK >= vocabSize ? 0 : topK,
    topP: body.top_p ?? 1,
    minP: body.min_p ?? 0,
    repetitionPenalty: body.repetition_penalty ?? 1,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    logitBias: body.logit_bias ?? new Map(),
    seed: body.seed,
  };
}

type StoppingKeys =
  | "maxTokens"
  | "minTokens"
  | "stopStrings"
  | "stopTokenIds"
  | "ignoreEos"
  | "includeStopString"
  | "skipSpecialTokens";

export function toStopping(body: SamplingBody, maxTokens: number | undefined): Pick<GenerationRequest, StoppingKeys> {
  return {
    maxTokens,
    minTokens: body.min_tokens ?? 0,
    stopStrings: body.stop ?? [],
    stopTokenIds: body.stop_token_ids ?? [],
    ignoreEos: body.ignore_eos ?? false,
    includeStopString: body.include_stop_str_in_output ?? false,
    skipSpecialTokens: body.skip_special_tokens ?? true,
  };
}

/** @throws `invalid_value` where `stream_options` comes without `stream` */
export function wantsUsageChunk(body: {
  stream?: boolean | undefined;
  stream_options?: { include_usage?: boolean | null | undefined } | undefined;
}): boolean {
  if (body.stream_options !== undefined && body.stream !== true) {
    throw invalid("stream_options", "is only allowed when stream is true");
  }
  return body.stream_options?.include_usage === true;
}

export function toCacheSalt(body: { cache_salt?: string | undefined }): Pick<GenerationRequest, "cacheSalt"> {
  return body.cache_salt === undefined ? {} : { cacheSalt: body.cache_salt };
}

/** A session is one conversation: one prompt, one choice. */
export function sessionFields(
  id: string | undefined,
  numPrompts: number,
  bestOf: number,
): Pick<GenerationRequest, "resumeFrom" | "keepAs"> {
  if (id === undefined) return {};
  if (numPrompts !== 1) throw invalid("session_id", `needs exactly one prompt; got ${numPrompts}`);
  if (bestOf !== 1) throw invalid("session_id", `needs n and best_of to be 1; got ${bestOf}`);
  return { resumeFrom: { type: "session", id }, keepAs: { type: "session", id } };
}

/** @throws `invalid_value` if one request asks for more sequences than the server admits */
export function checkChoices(numPrompts: number, bestOf: number, bounds: Bounds): void {
  const total = numPrompts * bestOf;
  if (total > bounds.maxChoices) {
    const param = bestOf > 1 ? "n" : "prompt";
    throw invalid(
      param,
      `asks for too many choices: prompts x best_of must be at most ${bounds.maxChoices}; got ${total}`,
    );
  }
}

/** @throws `unsupported_value` for tools that the model might call */
export function checkTools(body: { tools?: readonly object[] | undefined; tool_choice?: unknown }): void {
  if (body.tools === undefined || body.tools.length === 0 || body.tool_choice === "none") return;
  const message = `tools is not supported unless tool_choice is "none": ${NO_TOOLS}`;
  throw new DenseMambaError("unsupported_value", message, { param: "tools" });
}
