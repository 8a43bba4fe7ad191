/** What sampling reads: the logits of R positions, with the graph's own summary of each row. Nothing here is mutated. */
export interface LogitRows {
  readonly numRows: number;
  /** [R, V] */
  readonly logits: Float32Array;
  /** [R, K] the K largest logits of a row, descending, equal ones by ascending id; K = min(NUM_CANDIDATES, V). */
  readonly topLogits: Float32Array;
  /** [R, K] */
  readonly topIds: BigInt64Array;
  /** [R] */
  readonly logSumExp: Float32Array;
  /** [R] log-sum-exp of logits / temperature. */
  readonly temperedLogSumExp: Float32Array;
}

export function vocabSizeOf(rows: LogitRows): number {
  return rows.logits.length / rows.numRows;
}

export function numCandidatesOf(rows: LogitRows): number {
  return rows.topLogits.length / rows.numRows;
}
