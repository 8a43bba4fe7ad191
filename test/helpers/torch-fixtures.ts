/** The fixtures that models/recipes/goldens makes with PyTorch. */

/** `test/fixtures/torch-tiny-<variant>/expected.json`; states are those after the last token. */
export interface TinyFixture {
  readonly sequences: readonly {
    readonly token_ids: number[];
    /** [T][V] */
    readonly logits: number[][];
    /** [layer][N][E] */
    readonly ssm: number[][][];
    /** [layer][K-1][E] */
    readonly conv: number[][][];
  }[];
}

/** `test/fixtures/torch-densemamba-tales.json` */
export interface TalesFixture {
  readonly prompts: readonly {
    readonly text: string;
    readonly token_ids: number[];
    /** [T]; of each token after those before it */
    readonly logprobs: (number | null)[];
    /** [T]; likeliest token after each */
    readonly argmax: number[];
    readonly top: { readonly id: number; readonly logprob: number }[];
  }[];
}

/** [V] -> [V], in f64. */
export function logSoftmax(logits: ArrayLike<number>): number[] {
  const values = Array.from(logits);
  const max = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const logSum = max + Math.log(values.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return values.map((value) => value - logSum);
}
