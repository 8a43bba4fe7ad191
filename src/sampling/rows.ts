/** Checks of the logits before sampling reads them. */
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import { MAX_F16 } from "../model/dtypes.ts";
import type { LogitRows } from "../model/logits.ts";

/** The model's numbers are unusable. */
export class NumericFault extends DenseMambaError {
  constructor(message: string, cause?: unknown) {
    super("runtime_fault", message, { cause });
  }
}

/**
 * Adds the precision to a numeric fault: what overflows f16 may fit bf16. Returns other errors as
 * they are.
 */
export function inPrecision(error: unknown, precision: Precision): unknown {
  if (!(error instanceof NumericFault)) return error;
  const name = precision === "f16" ? `f16, whose numbers end at ${MAX_F16}` : precision;
  return new DenseMambaError("runtime_fault", `in ${name}: ${error.message}`, { cause: error });
}

/**
 * A NaN or +Infinity anywhere in a row shows in its log-sum-exp, as does a row of only -Infinity.
 * @param where for the message, with a space before it
 * @throws `runtime_fault`
 */
export function checkFinite(rows: LogitRows, row: number, where = ""): void {
  const logSumExp = rows.logSumExp[row]!;
  const tempered = rows.temperedLogSumExp[row]!;
  const top = rows.topLogits[row * numCandidatesOf(rows)]!;
  if (Number.isFinite(logSumExp) && Number.isFinite(tempered) && Number.isFinite(top)) return;
  throw new NumericFault(
    `the model gave logits that are not finite${where} (largest ${top}, log-sum-exp ${logSumExp}, tempered ${tempered})`,
  );
}

export function numCandidatesOf(rows: LogitRows): number {
  return rows.topLogits.length / rows.numRows;
}

/** One row, apart from the runner's arrays. */
export function copyRow(rows: LogitRows, row: number): LogitRows {
  const numCandidates = numCandidatesOf(rows);
  const [first, end] = [row * numCandidates, (row + 1) * numCandidates];
  const logits = rows.logitsOf(row).slice();
  return {
    numRows: 1,
    vocabSize: rows.vocabSize,
    logitsOf: () => logits,
    topLogits: rows.topLogits.slice(first, end),
    topIds: rows.topIds.slice(first, end),
    logSumExp: rows.logSumExp.slice(row, row + 1),
    temperedLogSumExp: rows.temperedLogSumExp.slice(row, row + 1),
  };
}
