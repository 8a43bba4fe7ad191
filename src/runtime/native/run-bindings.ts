/**
 * Everything one run reads and writes, as the argument arrays that the C API wants: our buffers, the values over them,
 * and which of them belong to a shape. Repeating the last shape costs nothing. Does not run anything.
 */
import { strict as assert } from "node:assert";
import { type Manifest, NUM_CANDIDATES } from "../../model/artifact.ts";
import { FIXED_OUTPUTS, type GraphSteps, graphNames } from "../graph-names.ts";
import { graphRows, isSingleStep, numTokensOf, writeInt64 } from "../run-input.ts";
import type { RunInput, RunOutput } from "../runner.ts";
import type { SlotStates } from "../slot-states.ts";
import type { HostTensors } from "./cuda-graphs.ts";
import type { CudaStates } from "./cuda-states.ts";
import type { NativeSession } from "./native-session.ts";
import type { Handle, RunArguments } from "./ort-api.ts";
import { NameArray, PointerArray } from "./pointer-array.ts";
import { StateValues, TensorBuffer } from "./tensor-values.ts";

/** What the arrays point at now, and the views of it. */
interface Bound {
  readonly firstSlot: number;
  readonly lengths: readonly number[];
  readonly args: RunArguments;
  readonly tokenIds: BigInt64Array;
  readonly logitRows: BigInt64Array;
  readonly temperatures: Float32Array;
  readonly output: RunOutput;
  /** What `output` and the inputs are views of. */
  readonly host: HostTensors;
}

export class RunBindings {
  readonly #session: NativeSession;
  readonly #arrays: Readonly<Record<GraphSteps, ArgumentArrays>>;
  readonly #takesLengths: boolean;
  readonly states: StateValues;
  readonly #vocabSize: number;
  readonly #numCandidates: number;
  readonly #tokenIds: TensorBuffer<"int64">;
  readonly #lengths: TensorBuffer<"int64">;
  readonly #logitRows: TensorBuffer<"int64">;
  readonly #temperatures: TensorBuffer<"float32">;
  readonly #logits: TensorBuffer<"float32">;
  readonly #topLogits: TensorBuffer<"float32">;
  readonly #topIds: TensorBuffer<"int64">;
  readonly #logSumExp: TensorBuffer<"float32">;
  readonly #temperedLogSumExp: TensorBuffer<"float32">;
  #bound: Bound | undefined;

  /** Reserves a row of output per slot, which is what decoding needs; a run that wants more makes the buffers grow. */
  constructor(session: NativeSession, manifest: Manifest, states: SlotStates | CudaStates) {
    const { api, memoryInfo, stateMemoryInfo } = session;
    const { numSlots } = states;
    this.#vocabSize = manifest.sizes.vocabSize;
    this.#numCandidates = Math.min(NUM_CANDIDATES, this.#vocabSize);
    this.states = new StateValues(api, stateMemoryInfo, states);
    this.#takesLengths = manifest.takesLengths ?? false;
    this.#tokenIds = new TensorBuffer(api, memoryInfo, "int64", numSlots);
    this.#lengths = new TensorBuffer(api, memoryInfo, "int64", numSlots);
    this.#logitRows = new TensorBuffer(api, memoryInfo, "int64", numSlots);
    this.#temperatures = new TensorBuffer(api, memoryInfo, "float32", numSlots);
    this.#logits = new TensorBuffer(api, memoryInfo, "float32", numSlots * this.#vocabSize);
    this.#topLogits = new TensorBuffer(api, memoryInfo, "float32", numSlots * this.#numCandidates);
    this.#topIds = new TensorBuffer(api, memoryInfo, "int64", numSlots * this.#numCandidates);
    this.#logSumExp = new TensorBuffer(api, memoryInfo, "float32", numSlots);
    this.#temperedLogSumExp = new TensorBuffer(api, memoryInfo, "float32", numSlots);
    this.#session = session;
    this.#arrays = { any: argumentArrays(manifest, "any"), one: argumentArrays(manifest, "one") };
  }

  /**
   * Copies the input in and points the argument arrays at what this run takes. No run may be in flight.
   * @returns what to run, and the views that it will fill, valid until the next `bind`.
   */
  bind(input: RunInput): Pick<Bound, "args" | "output" | "host"> {
    if (this.#bound === undefined || !isSameShape(this.#bound, input)) {
      this.#bound = undefined; // until every pointer is right
      this.#bound = this.#rebind(input);
    }
    const { args, tokenIds, logitRows, temperatures, output, host } = this.#bound;
    // A caller that transferred our output to another thread has freed what the run would write into.
    assert(output.logits.buffer.byteLength > 0, "the runner's output buffers were transferred away");
    writeInt64(tokenIds, input.tokenIds);
    const rows = graphRows(input);
    writeInt64(logitRows, rows.logitRows);
    temperatures.set(rows.temperatures);
    return { args, output, host };
  }

  release(): void {
    this.#bound = undefined;
    this.states.release();
    this.#tokenIds.release();
    this.#lengths.release();
    this.#logitRows.release();
    this.#temperatures.release();
    this.#logits.release();
    this.#topLogits.release();
    this.#topIds.release();
    this.#logSumExp.release();
    this.#temperedLogSumExp.release();
  }

  #rebind(input: RunInput): Bound {
    const { firstSlot, lengths, logitRows } = input;
    const numSequences = lengths.length;
    const numTokens = numTokensOf(input);
    const { session, steps } = this.#session.graphFor(isSingleStep(input));
    const arrays = this.#arrays[steps];
    const isRagged = this.#takesLengths && steps === "any";
    const numRows = logitRows.length;
    const numGraphRows = Math.max(1, numRows); // see `graphRows`
    const states = this.states.range(firstSlot, numSequences);
    const inputs = [
      [this.#tokenIds, isRagged ? [1, numTokens] : [numSequences, lengths[0]!]],
      [this.#logitRows, [numGraphRows]],
      [this.#temperatures, [numGraphRows]],
      ...(isRagged ? [[this.#lengths, [numSequences]] as const] : []),
    ] as const;
    const outputs = [
      [this.#logits, [numGraphRows, this.#vocabSize]],
      [this.#topLogits, [numGraphRows, this.#numCandidates]],
      [this.#topIds, [numGraphRows, this.#numCandidates]],
      [this.#logSumExp, [numGraphRows]],
      [this.#temperedLogSumExp, [numGraphRows]],
    ] as const;
    setPointers(arrays.inputs, [...inputs.map(([buffer, shape]) => buffer.value(shape)), ...states]);
    // In place: each `present` is its `past`.
    setPointers(arrays.outputs, [...outputs.map(([buffer, shape]) => buffer.value(shape)), ...states]);
    if (isRagged) writeInt64(this.#lengths.view(numSequences), lengths);
    return {
      firstSlot,
      lengths: Array.from(lengths),
      args: {
        session,
        runOptions: this.#session.runOptions,
        ...arrays,
        firstOutput: numRows === 0 ? FIXED_OUTPUTS.length : 0,
      },
      host: {
        inputs: inputs.map(([buffer, shape]) => buffer.tensor(shape)),
        outputs: outputs.map(([buffer, shape]) => buffer.tensor(shape)),
      },
      tokenIds: this.#tokenIds.view(numTokens),
      logitRows: this.#logitRows.view(numGraphRows),
      temperatures: this.#temperatures.view(numGraphRows),
      output: {
        numRows,
        logits: this.#logits.view(numRows * this.#vocabSize),
        topLogits: this.#topLogits.view(numRows * this.#numCandidates),
        topIds: this.#topIds.view(numRows * this.#numCandidates),
        logSumExp: this.#logSumExp.view(numRows),
        temperedLogSumExp: this.#temperedLogSumExp.view(numRows),
      },
    };
  }
}

function isSameShape(bound: Bound, input: RunInput): boolean {
  return (
    bound.firstSlot === input.firstSlot &&
    bound.output.numRows === input.logitRows.length &&
    bound.lengths.length === input.lengths.length &&
    bound.lengths.every((length, index) => length === input.lengths[index])
  );
}

type ArgumentArrays = Pick<RunArguments, "inputNames" | "inputs" | "outputNames" | "outputs">;

function argumentArrays(manifest: Manifest, steps: GraphSteps): ArgumentArrays {
  const { inputs, outputs } = graphNames(manifest, steps);
  return {
    inputNames: new NameArray(inputs),
    inputs: new PointerArray(inputs.length),
    outputNames: new NameArray(outputs),
    outputs: new PointerArray(outputs.length),
  };
}

function setPointers(array: PointerArray, values: readonly Handle[]): void {
  for (const [index, value] of values.entries()) array.values[index] = value.address;
}
