/**
 * Text → ids, part by part: a text is cut where that changes nothing, so that encoding can stop at
 * a limit or when the client leaves, and needs memory for one part only.
 *
 * Also encodes text that continues earlier text. SentencePiece tokenizers put a space before
 * everything they encode, which would end up in the middle of a conversation or before each part.
 * So the text is encoded after a sentinel, a character that never merges with its neighbours, and
 * the sentinel's tokens are cut off.
 */
import { DenseMambaError } from "../errors.ts";
import type { Encoder } from "./encoder.ts";
import type { TextCuts } from "./text-cuts.ts";
import type { EncodeLimits } from "./tokenizer.ts";
import type { VocabTable } from "./vocab-table.ts";

/** In UTF-16 units. Takes about ten milliseconds to encode. */
const PART_LENGTH = 16 * 1024;
/**
 * In UTF-8, of a part that cannot be cut: each byte may be a token, and the native library needs
 * about 250 bytes for a token.
 */
const MAX_PART_BYTES = 512 * 1024;

/**
 * The first one that the vocabulary encodes separately is used: a private-use character (bytes), a
 * control character, a rare sign.
 */
const SENTINELS = ["\uE000", "\u0001", "\u00A6"];
const PROBE = "a";

export class ChunkedEncoder {
  readonly #encoder: Encoder;
  readonly #vocab: VocabTable;
  readonly #cuts: TextCuts | undefined;
  readonly #partLength: number;
  /** Undefined until first used. `null`: none works. */
  #sentinel: Promise<Sentinel | "unneeded" | null> | undefined;

  /** @param partLength where the text allows it; a part that cannot be cut is longer */
  constructor(encoder: Encoder, vocab: VocabTable, cuts: TextCuts | undefined, partLength = PART_LENGTH) {
    this.#encoder = encoder;
    this.#vocab = vocab;
    this.#cuts = cuts;
    this.#partLength = partLength;
  }

  /** @throws `aborted`; `invalid_value` if a part is too long to be encoded and cannot be cut */
  async encode(text: string, limits: EncodeLimits = {}): Promise<number[]> {
    const ids = await this.#encodeParts(text, limits, { isContinuation: false });
    if (ids !== undefined) return ids;
    checkPart(text);
    return Array.from(await this.#encoder.encode(text, { textLength: text.length, ...limits }));
  }

  /**
   * @returns undefined if this tokenizer cannot; then encode the whole text.
   * @throws as `encode`
   */
  encodeContinuation(text: string, limits: EncodeLimits = {}): Promise<number[] | undefined> {
    return this.#encodeParts(text, limits, { isContinuation: true });
  }

  async #encodeParts(
    text: string,
    { maxTokens = Number.POSITIVE_INFINITY, signal }: EncodeLimits,
    { isContinuation }: { readonly isContinuation: boolean },
  ): Promise<number[] | undefined> {
    const options = { textLength: text.length, ...(signal && { signal }) };
    const cuts = text.length > this.#partLength ? await this.#usableCuts() : undefined;
    const ids: number[] = [];
    let goesOn = isContinuation;
    for (const part of partsOf(text, cuts, this.#partLength)) {
      const more = goesOn ? await this.#encodeBehind(part, options) : await this.#encoder.encode(part, options);
      if (more === undefined) return undefined;
      goesOn = true;
      for (const id of more) ids.push(id);
      if (ids.length > maxTokens) break;
    }
    return ids;
  }

  async #usableCuts(): Promise<TextCuts | undefined> {
    if (this.#cuts === undefined) return undefined;
    const sentinel = await this.#findSentinel();
    const hasSentinel = sentinel !== null && sentinel !== "unneeded";
    return hasSentinel === this.#cuts.needsSentinel ? this.#cuts : undefined;
  }

  async #encodeBehind(text: string, options: { readonly textLength: number; readonly signal?: AbortSignal }) {
    const sentinel = await this.#findSentinel();
    if (sentinel === "unneeded") return this.#encoder.encode(text, options);
    if (sentinel === null) return undefined;
    const ids = await this.#encoder.encode(sentinel.text + text, options);
    // The text merged with the sentinel. Not expected, but then the cut would be wrong.
    if (!sentinel.ids.every((id, i) => id === ids[i])) return undefined;
    return ids.subarray(sentinel.ids.length);
  }

  #findSentinel(): Promise<Sentinel | "unneeded" | null> {
    this.#sentinel ??= this.#trySentinels().catch((error: unknown) => {
      this.#sentinel = undefined;
      throw error;
    });
    return this.#sentinel;
  }

  async #trySentinels(): Promise<Sentinel | "unneeded" | null> {
    if (!this.#spell(await this.#encodeShort(PROBE)).startsWith(" ")) return "unneeded";
    for (const text of SENTINELS) {
      const ids = await this.#encodeShort(text);
      // It must not be an unknown token, which might swallow an unknown neighbour.
      if (this.#spell(ids) === ` ${text}`) return { text, ids };
    }
    return null;
  }

  async #encodeShort(text: string): Promise<readonly number[]> {
    return Array.from(await this.#encoder.encode(text, { textLength: text.length }));
  }

  /** As in the middle of a text. */
  #spell(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => this.#vocab.bytes(id))).toString("utf8");
  }
}

interface Sentinel {
  readonly text: string;
  readonly ids: readonly number[];
}

function* partsOf(text: string, cuts: TextCuts | undefined, partLength: number): Generator<string> {
  let begin = 0;
  while (text.length - begin > partLength) {
    const soft = begin + partLength;
    const hard = Math.min(text.length, begin + MAX_PART_BYTES);
    const cut = cuts?.last(text, begin, soft) ?? cuts?.first(text, soft, hard);
    if (cut === undefined && text.length > hard) throw cannotBeCut();
    const end = cut ?? text.length;
    const part = text.slice(begin, end);
    checkPart(part);
    yield part;
    begin = end;
  }
  if (begin < text.length || text.length === 0) yield text.slice(begin);
}

function checkPart(part: string): void {
  if (Buffer.byteLength(part) > MAX_PART_BYTES) throw cannotBeCut();
}

function cannotBeCut(): DenseMambaError {
  return new DenseMambaError(
    "invalid_value",
    `at most ${MAX_PART_BYTES} bytes of UTF-8 may come without a place, such as a space between words or a line break, where this model's tokenizer can cut the text; given more`,
  );
}
