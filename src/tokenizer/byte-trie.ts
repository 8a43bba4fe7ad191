/**
 * Byte strings by their beginnings: which of them is the longest that stands at a place. Built
 * once, immutable. Pure.
 */

export interface TrieEntry {
  readonly id: number;
  /** At least one byte. */
  readonly bytes: Uint8Array;
}

const ROOT = 0;

export class ByteTrie {
  /** Bytes of the longest entry. */
  readonly maxLength: number;
  /**
   * Edges in a hash table: `node * 256 + byte` → the node that the edge leads to; 0, which is the
   * root, is empty.
   */
  readonly #keys: Int32Array;
  readonly #children: Int32Array;
  readonly #mask: number;
  /** By node: the id of the entry that ends there, or -1; and the node's depth. */
  readonly #ids: Int32Array;
  readonly #depths: Int32Array;

  constructor(entries: readonly TrieEntry[]) {
    const edges = new Map<number, number>();
    const ids = [-1];
    const depths = [0];
    let maxLength = 0;
    for (const { id, bytes } of entries) {
      let node = ROOT;
      for (const byte of bytes) {
        const key = node * 256 + byte;
        let child = edges.get(key);
        if (child === undefined) {
          child = ids.push(-1) - 1;
          depths.push(depths[node]! + 1);
          edges.set(key, child);
        }
        node = child;
      }
      ids[node] = id;
      maxLength = Math.max(maxLength, bytes.length);
    }
    this.maxLength = maxLength;
    this.#ids = Int32Array.from(ids);
    this.#depths = Int32Array.from(depths);
    // Half full at most, so that a search is short.
    const capacity = 2 ** Math.ceil(Math.log2(2 * edges.size + 2));
    this.#mask = capacity - 1;
    this.#keys = new Int32Array(capacity);
    this.#children = new Int32Array(capacity);
    for (const [key, child] of edges) {
      const place = this.#placeOf(key);
      this.#keys[place] = key;
      this.#children[place] = child;
    }
  }

  /**
   * The longest entry that stands at `start` and ends by `end`: a node for `idOf` and `lengthOf`,
   * or 0 for none.
   */
  longest(bytes: Uint8Array, start: number, end: number): number {
    let node = ROOT;
    let found = 0;
    for (let at = start; at < end; at++) {
      node = this.#children[this.#placeOf(node * 256 + bytes[at]!)]!;
      if (node === 0) break;
      if (this.#ids[node]! >= 0) found = node;
    }
    return found;
  }

  idOf(node: number): number {
    return this.#ids[node]!;
  }

  lengthOf(node: number): number {
    return this.#depths[node]!;
  }

  /** Where the edge is, or would be. */
  #placeOf(key: number): number {
    let place = (Math.imul(key, 0x9e3779b1) >>> 8) & this.#mask;
    while (this.#children[place] !== 0 && this.#keys[place] !== key) place = (place + 1) & this.#mask;
    return place;
  }
}
