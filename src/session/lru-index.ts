/**
 * What a store keeps, in the order of use, with the sum of its bytes. What has expired is not found, and leaves when it
 * is looked for; until then it is as evictable as anything. Holds no bytes itself.
 */
import type { ListedSnapshot } from "./store.ts";

export interface IndexEntry {
  /** What counts towards the bound. */
  readonly bytes: number;
  readonly expiresAtMs: number | undefined;
}

export class LruIndex<Entry extends IndexEntry> {
  readonly #nowMs: () => number;
  readonly #onExpired: (entry: Entry) => void;
  /** The least recently used first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor({ nowMs, onExpired }: { readonly nowMs: () => number; readonly onExpired: (entry: Entry) => void }) {
    this.#nowMs = nowMs;
    this.#onExpired = onExpired;
  }

  get size(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Is not a use. */
  find(key: string): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry?.expiresAtMs === undefined || entry.expiresAtMs > this.#nowMs()) return entry;
    this.remove(key, entry);
    this.#onExpired(entry);
    return undefined;
  }

  /** From now on the most recently used, if it is still kept. */
  use(key: string, entry: Entry): void {
    if (this.#entries.get(key) !== entry) return;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
  }

  /** Replaces, and is a use. */
  set(key: string, entry: Entry): void {
    this.remove(key);
    this.#entries.set(key, entry);
    this.#bytes += entry.bytes;
  }

  /**
   * @param entry if given, only this one: not what has replaced it
   * @returns whether it was there
   */
  remove(key: string, entry: Entry | undefined = this.#entries.get(key)): boolean {
    if (entry === undefined || this.#entries.get(key) !== entry) return false;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
    return true;
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  /** The least recently used first. Entries may be removed meanwhile. */
  entries(): IterableIterator<[string, Entry]> {
    return this.#entries.entries();
  }

  /** Goes over the keys of this moment; what leaves before its turn is left out. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    for (const key of [...this.#entries.keys()]) {
      const entry = key.startsWith(prefix) ? this.find(key) : undefined;
      if (entry === undefined) continue;
      const { bytes, expiresAtMs } = entry;
      yield { key, bytes, ...(expiresAtMs !== undefined && { expiresAtMs }) };
    }
  }
}
