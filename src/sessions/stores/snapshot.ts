/**
 * A snapshot: what is stored of a conversation, enough to continue it exactly where it stopped
 * under the same model. The older tokens of a long conversation are in *segments*, which are
 * written once and shared by all that continue from them, so that a turn writes only what is new.
 */
import { endianness } from "node:os";

export interface Snapshot {
  readonly modelHash: string;
  /** What precedes `tokenIds`. */
  readonly history?: HistoryRef;
  readonly tokenIds: readonly number[];
  /** How many tokens the state has read, including all of `history`. */
  readonly position: number;
  /** Fixed size, tensors in the order of the model's state spec. Empty only at position 0. */
  readonly state: Uint8Array;
  /** What the text layer needs to continue (JSON-serialisable); opaque to the store. */
  readonly conversation: unknown;
  /** The position of the random numbers, if the next answer continues their sequence. */
  readonly sampler?: SamplerState;
  /** Rises with every put under a key. Set by `TieredStore`, which recognises old copies by it. */
  readonly revision?: number;
  /** As it was put; set by `TieredStore`. */
  readonly expiresAtMs?: number;
  /**
   * A part of a conversation: never replaced, and stored as long as anything refers to it. One with
   * a state is a checkpoint, which may be evicted; the others are segments of a history.
   */
  readonly isSegment?: boolean;
  /** The keys of a session's checkpoints, whether they are stored or not. */
  readonly checkpointKeys?: readonly string[];
  /** The shared store has had it: if that no longer has it, it may have lost a newer one. */
  readonly isShared?: boolean;
}

/** The segments that precede a snapshot's tokens. */
export interface HistoryRef {
  /**
   * The last segment's key: a snapshot without a state, whose own `history` is the segment before
   * it. A segment stays as long as a snapshot refers to it.
   */
  readonly key: string;
  /** In all segments. */
  readonly numTokens: number;
  /** A bit for each token id that occurs, for repetition penalties. Absent in segments. */
  readonly seenIds?: Uint8Array;
}

export interface SamplerState {
  readonly seed: number | bigint;
  /** Random numbers taken from the seed's sequence so far. */
  readonly numDraws: number;
}

/** What a snapshot and a resume point have in common. */
export type Tokens = Pick<Snapshot, "history" | "tokenIds">;

/** All tokens of the conversation. */
export function countTokens({ history, tokenIds }: Tokens): number {
  return historyTokens(history) + tokenIds.length;
}

export function historyTokens(history: HistoryRef | undefined): number {
  return history?.numTokens ?? 0;
}

/** What stores need to know of a snapshot without reading it. */
export interface SnapshotSummary {
  /** 0 if there is none. */
  readonly revision: number;
  readonly isShared: boolean;
  readonly isSegment: boolean;
  /** Keys of its history and its checkpoints. */
  readonly references: readonly string[];
  readonly numHistoryTokens: number;
  readonly numCheckpoints: number;
  /** As it is stored. */
  readonly stateBytes: number;
}

export function summarise(snapshot: Snapshot): SnapshotSummary {
  const { history, checkpointKeys = [], state, revision = 0, isShared = false, isSegment = false } = snapshot;
  return {
    revision,
    isShared,
    isSegment,
    references: history === undefined ? checkpointKeys : [history.key, ...checkpointKeys],
    numHistoryTokens: historyTokens(history),
    numCheckpoints: checkpointKeys.length,
    stateBytes: state.length,
  };
}

/** Roughly what its history and its checkpoints cost, of which one is its own state. */
export function referencedBytes(summary: SnapshotSummary, bytesPerToken: number): number {
  const { numHistoryTokens, numCheckpoints, stateBytes } = summary;
  return numHistoryTokens * bytesPerToken + Math.max(0, numCheckpoints - 1) * stateBytes;
}

/** One that has read nothing, or a record. @param content JSON-serialisable */
export function statelessSnapshot(modelHash: string, content: unknown): Snapshot {
  return { modelHash, tokenIds: [], position: 0, state: new Uint8Array(0), conversation: content };
}

/** What is wrong with a snapshot of `hash` where `ownHash` runs. */
export function madeByAnother(hash: string, ownHash: string): string {
  const reasons =
    "other weights, another --precision or --state-precision, " +
    "or operators of another device (with --kernels off all have the same)";
  return `was made by model ${hash}; this server runs ${ownHash}: ${reasons}`;
}

/** A copy of a set of ids, a bit each, with `ids` added. */
export function withIds(bits: Uint8Array, ids: readonly number[]): Uint8Array {
  const largest = ids.reduce((max, id) => Math.max(max, id), 0);
  const all = new Uint8Array(Math.max(bits.length, (largest >>> 3) + 1));
  all.set(bits);
  for (const id of ids) all[id >>> 3]! |= 1 << (id & 7);
  return all;
}

export function* idsIn(bits: Uint8Array): Iterable<number> {
  for (const [at, byte] of bits.entries()) {
    for (let bit = 0; bit < 8; bit++) if ((byte >>> bit) & 1) yield at * 8 + bit;
  }
}

/** 4 bytes each, little-endian on every machine. */
export function tokensToBytes(tokenIds: readonly number[]): Buffer {
  const bytes = Buffer.from(new Uint32Array(tokenIds).buffer);
  return endianness() === "LE" ? bytes : bytes.swap32();
}

/** @param bytes a multiple of 4; need not be aligned */
export function bytesToTokens(bytes: Uint8Array): number[] {
  const copy = Buffer.from(new Uint8Array(bytes).buffer);
  if (endianness() !== "LE") copy.swap32();
  return Array.from(new Uint32Array(copy.buffer));
}
