/**
 * A prefix cache by the book: keeps everything, compares everything, and remembers what it was
 * asked.
 */
import type { PrefixStates } from "../../src/prefix/prefix-reuse.ts";

interface Entry {
  readonly scope: string;
  readonly tokenIds: readonly number[];
  readonly state: Uint8Array;
}

export class NaivePrefixCache implements PrefixStates {
  /** As it says; it keeps everything. */
  readonly capacity: number;
  readonly entries: Entry[] = [];
  readonly #seen: Omit<Entry, "state">[] = [];

  constructor({ capacity = 1000 }: { readonly capacity?: number } = {}) {
    this.capacity = capacity;
  }

  /** The lengths of all kept prefixes, ascending. */
  get lengths(): number[] {
    return this.entries.map(({ tokenIds }) => tokenIds.length).sort((a, b) => a - b);
  }

  async lookup(scope: string, tokenIds: readonly number[], { maxLength = tokenIds.length } = {}) {
    let best: Entry | undefined;
    for (const entry of this.entries) {
      const { length } = entry.tokenIds;
      if (entry.scope !== scope || length > maxLength || length <= (best?.tokenIds.length ?? 0)) continue;
      if (common(entry.tokenIds, tokenIds) === length) best = entry;
    }
    return best && { length: best.tokenIds.length, state: best.state };
  }

  async insert(scope: string, tokenIds: readonly number[], state: Uint8Array): Promise<void> {
    this.entries.push({ scope, tokenIds, state });
  }

  sharedLength(scope: string, tokenIds: readonly number[]): number {
    const lengths = this.#seen.map((seen) => (seen.scope === scope ? common(seen.tokenIds, tokenIds) : 0));
    this.#seen.push({ scope, tokenIds });
    return Math.max(0, ...lengths);
  }
}

function common(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}
