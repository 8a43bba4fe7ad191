/**
 * Log-probabilities of continuations of one prompt: the prompt is read once, and each continuation
 * from the state after it.
 */
import { setImmediate } from "node:timers/promises";
import type { Sequence } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import { GREEDY } from "../sampling/params.ts";
import { readOnce, type SequenceEngine } from "./admission.ts";
import type { ContinuationScore } from "./events.ts";
import type { PreparedPrompt } from "./prompts.ts";

/**
 * @param continuations token ids, each at least one
 * @throws as the engine does; `aborted`
 */
export async function scoreContinuations(
  engine: SequenceEngine,
  prompt: PreparedPrompt,
  continuations: readonly (readonly number[])[],
  signal: AbortSignal,
): Promise<ContinuationScore[]> {
  // The last token is read again with each of them, for the logits after it.
  const [ready] = await readOnce(engine, [prompt], signal);
  const { promptIds, resume } = ready!;
  const sequences = engine.submit(
    continuations.map((ids) => ({
      promptIds: [...promptIds, ...ids],
      ...(resume && { resume }),
      sampling: GREEDY,
      maxTokens: 0,
      minTokens: 0,
      stopTokenIds: new Set<number>(),
      numPromptLogprobs: 0,
      signal,
    })),
  );
  const logprobs = await Promise.all(sequences.map((sequence, index) => sumOf(sequence, continuations[index]!.length)));
  return logprobs.map((logprob, index) => ({ logprob, numTokens: continuations[index]!.length }));
}

/** Of the last `numTokens` tokens. */
async function sumOf(sequence: Sequence, numTokens: number): Promise<number> {
  let sum: number | undefined;
  for await (const event of sequence.events) {
    if (event.type !== "prompt" || event.logprobs === undefined) continue;
    const { logprobs } = event;
    sum = 0;
    for (let row = logprobs.length - numTokens; row < logprobs.length; row++) sum += logprobs.at(row)!.logprob;
    await setImmediate();
  }
  if (sum !== undefined) return sum;
  throw new DenseMambaError("aborted", "the request was aborted while its continuations were being read");
}
