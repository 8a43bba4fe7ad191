/**
 * Kept states in this process's memory; when the bound is reached, whoever holds the most gives what they used least recently. Bytes are what
 * the entry costs here: the state, the token ids, the conversation.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../../errors.ts";
import { LocalClaims } from "./claims.ts";
import { type IndexEntry, LruIndex, type OwnerOf } from "./lru-index.ts";
import { countPast } from "./past.ts";
import type { Claim, ListedSnapshot, PutOptions, Snapshot, StateStore, StoreStats } from "./store.ts";

/** Objects, map entry and array headers of one snapshot, roughly. */
const OVERHEAD_BYTES = 512;
const BYTES_PER_TOKEN = 8;

export interface MemoryStoreOptions {
  readonly maxBytes: number;
  readonly nowMs?: () => number;
  /** Whoever holds the most gives way first. Default: all belongs to one. */
  readonly ownerOf?: OwnerOf | undefined;
}

interface Entry extends IndexEntry {
  readonly snapshot: Snapshot;
}

export class MemoryStore implements StateStore {
  readonly #maxBytes: number;
  readonly #claims: LocalClaims;
  readonly #index: LruIndex<Entry>;
  #numEvicted = 0;

  constructor({ maxBytes, nowMs = Date.now, ownerOf }: MemoryStoreOptions) {
    assert(maxBytes >= 0, "maxBytes is checked by the config");
    this.#maxBytes = maxBytes;
    this.#claims = new LocalClaims({ nowMs });
    this.#index = new LruIndex({ nowMs, ownerOf, onExpired: () => undefined });
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
   * Keeps the snapshot itself, not a copy: neither side may change it afterwards.
   * @throws `session_conflict`; `invalid_value` if it alone exceeds the bound. What was kept under the key stays.
   */
  async put(key: string, snapshot: Snapshot, { expiresAtMs, fence }: PutOptions = {}): Promise<void> {
    if (fence !== undefined) this.#claims.check(key, fence);
    const bytes = bytesOf(key, snapshot);
    const neededBytes = bytes + this.#index.comingBytes;
    if (neededBytes > this.#maxBytes) throw this.#tooLarge(neededBytes);
    const { past, revision = 0, isShared = false, isPart = false } = snapshot;
    const release = this.#index.hold(past?.key);
    try {
      this.#makeRoom(key, bytes);
      const pastBytes = countPast(past) * BYTES_PER_TOKEN;
      this.#index.set(key, { snapshot, bytes, expiresAtMs, revision, isShared, isPart, pastKey: past?.key, pastBytes });
    } finally {
      release();
    }
  }

  #makeRoom(key: string, bytes: number): void {
    const more = bytes - (this.#index.find(key)?.bytes ?? 0);
    while (this.#index.bytes + more > this.#maxBytes) {
      const leaving = this.#index.nextToLeave({ key, bytes });
      // All that is left is named by what is being put.
      if (leaving === undefined) throw this.#tooLarge(this.#index.bytes + more);
      if (this.#index.remove(...leaving) && !leaving[1].isPart) this.#numEvicted++;
    }
  }

  #tooLarge(bytes: number): DenseMambaError {
    return new DenseMambaError(
      "invalid_value",
      `a snapshot of ${bytes} bytes cannot be kept: the memory store holds at most ${this.#maxBytes} bytes`,
    );
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

  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined> {
    return this.#claims.claim(key, options);
  }

  sweep(): void {
    this.#index.sweep();
  }

  async close(): Promise<void> {
    this.#index.clear();
  }
}

function bytesOf(key: string, { past, state, tokenIds, modelHash, conversation }: Snapshot): number {
  const characters = key.length + modelHash.length + charactersOf(conversation);
  const idBytes = tokenIds.length * BYTES_PER_TOKEN + (past?.seenIds?.length ?? 0);
  return OVERHEAD_BYTES + state.byteLength + idBytes + characters * 2;
}

/** What it takes as JSON, but for escapes. Looks at no text but for its length: a conversation may hold megabytes. */
function charactersOf(json: unknown): number {
  if (typeof json === "string") return json.length + 2;
  if (json === undefined) return 0;
  if (typeof json !== "object" || json === null) return String(json).length;
  const inside = Array.isArray(json)
    ? json.map((value) => charactersOf(value) + 1)
    : Object.entries(json).map(([name, value]) => name.length + charactersOf(value) + 4);
  return inside.reduce((sum, characters) => sum + characters, 1);
}
