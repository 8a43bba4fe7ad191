/**
 * Scores of tokens that follow one another, kept as numbers: 8 bytes for a token and for each of its likeliest rivals,
 * where objects take ten times as much. Append only.
 */
import type { RankedLogprob } from "./logprobs.ts";

type Scored = RankedLogprob & { readonly top: readonly RankedLogprob[] };

/** In place of a token: there is no score here, or there are no more rivals. */
const NONE = -1;
const MIN_ROWS = 16;

export class ScoreTable implements Iterable<Scored | null> {
  /** Of a row: the token's own, and those of its rivals. */
  readonly #width: number;
  #ids = new Int32Array(0);
  #logprobs = new Float32Array(0);
  #length = 0;

  /** @param numTop the most rivals that a token has */
  constructor(numTop: number) {
    this.#width = 1 + numTop;
  }

  get length(): number {
    return this.#length;
  }

  push(scored: Scored | null): void {
    const start = this.#length++ * this.#width;
    if (start === this.#ids.length) this.#grow();
    this.#ids.fill(NONE, start, start + this.#width);
    if (scored === null) return;
    this.#put(start, scored);
    for (const [index, rival] of scored.top.entries()) this.#put(start + 1 + index, rival);
  }

  /** Null where the token has no score. */
  at(row: number): RankedLogprob | null {
    const start = row * this.#width;
    return this.#ids[start] === NONE ? null : this.#get(start);
  }

  /** The likeliest in the token's place, descending. */
  topAt(row: number): RankedLogprob[] {
    const start = row * this.#width;
    const top: RankedLogprob[] = [];
    for (let i = start + 1; i < start + this.#width && this.#ids[i] !== NONE; i++) top.push(this.#get(i));
    return top;
  }

  *[Symbol.iterator](): Generator<Scored | null> {
    for (let row = 0; row < this.#length; row++) {
      const own = this.at(row);
      yield own && { ...own, top: this.topAt(row) };
    }
  }

  #put(index: number, { tokenId, logprob }: RankedLogprob): void {
    this.#ids[index] = tokenId;
    this.#logprobs[index] = logprob;
  }

  #get(index: number): RankedLogprob {
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
