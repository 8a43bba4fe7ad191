/** Reported log-probabilities: of the raw logits, before temperature, penalties and masks. */
import type { LogitRows } from "../model/logits.ts";
import { numCandidatesOf } from "./rows.ts";

export interface TokenLogprob {
  readonly tokenId: number;
  readonly logprob: number;
}

export interface ScoredToken extends TokenLogprob {
  /**
   * The k likeliest tokens, descending; fewer if the row has fewer candidates. With k ≥ 1 the first
   * is the argmax.
   */
  readonly top: readonly TokenLogprob[];
  /** Its place among all tokens, from 1; of equal ones the lower id is first. If asked for. */
  readonly rank?: number | undefined;
}

/**
 * The same id has the same f32 value as the token itself and in `top`.
 * @param ranks whether to find the token's rank, which may take a pass over the whole row
 */
export function scoreToken(rows: LogitRows, row: number, tokenId: number, k: number, ranks = false): ScoredToken {
  const numCandidates = numCandidatesOf(rows);
  const first = row * numCandidates;
  const ids = rows.topIds.subarray(first, first + numCandidates);
  const ranked = (id: number, logit: number): TokenLogprob => ({
    tokenId: id,
    logprob: Math.fround(logit - rows.logSumExp[row]!),
  });
  const top = Array.from(ids.subarray(0, k), (id, i) => ranked(Number(id), rows.topLogits[first + i]!));
  const place = ids.indexOf(BigInt(tokenId));
  const logit = place === -1 ? rows.logitsOf(row)[tokenId]! : rows.topLogits[first + place]!;
  const scored = { ...ranked(tokenId, logit), top };
  if (!ranks) return scored;
  return { ...scored, rank: place === -1 ? rankIn(rows.logitsOf(row), tokenId) : place + 1 };
}

function rankIn(logits: Float32Array, tokenId: number): number {
  const own = logits[tokenId]!;
  let numBefore = 0;
  for (let id = 0; id < logits.length; id++) {
    if (logits[id]! > own || (logits[id] === own && id < tokenId)) numBefore++;
  }
  return numBefore + 1;
}

/** In place of a token id: no score, or no more rivals. */
const NONE = -1;
const MIN_ROWS = 16;

/**
 * Scores of consecutive tokens, stored as numbers: 8 bytes for a token and for each of its rivals,
 * where objects take ten times as much. Append only.
 */
export class ScoreTable implements Iterable<ScoredToken | null> {
  /** Entries of a row: the token's own, then its rivals'. */
  readonly #width: number;
  #ids = new Int32Array(0);
  #logprobs = new Float32Array(0);
  /** One per row; empty until a token has one. */
  readonly #ranks: number[] = [];
  #length = 0;

  /** @param numTop the most rivals that a token has */
  constructor(numTop: number) {
    this.#width = 1 + numTop;
  }

  get length(): number {
    return this.#length;
  }

  push(scored: ScoredToken | null): void {
    const start = this.#length++ * this.#width;
    if (start === this.#ids.length) this.#grow();
    this.#ids.fill(NONE, start, start + this.#width);
    if (scored === null) return;
    this.#put(start, scored);
    if (scored.rank !== undefined) this.#ranks[this.#length - 1] = scored.rank;
    for (const [index, rival] of scored.top.entries()) this.#put(start + 1 + index, rival);
  }

  /** Null where the token has no score. */
  at(row: number): TokenLogprob | null {
    const start = row * this.#width;
    return this.#ids[start] === NONE ? null : this.#get(start);
  }

  rankAt(row: number): number | undefined {
    return this.#ranks[row];
  }

  /** The likeliest tokens at this position, descending. */
  topAt(row: number): TokenLogprob[] {
    const start = row * this.#width;
    const top: TokenLogprob[] = [];
    for (let i = start + 1; i < start + this.#width && this.#ids[i] !== NONE; i++) top.push(this.#get(i));
    return top;
  }

  *[Symbol.iterator](): Generator<ScoredToken | null> {
    for (let row = 0; row < this.#length; row++) {
      const own = this.at(row);
      const rank = this.rankAt(row);
      yield own && { ...own, top: this.topAt(row), ...(rank !== undefined && { rank }) };
    }
  }

  #put(index: number, { tokenId, logprob }: TokenLogprob): void {
    this.#ids[index] = tokenId;
    this.#logprobs[index] = logprob;
  }

  #get(index: number): TokenLogprob {
    return { tokenId: this.#ids[index]!, logprob: this.#logprobs[index]! };
  }

  #grow(): void {
    const numRows = Math.max(MIN_ROWS, Math.ceil(this.#length * 1.5));
    const [ids, logprobs] = [this.#ids, this.#logprobs];
    this.#ids = new Int32Array(numRows * this.#width);
    this.#logprobs = new Float32Array(numRows * this.#width);
    this.#ids.set(ids);
    this.#logprobs.set(logprobs);
  }
}
