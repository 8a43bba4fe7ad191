/** What a graph gives of the logits of R positions: a summary of each row, and the rows. */

export interface LogitRows {
  readonly numRows: number;
  readonly vocabSize: number;
  /** [V]: all logits of one row. On a device they must be fetched: prefer the candidates. */
  readonly logitsOf: (row: number) => Float32Array;
  /**
   * [R, K]: the K largest logits of a row, descending, equal ones by ascending id;
   * K = min(NUM_CANDIDATES, V).
   */
  readonly topLogits: Float32Array;
  /** [R, K] */
  readonly topIds: BigInt64Array;
  /** [R] */
  readonly logSumExp: Float32Array;
  /** [R] log-sum-exp of logits / temperature. */
  readonly temperedLogSumExp: Float32Array;
}
