/**
 * Checks a run's input before it reaches ONNX Runtime, where a wrong length would read memory that
 * does not exist. For both runners. A failure is our own bug: no client can cause it.
 */
import { strict as assert } from "node:assert";
import type { Manifest } from "../model/artifact.ts";
import type { RunInput } from "./runner.ts";

export function assertRunInput(input: RunInput, numSlots: number, manifest: Manifest): void {
  const { firstSlot, lengths, tokenIds, logitRows, temperatures } = input;
  const { vocabSize } = manifest.sizes;
  assert(isCount(firstSlot, 0), `firstSlot must be a whole number, at least 0, got ${firstSlot}`);
  assert(lengths.length >= 1, "there must be a sequence at least");
  const endSlot = firstSlot + lengths.length;
  assert(endSlot <= numSlots, `slots ${firstSlot} to ${endSlot - 1} are not all below ${numSlots}`);
  const least = manifest.ragged ? 0 : 1;
  for (let index = 0; index < lengths.length; index++) {
    const length = lengths[index]!;
    assert(isCount(length, least), `a length must be a whole number, at least ${least}, got ${length}`);
    const isAllowed = manifest.ragged || length === lengths[0];
    assert(isAllowed, `this model's lengths must be equal, got ${lengths[0]} and ${length}`);
  }
  const numTokens = numTokensOf(input);
  assert(numTokens > 0, "a sequence must have a token at least");
  assert(tokenIds.length === numTokens, `expected ${numTokens} token ids, got ${tokenIds.length}`);
  for (let index = 0; index < numTokens; index++) {
    const tokenId = tokenIds[index]!;
    assert(isCount(tokenId, 0) && tokenId < vocabSize, `token id must be 0 to ${vocabSize - 1}, got ${tokenId}`);
  }
  assert(
    temperatures.length === logitRows.length,
    `expected a temperature for each of ${logitRows.length} rows, got ${temperatures.length}`,
  );
  let previousRow = -1;
  for (let index = 0; index < logitRows.length; index++) {
    const row = logitRows[index]!;
    assert(isCount(row, 0) && row > previousRow, `logit rows must ascend, got ${row} after ${previousRow}`);
    assert(row < numTokens, `logit row must be below ${numTokens}, got ${row}`);
    assert(temperatures[index]! > 0, `temperature must be above 0, got ${temperatures[index]}`);
    previousRow = row;
  }
  let previousWhole = -1;
  for (const whole of Array.from(input.wholeRows ?? [])) {
    assert(isCount(whole, 0) && whole > previousWhole, `whole rows must ascend, got ${whole} after ${previousWhole}`);
    assert(whole < logitRows.length, `a whole row must be below ${logitRows.length}, got ${whole}`);
    previousWhole = whole;
  }
}

export function numTokensOf({ lengths }: Pick<RunInput, "lengths">): number {
  let numTokens = 0;
  for (let index = 0; index < lengths.length; index++) numTokens += lengths[index]!;
  return numTokens;
}

/** What a run's tensors depend on, besides the model. */
export interface RunShape {
  readonly firstSlot: number;
  readonly lengths: readonly number[];
  readonly numRows: number;
  readonly wantsHidden: boolean;
}

export function isSameShape(
  shape: RunShape,
  { firstSlot, lengths, logitRows, wantsHidden = false }: RunInput,
): boolean {
  return (
    shape.firstSlot === firstSlot &&
    shape.numRows === logitRows.length &&
    shape.wantsHidden === wantsHidden &&
    shape.lengths.length === lengths.length &&
    shape.lengths.every((length, index) => length === lengths[index])
  );
}

/** Whether each slot is advanced by one token. */
export function isSingleStep({ lengths }: Pick<RunInput, "lengths">): boolean {
  for (let index = 0; index < lengths.length; index++) if (lengths[index] !== 1) return false;
  return true;
}

/**
 * The rows to ask the graph for: those of the input, or row 0, its outputs not fetched, if the
 * input asks for none. NOTE: an empty `logit_rows` kills the process: ONNX Runtime's TopK divides
 * by the number of rows (SIGFPE in 1.30).
 */
export function graphRows({ logitRows, temperatures }: RunInput): Pick<RunInput, "logitRows" | "temperatures"> {
  return logitRows.length === 0 ? { logitRows: [0], temperatures: [1] } : { logitRows, temperatures };
}

/** Writes non-negative 32-bit numbers as int64, without making a BigInt of each. */
export function writeInt64(target: BigInt64Array, values: ArrayLike<number>): void {
  const words = new Int32Array(target.buffer, target.byteOffset, target.length * 2); // little-endian: low word first
  for (let index = 0; index < values.length; index++) {
    words[index * 2] = values[index]!;
    words[index * 2 + 1] = 0;
  }
}

function isCount(value: number, least: number): boolean {
  return Number.isSafeInteger(value) && value >= least;
}
