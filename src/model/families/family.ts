/**
 * What the project must know of a kind of model: how to read its config, which tensors its
 * checkpoint holds, and what it remembers of a sequence. One file a family beside this one;
 * `registry.ts` lists them. Knows nothing of ONNX.
 */
import type { ModelSizes } from "../artifact.ts";
import type { ConfigJson } from "../config-json.ts";
import type { StateLayout } from "../state.ts";
import type { WeightTensor } from "../weights.ts";
import type { Layout } from "./layout.ts";

/** @template Config of its architecture; families may share one */
export interface Family<Config> {
  readonly name: string;
  /** Values of `model_type` in `config.json`; null where there is none. */
  readonly modelTypes: readonly (string | null)[];
  /**
   * Where the `model_type` is another architecture's, or none: whether a config is this family's
   * all the same.
   */
  readonly recognizes?: (json: ConfigJson) => boolean;
  /** Stand in for keys that the config leaves out, as the family's own implementation has them. */
  readonly defaults?: ConfigJson;
  /** Whether a checkpoint without a config holds this family, by its tensors' names. */
  readonly recognizesTensors?: (names: readonly string[]) => boolean;
  /**
   * How the file names and stores the tensors.
   * @throws `invalid_checkpoint` for a layout of another model
   */
  readonly layout: (tensors: readonly WeightTensor[]) => Layout;
  /**
   * Reads the config, empty where there is none. The tensors, by the family's names, are at hand
   * because some sizes stand only there (the width of a gate).
   * @throws `invalid_checkpoint` for a key that is missing or out of bounds.
   */
  describe(json: ConfigJson, tensors: ReadonlyMap<string, WeightTensor>): ModelDescription<Config>;
}

export interface ModelDescription<Config> {
  /** Every size and switch of the blocks, for the oracle and the compiler. */
  readonly architecture: Config;
  readonly sizes: ModelSizes;
  /** Exactly the tensors that the checkpoint must hold. */
  readonly tensors: readonly ExpectedTensor[];
  /**
   * Names that it may hold beside them and that are never read: buffers that follow from the
   * config, a tied head that was saved all the same.
   */
  readonly ignored?: readonly string[];
  readonly state: readonly StateLayout[];
  /** The most steps that a pass of one sequence may have, see `boundedSteps`. */
  readonly maxPassSteps: number;
}

/** What a pass may hold at once of one of its tensors. */
const MAX_TENSOR_BYTES = 2 ** 28;

/**
 * The most steps, a power of two, for which a pass's largest f32 tensor, `numElements` of it, stays
 * below 256 MiB.
 */
export function boundedSteps(numElements: (numSteps: number) => number): number {
  let numSteps = 1;
  while (numElements(2 * numSteps) * 4 <= MAX_TENSOR_BYTES) numSteps *= 2;
  return numSteps;
}

export interface ExpectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}
