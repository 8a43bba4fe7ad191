/** Builds the runner's inputs. Every pass uses the same arrays: decoding allocates no more than views. */
import type { RunInput } from "../runtime/runner.ts";
import type { LiveSequence } from "./live-sequence.ts";
import type { StepPlan } from "./scheduler.ts";

/** What one run of the model does: a step's whole plan, or a part of it. */
export type Pass = StepPlan<LiveSequence>;

/** The passes of a step: one for everything, or one for those that decode and one for each prompt. */
export function passesOf(plan: Pass, takesLengths: boolean): Pass[] {
  if (takesLengths) return [plan];
  const { numDecoding, chunks } = plan;
  const decoding = numDecoding > 0 ? [{ numDecoding, chunks: [] }] : [];
  return [...decoding, ...chunks.map((chunk) => ({ numDecoding: 0, chunks: [chunk] }))];
}

export class PassInputs {
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

  /** One token for each decoding slot, with logits, then the prompts' tokens. Valid until the next call. */
  of({ numDecoding, chunks }: Pass, seated: readonly LiveSequence[]): RunInput {
    this.#reserve(chunks.reduce((sum, { numTokens }) => sum + numTokens, numDecoding));
    const firstSlot = numDecoding > 0 ? 0 : chunks[0]!.sequence.slot;
    const endSlot = chunks.length > 0 ? chunks.at(-1)!.sequence.slot + 1 : numDecoding;
    this.#lengths.fill(0);
    let numWhole = 0;
    for (let slot = 0; slot < numDecoding; slot++) {
      this.#lengths[slot] = 1;
      this.#tokenIds[slot] = seated[slot]!.nextToken;
      this.#rows[slot] = slot;
      this.#temperatures[slot] = seated[slot]!.temperature;
      if (seated[slot]!.readsWholeRow(0)) this.#wholeRows[numWhole++] = slot;
    }
    let [numTokens, numRows] = [numDecoding, numDecoding];
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
