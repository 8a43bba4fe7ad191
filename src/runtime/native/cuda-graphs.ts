/**
 * Decode steps as CUDA graphs: what a step of B sequences launches is captured once and replayed as a whole, which saves launching
 * some hundred kernels one by one. A replay reads and writes the addresses of its capture: so inputs and outputs have a place of
 * their own on the device, for each B, and are copied there and back. docs/gpu.md
 */
import type { Manifest } from "../../model/artifact.ts";
import type { Copy, CudaMemory } from "./cuda-memory.ts";
import type { CudaStates } from "./cuda-states.ts";
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

interface Captured {
  readonly args: RunArguments;
  readonly values: readonly Handle[];
  /** On the device: all small tensors, inputs first. */
  readonly address: bigint;
  readonly places: readonly bigint[];
}

/** Of each tensor on the device. */
const ALIGNMENT = 256;

export class CudaGraphs {
  readonly #session: NativeSession;
  readonly #states: CudaStates;
  readonly #values: StateValues;
  readonly #memory: CudaMemory;
  readonly #captured = new Map<number, Captured>();

  constructor(session: NativeSession, states: CudaStates, values: StateValues, memory: CudaMemory) {
    this.#session = session;
    this.#states = states;
    this.#values = values;
    this.#memory = memory;
  }

  /**
   * One step of slots 0 to B - 1, with a row of logits for each. `host` belongs to the caller: inputs are read, outputs written.
   * `args` are the same step's without a graph, for their names; `run` makes a run.
   */
  async run(
    numSequences: number,
    host: HostTensors,
    args: RunArguments,
    run: (args: RunArguments) => Promise<void>,
  ): Promise<void> {
    let captured = this.#captured.get(numSequences);
    if (captured === undefined) {
      captured = this.#prepare(numSequences, host, args);
      this.#captured.set(numSequences, captured);
      const first = captured;
      this.#memory.copy(toDevice(host, first));
      // NOTE: the run that captures makes the step several times over (to warm up, to capture, to replay), each in place.
      await this.#states.restoring(numSequences, () => run(first.args));
    }
    this.#memory.copy(toDevice(host, captured));
    await run(captured.args);
    this.#memory.copy(toHost(host, captured));
  }

  release(): void {
    const { api } = this.#session;
    for (const { values, args, address } of this.#captured.values()) {
      for (const value of values) api.release(value);
      api.release(args.runOptions);
      this.#memory.free(address);
    }
    this.#captured.clear();
  }

  #prepare(numSequences: number, { inputs, outputs }: HostTensors, args: RunArguments): Captured {
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
        runOptions: api.createRunOptions({ gpu_graph_id: String(numSequences) }),
        inputs: pointers([...values.slice(0, inputs.length), ...states]),
        outputs: pointers([...values.slice(inputs.length), ...states]),
        firstOutput: 0,
      },
    };
  }
}

/** Whether a step of this model may be a graph: all of it has to be on the device, and nothing of it a loop. */
export function mayCapture({ device, decodeGraph }: Pick<Manifest, "device" | "decodeGraph">): boolean {
  return device === "cuda" && decodeGraph !== undefined;
}

function toDevice({ inputs }: HostTensors, { places }: Captured): Copy[] {
  return inputs.map(({ data }, i) => ({ to: places[i]!, from: addressOf(data), numBytes: data.byteLength }));
}

function toHost({ inputs, outputs }: HostTensors, { places }: Captured): Copy[] {
  return outputs.map(({ data }, i) => ({
    to: addressOf(data),
    from: places[inputs.length + i]!,
    numBytes: data.byteLength,
  }));
}

function pointers(values: readonly Handle[]): PointerArray {
  const array = new PointerArray(values.length);
  for (const [index, value] of values.entries()) array.values[index] = value.address;
  return array;
}
