/** What sampling reads: the graph's summary of the logits of R positions, and the logits themselves. Nothing here is mutated. */
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import { MAX_F16 } from "../model/dtypes.ts";

export interface LogitRows {
  readonly numRows: number;
  readonly vocabSize: number;
  /** [V]: all logits of one row. They may be far away: whoever can do with the candidates should. */
  readonly logitsOf: (row: number) => Float32Array;
  /** [R, K] the K largest logits of a row, descending, equal ones by ascending id; K = min(NUM_CANDIDATES, V). */
  readonly topLogits: Float32Array;
  /** [R, K] */
  readonly topIds: BigInt64Array;
  /** [R] */
  readonly logSumExp: Float32Array;
  /** [R] log-sum-exp of logits / temperature. */
  readonly temperedLogSumExp: Float32Array;
}

/** The model gave numbers that nothing can be made of. */
export class NumericFault extends DenseMambaError {
  constructor(message: string, cause?: unknown) {
    super("runtime_fault", message, { cause });
  }
}

/** Adds the precision to such a fault: a number beyond f16 may be well within bf16. Other errors stay as they are. */
export function inPrecision(error: unknown, precision: Precision): unknown {
  if (!(error instanceof NumericFault)) return error;
  const name = precision === "f16" ? `f16, whose numbers end at ${MAX_F16}` : precision;
  return new DenseMambaError("runtime_fault", `in ${name}: ${error.message}`, { cause: error });
}

/**
 * A NaN or +Infinity anywhere in a row makes its log-sum-exp so, and a row of -Infinity alone has none.
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
