/** Log-probabilities for reports: of the raw logits, before temperature, penalties and masks. */
import { type LogitRows, numCandidatesOf, vocabSizeOf } from "./rows.ts";

export interface RankedLogprob {
  readonly tokenId: number;
  readonly logprob: number;
}

/**
 * The token's log-probability in one row and those of the k likeliest, descending (fewer than k if the row has fewer
 * candidates). The same id has the same f32 value in both.
 */
export function scoreToken(
  rows: LogitRows,
  row: number,
  tokenId: number,
  k: number,
): RankedLogprob & { readonly top: readonly RankedLogprob[] } {
  const numCandidates = numCandidatesOf(rows);
  const top: RankedLogprob[] = [];
  for (let i = 0; i < Math.min(k, numCandidates); i++) {
    top.push(logprobOf(rows, row, Number(rows.topIds[row * numCandidates + i])));
  }
  return { ...logprobOf(rows, row, tokenId), top };
}

function logprobOf(rows: LogitRows, row: number, tokenId: number): RankedLogprob {
  const logit = rows.logits[row * vocabSizeOf(rows) + tokenId]!;
  return { tokenId, logprob: Math.fround(logit - rows.logSumExp[row]!) };
}
