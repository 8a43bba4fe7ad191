/** Whether a conversation is what the same model says without interruption: all of it is read anew, in this process. */
import type { Engine } from "../../engine/engine.ts";
import type { ScoredToken } from "../../engine/sequence.ts";
import { streamRequest } from "../streams.ts";
import type { Answer } from "./soak-book.ts";

/** Padding of the model's vocabulary may be likelier than any token, and is never sampled. */
const NUM_CANDIDATES = 5;

export interface ColdReader {
  readonly engine: Engine;
  /** Ids from here on are never sampled. */
  readonly vocabSize: number;
  /** How much less likely than the likeliest a greedily chosen token may be: 0 where all runs give the same bits. */
  readonly tolerance: number;
}

/** @returns where the first token stands that a greedy answer would not have, and undefined if there is none */
export async function firstWrong(
  { engine, vocabSize, tolerance }: ColdReader,
  { tokenIds, answers }: { readonly tokenIds: readonly number[]; readonly answers: readonly Answer[] },
): Promise<number | undefined> {
  if (answers.every(({ start, end }) => start >= end)) return undefined;
  const request = { ...streamRequest(tokenIds, 0), numPromptLogprobs: NUM_CANDIDATES };
  let scores: readonly (ScoredToken | null)[] = [];
  for await (const event of engine.submit([request])[0]!.events) {
    if (event.type === "prompt") scores = [...(event.logprobs ?? [])];
  }
  for (const { start, end } of answers) {
    for (let at = start; at < end; at++) {
      const scored = scores[at];
      const best = scored?.top.find(({ tokenId }) => tokenId < vocabSize);
      if (!scored || !best) return at;
      if (scored.tokenId !== best.tokenId && scored.logprob < best.logprob - tolerance) return at;
    }
  }
  return undefined;
}
