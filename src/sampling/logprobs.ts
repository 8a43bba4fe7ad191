/** Log-probabilities for reports: of the raw logits, before temperature, penalties and masks. */
import { type LogitRows, numCandidatesOf } from "./rows.ts";

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
  const first = row * numCandidates;
  const ids = rows.topIds.subarray(first, first + numCandidates);
  const ranked = (id: number, logit: number): RankedLogprob => ({
    tokenId: id,
    logprob: Math.fround(logit - rows.logSumExp[row]!),
  });
  const top = Array.from(ids.subarray(0, k), (id, i) => ranked(Number(id), rows.topLogits[first + i]!));
  const place = ids.indexOf(BigInt(tokenId));
  const logit = place === -1 ? rows.logitsOf(row)[tokenId]! : rows.topLogits[first + place]!;
  return { ...ranked(tokenId, logit), top };
}
