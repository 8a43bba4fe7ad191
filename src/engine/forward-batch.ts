/** Builds the runner's inputs. All batches reuse the same arrays: decoding allocates only views. */
import type { RunInput } from "../runtime/runner.ts";
import type { LiveSequence } from "./live-sequence.ts";
import type { StepPlan } from "./scheduler.ts";

/** What one run of the model computes: a step's whole plan, or a part of it. */
export type ForwardBatch = StepPlan<LiveSequence>;

/**
 * The batches of a step: one for everything if lengths may differ, else one for decoding and one a
 * prompt.
 */
export function forwardBatches(plan: ForwardBatch, ragged: boolean): ForwardBatch[] {
  if (ragged) return [plan];
  const { numDecoding, chunks } = plan;
  const decoding = numDecoding > 0 ? [{ numDecoding, chunks: [] }] : [];
  return [...decoding, ...chunks.map((chunk) => ({ numDecoding: 0, chunks: [chunk] }))];
}

export class BatchInputs {
  readonly #lengths: Int32Array;
  #tokenIds: Int32Array;
  #rows: Int32Array;
  #temperatures: Float32Array;
  /** Of `#rows`, which are read whole. */
  #wholeRows: Int32Array;

  constructor(maxBatch: number) {
    this.#lengths = new Int32Array(maxBatch);
    this.#tokenIds = new Int32Array(maxBatch);
    this.#rows = new Int32Array(maxBatch);
    this.#temperatures = new Float32Array(maxBatch);
    this.#wholeRows = new Int32Array(maxBatch);
  }

  /**
   * The tokens of each decoding slot, with logits after the last one, then the prompts' tokens.
   * Valid until the next call.
   * @param maxDecodeTokens of one slot
   */
  of({ numDecoding, chunks }: ForwardBatch, running: readonly LiveSequence[], maxDecodeTokens = 1): RunInput {
    const firstSlot = numDecoding > 0 ? 0 : chunks[0]!.sequence.slot;
    const endSlot = chunks.length > 0 ? chunks.at(-1)!.sequence.slot + 1 : numDecoding;
    this.#lengths.fill(0);
    let numAll = chunks.reduce((sum, chunk) => sum + chunk.numTokens, 0);
    for (let slot = 0; slot < numDecoding; slot++) {
      const length = running[slot]!.planDecode(maxDecodeTokens);
      this.#lengths[slot] = length;
      numAll += length;
    }
    this.#reserve(numAll);
    let [numTokens, numRows, numWhole] = [0, 0, 0];
    const wantsHidden = chunks.some(({ sequence }) => sequence.isPooled);
    for (let slot = 0; slot < numDecoding; slot++) {
      const sequence = running[slot]!;
      const length = this.#lengths[slot]!;
      for (let index = 0; index < length; index++) {
        this.#tokenIds[numTokens] = sequence.decodeToken(index);
        if (index === length - 1 || sequence.scoresForced) {
          if (sequence.readsWholeRow(0)) this.#wholeRows[numWhole++] = numRows;
          this.#rows[numRows] = numTokens;
          this.#temperatures[numRows++] = sequence.temperature;
        }
        numTokens++;
      }
    }
    for (const chunk of chunks) {
      const { sequence } = chunk;
      this.#lengths[sequence.slot - firstSlot] = chunk.numTokens;
      for (const row of sequence.chunkLogitRows(chunk.numTokens)) {
        if (sequence.readsWholeRow(row)) this.#wholeRows[numWhole++] = numRows;
        this.#rows[numRows] = numTokens + row;
        this.#temperatures[numRows++] = sequence.temperature;
      }
      this.#tokenIds.set(sequence.chunk(chunk.numTokens), numTokens);
      numTokens += chunk.numTokens;
    }
    return {
      firstSlot,
      lengths: this.#lengths.subarray(0, endSlot - firstSlot),
      tokenIds: this.#tokenIds.subarray(0, numTokens),
      logitRows: this.#rows.subarray(0, numRows),
      temperatures: this.#temperatures.subarray(0, numRows),
      wholeRows: this.#wholeRows.subarray(0, numWhole),
      ...(wantsHidden && { wantsHidden }),
    };
  }

  #reserve(numTokens: number): void {
    if (numTokens <= this.#tokenIds.length) return;
    this.#tokenIds = new Int32Array(numTokens);
    this.#rows = new Int32Array(numTokens);
    this.#temperatures = new Float32Array(numTokens);
    this.#wholeRows = new Int32Array(numTokens);
  }
}
