/** The shapes that docs/gpu.md has numbers of, reckoned and measured. */
import { RANDOM_SHAPES, type RandomShape } from "../../src/compiler/random-checkpoint.ts";

const MAMBA = RANDOM_SHAPES["mamba-130m"];

export const GPU_SHAPES = {
  "mamba-130m": MAMBA,
  "mamba-370m": { ...MAMBA, hiddenSize: 1024, numLayers: 48 },
  "mamba-1.4b": { ...MAMBA, hiddenSize: 2048, numLayers: 48 },
  "retnet-350m": { ...RANDOM_SHAPES["denseretnet-350m"], denseLayers: 0 },
} as const satisfies Record<string, RandomShape>;

export type GpuShape = keyof typeof GPU_SHAPES;

/** Steps of a pass that reads prompts: of each sequence, and of all together. */
export const PREFILL_CHUNK = 512;
export const MAX_PREFILL_TOKENS = 8192;

/** @returns how many of `numSequences` prompts are read in one pass, a chunk of each. */
export function sequencesPerPrefill(numSequences: number): number {
  return Math.min(numSequences, MAX_PREFILL_TOKENS / PREFILL_CHUNK);
}
