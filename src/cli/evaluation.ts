/**
 * How well a model predicts texts, and how near its predictions are to those of the same model in another precision.
 * Runners and token ids in, sums out; knows no files and no terminal.
 */
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import { MAX_F16 } from "../model/dtypes.ts";
import type { ModelRunner, RunOutput } from "../runtime/runner.ts";
import { checkFinite } from "../sampling/rows.ts";

/** What is read as one: no document sees another. */
export interface EvalDocument {
  /** The first is where the model starts from and is not scored; all others are. */
  readonly tokenIds: readonly number[];
  readonly numBytes: number;
}

export interface Evaluation {
  /** Tokens scored. */
  readonly numTokens: number;
  readonly numBytes: number;
  /** -Σ log p of the tokens, in nats. */
  readonly loss: number;
  /** With a reference only. */
  readonly against?: Comparison;
}

export interface Comparison {
  /** The reference's own loss on the same tokens, in nats. */
  readonly loss: number;
  /** Σ over positions of KL(reference ‖ model), in nats. */
  readonly divergence: number;
  /** Positions where both find the same token likeliest. */
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

/** @throws `runtime_fault`, for logits that are not finite too. */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { runner, reference, documents, chunk } = options;
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
      const place = { document: index + 1, token: start + 1 };
      const output = await readChunk(runner, read);
      loss += lossOf(runner, output, targets, place);
      numTokens += targets.length;
      if (reference !== undefined) {
        const expected = await readChunk(reference, read);
        against.loss += lossOf(reference, expected, targets, place);
        against.divergence += divergence(expected, output);
        against.numAgreeing += numAgreeing(expected, output);
      }
      options.onProgress(numTokens);
    }
  }
  return { numTokens, numBytes, loss, ...(reference === undefined ? {} : { against }) };
}

/** Goes on in slot 0; logits for every position. */
function readChunk(runner: ModelRunner, tokenIds: readonly number[]): Promise<RunOutput> {
  const logitRows = tokenIds.map((_, row) => row);
  const temperatures = tokenIds.map(() => 1);
  const input = { firstSlot: 0, lengths: [tokenIds.length], tokenIds, logitRows, temperatures };
  return runner.run({ ...input, wholeRows: logitRows });
}

function lossOf(
  { manifest }: ModelRunner,
  output: RunOutput,
  targets: readonly number[],
  { document, token }: { readonly document: number; readonly token: number },
): number {
  return targets.reduce((sum, target, row) => {
    const where = ` for token ${token + row} of document ${document}`;
    try {
      checkFinite(output, row, where);
    } catch (error) {
      throw inPrecision(error, manifest.precision);
    }
    const loss = output.logSumExp[row]! - output.logitsOf(row)[target]!;
    if (Number.isFinite(loss)) return sum + loss;
    const error = new DenseMambaError("runtime_fault", `the model gave a logit of -Infinity${where}`);
    throw inPrecision(error, manifest.precision);
  }, 0);
}

/** Adds the precision to a fault of the model: a number beyond f16 may be well within f32. */
export function inPrecision(error: unknown, precision: Precision): unknown {
  if (!(error instanceof DenseMambaError) || error.code !== "runtime_fault") return error;
  const name = precision === "f16" ? `f16, whose numbers end at ${MAX_F16}` : precision;
  return new DenseMambaError(error.code, `in ${name}: ${error.message}`, { cause: error });
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
