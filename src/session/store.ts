/**
 * Where kept states live. `StateStore` is one of the three seams: memory today; disk and Valkey/Redis take the same
 * codec. Keys are opaque. Knows nothing of HTTP or of the runtime.
 */

/** A conversation at rest: enough to go on exactly where it stopped, under the same model. */
export interface Snapshot {
  readonly modelHash: string;
  readonly tokenIds: readonly number[];
  /** How many of `tokenIds` the state has read: `state` is valid at this position only. */
  readonly position: number;
  /** Fixed size, tensors in the order of the model's state spec. */
  readonly state: Uint8Array;
  /** What the text layer needs to go on (JSON-serialisable), opaque to the store. */
  readonly conversation: unknown;
}

export interface StateStore {
  get(key: string): Promise<Snapshot | undefined>;
  /** Replaces. May evict others to stay within the store's bound. */
  put(key: string, snapshot: Snapshot): Promise<void>;
  delete(key: string): Promise<boolean>;
  stats(): StoreStats;
}

export interface StoreStats {
  readonly numSnapshots: number;
  readonly bytes: number;
  readonly maxBytes: number;
  readonly numEvicted: number;
}
