/**
 * Bounds of a request that do not depend on its prompts' contents. Messages use the wire's names.
 */
import { DenseMambaError } from "../errors.ts";
import type { GenerationRequest } from "./events.ts";

/** Of one prompt. The queue is bounded too; this bounds what is built before it is checked. */
const MAX_SAMPLES = 1024;

export interface GenerationLimits {
  /** Tokens of one prompt that may have to be read. */
  readonly maxPromptTokens: number;
  /** Tokens of one choice; also the default of `maxTokens`. */
  readonly maxOutputTokens: number;
  /** Tokens in all choices of an answer, plus their log-probabilities. Default: no bound. */
  readonly maxAnswerTokens?: number;
}

/**
 * @returns the most tokens of a choice
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
  const isSaved = request.saveAs !== undefined || request.returnsState === true;
  const isOne = isSaved || (request.resumeFrom && request.resumeFrom.type !== "persona");
  if (isOne && (request.prompts.length !== 1 || bestOf !== 1)) {
    throw new DenseMambaError(
      "invalid_value",
      `a stored conversation takes one prompt and one choice, given ${request.prompts.length} and ${bestOf}`,
      { param: numChoices > 1 ? "n" : names.prompts },
    );
  }
  return maxTokens;
}

/**
 * The size of the whole answer: choices, tokens and log-probabilities multiply.
 * @throws `invalid_value`, naming all factors
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
  // A chat returns its prompt ids once, a completion with every choice.
  const returnsIdsPerChoice = request.returnTokenIds === true && request.prompts[0]!.type !== "chat";
  const returnsPrompt = echo || numPromptLogprobs !== undefined || returnsIdsPerChoice;
  const promptTokens = returnsPrompt ? prompts.reduce((sum, { echoIds }) => sum + echoIds.length, 0) : 0;
  const asked =
    bestOf * (promptTokens * (1 + (numPromptLogprobs ?? 0)) + prompts.length * maxTokens * (1 + numLogprobs));
  if (asked <= maxAnswerTokens) return;
  const shown = returnsPrompt
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

/**
 * Worded so that clients recognise a prompt that is too long.
 * @param numTokens of the prompt or of its beginning: encoding stops at the limit
 */
export function promptTooLong(param: string, numTokens: number, maxPromptTokens: number): DenseMambaError {
  return new DenseMambaError(
    "prompt_too_long",
    `This model's maximum context length is ${maxPromptTokens} tokens. However, your ${param} resulted in ${numTokens} tokens or more.`,
    { param },
  );
}

/** @throws `invalid_value`, naming the first id that is out of range */
export function checkTokenIds(ids: readonly number[], vocabSize: number, param: string): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new DenseMambaError(
      "invalid_value",
      `${param}[${i}] must be a token id from 0 to ${vocabSize - 1}, given ${id}`,
      { param },
    );
  }
}
