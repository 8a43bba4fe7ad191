/**
 * Snapshots and claims in this process's memory. At the bound, the owner with the most bytes loses
 * what they used least recently. Bytes are what an entry costs here: state, token ids,
 * conversation.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../../errors.ts";
import { type Snapshot, summarise } from "./snapshot.ts";
import { type IndexEntry, type OwnerOf, SnapshotIndex } from "./snapshot-index.ts";
import {
  type Claim,
  type FencedPutOptions,
  type ListedSnapshot,
  type StateStore,
  type StoreStats,
  staleFence,
} from "./store.ts";

/** Objects, map entry and array headers of one snapshot, roughly. */
const OVERHEAD_BYTES = 512;
const BYTES_PER_TOKEN = 8;
/** How many released claims are remembered, to recognise their fences. */
const MAX_REMEMBERED_CLAIMS = 100_000;

export interface MemoryStoreOptions {
  readonly maxBytes: number;
  readonly nowMs?: () => number;
  /** Default: there is one owner. */
  readonly ownerOf?: OwnerOf | undefined;
}

interface Entry extends IndexEntry {
  readonly snapshot: Snapshot;
}

export class MemoryStore implements StateStore {
  readonly #maxBytes: number;
  readonly #nowMs: () => number;
  readonly #index: SnapshotIndex<Entry>;
  /** The last claim of each key, in the order of claiming. */
  readonly #claims = new Map<string, { readonly fence: number; untilMs: number }>();
  #lastFence = 0;
  #numEvicted = 0;

  constructor({ maxBytes, nowMs = Date.now, ownerOf }: MemoryStoreOptions) {
    assert(maxBytes >= 0, "maxBytes is checked by the config");
    this.#maxBytes = maxBytes;
    this.#nowMs = nowMs;
    this.#index = new SnapshotIndex({ nowMs, ownerOf, bytesPerToken: BYTES_PER_TOKEN, onExpired: () => undefined });
  }

  async get(key: string): Promise<Snapshot | undefined> {
    const entry = this.#index.find(key);
    if (entry !== undefined) this.#index.use(key, entry);
    return entry?.snapshot;
  }

  async has(key: string): Promise<boolean> {
    return this.#index.find(key) !== undefined;
  }

  /**
   * Stores the snapshot itself, not a copy: it must not be changed afterwards.
   * @throws `session_conflict`; `invalid_value` if it alone exceeds the bound. Then nothing has
   * changed.
   */
  async put(key: string, snapshot: Snapshot, { expiresAtMs, fence }: FencedPutOptions = {}): Promise<void> {
    if (fence !== undefined) this.checkFence(key, fence);
    const bytes = bytesOf(key, snapshot);
    const neededBytes = bytes + this.#index.pendingBytes;
    if (neededBytes > this.#maxBytes) throw this.#tooLarge(neededBytes);
    const summary = summarise(snapshot);
    const release = this.#index.hold(summary.references);
    try {
      this.#makeRoom(key, bytes);
      this.#index.set(key, { bytes, expiresAtMs, summary, snapshot });
    } finally {
      release();
    }
  }

  async delete(key: string): Promise<boolean> {
    const existed = this.#index.find(key) !== undefined;
    this.#index.remove(key);
    return existed;
  }

  list(prefix: string): AsyncIterable<ListedSnapshot> {
    return this.#index.list(prefix);
  }

  stats(): StoreStats {
    const { size, bytes } = this.#index;
    return { numSnapshots: size, bytes, maxBytes: this.#maxBytes, numEvicted: this.#numEvicted };
  }

  async claim(key: string, { ttlMs }: { readonly ttlMs: number }): Promise<Claim | undefined> {
    if ((this.#claims.get(key)?.untilMs ?? Number.NEGATIVE_INFINITY) > this.#nowMs()) return undefined;
    const claim = { fence: ++this.#lastFence, untilMs: this.#nowMs() + ttlMs };
    this.#claims.delete(key);
    this.#claims.set(key, claim);
    this.#forgetOldClaims();
    return {
      fence: claim.fence,
      renew: async () => {
        if (this.#claims.get(key) !== claim) return false;
        claim.untilMs = this.#nowMs() + ttlMs;
        return true;
      },
      release: async () => {
        claim.untilMs = Number.NEGATIVE_INFINITY;
      },
    };
  }

  /**
   * An expired claim still counts until someone else claims the key.
   * @throws `session_conflict` unless `fence` is that of the key's last claim
   */
  checkFence(key: string, fence: number): void {
    if (this.#claims.get(key)?.fence !== fence) throw staleFence(key);
  }

  sweep(): void {
    this.#index.sweep();
  }

  async close(): Promise<void> {
    this.#index.clear();
  }

  #makeRoom(key: string, bytes: number): void {
    const added = bytes - (this.#index.find(key)?.bytes ?? 0);
    while (this.#index.bytes + added > this.#maxBytes) {
      const evicted = this.#index.nextToEvict({ key, bytes });
      // All that is left is the history of what is being put.
      if (evicted === undefined) throw this.#tooLarge(this.#index.bytes + added);
      if (this.#index.remove(...evicted) && !evicted[1].summary.isSegment) this.#numEvicted++;
    }
  }

  #tooLarge(bytes: number): DenseMambaError {
    return new DenseMambaError(
      "invalid_value",
      `a snapshot of ${bytes} bytes cannot be stored: the memory store holds at most ${this.#maxBytes} bytes`,
    );
  }

  #forgetOldClaims(): void {
    for (const [key, { untilMs }] of this.#claims) {
      if (this.#claims.size <= MAX_REMEMBERED_CLAIMS) return;
      if (untilMs <= this.#nowMs()) this.#claims.delete(key);
    }
  }
}

function bytesOf(key: string, snapshot: Snapshot): number {
  const { history, state, tokenIds, modelHash, conversation, checkpointKeys } = snapshot;
  const characters = key.length + modelHash.length + jsonLength(conversation) + jsonLength(checkpointKeys);
  const idBytes = tokenIds.length * BYTES_PER_TOKEN + (history?.seenIds?.length ?? 0);
  return OVERHEAD_BYTES + state.byteLength + idBytes + characters * 2;
}

/** The length as JSON, without escapes. Reads no text, which may be megabytes. */
function jsonLength(json: unknown): number {
  if (typeof json === "string") return json.length + 2;
  if (json === undefined) return 0;
  if (typeof json !== "object" || json === null) return String(json).length;
  const inside = Array.isArray(json)
    ? json.map((value) => jsonLength(value) + 1)
    : Object.entries(json).map(([name, value]) => name.length + jsonLength(value) + 4);
  return inside.reduce((sum, length) => sum + length, 1);
}
