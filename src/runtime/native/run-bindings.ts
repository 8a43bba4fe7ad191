/**
 * Everything one run reads and writes in host memory, as the C API's argument arrays: our buffers,
 * the values over them, and which belong to a shape. Repeating the last shape costs nothing. For
 * CUDA devices: cuda-runs.ts.
 */
import { strict as assert } from "node:assert";
import { type Manifest, NUM_CANDIDATES } from "../../model/artifact.ts";
import { firstOutput, type GraphSteps, graphNames } from "../graph-names.ts";
import { graphRows, isSameShape, isSingleStep, numTokensOf, type RunShape, writeInt64 } from "../run-input.ts";
import { toRunOutput } from "../run-output.ts";
import type { RunInput, RunOutput } from "../runner.ts";
import type { SlotStates } from "../slot-states.ts";
import type { NativeSession } from "./native-session.ts";
import type { Handle, RunArguments } from "./ort-api.ts";
import { NameArray, PointerArray } from "./pointer-array.ts";
import { StateValues, TensorBuffer } from "./tensor-values.ts";

/** A run whose input has been read. */
export interface BoundRun {
  /** What the run will fill, valid until the next is bound. */
  readonly output: RunOutput;
  /** Once. `isShort`: on the calling thread, which waits. */
  readonly run: (isShort: boolean) => Promise<void>;
}

/** What the arrays point at now, and its views. */
interface Bound extends RunShape {
  readonly args: RunArguments;
  readonly tokenIds: BigInt64Array;
  readonly logitRows: BigInt64Array;
  readonly temperatures: Float32Array;
  readonly logits: Float32Array;
  readonly output: RunOutput;
}

export class RunBindings {
  readonly #session: NativeSession;
  readonly #arrays: Readonly<Record<GraphSteps, ArgumentArrays>>;
  readonly #isRagged: boolean;
  readonly #states: StateValues;
  readonly #vocabSize: number;
  readonly #hiddenSize: number;
  readonly #numCandidates: number;
  readonly #tokenIds: TensorBuffer<"int64">;
  readonly #lengths: TensorBuffer<"int64">;
  readonly #logitRows: TensorBuffer<"int64">;
  readonly #temperatures: TensorBuffer<"float32">;
  readonly #hidden: TensorBuffer<"float32">;
  readonly #logits: TensorBuffer<"float32">;
  readonly #topLogits: TensorBuffer<"float32">;
  readonly #topIds: TensorBuffer<"int64">;
  readonly #logSumExp: TensorBuffer<"float32">;
  readonly #temperedLogSumExp: TensorBuffer<"float32">;
  #bound: Bound | undefined;

  /** Reserves a row of output per slot for decoding; the buffers grow if a run needs more. */
  constructor(session: NativeSession, manifest: Manifest, states: SlotStates) {
    const { api, memoryInfo } = session;
    const { numSlots } = states;
    this.#vocabSize = manifest.sizes.vocabSize;
    this.#hiddenSize = manifest.sizes.hiddenSize;
    this.#numCandidates = Math.min(NUM_CANDIDATES, this.#vocabSize);
    this.#states = new StateValues(api, memoryInfo, states);
    this.#isRagged = manifest.ragged ?? false;
    this.#tokenIds = new TensorBuffer(api, memoryInfo, "int64", numSlots);
    this.#lengths = new TensorBuffer(api, memoryInfo, "int64", numSlots);
    this.#logitRows = new TensorBuffer(api, memoryInfo, "int64", numSlots);
    this.#temperatures = new TensorBuffer(api, memoryInfo, "float32", numSlots);
    this.#hidden = new TensorBuffer(api, memoryInfo, "float32", numSlots * this.#hiddenSize);
    this.#logits = new TensorBuffer(api, memoryInfo, "float32", numSlots * this.#vocabSize);
    this.#topLogits = new TensorBuffer(api, memoryInfo, "float32", numSlots * this.#numCandidates);
    this.#topIds = new TensorBuffer(api, memoryInfo, "int64", numSlots * this.#numCandidates);
    this.#logSumExp = new TensorBuffer(api, memoryInfo, "float32", numSlots);
    this.#temperedLogSumExp = new TensorBuffer(api, memoryInfo, "float32", numSlots);
    this.#session = session;
    this.#arrays = { any: argumentArrays(manifest, "any"), one: argumentArrays(manifest, "one") };
  }

  /**
   * Copies the input and points the argument arrays at this run's tensors. No run may be in flight.
   */
  bind(input: RunInput): BoundRun {
    if (this.#bound === undefined || !isSameShape(this.#bound, input)) {
      this.#bound = undefined; // until every pointer is right
      this.#bound = this.#rebind(input);
    }
    const { args, tokenIds, logitRows, temperatures, logits, output } = this.#bound;
    // If a caller transferred our output to another thread, the run would write into freed memory.
    assert(logits.buffer.byteLength > 0, "the runner's output buffers were transferred away");
    writeInt64(tokenIds, input.tokenIds);
    const rows = graphRows(input);
    writeInt64(logitRows, rows.logitRows);
    temperatures.set(rows.temperatures);
    const { api } = this.#session;
    return { output, run: async (isShort) => (isShort ? api.runBlocking(args) : api.run(args)) };
  }

  release(): void {
    this.#bound = undefined;
    this.#states.release();
    this.#tokenIds.release();
    this.#lengths.release();
    this.#logitRows.release();
    this.#temperatures.release();
    this.#hidden.release();
    this.#logits.release();
    this.#topLogits.release();
    this.#topIds.release();
    this.#logSumExp.release();
    this.#temperedLogSumExp.release();
  }

  #rebind(input: RunInput): Bound {
    const { firstSlot, lengths, logitRows, wantsHidden = false } = input;
    const numSequences = lengths.length;
    const numTokens = numTokensOf(input);
    const { session, steps } = this.#session.graphFor(isSingleStep(input));
    const arrays = this.#arrays[steps];
    const isRagged = this.#isRagged && steps === "any";
    const numRows = logitRows.length;
    const numGraphRows = Math.max(1, numRows); // see `graphRows`
    const states = this.#states.range(firstSlot, numSequences);
    const inputs = [
      [this.#tokenIds, isRagged ? [1, numTokens] : [numSequences, lengths[0]!]],
      [this.#logitRows, [numGraphRows]],
      [this.#temperatures, [numGraphRows]],
      ...(isRagged ? [[this.#lengths, [numSequences]] as const] : []),
    ] as const;
    const outputs = [
      [this.#hidden, [numGraphRows, this.#hiddenSize]],
      [this.#logits, [numGraphRows, this.#vocabSize]],
      [this.#topLogits, [numGraphRows, this.#numCandidates]],
      [this.#topIds, [numGraphRows, this.#numCandidates]],
      [this.#logSumExp, [numGraphRows]],
      [this.#temperedLogSumExp, [numGraphRows]],
    ] as const;
    setPointers(arrays.inputs, [...inputs.map(([buffer, shape]) => buffer.value(shape)), ...states]);
    // In place: each `present` is its `past`.
    setPointers(arrays.outputs, [...outputs.map(([buffer, shape]) => buffer.value(shape)), ...states]);
    const logits = this.#logits.view(numRows * this.#vocabSize);
    if (isRagged) writeInt64(this.#lengths.view(numSequences), lengths);
    return {
      firstSlot,
      lengths: Array.from(lengths),
      numRows,
      wantsHidden,
      args: {
        session,
        runOptions: this.#session.runOptions,
        ...arrays,
        firstOutput: firstOutput({ numRows, wantsHidden }),
      },
      tokenIds: this.#tokenIds.view(numTokens),
      logitRows: this.#logitRows.view(numGraphRows),
      temperatures: this.#temperatures.view(numGraphRows),
      logits,
      output: toRunOutput(
        {
          numRows,
          hidden: wantsHidden ? this.#hidden.view(numRows * this.#hiddenSize) : undefined,
          logits,
          topLogits: this.#topLogits.view(numRows * this.#numCandidates),
          topIds: this.#topIds.view(numRows * this.#numCandidates),
          logSumExp: this.#logSumExp.view(numRows),
          temperedLogSumExp: this.#temperedLogSumExp.view(numRows),
        },
        this.#vocabSize,
      ),
    };
  }
}

export type ArgumentArrays = Pick<RunArguments, "inputNames" | "inputs" | "outputNames" | "outputs">;

export function argumentArrays(manifest: Manifest, steps: GraphSteps): ArgumentArrays {
  const { inputs, outputs } = graphNames(manifest, steps);
  return {
    inputNames: new NameArray(inputs),
    inputs: new PointerArray(inputs.length),
    outputNames: new NameArray(outputs),
    outputs: new PointerArray(outputs.length),
  };
}

export function setPointers(array: PointerArray, values: readonly Handle[]): void {
  for (const [index, value] of values.entries()) array.values[index] = value.address;
}
