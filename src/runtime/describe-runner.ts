/**
 * How many threads a runner uses and how it describes itself, the same for both kinds.
 */
import { availableParallelism } from "node:os";
import type { RunnerOptions } from "./runner.ts";

/** 0 means every core that this process may use. */
export function chooseNumThreads(numThreads: number): number {
  return numThreads === 0 ? availableParallelism() : numThreads;
}

/** E.g. `native cpu, onnxruntime 1.30.0, 2 threads`. */
export function describeRunner(
  kind: string,
  device: RunnerOptions["device"],
  ortVersion: string,
  numThreads: number,
): string {
  return `${kind} ${device}, onnxruntime ${ortVersion}, ${numThreads} thread${numThreads === 1 ? "" : "s"}`;
}
