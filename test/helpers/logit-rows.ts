/**
 * Builds what the graph's sampling outputs hold, plainly: full sort, sums in f64 rounded to f32.
 */
import assert from "node:assert/strict";
import { NUM_CANDIDATES } from "../../src/model/artifact.ts";
import type { RunOutput } from "../../src/runtime/runner.ts";

/** @param hidden of each row; by default there is none to read */
export function logitRows(
  rows: readonly ArrayLike<number>[],
  temperatures: ArrayLike<number> = [],
  hidden?: readonly Float32Array[],
): RunOutput {
  const vocabSize = rows[0]?.length ?? 1;
  const numCandidates = Math.min(NUM_CANDIDATES, vocabSize);
  const all = new Float32Array(rows.length * vocabSize);
  const output = {
    numRows: rows.length,
    vocabSize,
    logitsOf: (row: number) => all.subarray(row * vocabSize, (row + 1) * vocabSize),
    hiddenOf: (row: number) => {
      assert(hidden, "the run did not want hidden states");
      return hidden[row]!;
    },
    topLogits: new Float32Array(rows.length * numCandidates),
    topIds: new BigInt64Array(rows.length * numCandidates),
    logSumExp: new Float32Array(rows.length),
    temperedLogSumExp: new Float32Array(rows.length),
  };
  rows.forEach((row, r) => {
    const logits = output.logitsOf(r);
    logits.set(row);
    rankIds(logits)
      .slice(0, numCandidates)
      .forEach((id, i) => {
        output.topIds[r * numCandidates + i] = BigInt(id);
        output.topLogits[r * numCandidates + i] = logits[id]!;
      });
    output.logSumExp[r] = logSumExp(logits, 1);
    output.temperedLogSumExp[r] = logSumExp(logits, temperatures[r] ?? 1);
  });
  return output;
}

/** Ids by descending logit, equal ones by ascending id. */
export function rankIds(logits: Float32Array): number[] {
  return Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
}

export function logSumExp(logits: Float32Array, temperature: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (const logit of logits) max = Math.max(max, logit / temperature);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit / temperature - max);
  return max + Math.log(sum);
}
