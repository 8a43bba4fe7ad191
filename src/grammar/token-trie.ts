/**
 * All tokens by their bytes, as a trie in one array: which of them a state of an automaton allows
 * is one walk, which leaves out whatever begins with bytes that may not come.
 */
import type { Automaton, State } from "./automaton.ts";

export interface Vocabulary {
  /** Max id + 1. */
  readonly vocabSize: number;
  /** Their text is not shown: no text is made of them. */
  readonly specialIds: ReadonlySet<number>;
  tokenBytes(id: number): Uint8Array;
}

/** Nearly all tokens have at most this many bytes. */
export const USUAL_LENGTH = 32;
/** Nodes between two looks at the clock. */
const NODES_PER_CHECK = 512;
const NODES_PER_STEP = 128;

export class TokenTrie {
  readonly vocabSize: number;
  /** Of the longest token. */
  readonly maxLength: number;
  /** Those of more bytes than `USUAL_LENGTH`. */
  readonly longIds: readonly number[];
  readonly #vocabulary: Vocabulary;
  // By node, in the order of their texts: a node comes before those that its text begins.
  readonly #bytes: Uint8Array;
  readonly #depths: Uint16Array;
  /** The first node after all that begin with this one's text. */
  readonly #ends: Int32Array;
  /** Where the node's tokens begin in `#ids`. */
  readonly #firstIds: Int32Array;
  readonly #ids: Int32Array;

  constructor(vocabulary: Vocabulary) {
    const { vocabSize, specialIds } = vocabulary;
    this.#vocabulary = vocabulary;
    this.vocabSize = vocabSize;
    // Bytes as characters: strings are compared much faster.
    const textOf = (id: number) => Buffer.from(vocabulary.tokenBytes(id)).toString("latin1");
    const all = Array.from({ length: vocabSize }, (_, id) => ({ id, text: specialIds.has(id) ? "" : textOf(id) }));
    const tokens = all.filter(({ text }) => text !== "");
    // Of tokens with the same bytes the last comes first: added tokens, and pieces before bytes.
    tokens.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : b.id - a.id));
    this.maxLength = tokens.reduce((longest, { text }) => Math.max(longest, text.length), 0);
    this.longIds = tokens.filter(({ text }) => text.length > USUAL_LENGTH).map(({ id }) => id);
    const [bytes, depths, firstIds]: [number[], number[], number[]] = [[], [], []];
    let previous = "";
    for (const [index, { text }] of tokens.entries()) {
      let depth = 0;
      while (depth < previous.length && previous[depth] === text[depth]) depth++;
      for (; depth < text.length; depth++) {
        bytes.push(text.charCodeAt(depth));
        depths.push(depth);
        // The tokens of a node that only others go through: none, before its first descendant's.
        firstIds.push(index);
      }
      previous = text;
    }
    this.#bytes = Uint8Array.from(bytes);
    this.#depths = Uint16Array.from(depths);
    this.#firstIds = Int32Array.from([...firstIds, tokens.length]);
    this.#ids = Int32Array.from(tokens, ({ id }) => id);
    this.#ends = new Int32Array(bytes.length);
    const open: number[] = [];
    for (let node = 0; node <= bytes.length; node++) {
      const depth = node < bytes.length ? depths[node]! : 0;
      while (open.length > depth) this.#ends[open.pop()!] = node;
      open.push(node);
    }
  }

  tokenBytes(id: number): Uint8Array {
    return this.#vocabulary.tokenBytes(id);
  }

  get specialIds(): ReadonlySet<number> {
    return this.#vocabulary.specialIds;
  }

  /** The longest token that `bytes` begin with. */
  longestIn(bytes: Uint8Array): number | undefined {
    let found: number | undefined;
    let end = this.#bytes.length;
    for (let node = 0, depth = 0; node < end && depth < bytes.length; ) {
      if (this.#bytes[node] !== bytes[depth]) {
        node = this.#ends[node]!;
        continue;
      }
      if (this.#firstIds[node]! < this.#firstIds[node + 1]!) found = this.#ids[this.#firstIds[node]!];
      end = this.#ends[node]!;
      node++;
      depth++;
    }
    return found;
  }

  /** Whether a token that begins with `bytes` goes on as `state`, the one after them, allows. */
  someExtends(bytes: Uint8Array, automaton: Automaton, state: State): boolean {
    let [node, end] = [0, this.#bytes.length];
    for (let depth = 0; depth < bytes.length; depth++) {
      while (node < end && this.#bytes[node] !== bytes[depth]) node = this.#ends[node]!;
      if (node >= end) return false;
      end = this.#ends[node]!;
      node++;
    }
    const states = [state];
    while (node < end) {
      const depth = this.#depths[node]! - bytes.length;
      const next = automaton.step(states[depth]!, this.#bytes[node]!);
      if (next === undefined) {
        node = this.#ends[node]!;
        continue;
      }
      if (this.#firstIds[node]! < this.#firstIds[node + 1]!) return true;
      states[depth + 1] = next;
      node++;
    }
    return false;
  }

  /** Begins to find the tokens that `state` allows. */
  walk(automaton: Automaton, state: State): MaskWalk {
    return new MaskWalk(automaton, state, {
      bytes: this.#bytes,
      depths: this.#depths,
      ends: this.#ends,
      firstIds: this.#firstIds,
      ids: this.#ids,
      maxLength: this.maxLength,
      vocabSize: this.vocabSize,
    });
  }
}

interface TrieArrays {
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly ends: Int32Array;
  readonly firstIds: Int32Array;
  readonly ids: Int32Array;
  readonly maxLength: number;
  readonly vocabSize: number;
}

/** A walk through the trie that can pause. */
export class MaskWalk {
  /** Of the tokens found so far; all once `advance` has said so. */
  readonly mask: Int32Array;
  readonly #automaton: Automaton;
  readonly #trie: TrieArrays;
  /** The state after the bytes of each node on the way to the present one. */
  readonly #states: State[];
  #node = 0;

  constructor(automaton: Automaton, state: State, trie: TrieArrays) {
    this.#automaton = automaton;
    this.#trie = trie;
    this.mask = new Int32Array(Math.ceil(trie.vocabSize / 32));
    this.#states = new Array(trie.maxLength + 1);
    this.#states[0] = state;
  }

  /** Goes on while `hasTime`. @returns whether it is complete; @throws as `Automaton` does */
  advance(hasTime: () => boolean): boolean {
    const { bytes, depths, ends, firstIds, ids } = this.#trie;
    const [states, automaton, mask] = [this.#states, this.#automaton, this.mask];
    let node = this.#node;
    let numVisited = 0;
    while (node < bytes.length) {
      // A step that nobody has taken before costs more than many that are known.
      if (++numVisited >= NODES_PER_CHECK) {
        numVisited = 0;
        if (!hasTime()) {
          this.#node = node;
          return false;
        }
      }
      const depth = depths[node]!;
      const state = states[depth]!;
      const byte = bytes[node]!;
      const known = state.next[byte];
      const next = known === undefined ? automaton.step(state, byte) : known;
      if (known === undefined) numVisited += NODES_PER_STEP;
      if (next == null) {
        node = ends[node]!;
        continue;
      }
      states[depth + 1] = next;
      for (let index = firstIds[node]!; index < firstIds[node + 1]!; index++) {
        const id = ids[index]!;
        mask[id >> 5] = mask[id >> 5]! | (1 << (id & 31));
      }
      node++;
    }
    this.#node = node;
    return true;
  }
}
