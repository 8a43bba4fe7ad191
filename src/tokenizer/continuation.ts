/**
 * Encoding text that goes on from earlier text. Tokenizers of the SentencePiece kind put a space before whatever they
 * encode, which would stand in the middle of a conversation. We encode behind a sentinel, a character that never merges
 * with its neighbours, and cut the sentinel's tokens off.
 */
import type { Encoder } from "./encoder.ts";
import type { Pieces } from "./pieces.ts";

/** The first that the vocabulary spells by itself is used: a private character (bytes), a control, a rare sign. */
const SENTINELS = ["\uE000", "\u0001", "\u00A6"];
const PROBE = "a";

export class ContinuationEncoder {
  readonly #encoder: Encoder;
  readonly #pieces: Pieces;
  /** Undefined until the first use. `null`: none works. */
  #sentinel: Promise<Sentinel | "unneeded" | null> | undefined;

  constructor(encoder: Encoder, pieces: Pieces) {
    this.#encoder = encoder;
    this.#pieces = pieces;
  }

  /** @returns undefined if this tokenizer cannot: the text must be encoded as a whole then. */
  async encode(text: string): Promise<number[] | undefined> {
    this.#sentinel ??= this.#findSentinel();
    const sentinel = await this.#sentinel;
    if (sentinel === "unneeded") return this.#encoder.encode(text);
    if (sentinel === null) return undefined;
    const ids = await this.#encoder.encode(sentinel.text + text);
    // The beginning of the text merged with the sentinel: not expected, but then the cut would be wrong.
    if (!sentinel.ids.every((id, i) => id === ids[i])) return undefined;
    return ids.slice(sentinel.ids.length);
  }

  async #findSentinel(): Promise<Sentinel | "unneeded" | null> {
    if (!this.#spell(await this.#encoder.encode(PROBE)).startsWith(" ")) return "unneeded";
    for (const text of SENTINELS) {
      const ids = await this.#encoder.encode(text);
      // Spelled faithfully, that is not as an unknown token, which might swallow an unknown neighbour.
      if (this.#spell(ids) === ` ${text}`) return { text, ids };
    }
    return null;
  }

  /** As it would stand in the middle of a text. */
  #spell(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => this.#pieces.bytes(id))).toString("utf8");
  }
}

interface Sentinel {
  readonly text: string;
  readonly ids: readonly number[];
}
