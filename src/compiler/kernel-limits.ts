/** What our own operators can take, as their sources have it (kernels/*.c); a model beyond it is lowered to plain ONNX. */
import type { Architecture } from "../model/families/family.ts";

export const KERNEL_LIMITS = {
  /** `CausalConv`: MAX_TAPS. */
  taps: 16,
  /** `SelectiveScan`: MAX_LINKS. */
  links: 8,
  /** `SelectiveScan`: MAX_ROWS, of twice the state size and the rank. */
  scanRows: 4096,
  /** `Retention`: MAX_KEY_WIDTH. */
  keyWidth: 4096,
} as const;

/** @returns the first bound that the model is beyond, with what it has; undefined if there is none. */
export function beyondKernels(architecture: Architecture): string | undefined {
  const numbers: [name: string, value: number, most: number][] =
    architecture.kind === "mamba"
      ? [
          ["conv_kernel", architecture.convKernel, KERNEL_LIMITS.taps],
          ["dense_layers", Math.min(architecture.denseLayers, architecture.numLayers - 1), KERNEL_LIMITS.links],
          [
            "2 state_size + time_step_rank",
            2 * architecture.stateSize + architecture.timeStepRank,
            KERNEL_LIMITS.scanRows,
          ],
        ]
      : [["a head's key", architecture.keyDim / architecture.numHeads, KERNEL_LIMITS.keyWidth]];
  const [beyond] = numbers.filter(([, value, most]) => value > most);
  return beyond && `they take ${beyond[0]} up to ${beyond[2]}, this model has ${beyond[1]}`;
}
