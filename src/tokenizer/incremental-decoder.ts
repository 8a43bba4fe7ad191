/**
 * Tokens → text, one at a time: holds back a character only until its last byte arrives. Whole
 * texts are decoded by the same code, so that streaming changes nothing.
 */

import type { TextStream } from "./tokenizer.ts";
import { decodeUtf8, incompleteTail, MAX_INCOMPLETE_BYTES } from "./utf8.ts";
import type { VocabTable } from "./vocab-table.ts";

const NONE = new Uint8Array(0);

export interface IncrementalDecoderOptions {
  /** Ids that decode to nothing. */
  readonly skippedIds: ReadonlySet<number>;
  /**
   * The tokens before the first one: their text is not repeated, but an incomplete character of
   * theirs is completed.
   */
  readonly contextIds?: readonly number[];
}

export class IncrementalDecoder implements TextStream {
  readonly #vocab: VocabTable;
  readonly #skippedIds: ReadonlySet<number>;
  /** The beginning of a character, at most three bytes. */
  #held: Uint8Array = NONE;
  /** No token has arrived. */
  #isFirst = true;
  /** Spaces still to be removed; 0 once there is text. */
  #numSpacesToStrip: number;

  constructor(vocab: VocabTable, { skippedIds, contextIds = [] }: IncrementalDecoderOptions) {
    this.#vocab = vocab;
    this.#skippedIds = skippedIds;
    this.#numSpacesToStrip = vocab.numSpacesStripped;
    this.#readContext(contextIds);
  }

  push(id: number): string {
    if (this.#skippedIds.has(id) || this.#vocab.spelling(id) === undefined) return "";
    const isFirst = this.#isFirst;
    this.#isFirst = false;
    if (isFirst && !this.#vocab.isFragment(id)) return this.#emit(this.#vocab.firstText(id));
    if (this.#held.length === 0 && !this.#vocab.isFragment(id)) return this.#emit(this.#vocab.text(id));
    const piece = this.#vocab.bytes(id);
    const bytes = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
    const end = bytes.length - incompleteTail(bytes);
    this.#held = bytes.subarray(end);
    return this.#emit(decodeUtf8(bytes.subarray(0, end)));
  }

  get isOpen(): boolean {
    return this.#held.length > 0;
  }

  flush(): string {
    const rest = decodeUtf8(this.#held);
    this.#held = NONE;
    return this.#emit(rest);
  }

  /**
   * An incomplete character depends on the last bytes only, the leading space on whether there is
   * any text.
   */
  #readContext(ids: readonly number[]): void {
    let numBytes = 0;
    let first = ids.length;
    while (first > 0 && numBytes <= MAX_INCOMPLETE_BYTES + this.#numSpacesToStrip) {
      const id = ids[--first]!;
      if (!this.#skippedIds.has(id)) numBytes += this.#vocab.bytes(id).length;
    }
    for (let i = first; i < ids.length; i++) this.push(ids[i]!);
  }

  #emit(text: string): string {
    if (this.#numSpacesToStrip === 0 || text === "") return text;
    let start = 0;
    while (start < this.#numSpacesToStrip && text[start] === " ") start++;
    // Anything but a space ends the text's beginning; each space uses up one.
    this.#numSpacesToStrip = start < text.length ? 0 : this.#numSpacesToStrip - start;
    return text.slice(start);
  }
}
