/**
 * Runs on a CUDA device, on one stream of ours. Inputs and results cross the bus in one copy each
 * way (cuda-places.ts); logits stay on the device but for the rows that are read whole. A run is
 * waited for once. docs/gpu.md
 *
 * Decode steps are captured as CUDA graphs, one for each number of sequences, and replayed, which
 * saves launching some hundred kernels one by one. Captured by us, and not by ONNX Runtime: it
 * keeps its graphs per thread, ours run on any of several, and it makes a step several times to
 * capture it.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../../errors.ts";
import type { Manifest } from "../../model/artifact.ts";
import { firstOutput } from "../graph-names.ts";
import { isSameShape, isSingleStep, type RunShape } from "../run-input.ts";
import { assertRow, hiddenRow } from "../run-output.ts";
import type { RunInput, RunOutput } from "../runner.ts";
import { callEach, callEachQuietly } from "./call-each.ts";
import { bytesOf, type Mirrored, Places, placesBytes, sizesOf, type Tensor } from "./cuda-places.ts";
import type { CudaStates } from "./cuda-states.ts";
import type { Copy, CudaStream, Pinned } from "./cuda-stream.ts";
import { GrowingMemory, type MemorySource } from "./growing-memory.ts";
import type { Device, NativeSession } from "./native-session.ts";
import type { Handle, RunArguments } from "./ort-api.ts";
import { argumentArrays, type BoundRun, setPointers } from "./run-bindings.ts";
import { StateValues } from "./tensor-values.ts";

/** A run of one shape. */
interface Bound extends RunShape {
  readonly places: Places;
  /** [R, V] on the device. */
  readonly logits: bigint;
  /** [R, D], if the run wants them. */
  readonly hidden: Mirrored | undefined;
  readonly output: RunOutput;
  readonly args: RunArguments;
  /** Over the places; those over states are `StateValues`' own. */
  readonly values: readonly Handle[];
}

interface Captured extends Pick<Bound, "places" | "logits" | "output"> {
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
  readonly #stream: CudaStream;
  readonly #memoryInfo: Handle;
  readonly #states: StateValues;
  readonly #note: (message: string) => void;
  readonly #rowBytes: number;
  readonly #hiddenBytes: number;
  readonly #places: GrowingMemory<Mirrored>;
  /** On the device. */
  readonly #logits: GrowingMemory<bigint>;
  /** Of rows. Taken when a run first wants them. */
  #hidden: GrowingMemory<Mirrored> | undefined;
  /**
   * Of the host: the last run's rows of logits, each at its place among all. Taken when the first
   * is read whole.
   */
  #wholeRows: GrowingMemory<Pinned> | undefined;
  /** Which of them are there. */
  readonly #fetched = new Set<number>();
  /** By the number of sequences. */
  readonly #captured = new Map<number, Captured>();
  /** The last run that was not captured. */
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
    const { stream, memoryInfo, capturesSteps } = device;
    const { numSlots } = states;
    this.#session = session;
    this.#manifest = manifest;
    this.#stream = stream;
    this.#memoryInfo = memoryInfo;
    this.#states = new StateValues(session.api, memoryInfo, states);
    this.#note = note;
    this.#rowBytes = bytesOf({ type: "float32", shape: [manifest.sizes.vocabSize] });
    this.#hiddenBytes = bytesOf({ type: "float32", shape: [manifest.sizes.hiddenSize] });
    this.#capturesSteps = capturesSteps;
    const step = { numSequences: numSlots, numTokens: numSlots, numRows: numSlots, isRagged: false };
    this.#places = new GrowingMemory(placesBytes(manifest, step), mirroredMemory(stream));
    try {
      this.#logits = new GrowingMemory(numSlots * this.#rowBytes, {
        take: (numBytes) => stream.allocate(numBytes),
        giveBack: (address) => stream.free(address),
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
    const bound = captured ?? this.#bindUncaptured(input);
    bound.places.write(input);
    this.#output = bound.output;
    this.#fetched.clear();
    const wholeRows = Array.from(input.wholeRows ?? []);
    const copies = this.#rowCopies(bound, wholeRows);
    return {
      output: bound.output,
      run: async (isShort) => {
        if (captured === undefined) await this.#run(this.#last!, copies, isShort);
        else await this.#stream.finish(copies, captured.graph);
        for (const row of wholeRows) this.#fetched.add(row);
      },
    };
  }

  release(): void {
    const graphs = [...this.#captured.values()].map(({ graph }) => graph);
    this.#captured.clear();
    this.#output = undefined;
    callEach([
      ...graphs.map((graph) => () => this.#stream.destroyGraph(graph)),
      () => this.#forgetLast(),
      () => this.#states.release(),
      () => this.#wholeRows?.release(),
      () => this.#hidden?.release(),
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
    const { places, args, numRows, hidden } = bound;
    try {
      this.#stream.copy([places.inputCopy]);
      await (isShort ? api.runBlocking(args) : api.run(args));
    } catch (error) {
      // What was launched may still write into memory that is about to be used again, or given
      // back.
      await this.#stream.finish([]).catch(() => undefined);
      throw error;
    }
    const hiddenCopies = hidden ? [toHost(hidden, numRows * this.#hiddenBytes)] : [];
    await this.#stream.finish(numRows > 0 ? [places.resultCopy, ...hiddenCopies, ...rowCopies] : []);
    if (this.#capturesSteps && isWholeStep(bound) && !this.#session.isCutShort) this.#capture(bound);
  }

  /**
   * Launches the step once more, which computes nothing: states stay as they are. On this thread,
   * for a few milliseconds.
   */
  #capture({ lengths, places, logits, output, args }: Bound): void {
    try {
      const graph = this.#stream.capture(() => {
        this.#stream.copy([places.inputCopy]);
        this.#session.api.runBlocking(args);
        this.#stream.copy([places.resultCopy]);
      });
      this.#captured.set(lengths.length, { places, logits, output, graph });
    } catch (error) {
      if (!(error instanceof DenseMambaError)) throw error;
      this.#capturesSteps = false;
      this.#note(`steps are not captured as CUDA graphs: ${error.message}`);
    }
  }

  #bindUncaptured(input: RunInput): Bound {
    if (this.#last === undefined || !isSameShape(this.#last, input)) {
      this.#forgetLast(); // its places may move
      this.#last = this.#bindAnew(input);
    }
    return this.#last;
  }

  #forgetLast(): void {
    const values = this.#last?.values ?? [];
    this.#last = undefined;
    for (const value of values) this.#session.api.release(value);
  }

  #bindAnew(input: RunInput): Bound {
    const { firstSlot, lengths, wantsHidden = false } = input;
    const numRows = input.logitRows.length;
    const { vocabSize, hiddenSize } = this.#manifest.sizes;
    const { session, steps } = this.#session.graphFor(isSingleStep(input));
    const sizes = sizesOf(input, steps === "any" && (this.#manifest.ragged ?? false));
    const places = new Places(this.#manifest, sizes, this.#places.at(placesBytes(this.#manifest, sizes)));
    const logits = this.#logits.at(sizes.numRows * this.#rowBytes);
    const hidden = wantsHidden ? this.#hiddenOf(sizes.numRows) : undefined;

    const arrays = argumentArrays(this.#manifest, steps);
    const values: Handle[] = [];
    const value = (tensor: Tensor & { readonly address: bigint }): Handle => {
      const place = { address: tensor.address, numBytes: bytesOf(tensor) };
      values.push(this.#session.api.createTensorAt(this.#memoryInfo, tensor.type, place, tensor.shape));
      return values.at(-1)!;
    };
    try {
      const states = this.#states.range(firstSlot, lengths.length);
      setPointers(arrays.inputs, [...places.inputs.map(value), ...states]);
      const allLogits = value({ type: "float32", shape: [sizes.numRows, vocabSize], address: logits });
      const allHidden =
        hidden && value({ type: "float32", shape: [sizes.numRows, hiddenSize], address: hidden.device });
      // In place: each `present` is its `past`. Without hidden states the first is not read.
      setPointers(arrays.outputs, [allHidden ?? allLogits, allLogits, ...places.results.map(value), ...states]);
    } catch (error) {
      for (const handle of values) this.#session.api.release(handle);
      throw error;
    }
    const numCandidates = (numRows * places.topIds.length) / sizes.numRows;
    const output: RunOutput = {
      numRows,
      vocabSize,
      logitsOf: (row) => this.#logitsOf({ output, logits }, row),
      hiddenOf: (row) => hiddenRow(hidden && new Float32Array(hidden.host.data, 0, numRows * hiddenSize), row, numRows),
      topLogits: places.topLogits.subarray(0, numCandidates),
      topIds: places.topIds.subarray(0, numCandidates),
      logSumExp: places.logSumExp.subarray(0, numRows),
      temperedLogSumExp: places.temperedLogSumExp.subarray(0, numRows),
    };
    const args = {
      session,
      runOptions: this.#session.runOptions,
      ...arrays,
      firstOutput: firstOutput({ numRows, wantsHidden }),
    };
    const shape = { firstSlot, lengths: Array.from(lengths), numRows, wantsHidden };
    return { ...shape, places, logits, hidden, output, args, values };
  }

  /** One row of the last run. @throws `runtime_fault` */
  #logitsOf(bound: Pick<Bound, "output" | "logits">, row: number): Float32Array {
    const { numRows, vocabSize } = bound.output;
    assertRow(row, numRows);
    assert(bound.output === this.#output, "logits are those of the last run");
    if (!this.#fetched.has(row)) {
      try {
        this.#stream.copyBlocking(this.#rowCopies(bound, [row]));
      } catch (error) {
        this.#fault = error;
        throw error;
      }
      this.#fetched.add(row);
    }
    return new Float32Array(this.#hostRows(numRows).data, row * this.#rowBytes, vocabSize);
  }

  /** From the device; neighbours in one. */
  #rowCopies({ logits, output }: Pick<Bound, "output" | "logits">, rows: readonly number[]): Copy[] {
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

  #hiddenOf(numRows: number): Mirrored {
    const numBytes = numRows * this.#hiddenBytes;
    this.#hidden ??= new GrowingMemory(numBytes, mirroredMemory(this.#stream));
    return this.#hidden.at(numBytes);
  }

  #hostRows(numRows: number): Pinned {
    const numBytes = numRows * this.#rowBytes;
    this.#wholeRows ??= new GrowingMemory(numBytes, {
      take: (size) => this.#stream.allocatePinned(size),
      giveBack: (memory) => this.#stream.freePinned(memory),
    });
    return this.#wholeRows.at(numBytes);
  }
}

function toHost({ device, host }: Mirrored, numBytes: number): Copy {
  return { to: host.address, from: device, numBytes };
}

function mirroredMemory(stream: CudaStream): MemorySource<Mirrored> {
  return {
    take: (numBytes) => takeMirrored(stream, numBytes),
    giveBack: ({ device, host }) => callEach([() => stream.free(device), () => stream.freePinned(host)]),
  };
}

function takeMirrored(stream: CudaStream, numBytes: number): Mirrored {
  const device = stream.allocate(numBytes);
  try {
    return { device, host: stream.allocatePinned(numBytes) };
  } catch (error) {
    callEachQuietly([() => stream.free(device)]);
    throw error;
  }
}

/**
 * A step of the first slots with a row of logits for each: what decoding makes again and again, in
 * few shapes.
 */
function isWholeStep(input: RunInput | RunShape): boolean {
  const numRows = "numRows" in input ? input.numRows : input.logitRows.length;
  return input.firstSlot === 0 && isSingleStep(input) && numRows === input.lengths.length && !input.wantsHidden;
}
