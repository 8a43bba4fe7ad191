/**
 * Kept states in this process's memory, the least recently used leaving first when the bound is reached. Bytes are what
 * the entry costs here: the state, the token ids, the conversation.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../errors.ts";
import { LocalClaims } from "./claims.ts";
import type { Claim, ListedSnapshot, PutOptions, Snapshot, StateStore, StoreStats } from "./store.ts";

/** Objects, map entry and array headers of one snapshot, roughly. */
const OVERHEAD_BYTES = 512;

interface Entry {
  readonly snapshot: Snapshot;
  readonly bytes: number;
  readonly expiresAtMs: number | undefined;
}

export class MemoryStore implements StateStore {
  readonly #maxBytes: number;
  readonly #nowMs: () => number;
  readonly #claims: LocalClaims;
  /** In the order of use, the oldest first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #numEvicted = 0;

  constructor({ maxBytes, nowMs = Date.now }: { readonly maxBytes: number; readonly nowMs?: () => number }) {
    assert(maxBytes >= 0, "maxBytes is checked by the config");
    this.#maxBytes = maxBytes;
    this.#nowMs = nowMs;
    this.#claims = new LocalClaims({ nowMs });
  }

  async get(key: string): Promise<Snapshot | undefined> {
    const entry = this.#find(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.snapshot;
  }

  async has(key: string): Promise<boolean> {
    return this.#find(key) !== undefined;
  }

  /**
   * Keeps the snapshot itself, not a copy: neither side may change it afterwards.
   * @throws `session_conflict`; `invalid_value` if it alone exceeds the bound; what was kept under the key stays.
   */
  async put(key: string, snapshot: Snapshot, { expiresAtMs, fence }: PutOptions = {}): Promise<void> {
    if (fence !== undefined) this.#claims.check(key, fence);
    const bytes = bytesOf(key, snapshot);
    if (bytes > this.#maxBytes) {
      throw new DenseMambaError(
        "invalid_value",
        `a snapshot of ${bytes} bytes cannot be kept: the memory store holds at most ${this.#maxBytes} bytes`,
      );
    }
    this.#remove(key);
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes + bytes <= this.#maxBytes) break;
      this.#remove(oldest);
      this.#numEvicted++;
    }
    this.#entries.set(key, { snapshot, bytes, expiresAtMs });
    this.#bytes += bytes;
  }

  async delete(key: string): Promise<boolean> {
    const existed = this.#find(key) !== undefined;
    this.#remove(key);
    return existed;
  }

  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    for (const key of [...this.#entries.keys()]) {
      const entry = key.startsWith(prefix) ? this.#find(key) : undefined;
      if (entry === undefined) continue;
      const { bytes, expiresAtMs } = entry;
      yield { key, bytes, ...(expiresAtMs !== undefined && { expiresAtMs }) };
    }
  }

  stats(): StoreStats {
    return {
      numSnapshots: this.#entries.size,
      bytes: this.#bytes,
      maxBytes: this.#maxBytes,
      numEvicted: this.#numEvicted,
    };
  }

  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined> {
    return this.#claims.claim(key, options);
  }

  async close(): Promise<void> {
    this.#entries.clear();
    this.#bytes = 0;
  }

  /** What has expired is removed when it is asked for; until then it is as evictable as anything. */
  #find(key: string): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry?.expiresAtMs === undefined || entry.expiresAtMs > this.#nowMs()) return entry;
    this.#remove(key);
    return undefined;
  }

  #remove(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
  }
}

function bytesOf(key: string, { state, tokenIds, modelHash, conversation }: Snapshot): number {
  const characters = key.length + modelHash.length + (JSON.stringify(conversation)?.length ?? 0);
  return OVERHEAD_BYTES + state.byteLength + tokenIds.length * 8 + characters * 2;
}
