/**
 * Runs on a CUDA device, on one stream of ours. The small inputs and results have places on the
 * device and in pinned memory of the host, laid out alike, and cross the bus in one copy each way;
 * logits stay on the device but for the rows that are read whole. A run is waited for once.
 * docs/gpu.md
 *
 * Decode steps are captured as CUDA graphs, one for each number of sequences, and replayed, which
 * saves launching some hundred kernels one by one. Captured by us, and not by ONNX Runtime: it
 * keeps its graphs per thread, ours run on any of several, and it makes a step several times to
 * capture it.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../../errors.ts";
import { type Manifest, NUM_CANDIDATES } from "../../model/artifact.ts";
import { FIXED_OUTPUTS } from "../graph-names.ts";
import { graphRows, isSameShape, isSingleStep, numTokensOf, type RunShape, writeInt64 } from "../run-input.ts";
import { assertRow } from "../run-output.ts";
import type { RunInput, RunOutput } from "../runner.ts";
import { callEach, callEachQuietly } from "./call-each.ts";
import type { Copy, CudaMemory } from "./cuda-memory.ts";
import type { CudaStates } from "./cuda-states.ts";
import type { CudaStreams, Pinned } from "./cuda-stream.ts";
import { GrowingMemory } from "./growing-memory.ts";
import type { Device, NativeSession } from "./native-session.ts";
import type { ElementType, Handle, RunArguments } from "./ort-api.ts";
import { argumentArrays, type BoundRun, setPointers } from "./run-bindings.ts";
import { StateValues } from "./tensor-values.ts";

/** Of each tensor, on the device and in pinned memory. */
const ALIGNMENT = 256;
const ELEMENT_BYTES = { float32: 4, float16: 2, int64: 8 } as const satisfies Record<ElementType, number>;

/** Memory of the device and of the host, of one size. */
interface Mirrored {
  readonly device: bigint;
  readonly host: Pinned;
}

/** Where a run of one shape has its inputs and results. */
interface Places {
  readonly inputs: Copy;
  /** None where no logits are asked for. */
  readonly results: Copy | undefined;
  readonly tokenIds: BigInt64Array;
  readonly logitRows: BigInt64Array;
  readonly temperatures: Float32Array;
  readonly lengthsInput: BigInt64Array | undefined;
  /** [R, V] on the device. */
  readonly logits: bigint;
  readonly output: RunOutput;
}

interface Bound extends RunShape, Places {
  readonly args: RunArguments;
  /** Over the places; those over states are `StateValues`' own. */
  readonly values: readonly Handle[];
}

interface Captured extends Places {
  readonly graph: bigint;
}

export interface CudaRunsOptions {
  readonly session: NativeSession;
  readonly manifest: Manifest;
  readonly states: CudaStates;
  readonly device: Device;
  /** Told, once, why steps are not captured. */
  readonly note: (message: string) => void;
}

export class CudaRuns {
  readonly #session: NativeSession;
  readonly #manifest: Manifest;
  readonly #states: StateValues;
  readonly #memory: CudaMemory;
  readonly #streams: CudaStreams;
  readonly #stream: bigint;
  readonly #note: (message: string) => void;
  readonly #rowBytes: number;
  readonly #places: GrowingMemory<Mirrored>;
  /** On the device. */
  readonly #logits: GrowingMemory<bigint>;
  /**
   * Of the host: the last run's rows of logits, each at its place among all. Taken when the first
   * is read whole.
   */
  #wholeRows: GrowingMemory<Pinned> | undefined;
  /** Which of them are there. */
  readonly #fetched = new Set<number>();
  /** By the number of sequences. */
  readonly #captured = new Map<number, Captured>();
  /** Of the last run that was not captured. */
  #last: Bound | undefined;
  /** Of the last run. */
  #output: RunOutput | undefined;
  #capturesSteps: boolean;
  /** Of a row that could not be fetched, between runs: the next one fails of it. */
  #fault: unknown;

  /**
   * Reserves what a step of all slots needs.
   * @throws `runtime_fault` if there is no such memory.
   */
  constructor({ session, manifest, states, device, note }: CudaRunsOptions) {
    assert(device.streams !== undefined && device.stream !== undefined, "this device has no streams");
    this.#session = session;
    this.#manifest = manifest;
    this.#memory = device.memory;
    this.#streams = device.streams;
    this.#stream = device.stream;
    this.#note = note;
    this.#capturesSteps = session.capturesSteps;
    this.#states = new StateValues(session.api, session.stateMemoryInfo, states);
    this.#rowBytes = manifest.sizes.vocabSize * ELEMENT_BYTES.float32;
    const { numSlots } = states;
    const step = { numSequences: numSlots, numTokens: numSlots, numRows: numSlots, isRagged: false };
    this.#places = new GrowingMemory(layOut(manifest, step).numBytes, {
      take: (numBytes) => this.#takeMirrored(numBytes),
      giveBack: ({ device, host }) => callEach([() => this.#memory.free(device), () => this.#streams.freePinned(host)]),
    });
    try {
      this.#logits = new GrowingMemory(numSlots * this.#rowBytes, {
        take: (numBytes) => this.#memory.allocate(numBytes),
        giveBack: (address) => this.#memory.free(address),
      });
    } catch (error) {
      callEachQuietly([() => this.#places.release()]);
      throw error;
    }
  }

  /**
   * Reads the input. No run may be in flight.
   * @throws `runtime_fault` if the device has failed since the last one
   */
  bind(input: RunInput): BoundRun {
    if (this.#fault !== undefined) throw this.#fault;
    const captured = isWholeStep(input) ? this.#captured.get(input.lengths.length) : undefined;
    const places = captured ?? this.#bindUncaptured(input);
    writeInt64(places.tokenIds, input.tokenIds);
    const rows = graphRows(input);
    writeInt64(places.logitRows, rows.logitRows);
    places.temperatures.set(rows.temperatures);
    if (places.lengthsInput !== undefined) writeInt64(places.lengthsInput, input.lengths);
    this.#output = places.output;
    this.#fetched.clear();
    const wholeRows = Array.from(input.wholeRows ?? []);
    const copies = this.#rowCopies(places, wholeRows);
    return {
      output: places.output,
      run: async (isShort) => {
        if (captured === undefined) await this.#run(this.#last!, copies, isShort);
        else await this.#finish(captured.graph, copies, isShort);
        for (const row of wholeRows) this.#fetched.add(row);
      },
    };
  }

  release(): void {
    const graphs = [...this.#captured.values()].map(({ graph }) => graph);
    this.#captured.clear();
    this.#output = undefined;
    callEach([
      ...graphs.map((graph) => () => this.#streams.destroyGraph(graph)),
      () => this.#forgetLast(),
      () => this.#states.release(),
      () => this.#wholeRows?.release(),
      () => this.#logits.release(),
      () => this.#places.release(),
    ]);
  }

  /**
   * By the first step of each number of sequences ONNX Runtime has the memory, and CUDA the
   * kernels, that a capture may not ask for.
   */
  async #run(bound: Bound, rowCopies: readonly Copy[], isShort: boolean): Promise<void> {
    const { api } = this.#session;
    try {
      this.#memory.copy([bound.inputs]);
      await (isShort ? api.runBlocking(bound.args) : api.run(bound.args));
    } catch (error) {
      // What was launched may still write into memory that is about to be used again, or given
      // back.
      await this.#finish(undefined, [], isShort).catch(() => undefined);
      throw error;
    }
    await this.#finish(undefined, bound.results ? [bound.results, ...rowCopies] : [], isShort);
    if (this.#capturesSteps && isWholeStep(bound) && !this.#session.isCutShort) this.#record(bound);
  }

  async #finish(graph: bigint | undefined, copies: readonly Copy[], isShort: boolean): Promise<void> {
    const work = { stream: this.#stream, graph, copies };
    if (isShort) this.#streams.finishBlocking(work);
    else await this.#streams.finish(work);
  }

  /**
   * Launches the step once more, which computes nothing: states stay as they are. On this thread,
   * for a few milliseconds.
   */
  #record(bound: Bound): void {
    const streams = this.#streams;
    try {
      streams.begin(this.#stream);
      try {
        this.#memory.copy([bound.inputs]);
        this.#session.api.runBlocking(bound.args);
        this.#memory.copy([bound.results!]);
      } catch (error) {
        streams.abandon(this.#stream);
        throw error;
      }
      this.#captured.set(bound.lengths.length, { ...bound, graph: streams.end(this.#stream) });
    } catch (error) {
      if (!(error instanceof DenseMambaError)) throw error;
      this.#capturesSteps = false;
      this.#note(`steps are not captured as CUDA graphs: ${error.message}`);
    }
  }

  #bindUncaptured(input: RunInput): Bound {
    if (this.#last === undefined || !isSameShape(this.#last, input)) {
      this.#forgetLast(); // its places may move
      this.#last = this.#place(input);
    }
    return this.#last;
  }

  #forgetLast(): void {
    const values = this.#last?.values ?? [];
    this.#last = undefined;
    for (const value of values) this.#session.api.release(value);
  }

  #place(input: RunInput): Bound {
    const { firstSlot, lengths } = input;
    const numRows = input.logitRows.length;
    const numGraphRows = Math.max(1, numRows); // see `graphRows`
    const { session, steps } = this.#session.graphFor(isSingleStep(input));
    const isRagged = steps === "any" && (this.#manifest.ragged ?? false);
    const sizes = { numSequences: lengths.length, numTokens: numTokensOf(input), numRows: numGraphRows, isRagged };
    const { inputs, results, inputBytes, numBytes } = layOut(this.#manifest, sizes);
    const { device, host } = this.#places.at(numBytes);
    const logits = this.#logits.at(numGraphRows * this.#rowBytes);

    const arrays = argumentArrays(this.#manifest, steps);
    const values: Handle[] = [];
    const value = (address: bigint, { type, shape }: TensorShape): Handle => {
      const place = { address, numBytes: bytesOf({ type, shape }) };
      const handle = this.#session.api.createTensorAt(this.#session.stateMemoryInfo, type, place, shape);
      values.push(handle);
      return handle;
    };
    const placed = (tensor: Placed) => value(device + BigInt(tensor.offset), tensor);
    const logitsShape = { type: "float32", shape: [numGraphRows, this.#manifest.sizes.vocabSize] } as const;
    try {
      const states = this.#states.range(firstSlot, lengths.length);
      setPointers(arrays.inputs, [...inputs.map(placed), ...states]);
      // In place: each `present` is its `past`.
      setPointers(arrays.outputs, [value(logits, logitsShape), ...results.map(placed), ...states]);
    } catch (error) {
      for (const handle of values) this.#session.api.release(handle);
      throw error;
    }
    const longs = ({ offset, shape }: Placed) => new BigInt64Array(host.data, offset, product(shape));
    const floats = ({ offset, shape }: Placed) => new Float32Array(host.data, offset, product(shape));
    const [tokenIds, logitRows, temperatures, lengthsInput] = inputs as [Placed, Placed, Placed, Placed?];
    const [topLogits, topIds, logSumExp, temperedLogSumExp] = results as [Placed, Placed, Placed, Placed];
    const places: Places = {
      inputs: { to: device, from: host.address, numBytes: inputBytes },
      results:
        numRows === 0
          ? undefined
          : {
              to: host.address + BigInt(inputBytes),
              from: device + BigInt(inputBytes),
              numBytes: numBytes - inputBytes,
            },
      tokenIds: longs(tokenIds),
      logitRows: longs(logitRows),
      temperatures: floats(temperatures),
      lengthsInput: lengthsInput && longs(lengthsInput),
      logits,
      output: {
        numRows,
        vocabSize: this.#manifest.sizes.vocabSize,
        logitsOf: (row) => this.#logitsOf(places, row),
        topLogits: floats(topLogits).subarray(0, numRows * numCandidatesOf(this.#manifest)),
        topIds: longs(topIds).subarray(0, numRows * numCandidatesOf(this.#manifest)),
        logSumExp: floats(logSumExp).subarray(0, numRows),
        temperedLogSumExp: floats(temperedLogSumExp).subarray(0, numRows),
      },
    };
    const firstOutput = numRows === 0 ? FIXED_OUTPUTS.length : 0;
    const args = { session, runOptions: this.#session.runOptions, ...arrays, firstOutput };
    return { ...places, firstSlot, lengths: Array.from(lengths), numRows, args, values };
  }

  #takeMirrored(numBytes: number): Mirrored {
    const device = this.#memory.allocate(numBytes);
    try {
      return { device, host: this.#streams.allocatePinned(numBytes) };
    } catch (error) {
      callEachQuietly([() => this.#memory.free(device)]);
      throw error;
    }
  }

  /** One row of the last run. @throws `runtime_fault` */
  #logitsOf(places: Places, row: number): Float32Array {
    const { numRows, vocabSize } = places.output;
    assertRow(row, numRows);
    assert(places.output === this.#output, "logits are those of the last run");
    if (!this.#fetched.has(row)) {
      try {
        this.#streams.finishBlocking({ stream: this.#stream, copies: this.#rowCopies(places, [row]) });
      } catch (error) {
        this.#fault = error;
        throw error;
      }
      this.#fetched.add(row);
    }
    return new Float32Array(this.#hostRows(numRows).data, row * this.#rowBytes, vocabSize);
  }

  /** From the device; neighbours in one. */
  #rowCopies({ logits, output }: Places, rows: readonly number[]): Copy[] {
    if (rows.length === 0) return [];
    const { address } = this.#hostRows(output.numRows);
    const copies: Copy[] = [];
    for (let i = 0; i < rows.length; ) {
      const first = i;
      while (++i < rows.length && rows[i] === rows[i - 1]! + 1);
      const offset = BigInt(rows[first]! * this.#rowBytes);
      copies.push({ to: address + offset, from: logits + offset, numBytes: (i - first) * this.#rowBytes });
    }
    return copies;
  }

  #hostRows(numRows: number): Pinned {
    const numBytes = numRows * this.#rowBytes;
    this.#wholeRows ??= new GrowingMemory(numBytes, {
      take: (size) => this.#streams.allocatePinned(size),
      giveBack: (memory) => this.#streams.freePinned(memory),
    });
    return this.#wholeRows.at(numBytes);
  }
}

/**
 * A step of the first slots with a row of logits for each: what decoding makes again and again, in
 * few shapes.
 */
function isWholeStep(input: RunInput | RunShape): boolean {
  const numRows = "numRows" in input ? input.numRows : input.logitRows.length;
  return input.firstSlot === 0 && isSingleStep(input) && numRows === input.lengths.length;
}

interface TensorShape {
  readonly type: ElementType;
  readonly shape: readonly number[];
}

interface Placed extends TensorShape {
  readonly offset: number;
}

/** The small tensors of a run, inputs first, in the order of the graph's names. */
function layOut(
  manifest: Manifest,
  sizes: {
    readonly numSequences: number;
    readonly numTokens: number;
    readonly numRows: number;
    readonly isRagged: boolean;
  },
): { inputs: Placed[]; results: Placed[]; inputBytes: number; numBytes: number } {
  const { numSequences, numTokens, numRows, isRagged } = sizes;
  let end = 0;
  const place = (type: ElementType, shape: readonly number[]): Placed => {
    const offset = end;
    end += Math.ceil(bytesOf({ type, shape }) / ALIGNMENT) * ALIGNMENT;
    return { type, shape, offset };
  };
  const inputs = [
    place("int64", isRagged ? [1, numTokens] : [numSequences, numTokens / numSequences]),
    place("int64", [numRows]),
    place("float32", [numRows]),
    ...(isRagged ? [place("int64", [numSequences])] : []),
  ];
  const inputBytes = end;
  const numCandidates = numCandidatesOf(manifest);
  const results = [
    place("float32", [numRows, numCandidates]),
    place("int64", [numRows, numCandidates]),
    place("float32", [numRows]),
    place("float32", [numRows]),
  ];
  return { inputs, results, inputBytes, numBytes: end };
}

function numCandidatesOf({ sizes }: Manifest): number {
  return Math.min(NUM_CANDIDATES, sizes.vocabSize);
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function bytesOf({ type, shape }: TensorShape): number {
  return product(shape) * ELEMENT_BYTES[type];
}
