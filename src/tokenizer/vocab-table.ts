/**
 * The vocabulary as a table: id → text, or bytes for pieces that are parts of characters. All
 * decoding reads it. Immutable.
 */

import { type DecoderRules, parseDecoderRules } from "./decoder-rules.ts";
import type { TokenizerJson } from "./files.ts";
import { decodeUtf8 } from "./utf8.ts";

const NO_BYTES = new Uint8Array(0);

/** Of a vocabulary that lists bytes. */
export interface VocabEntry {
  readonly id: number;
  readonly bytes: Uint8Array;
  readonly spelling: string;
}

export class VocabTable {
  /** Max id + 1. */
  readonly size: number;
  readonly numSpacesStripped: number;
  /** The vocabulary's spelling. */
  readonly #spellings: (string | undefined)[] = [];
  readonly #texts: (string | undefined)[] = [];
  /** Only for pieces that differ at the beginning of a text. */
  readonly #firstTexts = new Map<number, string>();
  /** Only for pieces whose bytes alone are not valid UTF-8. */
  readonly #fragments = new Map<number, Uint8Array>();

  constructor(source: TokenizerJson | readonly VocabEntry[]) {
    if (isList(source)) {
      this.numSpacesStripped = 0;
      for (const { id, bytes, spelling } of source) {
        this.#spell(id, spelling);
        this.#setBytes(id, bytes);
      }
      this.size = this.#spellings.length;
      return;
    }
    const json = source;
    const rules = parseDecoderRules(json.decoder);
    this.numSpacesStripped = rules.numSpacesStripped;
    const byteOfChar = rules.bytes === "byteLevel" ? byteLevelAlphabet() : undefined;
    const { vocab } = json.model;
    const entries = Array.isArray(vocab)
      ? vocab.map(([piece], id): [string, number] => [piece, id])
      : Object.entries(vocab as Readonly<Record<string, number>>);
    for (const [piece, id] of entries) this.#add(id, piece, rules, byteOfChar);
    // Added tokens are plain text even if the rest of the vocabulary is spelled in bytes.
    for (const { id, content } of json.added_tokens) this.#add(id, content, rules, undefined);
    this.size = this.#spellings.length;
  }

  spelling(id: number): string | undefined {
    return this.#spellings[id];
  }

  /** The piece in the middle of a text, broken UTF-8 as U+FFFD; empty outside the vocabulary. */
  text(id: number): string {
    return this.#texts[id] ?? "";
  }

  /** The piece at the beginning of a whole text. */
  firstText(id: number): string {
    return this.#firstTexts.get(id) ?? this.text(id);
  }

  /** Whether the piece is part of a character: its bytes must be joined with its neighbours'. */
  isFragment(id: number): boolean {
    return this.#fragments.has(id);
  }

  /** Must not be changed. */
  bytes(id: number): Uint8Array {
    const text = this.#texts[id];
    if (text === undefined) return NO_BYTES;
    return this.#fragments.get(id) ?? Buffer.from(text, "utf8");
  }

  #add(id: number, piece: string, rules: DecoderRules, byteOfChar: ReadonlyMap<string, number> | undefined): void {
    this.#spell(id, piece);
    const rewritten = rules.rewrite(piece, false);
    const bytes = byteOfChar ? bytesOfChars(rewritten, byteOfChar) : fallbackByte(rewritten, rules);
    this.#firstTexts.delete(id);
    if (bytes === undefined) {
      this.#texts[id] = rewritten;
      const first = rules.rewrite(piece, true);
      if (first !== rewritten) this.#firstTexts.set(id, first);
      return;
    }
    this.#setBytes(id, bytes);
  }

  #spell(id: number, piece: string): void {
    while (this.#spellings.length < id) {
      this.#spellings.push(undefined);
      this.#texts.push(undefined);
    }
    this.#spellings[id] = piece;
    this.#fragments.delete(id);
  }

  #setBytes(id: number, bytes: Uint8Array): void {
    const text = decodeUtf8(bytes);
    this.#texts[id] = text;
    if (text.includes("\uFFFD")) this.#fragments.set(id, bytes);
  }
}

/** `Array.isArray` does not know readonly lists. */
function isList(source: TokenizerJson | readonly VocabEntry[]): source is readonly VocabEntry[] {
  return Array.isArray(source);
}

/** Undefined if a character is not a byte's: the piece is plain text. */
function bytesOfChars(piece: string, byteOfChar: ReadonlyMap<string, number>): Uint8Array | undefined {
  const bytes = new Uint8Array(piece.length);
  for (let i = 0; i < piece.length; i++) {
    const byte = byteOfChar.get(piece[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

function fallbackByte(piece: string, rules: DecoderRules): Uint8Array | undefined {
  if (rules.bytes !== "byteFallback") return undefined;
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece);
  return match ? Uint8Array.of(Number.parseInt(match[1]!, 16)) : undefined;
}

/**
 * GPT-2's spelling of bytes: printing Latin-1 characters are themselves; the others, in order, are
 * the characters from U+0100 on.
 */
function byteLevelAlphabet(): ReadonlyMap<string, number> {
  const alphabet = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    alphabet.set(String.fromCharCode(prints ? byte : next++), byte);
  }
  return alphabet;
}
