/** What a run of `bench:peers` comes to: rates of every contender in every test, round by round. */
import type { Machine } from "../machine.ts";
import type { BenchPrecision, ShapeName } from "../rig.ts";
import type { Samples } from "./turns.ts";

/** Tests without a server; with llama-bench's names where it has them. */
export const BARE_TESTS = ["tg128", "pp512", "batch32"] as const;
export type BareTest = (typeof BARE_TESTS)[number];
export const PEER_TESTS = [...BARE_TESTS, "served32"] as const;
export type PeerTest = (typeof PEER_TESTS)[number];

export const OURS = "densemamba";
export const LLAMA_CPP = "llama.cpp";
export const NODE_LLAMA = "node-llama-cpp";

export interface PeerRow {
  readonly shape: ShapeName;
  readonly test: PeerTest;
  readonly precision: BenchPrecision;
  /** Tokens per second, ours first. */
  readonly samples: readonly Samples[];
}

export interface PeersResult {
  readonly machine: Machine;
  readonly numRounds: number;
  /** Bytes per second. */
  readonly bandwidth: number;
  readonly rows: readonly PeerRow[];
  /** Per shape, the largest difference between our server's log-probabilities and llama.cpp's in f32. */
  readonly differences: Readonly<Record<string, number>>;
}
