/** Refuses what a run cannot take: ids outside the vocabulary, states that do not fit the model. */
import { DenseMambaError } from "../errors.ts";
import { type Manifest, NUM_CANDIDATES } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import { countTokens, historyTokens } from "../sessions/stores/snapshot.ts";
import type { ResumePoint, SequenceRequest } from "./sequence.ts";

/** @throws `invalid_value` or `invalid_snapshot`, naming the bound and the value. */
export function validateRequest(request: SequenceRequest, manifest: Manifest): void {
  const { vocabSize } = manifest.sizes;
  const { promptIds, resume, maxTokens, minTokens } = request;
  if (resume !== undefined) validateResume(resume, manifest);
  const numToFeed = promptIds.length + (resume === undefined ? 0 : countTokens(resume) - resume.position);
  if (numToFeed === 0) throw invalid("prompt", "the prompt holds no tokens; at least 1 is needed");
  checkIds(promptIds, 0, vocabSize, "prompt token");
  checkCount(maxTokens, "max_tokens", 0, Number.MAX_SAFE_INTEGER);
  checkCount(minTokens, "min_tokens", 0, Number.MAX_SAFE_INTEGER);
  checkCount(request.numLogprobs ?? 0, "logprobs", 0, NUM_CANDIDATES);
  checkCount(request.numPromptLogprobs ?? 0, "prompt_logprobs", 0, NUM_CANDIDATES);
  for (const id of request.sampling.logitBias.keys()) {
    if (isId(id, vocabSize)) continue;
    throw invalid("logit_bias", `logit_bias names token ${id}; ids are integers from 0 to ${vocabSize - 1}`);
  }
}

function validateResume(resume: ResumePoint, manifest: Manifest): void {
  const { history, tokenIds, position, state, sampler } = resume;
  const [numPast, numTokens] = [historyTokens(history), countTokens(resume)];
  if (!isCount(position, numTokens) || position < numPast) {
    throw new DenseMambaError(
      "invalid_snapshot",
      `the state is at position ${position}; it must lie between ${numPast} and the number of its tokens, ${numTokens}`,
    );
  }
  const expected = stateBytes(manifest.state);
  if (state.length !== expected) {
    throw new DenseMambaError(
      "invalid_snapshot",
      `the state is ${state.length} bytes long; this model's state has ${expected}`,
    );
  }
  // At most one per token; skipping draws takes time.
  for (const [count, what] of sampler === undefined
    ? []
    : ([
        [sampler.numDraws, "draws"],
        [sampler.numSampled, "tokens"],
      ] as const)) {
    if (isCount(count, numTokens)) continue;
    throw new DenseMambaError(
      "invalid_snapshot",
      `the sampler has ${count} ${what}; it must have from 0 to ${numTokens}, the number of all tokens`,
    );
  }
  checkIds(tokenIds, position - numPast, manifest.sizes.vocabSize, "token of the resumed sequence");
}

function checkIds(ids: readonly number[], from: number, vocabSize: number, what: string): void {
  for (let i = from; i < ids.length; i++) {
    if (isId(ids[i]!, vocabSize)) continue;
    throw invalid("prompt", `${what} ${i} is ${ids[i]}; ids are integers from 0 to ${vocabSize - 1}`);
  }
}

function checkCount(value: number, param: string, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw invalid(param, `${param} is ${value}; it must be an integer from ${min} to ${max}`);
}

function isCount(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

function isId(id: number, vocabSize: number): boolean {
  return Number.isInteger(id) && id >= 0 && id < vocabSize;
}

function invalid(param: string, message: string): DenseMambaError {
  return new DenseMambaError("invalid_value", message, { param });
}
