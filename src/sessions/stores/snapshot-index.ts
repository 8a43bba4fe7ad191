/**
 * The index of a bounded store: snapshots by owner in the order of their use, with the sums of
 * their bytes. Expired snapshots are not found, and are removed when they are looked for or swept.
 * Segments are reference-counted: they stay as long as a snapshot refers to them. So do
 * checkpoints, unless room is needed: they are evicted first. Stores nothing itself.
 */
import { referencedBytes, type SnapshotSummary } from "./snapshot.ts";
import type { ListedSnapshot } from "./store.ts";

export interface IndexEntry {
  /** What counts towards the bound. */
  readonly bytes: number;
  readonly expiresAtMs: number | undefined;
  readonly summary: SnapshotSummary;
}

/** @returns undefined for a prefix that keys of several owners may have */
export type OwnerOf = (key: string) => string | undefined;

export interface SnapshotIndexOptions<Entry> {
  readonly nowMs: () => number;
  /** Default: there is one owner. */
  readonly ownerOf?: OwnerOf | undefined;
  /** For what a history costs. */
  readonly bytesPerToken: number;
  /** Called with entries that have expired, and with segments that nothing refers to any more. */
  readonly onExpired: (entry: Entry) => void;
}

interface Owner<Entry> {
  /** The least recently used first. */
  readonly entries: Map<string, Entry>;
  /** Likewise. They are segments too. */
  readonly checkpoints: Map<string, Entry>;
  /** Of entries and segments. */
  bytes: number;
}

interface Unreferenced {
  readonly sinceMs: number;
  /** False: a put is about to refer to it. */
  readonly wasReferenced: boolean;
}

/** A request may still be continuing from a deleted snapshot, or be about to put one. */
const SEGMENT_GRACE_MS = 600_000;
/** A sweep takes a few milliseconds. */
const MAX_SWEPT = 2000;
const MAX_EXPIRED_PER_SWEEP = 200;

export class SnapshotIndex<Entry extends IndexEntry> {
  readonly #nowMs: () => number;
  readonly #ownerOf: OwnerOf;
  readonly #bytesPerToken: number;
  readonly #onExpired: (entry: Entry) => void;
  readonly #owners = new Map<string, Owner<Entry>>();
  readonly #segments = new Map<string, Entry>();
  /** How many refer to a segment, which need not be here. */
  readonly #numReferences = new Map<string, number>();
  /** Segments without references, the oldest first. */
  readonly #unreferenced = new Map<string, Unreferenced>();
  #size = 0;
  #bytes = 0;
  #sweeper = this.#all();

  constructor({ nowMs, ownerOf = () => "", bytesPerToken, onExpired }: SnapshotIndexOptions<Entry>) {
    this.#nowMs = nowMs;
    this.#ownerOf = ownerOf;
    this.#bytesPerToken = bytesPerToken;
    this.#onExpired = onExpired;
  }

  /** Segments do not count. */
  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Is not a use. */
  find(key: string): Entry | undefined {
    const entry = this.#owner(key)?.entries.get(key) ?? this.#segments.get(key);
    if (entry === undefined || !this.#hasExpired(entry)) return entry;
    this.remove(key, entry);
    this.#onExpired(entry);
    return undefined;
  }

  /** Makes it its owner's most recently used, if it is still there. */
  use(key: string, entry: Entry): void {
    const entries = this.#owner(key)?.entries;
    if (entries?.get(key) !== entry) return;
    entries.delete(key);
    entries.set(key, entry);
  }

  /** Replaces, and is a use. */
  set(key: string, entry: Entry): void {
    // First: the entry that it replaces may have the only reference to their history.
    this.hold(entry.summary.references);
    this.remove(key);
    const name = this.#ownerOf(key) ?? "";
    const owner = this.#owners.get(name) ?? { entries: new Map(), checkpoints: new Map(), bytes: 0 };
    this.#owners.set(name, owner);
    owner.bytes += entry.bytes;
    this.#bytes += entry.bytes;
    if (!entry.summary.isSegment) {
      owner.entries.set(key, entry);
      this.#size++;
      return;
    }
    this.#segments.set(key, entry);
    if (isCheckpoint(entry)) owner.checkpoints.set(key, entry);
    if (!this.#numReferences.has(key)) this.#unreferenced.set(key, { sinceMs: this.#nowMs(), wasReferenced: false });
  }

  /**
   * @param entry if given, only this one: not what has replaced it
   * @returns whether it was there
   */
  remove(key: string, entry?: Entry): boolean {
    const owner = this.#owner(key);
    const found = owner?.entries.get(key) ?? this.#segments.get(key);
    if (owner === undefined || found === undefined || (entry !== undefined && found !== entry)) return false;
    owner.bytes -= found.bytes;
    this.#bytes -= found.bytes;
    if (found.summary.isSegment) {
      this.#segments.delete(key);
      owner.checkpoints.delete(key);
      this.#unreferenced.delete(key);
    } else {
      owner.entries.delete(key);
      this.#size--;
    }
    if (owner.bytes === 0) this.#owners.delete(this.#ownerOf(key) ?? "");
    for (const reference of found.summary.references) this.#release(reference);
    return true;
  }

  /** Keeps segments, and all before them, until the returned function is called, once. */
  hold(segmentKeys: readonly string[]): () => void {
    for (const key of segmentKeys) {
      this.#numReferences.set(key, (this.#numReferences.get(key) ?? 0) + 1);
      this.#unreferenced.delete(key);
    }
    return () => {
      for (const key of segmentKeys) this.#release(key);
    };
  }

  #release(segmentKey: string): void {
    const numLeft = this.#numReferences.get(segmentKey)! - 1;
    if (numLeft > 0) this.#numReferences.set(segmentKey, numLeft);
    else this.#numReferences.delete(segmentKey);
    if (numLeft > 0 || !this.#segments.has(segmentKey)) return;
    this.#unreferenced.set(segmentKey, { sinceMs: this.#nowMs(), wasReferenced: true });
  }

  /** Of segments of histories that a put is about to refer to: they cannot be evicted. */
  get pendingBytes(): number {
    let bytes = 0;
    for (const [key, { wasReferenced }] of this.#unreferenced) {
      const segment = this.#segments.get(key)!;
      if (!wasReferenced && !isCheckpoint(segment)) bytes += segment.bytes;
    }
    return bytes;
  }

  /**
   * What to evict: a segment that has lost its last reference, else of the owner who has the most
   * bytes the oldest checkpoint, else what they used least recently. So an owner who puts much
   * evicts their own.
   * @param put the key and the bytes that are being put; the key itself is spared
   */
  nextToEvict(put?: { readonly key: string; readonly bytes: number }): [string, Entry] | undefined {
    for (const [key, { wasReferenced }] of this.#unreferenced) {
      if (wasReferenced) return [key, this.#segments.get(key)!];
    }
    const putter = put && this.#owner(put.key);
    let most = 0;
    let next: [string, Entry] | undefined;
    for (const owner of this.#owners.values()) {
      const bytes = owner.bytes + (put !== undefined && owner === putter ? put.bytes : 0);
      if (bytes <= most) continue;
      const first = firstExcept(owner.checkpoints, put?.key) ?? firstExcept(owner.entries, put?.key);
      if (first === undefined) continue;
      most = bytes;
      next = first;
    }
    return next;
  }

  /** Removes expired entries, from where the last sweep stopped. */
  sweep(): void {
    this.dropSegments({ limit: MAX_EXPIRED_PER_SWEEP });
    let numExpired = 0;
    for (let i = 0; i < MAX_SWEPT && numExpired < MAX_EXPIRED_PER_SWEEP; i++) {
      const { value, done } = this.#sweeper.next();
      if (done) {
        this.#sweeper = this.#all();
        return;
      }
      const [key, entry] = value;
      if (this.#hasExpired(entry) && this.find(key) === undefined) numExpired++;
    }
  }

  /** Removes segments without references for `graceMs`, and those that only they referred to. */
  dropSegments({ graceMs = SEGMENT_GRACE_MS, limit = Number.POSITIVE_INFINITY }): void {
    let numDropped = 0;
    while (numDropped < limit) {
      const [oldest] = this.#unreferenced;
      if (oldest === undefined || oldest[1].sinceMs > this.#nowMs() - graceMs) return;
      let key: string | undefined = oldest[0];
      for (; key !== undefined && this.#unreferenced.has(key); numDropped++) {
        const segment: Entry = this.#segments.get(key)!;
        this.remove(key, segment);
        this.#onExpired(segment);
        // Of its history: a segment has no checkpoints.
        key = segment.summary.references[0];
      }
    }
  }

  /** Goes over the present keys; entries that leave before their turn are skipped. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const name = this.#ownerOf(prefix);
    const owners = name === undefined ? [...this.#owners.values()] : [this.#owners.get(name)];
    for (const key of owners.flatMap((owner) => [...(owner?.entries.keys() ?? [])])) {
      const entry = key.startsWith(prefix) ? this.find(key) : undefined;
      if (entry === undefined) continue;
      const { bytes, summary, expiresAtMs } = entry;
      const { revision, isShared } = summary;
      const listed = { key, bytes, referencedBytes: referencedBytes(summary, this.#bytesPerToken), revision, isShared };
      yield { ...listed, ...(expiresAtMs !== undefined && { expiresAtMs }) };
    }
  }

  clear(): void {
    for (const map of [this.#owners, this.#segments, this.#numReferences, this.#unreferenced]) map.clear();
    this.#size = 0;
    this.#bytes = 0;
  }

  #hasExpired({ expiresAtMs }: Entry): boolean {
    return expiresAtMs !== undefined && expiresAtMs <= this.#nowMs();
  }

  /** Entries may be added and removed meanwhile. */
  *#all(): Generator<[string, Entry], undefined> {
    for (const { entries } of this.#owners.values()) yield* entries;
  }

  #owner(key: string): Owner<Entry> | undefined {
    return this.#owners.get(this.#ownerOf(key) ?? "");
  }
}

function isCheckpoint({ summary }: IndexEntry): boolean {
  return summary.isSegment && summary.stateBytes > 0;
}

function firstExcept<Entry>(
  entries: ReadonlyMap<string, Entry>,
  spared: string | undefined,
): [string, Entry] | undefined {
  for (const entry of entries) if (entry[0] !== spared) return entry;
  return undefined;
}
