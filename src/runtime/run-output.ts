/**
 * A run's results in host memory, including logits: what the portable runner's worker sends, and
 * the native runner has on a CPU.
 */
import { strict as assert } from "node:assert";
import type { RunOutput } from "./runner.ts";

export interface HostResults extends Omit<RunOutput, "logitsOf" | "vocabSize"> {
  /** [R, V] */
  readonly logits: Float32Array;
}

export function toRunOutput({ logits, ...results }: HostResults, vocabSize: number): RunOutput {
  return {
    ...results,
    vocabSize,
    logitsOf(row) {
      assertRow(row, results.numRows);
      return logits.subarray(row * vocabSize, (row + 1) * vocabSize);
    },
  };
}

export function assertRow(row: number, numRows: number): void {
  assert(Number.isSafeInteger(row) && row >= 0 && row < numRows, `a row must be 0 to ${numRows - 1}, got ${row}`);
}
