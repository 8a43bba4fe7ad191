/** Log-probabilities of an answer or a prompt with texts: stored as numbers, made when read. */
import type { ScoreTable, TokenLogprob } from "../sampling/logprobs.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { DetailList, TextLogprob, TokenDetail } from "./events.ts";

/** Gives the text of a token. */
export type TokenNames = Pick<Tokenizer, "tokenText" | "tokenBytes">;

export class TokenDetails implements DetailList<TokenDetail | null> {
  readonly #scores: ScoreTable;
  readonly #names: TokenNames;
  readonly #start: number;
  readonly #end: number;

  constructor(scores: ScoreTable, names: TokenNames, start = 0, end = scores.length) {
    this.#scores = scores;
    this.#names = names;
    this.#start = start;
    this.#end = end;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  slice(start: number, end = this.length): TokenDetails {
    return new TokenDetails(this.#scores, this.#names, this.#start + start, this.#start + Math.min(end, this.length));
  }

  *[Symbol.iterator](): Generator<TokenDetail | null> {
    for (let row = this.#start; row < this.#end; row++) yield this.#at(row);
  }

  #at(row: number): TokenDetail | null {
    const [scores, names] = [this.#scores, this.#names];
    const own = scores.at(row);
    if (own === null) return null;
    return {
      ...named(own, names),
      rank: scores.rankAt(row),
      get top() {
        return scores.topAt(row).map((rival) => named(rival, names));
      },
    };
  }
}

export function named({ tokenId, logprob }: TokenLogprob, names: TokenNames): TextLogprob {
  return { tokenId, text: names.tokenText(tokenId), bytes: names.tokenBytes(tokenId), logprob };
}
