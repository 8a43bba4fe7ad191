/** Bounds of a request that hold whatever its prompts say. Pure; named as on the wire, for the messages. */
import { DenseMambaError } from "../errors.ts";
import type { GenerationRequest } from "./events.ts";
import { checkTokenIds } from "./prompts.ts";

/** Of one prompt. The engine refuses what its queue cannot take; this bounds what is built before it is asked. */
const MAX_SAMPLES = 1024;

export interface GenerationLimits {
  /** Tokens that one prompt may make us read. */
  readonly maxPromptTokens: number;
  /** Tokens that one choice may have; what `maxTokens` undefined means. */
  readonly maxOutputTokens: number;
  /** Of one answer: tokens shown in all choices, each counted with the log-probabilities beside its own. Default: no bound. */
  readonly maxAnswerTokens?: number;
}

/**
 * @returns the tokens that a choice may have
 * @throws `invalid_value`, naming the bound and the value
 */
export function checkRequest(request: GenerationRequest, limits: GenerationLimits, vocabSize: number): number {
  const { maxOutputTokens } = limits;
  const { names } = request;
  const { maxTokens = maxOutputTokens, minTokens, numChoices, bestOf, truncatePromptTokens } = request;
  checkInteger(names.prompts, "number of prompts", request.prompts.length, 1);
  checkInteger("n", "n", numChoices, 1, MAX_SAMPLES);
  checkInteger("best_of", "best_of", bestOf, numChoices, MAX_SAMPLES);
  checkInteger(names.maxTokens, names.maxTokens, maxTokens, 0, maxOutputTokens);
  checkInteger("min_tokens", "min_tokens", minTokens, 0);
  if (minTokens > maxTokens) {
    const message = `min_tokens must be at most ${names.maxTokens} (${maxTokens}); got ${minTokens}`;
    throw new DenseMambaError("invalid_value", message, { param: "min_tokens" });
  }
  if (truncatePromptTokens !== undefined) {
    checkInteger("truncate_prompt_tokens", "truncate_prompt_tokens", truncatePromptTokens, 1);
  }
  checkTokenIds(request.stopTokenIds, vocabSize, "stop_token_ids");
  checkTokenIds([...request.sampling.logitBias.keys()], vocabSize, "logit_bias");
  if ((request.resumeFrom || request.keepAs) && (request.prompts.length !== 1 || bestOf !== 1)) {
    throw new DenseMambaError(
      "invalid_value",
      `a kept conversation takes one prompt and one choice, given ${request.prompts.length} and ${bestOf}`,
      { param: numChoices > 1 ? "n" : names.prompts },
    );
  }
  return maxTokens;
}

/**
 * What an answer may come to, before any of it is made: choices, tokens and log-probabilities multiply.
 * @throws `invalid_value`, with all factors
 */
export function checkAnswerSize(
  request: GenerationRequest,
  prompts: readonly { readonly echoIds: readonly number[] }[],
  maxTokens: number,
  limits: GenerationLimits,
): void {
  const { maxAnswerTokens: own = Number.POSITIVE_INFINITY } = request;
  const maxAnswerTokens = Math.min(own, limits.maxAnswerTokens ?? Number.POSITIVE_INFINITY);
  const { bestOf, echo, names, numLogprobs = 0 } = request;
  const numPromptLogprobs = request.numPromptLogprobs ?? (echo ? numLogprobs : undefined);
  // A chat's ids are given once, a completion's beside every choice.
  const isEachGivenIds = request.returnTokenIds === true && request.prompts[0]!.type !== "chat";
  const isPromptShown = echo || numPromptLogprobs !== undefined || isEachGivenIds;
  const promptTokens = isPromptShown ? prompts.reduce((sum, { echoIds }) => sum + echoIds.length, 0) : 0;
  const asked =
    bestOf * (promptTokens * (1 + (numPromptLogprobs ?? 0)) + prompts.length * maxTokens * (1 + numLogprobs));
  if (asked <= maxAnswerTokens) return;
  const shown = isPromptShown
    ? `${promptTokens} prompt tokens x (1 + ${numPromptLogprobs ?? 0} log-probabilities) + `
    : "";
  const ahead = prompts.length > 1 ? `${prompts.length} prompts x ` : "";
  throw new DenseMambaError(
    "invalid_value",
    `the answer may hold at most ${maxAnswerTokens} tokens and log-probabilities, given ${asked}: ` +
      `${bestOf} x (${shown}${ahead}${maxTokens} tokens x (1 + ${numLogprobs} log-probabilities)); lower one of them`,
    { param: bestOf > 1 ? "n" : numLogprobs > 0 ? names.numLogprobs : names.maxTokens },
  );
}

function checkInteger(param: string, what: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  const bounds = max === Number.MAX_SAFE_INTEGER ? `at least ${min}` : `from ${min} to ${max}`;
  throw new DenseMambaError("invalid_value", `${what} must be an integer ${bounds}, given ${value}`, { param });
}
