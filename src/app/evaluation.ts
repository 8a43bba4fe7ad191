/**
 * How well a model predicts texts, and how close its predictions are to those of the same model in
 * another precision. Runners and token ids in, sums out; knows no files and no terminal.
 */
import type { ModelRunner, RunOutput } from "../runtime/runner.ts";
import { checkFinite, inPrecision, NumericFault } from "../sampling/rows.ts";

/** Read from a fresh state. */
export interface EvalDocument {
  /** The first one is what the model starts from and is not scored; all others are. */
  readonly tokenIds: readonly number[];
  readonly numBytes: number;
}

export interface Evaluation {
  /** Tokens scored. */
  readonly numTokens: number;
  readonly numBytes: number;
  /** -Σ log p of the tokens, in nats. */
  readonly loss: number;
  /** Only with a reference. */
  readonly against?: Comparison;
}

export interface Comparison {
  /** The reference's own loss on the same tokens, in nats. */
  readonly loss: number;
  /** Σ over positions of KL(reference ‖ model), in nats. */
  readonly divergence: number;
  /** Positions where the same token is the likeliest for both. */
  readonly numAgreeing: number;
}

export interface EvaluateOptions {
  /** Slot 0 is used. */
  readonly runner: ModelRunner;
  /** Another precision of the same model. */
  readonly reference?: ModelRunner | undefined;
  readonly documents: readonly EvalDocument[];
  /** Tokens read at once, each with a row of logits. */
  readonly chunk: number;
  readonly onProgress: (numTokens: number) => void;
}

/** @throws `runtime_fault`, also for logits that are not finite */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { runner, reference, documents, chunk, onProgress } = options;
  let numTokens = 0;
  let numBytes = 0;
  let loss = 0;
  const against = { loss: 0, divergence: 0, numAgreeing: 0 };
  for (const [index, document] of documents.entries()) {
    const { tokenIds } = document;
    numBytes += document.numBytes;
    await Promise.all([runner.clearSlot(0), reference?.clearSlot(0)]);
    for (let start = 0; start < tokenIds.length - 1; start += chunk) {
      const read = tokenIds.slice(start, Math.min(start + chunk, tokenIds.length - 1));
      const targets = tokenIds.slice(start + 1, start + 1 + read.length);
      const where = (row: number) => ` for token ${start + 1 + row} of document ${index + 1}`;
      const actual = await readChunk(runner, read, targets, where);
      loss += actual.loss;
      numTokens += targets.length;
      if (reference !== undefined) {
        const expected = await readChunk(reference, read, targets, where);
        against.loss += expected.loss;
        against.divergence += divergence(expected.output, actual.output);
        against.numAgreeing += numAgreeing(expected.output, actual.output);
      }
      onProgress(numTokens);
    }
  }
  return { numTokens, numBytes, loss, ...(reference === undefined ? {} : { against }) };
}

/** Continues slot 0. @returns the logits of every position, and -Σ log p of the targets */
async function readChunk(
  runner: ModelRunner,
  tokenIds: readonly number[],
  targets: readonly number[],
  where: (row: number) => string,
): Promise<{ readonly output: RunOutput; readonly loss: number }> {
  const rows = tokenIds.map((_, row) => row);
  const temperatures = tokenIds.map(() => 1);
  const input = { firstSlot: 0, lengths: [tokenIds.length], tokenIds, logitRows: rows, temperatures, wholeRows: rows };
  try {
    const output = await runner.run(input);
    const loss = targets.reduce((sum, target, row) => {
      checkFinite(output, row, where(row));
      const ownLoss = output.logSumExp[row]! - output.logitsOf(row)[target]!;
      if (Number.isFinite(ownLoss)) return sum + ownLoss;
      throw new NumericFault(`the model gave a logit of -Infinity${where(row)}`);
    }, 0);
    return { output, loss };
  } catch (error) {
    throw inPrecision(error, runner.manifest.precision);
  }
}

/** Σ over rows of Σ p (log p - log q), p the expected probabilities. */
function divergence(expected: RunOutput, actual: RunOutput): number {
  let sum = 0;
  for (let row = 0; row < expected.numRows; row++) {
    const [normP, normQ] = [expected.logSumExp[row]!, actual.logSumExp[row]!];
    const [p, q] = [expected.logitsOf(row), actual.logitsOf(row)];
    for (let i = 0; i < p.length; i++) {
      const logP = p[i]! - normP;
      if (logP !== Number.NEGATIVE_INFINITY) sum += Math.exp(logP) * (logP - (q[i]! - normQ));
    }
  }
  return sum;
}

function numAgreeing(a: RunOutput, b: RunOutput): number {
  const numCandidates = a.topIds.length / a.numRows;
  let count = 0;
  for (let i = 0; i < a.topIds.length; i += numCandidates) count += a.topIds[i] === b.topIds[i] ? 1 : 0;
  return count;
}
