/**
 * Where kept states live. `StateStore` is one of the three seams: memory, disk, Valkey/Redis, and the tiers made of
 * them. Keys are opaque but for their beginnings, which can be listed. Knows nothing of HTTP or of the runtime.
 */

/** A conversation at rest: enough to go on exactly where it stopped, under the same model. */
export interface Snapshot {
  readonly modelHash: string;
  /** What stands before `tokenIds`. */
  readonly past?: Past;
  readonly tokenIds: readonly number[];
  /** How many tokens the state has read, all of `past` among them: `state` is valid at this position only. */
  readonly position: number;
  /** Fixed size, tensors in the order of the model's state spec. Empty only at position 0: a record without a state. */
  readonly state: Uint8Array;
  /** What the text layer needs to go on (JSON-serialisable), opaque to the store. */
  readonly conversation: unknown;
  /** Where the random numbers stand, if the next answer is to go on with them. */
  readonly sampler?: SamplerState;
  /** Rises whenever what is kept under the key is replaced: stamped by `TieredStore`, which tells old copies by it. */
  readonly revision?: number;
  /** As it was put, stamped likewise. */
  readonly expiresAtMs?: number;
  /** A part of a `Past`: never replaced, rarely read, and gone some time after nothing names it any more. */
  readonly isPart?: boolean;
  /** The store that replicas share has had it: if it is not there any more, this copy may be older than what is lost. */
  readonly isShared?: boolean;
}

/**
 * The beginning of a conversation, in parts that are written once and shared by all that continue from them: so a turn writes
 * what is new, however much stands before it.
 */
export interface Past {
  /**
   * Where the last part is kept: a snapshot without a state, whose own `past` is the part before it. A part stays for as
   * long as something is kept that names it.
   */
  readonly key: string;
  /** Of all parts. */
  readonly numTokens: number;
  /** Which ids are among them, a bit each: repetition penalties ask. Parts themselves do not have it. */
  readonly seenIds?: Uint8Array;
}

export interface SamplerState {
  readonly seed: number | bigint;
  /** Random numbers taken from the seed's sequence so far. */
  readonly numDraws: number;
}

export interface PutOptions {
  /** From then on the snapshot does not exist. Default: it stays until it is deleted or evicted. */
  readonly expiresAtMs?: number;
  /** Of the claim under which the snapshot was made: refused if the key has been claimed by another since. */
  readonly fence?: number;
  /** Can be made again: may be lost with the machine's power, and is not worth a wait for the disk. */
  readonly isCache?: boolean;
}

export interface ListedSnapshot {
  readonly key: string;
  /** What it costs the store. */
  readonly bytes: number;
  /** What its past costs, roughly, which others may share. Default 0. */
  readonly pastBytes?: number;
  /** As the snapshot has it. */
  readonly revision?: number;
  readonly isShared?: boolean;
  readonly expiresAtMs?: number;
}

/** The right to advance what is kept under a key, held by one at a time, for as long as it is renewed. */
export interface Claim {
  /** Larger than that of any earlier claim of the key. */
  readonly fence: number;
  /** Holds it for another `ttlMs` from now. False: it has lapsed and another holds it, or did. */
  renew(): Promise<boolean>;
  /** Idempotent. */
  release(): Promise<void>;
}

/** @throws `store_unavailable` from any method, if the store cannot be reached or written to. */
export interface StateStore {
  /** A use, for those that evict the least recently used. @throws `invalid_snapshot` if what is kept is damaged. */
  get(key: string): Promise<Snapshot | undefined>;
  /** Whether `get` would find something. Reads no state, and is not a use. */
  has(key: string): Promise<boolean>;
  /**
   * Replaces. May evict others to stay within the store's bound. Once it returns, the snapshot is kept as durably as the
   * store can.
   * @throws `session_conflict` for a stale fence; `invalid_value` if the snapshot alone exceeds the store's bound
   */
  put(key: string, snapshot: Snapshot, options?: PutOptions): Promise<void>;
  /** @returns whether there was something to delete */
  delete(key: string): Promise<boolean>;
  /** All whose keys begin with `prefix`, in no order. Reads no state, and is not a use. */
  list(prefix: string): AsyncIterable<ListedSnapshot>;
  stats(): StoreStats;
  /** @returns undefined while another holds it. The key need not exist. */
  claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined>;
  /** @throws `store_unavailable` if it must not be written to: what it holds may be another server's now. */
  check?(): Promise<void>;
  /** Removes some of what has expired, for whoever calls it now and then. What has expired is not found in any case. */
  sweep?(): void;
  /** Ends connections and writes what is not yet written. Nothing may be called afterwards. */
  close(): Promise<void>;
}

/** A `StateStore` that several servers share. */
export interface SharedStore extends StateStore {
  /** What is known of a key, without reading what is kept. */
  revisionOf(key: string): Promise<SharedRevision>;
}

/**
 * `revision` is the last that was put, 0 if that had none; it is remembered when the store has dropped what was put, unless
 * that could be made again. "deleted": by somebody, not long ago.
 */
export type SharedRevision = "unknown" | "deleted" | { readonly revision: number; readonly isThere: boolean };

/** Zeros for a server elsewhere: only that server knows. */
export interface StoreStats {
  readonly numSnapshots: number;
  readonly bytes: number;
  readonly maxBytes: number;
  readonly numEvicted: number;
}
