/**
 * Decode steps as CUDA graphs: what a step of B sequences launches is captured once and replayed as a whole, which saves launching
 * some hundred kernels one by one. A replay reads and writes the addresses of its capture: so inputs and outputs have a place of
 * their own on the device, for each B, and are copied there and back. docs/gpu.md
 *
 * Captured on a stream of ours that all runs of the session use, and not by ONNX Runtime: it keeps its graphs per thread, ours run on
 * any of several, and it makes a step several times to capture it.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../../errors.ts";
import { callEach } from "./call-each.ts";
import type { CudaCapture, Replay } from "./cuda-capture.ts";
import type { Copy, CudaMemory } from "./cuda-memory.ts";
import type { NativeSession } from "./native-session.ts";
import type { Handle, RunArguments } from "./ort-api.ts";
import { addressOf } from "./ort-table.ts";
import { PointerArray } from "./pointer-array.ts";
import type { HostTensor, StateValues } from "./tensor-values.ts";

/** A step's small tensors in host memory, in the order of the graph's fixed names. Their shapes depend on B alone. */
export interface HostTensors {
  readonly inputs: readonly HostTensor[];
  readonly outputs: readonly HostTensor[];
}

interface Places {
  readonly args: RunArguments;
  readonly values: readonly Handle[];
  /** On the device: all small tensors, inputs first. */
  readonly address: bigint;
  readonly places: readonly bigint[];
}

interface Captured extends Places {
  readonly graph: bigint;
}

/** Of each tensor on the device. */
const ALIGNMENT = 256;
/** Of the run that is captured: nothing may be waited for in it. */
const NO_WAIT = { disable_synchronize_execution_providers: "1" };

export class CudaGraphs {
  readonly #session: NativeSession;
  readonly #values: StateValues;
  readonly #memory: CudaMemory;
  readonly #capture: CudaCapture;
  readonly #stream: bigint;
  readonly #runOptions: Handle;
  readonly #note: (message: string) => void;
  readonly #captured = new Map<number, Captured>();
  #isRefused = false;

  /** `note` is told, once, why steps are not captured. */
  constructor(
    session: NativeSession,
    values: StateValues,
    { memory, capture, stream }: NonNullable<NativeSession["device"]>,
    note: (message: string) => void,
  ) {
    assert(capture !== undefined && stream !== undefined, "this device has no streams");
    this.#session = session;
    this.#values = values;
    this.#memory = memory;
    this.#capture = capture;
    this.#stream = stream;
    this.#runOptions = session.api.createRunOptions(NO_WAIT);
    this.#note = note;
  }

  /**
   * One step of slots 0 to B - 1, with a row of logits for each. `host` belongs to the caller: inputs are read, outputs written.
   * `args` are the same step's without a graph; `run` makes a run. The first step of each B is made so, and then captured:
   * by it ONNX Runtime has the memory, and CUDA the kernels, that a capture may not ask for.
   */
  async run(
    numSequences: number,
    host: HostTensors,
    args: RunArguments,
    { run, isShort }: { readonly run: (args: RunArguments) => Promise<void>; readonly isShort: boolean },
  ): Promise<void> {
    const captured = this.#captured.get(numSequences);
    if (captured === undefined) {
      await run(args);
      if (!this.#isRefused) this.#record(numSequences, host, args);
      return;
    }
    const step = replayOf(captured, host, this.#stream);
    if (isShort) this.#capture.replayBlocking(step);
    else await this.#capture.replay(step);
  }

  release(): void {
    const captured = [...this.#captured.values()];
    this.#captured.clear();
    callEach([
      ...captured.flatMap(({ graph, ...places }) => [
        () => this.#capture.destroyGraph(graph),
        () => this.#releasePlaces(places),
      ]),
      () => this.#session.api.release(this.#runOptions),
    ]);
  }

  /** Launches a step, which computes nothing: states stay as they are. On this thread, for a few milliseconds. */
  #record(numSequences: number, host: HostTensors, args: RunArguments): void {
    const places = this.#place(numSequences, host, args);
    try {
      this.#capture.begin(this.#stream);
      try {
        this.#session.api.runBlocking(places.args);
      } catch (error) {
        this.#capture.abandon(this.#stream);
        throw error;
      }
      this.#captured.set(numSequences, { ...places, graph: this.#capture.end(this.#stream) });
    } catch (error) {
      this.#releasePlaces(places);
      if (!(error instanceof DenseMambaError)) throw error;
      this.#isRefused = true;
      this.#note(`steps are not captured as CUDA graphs: ${error.message}`);
    }
  }

  #releasePlaces({ values, address }: Places): void {
    for (const value of values) this.#session.api.release(value);
    this.#memory.free(address);
  }

  #place(numSequences: number, { inputs, outputs }: HostTensors, args: RunArguments): Places {
    const { api, stateMemoryInfo } = this.#session;
    const tensors = [...inputs, ...outputs];
    const sizes = tensors.map(({ data }) => Math.ceil(data.byteLength / ALIGNMENT) * ALIGNMENT);
    const address = this.#memory.allocate(sizes.reduce((sum, size) => sum + size, 0));
    let next = address;
    const places = sizes.map((size) => {
      const place = next;
      next += BigInt(size);
      return place;
    });
    const values = tensors.map(({ type, data, shape }, i) =>
      api.createTensorAt(stateMemoryInfo, type, { address: places[i]!, numBytes: data.byteLength }, shape),
    );
    const states = this.#values.create(0, numSequences);
    return {
      values: [...values, ...states],
      address,
      places,
      args: {
        ...args,
        runOptions: this.#runOptions,
        inputs: pointers([...values.slice(0, inputs.length), ...states]),
        outputs: pointers([...values.slice(inputs.length), ...states]),
        firstOutput: 0,
      },
    };
  }
}

function replayOf({ graph, places }: Captured, { inputs, outputs }: HostTensors, stream: bigint): Replay {
  const copy = ({ data }: HostTensor, i: number): Copy => ({
    to: places[i]!,
    from: addressOf(data),
    numBytes: data.byteLength,
  });
  const back = ({ to, from, numBytes }: Copy): Copy => ({ to: from, from: to, numBytes });
  return {
    graph,
    stream,
    before: inputs.map(copy),
    after: outputs.map((tensor, i) => back(copy(tensor, inputs.length + i))),
  };
}

function pointers(values: readonly Handle[]): PointerArray {
  const array = new PointerArray(values.length);
  for (const [index, value] of values.entries()) array.values[index] = value.address;
  return array;
}
