/**
 * A run's results in host memory, including logits: what the portable runner's worker sends, and
 * the native runner has on a CPU.
 */
import { strict as assert } from "node:assert";
import type { RunOutput } from "./runner.ts";

export interface HostResults extends Omit<RunOutput, "logitsOf" | "hiddenOf" | "vocabSize"> {
  /** [R, D], if the run wants them. */
  readonly hidden: Float32Array | undefined;
  /** [R, V] */
  readonly logits: Float32Array;
}

export function toRunOutput({ hidden, logits, ...results }: HostResults, vocabSize: number): RunOutput {
  return {
    ...results,
    vocabSize,
    logitsOf(row) {
      assertRow(row, results.numRows);
      return logits.subarray(row * vocabSize, (row + 1) * vocabSize);
    },
    hiddenOf: (row) => hiddenRow(hidden, row, results.numRows),
  };
}

/** @param hidden [R, D] */
export function hiddenRow(hidden: Float32Array | undefined, row: number, numRows: number): Float32Array {
  assertRow(row, numRows);
  assert(hidden !== undefined, "the run did not want hidden states");
  const width = hidden.length / numRows;
  return hidden.subarray(row * width, (row + 1) * width);
}

export function assertRow(row: number, numRows: number): void {
  assert(Number.isSafeInteger(row) && row >= 0 && row < numRows, `a row must be 0 to ${numRows - 1}, got ${row}`);
}
