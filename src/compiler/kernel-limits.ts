/** What our own operators can take; a model beyond it is lowered to plain ONNX. */
import type { Architecture } from "../model/families/registry.ts";

/** As kernels/limits.h has them. */
export const KERNEL_LIMITS = {
  taps: 16,
  links: 8,
  /** On a CPU: twice the state size and the rank, together. */
  scanRows: 4096,
  cudaStateSize: 256,
  /** On a CPU. */
  keyWidth: 4096,
} as const;

/** @returns the first bound that the model is beyond, with what it has; undefined if there is none. */
export function beyondKernels(architecture: Architecture, device: "cpu" | "cuda"): string | undefined {
  const beyond = boundsOf(architecture, device).find(({ value, most }) => value > most);
  return beyond && `they take ${beyond.name} up to ${beyond.most}, this model has ${beyond.value}`;
}

interface Bound {
  /** As in config.json, where it is there. */
  readonly name: string;
  readonly value: number;
  readonly most: number;
}

function boundsOf(architecture: Architecture, device: "cpu" | "cuda"): Bound[] {
  const { taps, links, scanRows, cudaStateSize, keyWidth } = KERNEL_LIMITS;
  if (architecture.kind === "retnet") {
    const value = architecture.keyDim / architecture.numHeads;
    return device === "cpu" ? [{ name: "a head's key", value, most: keyWidth }] : [];
  }
  if (architecture.kind !== "mamba") return [];
  const { stateSize, timeStepRank, convKernel, denseLayers, numLayers } = architecture;
  return [
    { name: "conv_kernel", value: convKernel, most: taps },
    { name: "dense_layers", value: Math.min(denseLayers, numLayers - 1), most: links },
    device === "cpu"
      ? { name: "2 state_size + time_step_rank", value: 2 * stateSize + timeStepRank, most: scanRows }
      : { name: "state_size", value: stateSize, most: cudaStateSize },
  ];
}
