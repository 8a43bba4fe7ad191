/**
 * The interfaces of stores: memory, disk, Valkey, and the tiers made of them. Keys are opaque,
 * except that they can be listed by prefix. Knows neither HTTP nor the runtime.
 */
import { DenseMambaError } from "../../errors.ts";
import type { Snapshot } from "./snapshot.ts";

/** @throws `store_unavailable` from any method, if the store cannot be reached or written */
export interface SnapshotStore {
  /** Counts as a use for LRU eviction. @throws `invalid_snapshot` if it is damaged */
  get(key: string): Promise<Snapshot | undefined>;
  /** Whether `get` would find something. Reads no state, and is not a use. */
  has(key: string): Promise<boolean>;
  /**
   * Replaces, and may evict others. When it returns, the snapshot is as durable as the store can
   * make it.
   * @throws `invalid_value` if the snapshot alone exceeds the store's bound
   */
  put(key: string, snapshot: Snapshot, options?: PutOptions): Promise<void>;
  /** @returns whether it existed */
  delete(key: string): Promise<boolean>;
  /** All keys with this prefix, in no order. Reads no state, and is not a use. */
  list(prefix: string): AsyncIterable<ListedSnapshot>;
  stats(): StoreStats;
  /** @throws `store_unavailable` if it cannot be used as it is configured: see `TieredStore` */
  check?(): Promise<void>;
  /** Removes some expired snapshots. To be called now and then; what has expired is never found. */
  sweep?(): void;
  /** Finishes writing and closes connections. Nothing may be called afterwards. */
  close(): Promise<void>;
}

export interface StateStore extends SnapshotStore {
  /** @throws `session_conflict` for a stale fence */
  put(key: string, snapshot: Snapshot, options?: FencedPutOptions): Promise<void>;
  /** @returns undefined while another holds it. The key need not exist. */
  claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined>;
}

/** A store that several servers share. */
export interface SharedStore extends StateStore {
  /** What is known of a key, without reading its snapshot. */
  revisionOf(key: string): Promise<SharedRevision>;
}

export interface PutOptions {
  /** The snapshot does not exist from then on. Default: never. */
  readonly expiresAtMs?: number;
  /** Can be recomputed: need not survive a power failure, and is not worth waiting for the disk. */
  readonly isCache?: boolean;
}

export interface FencedPutOptions extends PutOptions {
  /** Of the claim under which the snapshot was made. Refused if there has been another since. */
  readonly fence?: number;
}

export interface ListedSnapshot {
  readonly key: string;
  /** What it costs the store. */
  readonly bytes: number;
  /** Roughly what its history, which others may share, and its checkpoints cost. Default 0. */
  readonly referencedBytes?: number;
  readonly revision?: number;
  readonly isShared?: boolean;
  readonly expiresAtMs?: number;
}

/** The exclusive right to replace what is stored under a key, for as long as it is renewed. */
export interface Claim {
  /** Greater than that of any earlier claim of the key. */
  readonly fence: number;
  /** Extends it to `ttlMs` from now. False: it has lapsed, and another has claimed since. */
  renew(): Promise<boolean>;
  /** Idempotent. */
  release(): Promise<void>;
}

/**
 * `revision` is the last one that was put (0: it had none). It is remembered after an eviction,
 * except for caches. "deleted": not long ago, by any server.
 */
export type SharedRevision = "unknown" | "deleted" | { readonly revision: number; readonly exists: boolean };

/** Zeros for a remote server: only that server knows. */
export interface StoreStats {
  readonly numSnapshots: number;
  readonly bytes: number;
  readonly maxBytes: number;
  readonly numEvicted: number;
}

export function staleFence(key: string): DenseMambaError {
  return new DenseMambaError("session_conflict", `${key} has been advanced by another request since this one began`);
}
