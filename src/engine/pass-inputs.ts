/** Builds the runner's inputs. A step's decode pass uses the same arrays every time: it allocates no more than views. */
import type { RunInput } from "../runtime/runner.ts";
import type { LiveSequence } from "./live-sequence.ts";

export class PassInputs {
  readonly #tokenIds: Int32Array;
  readonly #temperatures: Float32Array;
  readonly #rows: Int32Array;
  readonly #ones: Int32Array;

  constructor(maxBatch: number) {
    this.#tokenIds = new Int32Array(maxBatch);
    this.#temperatures = new Float32Array(maxBatch);
    this.#ones = new Int32Array(maxBatch).fill(1);
    this.#rows = Int32Array.from({ length: maxBatch }, (_, row) => row);
  }

  /** One token for each of the first `numDecoding` slots, with logits for all. Valid until the next call. */
  decode(seated: readonly LiveSequence[], numDecoding: number): RunInput {
    for (let slot = 0; slot < numDecoding; slot++) {
      this.#tokenIds[slot] = seated[slot]!.nextToken;
      this.#temperatures[slot] = seated[slot]!.temperature;
    }
    return {
      firstSlot: 0,
      lengths: this.#ones.subarray(0, numDecoding),
      tokenIds: this.#tokenIds.subarray(0, numDecoding),
      logitRows: this.#rows.subarray(0, numDecoding),
      temperatures: this.#temperatures.subarray(0, numDecoding),
    };
  }

  prefill(sequence: LiveSequence, numTokens: number): RunInput {
    const logitRows = sequence.chunkLogitRows(numTokens);
    return {
      firstSlot: sequence.slot,
      lengths: [numTokens],
      tokenIds: sequence.chunk(numTokens),
      logitRows,
      temperatures: logitRows.map(() => sequence.temperature),
    };
  }
}
