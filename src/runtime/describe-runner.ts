/**
 * How many threads a runner uses and how it describes itself, the same for both kinds.
 */
import { availableParallelism } from "node:os";
import type { Manifest } from "../model/artifact.ts";
import { hasHalfStates, numericMode } from "../model/manifest.ts";
import type { RunnerOptions } from "./runner.ts";

/** 0 means every core that this process may use. */
export function chooseNumThreads(numThreads: number): number {
  return numThreads === 0 ? availableParallelism() : numThreads;
}

/** E.g. `native cpu, onnxruntime 1.30.0, 2 threads, kernels avx2, int8 batch-invariant`. */
export function describeRunner(
  kind: string,
  { device, kernels }: Pick<RunnerOptions, "device" | "kernels">,
  ortVersion: string,
  numThreads: number,
  manifest: Manifest,
): string {
  const threads = `${numThreads} thread${numThreads === 1 ? "" : "s"}`;
  const operators = manifest.kernels === undefined ? "plain ONNX" : `kernels ${kernels?.instructionSet}`;
  const states = hasHalfStates(manifest) ? ", states f16" : "";
  const numbers = `${manifest.precision} ${numericMode(manifest)}${states}`;
  return `${kind} ${device}, onnxruntime ${ortVersion}, ${threads}, ${operators}, ${numbers}`;
}
