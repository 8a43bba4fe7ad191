/**
 * Kept states in this process's memory, the least recently used leaving first when the bound is reached. Bytes are what
 * the entry costs here: the state, the token ids, the conversation.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../errors.ts";
import type { Snapshot, StateStore, StoreStats } from "./store.ts";

/** Objects, map entry and array headers of one snapshot, roughly. */
const OVERHEAD_BYTES = 512;

interface Entry {
  readonly snapshot: Snapshot;
  readonly bytes: number;
}

export class MemoryStore implements StateStore {
  readonly #maxBytes: number;
  /** In the order of use, the oldest first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #numEvicted = 0;

  constructor({ maxBytes }: { readonly maxBytes: number }) {
    assert(maxBytes >= 0, "maxBytes is checked by the config");
    this.#maxBytes = maxBytes;
  }

  async get(key: string): Promise<Snapshot | undefined> {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.snapshot;
  }

  /**
   * Keeps the snapshot itself, not a copy: neither side may change it afterwards.
   * @throws `invalid_value` if it alone exceeds the bound; what was kept under the key stays.
   */
  async put(key: string, snapshot: Snapshot): Promise<void> {
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
    this.#entries.set(key, { snapshot, bytes });
    this.#bytes += bytes;
  }

  async delete(key: string): Promise<boolean> {
    return this.#remove(key);
  }

  stats(): StoreStats {
    return {
      numSnapshots: this.#entries.size,
      bytes: this.#bytes,
      maxBytes: this.#maxBytes,
      numEvicted: this.#numEvicted,
    };
  }

  #remove(key: string): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
    return true;
  }
}

function bytesOf(key: string, { state, tokenIds, modelHash, conversation }: Snapshot): number {
  const characters = key.length + modelHash.length + (JSON.stringify(conversation)?.length ?? 0);
  return OVERHEAD_BYTES + state.byteLength + tokenIds.length * 8 + characters * 2;
}
