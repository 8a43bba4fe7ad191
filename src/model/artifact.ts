/**
 * The artifact: what the compiler writes and the runtime loads. A folder holding `manifest.json`
 * beside the files that the manifest names. This module holds the manifest's type; the compiler
 * writes it, `compiler/artifact-cache.ts` checks it.
 */
import type { StateLayout, StatePrecision, StateSpec } from "./state.ts";

export const PRECISIONS = ["f32", "f16", "bf16", "int8", "int4"] as const;
export type Precision = (typeof PRECISIONS)[number];

/**
 * What a graph is made of: ONNX Runtime's operators alone, or ours in kernels/ too, where they are
 * better: `kernels` on a CPU, `cuda` on CUDA, where ours are for states alone.
 */
export type LoweringKind = "plain" | "kernels" | "cuda";

/**
 * Of the interface of our operators, as in kernels/op.h: what a graph compiled now needs of them.
 */
export const KERNELS_VERSION = 8;

/**
 * The graph's sampling outputs hold this many candidates per row (fewer if the vocabulary is
 * smaller).
 */
export const NUM_CANDIDATES = 64;

/**
 * The graph's contract, R = number of rows in `logit_rows`, K = min(NUM_CANDIDATES, V):
 *
 * inputs   input_ids      int64 [B, T]   ragged: int64 [1, S], sequence after sequence
 *          lengths        int64 [B]      ragged only: of each, S in all; 0 leaves its state as it is
 *          logit_rows     int64 [R]      rows of the flattened hidden states to give; R >= 1
 *          temperature    f32   [R]      > 0; only `tempered_log_sum_exp` depends on it
 *          past_<state>   [B, ...state.shape] of the state's dtype
 * outputs  hidden              f32   [R, D]   what the logits are made of: the last layer's, normed
 *          logits              f32   [R, V]
 *          top_logits, top_ids f32 / int64 [R, K]   the K largest logits, descending
 *          log_sum_exp         f32   [R]      over the row's logits
 *          tempered_log_sum_exp f32  [R]      over the row's logits / temperature
 *          present_<state>     the same; may be the same buffer as past_<state>
 */
export interface Manifest {
  readonly formatVersion: number;
  readonly compilerVersion: string;
  /**
   * sha256 over the source checkpoint's config and weights, the precision and that of states, which
   * are only valid under the same one.
   */
  readonly modelHash: string;
  readonly name: string;
  readonly family: string;
  readonly precision: Precision;
  /** The version of our operators that the graph needs; without it, it needs none. */
  readonly kernels?: number | undefined;
  /** Of such a graph: the device whose operators they are. Default: `cpu`. */
  readonly device?: "cpu" | "cuda" | undefined;
  readonly sizes: ModelSizes;
  readonly numParameters: number;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly state: StateSpec;
  /** `graph` reads sequences of unequal lengths in one pass. */
  readonly ragged?: boolean | undefined;
  /**
   * The most steps that a pass may have, of one sequence or, where it takes lengths, of all: the
   * memory for more is out of proportion.
   */
  readonly maxPassSteps?: number | undefined;
  /** The ONNX file, relative to the artifact's folder. */
  readonly graph: string;
  /**
   * The same graph for T = 1 alone, input_ids [B, 1] and without `lengths`, without control flow: a
   * decode step through it costs less. It shares the weights' file with `graph` and gives the same
   * numbers to rounding. A runner may ignore it.
   */
  readonly decodeGraph?: string;
  readonly files: readonly ArtifactFile[];
}

export interface ModelSizes {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  /** m: how many shallower layers each layer reads. 0 for the plain families. */
  readonly denseLayers: number;
}

export interface ArtifactFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** What an artifact is compiled to. */
export interface Target {
  readonly precision: Precision;
  readonly lowering: LoweringKind;
  readonly statePrecision: StatePrecision;
}

/** The state of an artifact. */
export function stateIn({ precision, lowering, statePrecision }: Target, layouts: readonly StateLayout[]): StateSpec {
  // Our own operators take inputs in f32, and work on sums in f32 or f16.
  const isHalf = precision === "f16" && lowering === "plain";
  const isNarrow = ({ holds, mayNarrow = false }: StateLayout) => {
    if (holds === "count" || statePrecision === "f32") return false;
    return holds === "inputs" ? isHalf : statePrecision === "f16" || (isHalf && mayNarrow);
  };
  return layouts.map((layout) => {
    return { name: layout.name, shape: layout.shape, dtype: isNarrow(layout) ? "f16" : "f32" };
  });
}
