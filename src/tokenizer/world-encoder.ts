/**
 * Text → ids of RWKV's World vocabulary: at every place the longest token that stands there. That
 * takes a trie and no library, time in proportion to the text, and nothing after a place changes
 * what is before it: so the text is read slice by slice, and others have their turn in between.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import { ByteTrie, type TrieEntry } from "./byte-trie.ts";
import type { EncodeLimits } from "./tokenizer.ts";

/** In UTF-16 units. Encoded in about a millisecond. */
const SLICE_LENGTH = 16 * 1024;
/** At a time. */
const SLICES_JOINED = 32;

export class WorldEncoder {
  readonly #trie: ByteTrie;
  readonly #specialIds: ReadonlyMap<string, number>;
  readonly #special: RegExp | undefined;
  readonly #sliceLength: number;

  /**
   * @param tokens one of which must stand for every byte
   * @param specialIds of texts that are one token each, wherever they stand
   */
  constructor(
    tokens: readonly TrieEntry[],
    specialIds: ReadonlyMap<string, number> = new Map(),
    sliceLength = SLICE_LENGTH,
  ) {
    this.#trie = new ByteTrie(tokens);
    this.#specialIds = specialIds;
    this.#special = patternOf([...specialIds.keys()]);
    this.#sliceLength = sliceLength;
  }

  /** @throws `aborted` */
  async encode(text: string, { maxTokens = Number.POSITIVE_INFINITY, signal }: EncodeLimits = {}): Promise<number[]> {
    const slices: Int32Array[] = [];
    let numTokens = 0;
    for (const slice of this.#slicesOf(text)) {
      if (slices.length > 0) await setImmediate();
      if (signal?.aborted) throw new DenseMambaError("aborted", "the request was aborted before its text was encoded");
      slices.push(slice);
      numTokens += slice.length;
      if (numTokens > maxTokens) break;
    }
    return joined(slices, numTokens);
  }

  /** Nothing is put in front of a text, so what continues one is encoded as any other. */
  encodeContinuation(text: string, limits?: EncodeLimits): Promise<number[]> {
    return this.encode(text, limits);
  }

  /** The ids of one slice after the other; those of special texts in between. */
  *#slicesOf(text: string): Generator<Int32Array> {
    let begin = 0;
    for (const found of this.#special === undefined ? [] : text.matchAll(this.#special)) {
      yield* this.#plainSlicesOf(text, begin, found.index);
      yield Int32Array.of(this.#specialIds.get(found[0])!);
      begin = found.index + found[0].length;
    }
    yield* this.#plainSlicesOf(text, begin, text.length);
  }

  *#plainSlicesOf(text: string, start: number, stop: number): Generator<Int32Array> {
    let rest: Uint8Array = new Uint8Array(0);
    for (let begin = start; begin < stop; ) {
      const end = Math.min(this.#endOfSlice(text, begin), stop);
      const bytes = Buffer.concat([rest, Buffer.from(text.slice(begin, end), "utf8")]);
      // Where a longer token could reach into the next slice, that one decides.
      const limit = end === stop ? bytes.length : bytes.length - this.#trie.maxLength;
      const ids = new Int32Array(bytes.length);
      let [at, count] = [0, 0];
      while (at < limit) {
        const node = this.#trie.longest(bytes, at, bytes.length);
        ids[count++] = this.#trie.idOf(node);
        at += this.#trie.lengthOf(node);
      }
      yield ids.slice(0, count);
      rest = bytes.subarray(at);
      begin = end;
    }
  }

  /** Not between the halves of a character. */
  #endOfSlice(text: string, begin: number): number {
    const end = Math.min(begin + this.#sliceLength, text.length);
    const isBetweenHalves = end < text.length && isHighSurrogate(text.charCodeAt(end - 1));
    return isBetweenHalves ? end + 1 : end;
  }
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}

/** Not at once: the list of a long text's ids takes long to make. */
async function joined(slices: readonly Int32Array[], numTokens: number): Promise<number[]> {
  const ids = new Array<number>(numTokens);
  let at = 0;
  for (const [i, slice] of slices.entries()) {
    if (i > 0 && i % SLICES_JOINED === 0) await setImmediate();
    for (const id of slice) ids[at++] = id;
  }
  return ids;
}

/** Of several texts that begin alike the longest. */
function patternOf(texts: readonly string[]): RegExp | undefined {
  if (texts.length === 0) return undefined;
  const longestFirst = texts.toSorted((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|"), "g");
}
