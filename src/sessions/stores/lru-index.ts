/**
 * What a store keeps, by owner and in the order of use, with the sums of their bytes. What has expired is not found, and
 * leaves when it is looked for or swept; until then it is as evictable as anything. Parts of pasts are no entries of
 * their own: they stay with those that continue from them. Holds no bytes itself.
 */
import { PartIndex } from "./part-index.ts";
import type { ListedSnapshot } from "./store.ts";

export interface IndexEntry {
  /** What counts towards the bound. */
  readonly bytes: number;
  readonly expiresAtMs: number | undefined;
  /** As the snapshot has it. */
  readonly revision: number;
  readonly isShared: boolean;
  readonly isPart: boolean;
  /** The part that stays for as long as this does. */
  readonly pastKey: string | undefined;
  /** What all parts before it take, roughly. */
  readonly pastBytes: number;
}

/** @returns undefined for a prefix that keys of several owners may begin with */
export type OwnerOf = (key: string) => string | undefined;

export interface LruIndexOptions<Entry> {
  readonly nowMs: () => number;
  /** Default: all belongs to one. */
  readonly ownerOf?: OwnerOf | undefined;
  readonly onExpired: (entry: Entry) => void;
}

interface Owned<Entry> {
  /** The least recently used first. */
  readonly entries: Map<string, Entry>;
  bytes: number;
}

/** Of one sweep: a few milliseconds at most. */
const MAX_SWEPT = 2000;
const MAX_EXPIRED_A_SWEEP = 200;

export class LruIndex<Entry extends IndexEntry> {
  readonly #nowMs: () => number;
  readonly #ownerOf: OwnerOf;
  readonly #onExpired: (entry: Entry) => void;
  /** One for each API key. */
  readonly #owners = new Map<string, Owned<Entry>>();
  readonly #parts: PartIndex<Entry>;
  #size = 0;
  #bytes = 0;
  #sweeper: Iterator<[string, Entry]> = this.#all();

  constructor({ nowMs, ownerOf = () => "", onExpired }: LruIndexOptions<Entry>) {
    this.#nowMs = nowMs;
    this.#ownerOf = ownerOf;
    this.#onExpired = onExpired;
    this.#parts = new PartIndex(nowMs);
  }

  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Is not a use. */
  find(key: string): Entry | undefined {
    const entry = this.#ownedBy(key)?.entries.get(key) ?? this.#parts.get(key);
    if (entry === undefined || !this.#hasExpired(entry)) return entry;
    this.remove(key, entry);
    this.#onExpired(entry);
    return undefined;
  }

  /** Marks it as its owner's most recently used, if it is still kept. */
  use(key: string, entry: Entry): void {
    const entries = this.#ownedBy(key)?.entries;
    if (entries?.get(key) !== entry) return;
    entries.delete(key);
    entries.set(key, entry);
  }

  /** Replaces, and is a use. */
  set(key: string, entry: Entry): void {
    // First: what it replaces may be all that names their past.
    this.#parts.name(entry.pastKey);
    this.remove(key);
    const owner = this.#ownerOf(key) ?? "";
    const owned = this.#owners.get(owner) ?? { entries: new Map(), bytes: 0 };
    this.#owners.set(owner, owned);
    (entry.isPart ? this.#parts : owned.entries).set(key, entry);
    owned.bytes += entry.bytes;
    this.#bytes += entry.bytes;
    if (!entry.isPart) this.#size++;
  }

  /** A part, and all before it, stays until the returned function is called, once: something is about to name it. */
  hold(part: string | undefined): () => void {
    return this.#parts.name(part);
  }

  /**
   * @param entry if given, only this one: not what has replaced it
   * @returns whether it was there
   */
  remove(key: string, entry?: Entry): boolean {
    const owned = this.#ownedBy(key);
    const found = owned?.entries.get(key) ?? this.#parts.get(key);
    if (owned === undefined || found === undefined || (entry !== undefined && found !== entry)) return false;
    (found.isPart ? this.#parts : owned.entries).delete(key);
    owned.bytes -= found.bytes;
    this.#bytes -= found.bytes;
    if (!found.isPart) this.#size--;
    if (owned.bytes === 0) this.#owners.delete(this.#ownerOf(key) ?? "");
    this.#parts.unname(found.pastKey);
    return true;
  }

  clear(): void {
    this.#owners.clear();
    this.#parts.clear();
    this.#size = 0;
    this.#bytes = 0;
  }

  /** Of parts that something is about to name: they cannot leave. */
  get comingBytes(): number {
    return this.#parts.comingBytes;
  }

  /**
   * What is to leave for what is being put: parts that nothing names any more, then the least recently used of the owner
   * who holds the most. So whoever puts much pushes out what is their own.
   * @param put its key, which is spared, and its bytes; undefined if nothing is put
   */
  nextToLeave(put?: { readonly key: string; readonly bytes: number }): [string, Entry] | undefined {
    const part = this.#parts.firstUnnamed();
    if (part !== undefined) return part;
    const putter = put && this.#ownedBy(put.key);
    let most = 0;
    let next: [string, Entry] | undefined;
    for (const owned of this.#owners.values()) {
      const bytes = owned.bytes + (put !== undefined && owned === putter ? put.bytes : 0);
      if (bytes <= most) continue;
      const first = firstBut(owned.entries, put?.key);
      if (first === undefined) continue;
      most = bytes;
      next = first;
    }
    return next;
  }

  /** Removes expired entries, from where the last sweep stopped, as many as take a few milliseconds. */
  sweep(): void {
    this.dropParts({ limit: MAX_EXPIRED_A_SWEEP });
    let numExpired = 0;
    for (let i = 0; i < MAX_SWEPT && numExpired < MAX_EXPIRED_A_SWEEP; i++) {
      const { value, done } = this.#sweeper.next();
      if (done) {
        this.#sweeper = this.#all();
        return;
      }
      const [key, entry] = value;
      if (!this.#hasExpired(entry)) continue;
      this.find(key);
      numExpired++;
    }
  }

  /** Removes parts that nothing has named for a while. */
  dropParts({
    graceMs,
    limit = Number.POSITIVE_INFINITY,
  }: {
    readonly graceMs?: number;
    readonly limit?: number;
  }): void {
    for (let numDropped = 0; numDropped < limit; ) {
      let outdated = this.#parts.nextOutdated(graceMs === undefined ? {} : { graceMs });
      if (outdated === undefined) return;
      for (; outdated !== undefined; numDropped++) {
        const [key, part]: [string, Entry] = outdated;
        this.remove(key, part);
        this.#onExpired(part);
        // What it alone named.
        outdated = this.#parts.unnamed(part.pastKey);
      }
    }
  }

  /** Goes over the keys of this moment; what leaves before its turn is left out. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const owner = this.#ownerOf(prefix);
    const owned = owner === undefined ? [...this.#owners.values()] : [this.#owners.get(owner)];
    for (const key of owned.flatMap((its) => [...(its?.entries.keys() ?? [])])) {
      const entry = key.startsWith(prefix) ? this.find(key) : undefined;
      if (entry === undefined) continue;
      const { bytes, pastBytes, revision, isShared, expiresAtMs } = entry;
      yield { key, bytes, pastBytes, revision, isShared, ...(expiresAtMs !== undefined && { expiresAtMs }) };
    }
  }

  #hasExpired({ expiresAtMs }: Entry): boolean {
    return expiresAtMs !== undefined && expiresAtMs <= this.#nowMs();
  }

  /** Entries may come and leave meanwhile. */
  *#all(): Generator<[string, Entry], undefined> {
    for (const { entries } of this.#owners.values()) yield* entries;
  }

  #ownedBy(key: string): Owned<Entry> | undefined {
    return this.#owners.get(this.#ownerOf(key) ?? "");
  }
}

function firstBut<Entry>(entries: ReadonlyMap<string, Entry>, spared: string | undefined): [string, Entry] | undefined {
  for (const entry of entries) if (entry[0] !== spared) return entry;
  return undefined;
}
