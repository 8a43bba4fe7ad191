/**
 * A CUDA stream: what is launched, copied, captured and replayed on it, in order, and the memory for
 * that. Addresses of a device's memory are not to be read here. Knows neither ONNX Runtime nor
 * states: what is captured is whatever someone launches on the stream.
 */
import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import koffi from "koffi";
import { DenseMambaError } from "../../errors.ts";
import { callEachQuietly } from "./call-each.ts";
import { isLasting } from "./cuda-error.ts";
import type { CudaRuntime } from "./cuda-runtime.ts";

/** A part of the device's memory. */
export interface Range {
  readonly address: bigint;
  readonly numBytes: number;
}

/** Between any two memories, the host's among them. */
export interface Copy {
  readonly to: bigint;
  readonly from: bigint;
  readonly numBytes: number;
}

/**
 * Memory of the host that a device reaches by itself. Gone with `freePinned`: nobody may look at
 * `data` after that.
 */
export interface Pinned {
  readonly address: bigint;
  readonly data: ArrayBuffer;
}

/* As CUDA numbers them. */
const NON_BLOCKING = 1;
const BY_ADDRESS = 4;
const THREAD_LOCAL = 1;
const NOT_READY = 600;
const DEVICE_MEMORY = 2;
const COPY_NODE = 1;
/**
 * Kernel, fill, nothing, and cuBLAS's memory for a product, which is taken and given back by nodes
 * of the graph; a copy between the right memories. ONNX Runtime releases memory by functions of the
 * host, once.
 */
const REPEATABLE_NODES = new Set([0, COPY_NODE, 2, 5, 10, 11]);
/** `struct cudaMemcpy3DParms`, in words, and where its addresses are. */
const COPY_WORDS = { all: 20, from: 4, to: 12 };
/** `struct cudaPointerAttributes`, which begins with the kind of memory; room for a longer one. */
const POINTER_INTS = 64;

/** How often a run's end is looked for in each turn of the event loop; after that, every ms. */
const NUM_EAGER_LOOKS = 1000;

/** All @throws `runtime_fault` with CUDA's message. */
export class CudaStream {
  /** CUDA's handle: for `user_compute_stream`. */
  readonly address: bigint;
  readonly runtime: CudaRuntime;
  /** Memory of the host that is taken here: address → bytes. */
  readonly #pinned = new Map<bigint, number>();

  constructor(runtime: CudaRuntime) {
    this.runtime = runtime;
    this.address = runtime.create("make a stream", "cudaStreamCreateWithFlags", NON_BLOCKING);
  }

  destroy(): void {
    this.runtime.call("destroy a stream", "cudaStreamDestroy", this.address);
  }

  /** Whether nothing more can be done on the device in this process. */
  isLost(): boolean {
    return isLasting(this.runtime.try("cudaStreamQuery", this.address));
  }

  /** Zeros of the device's, once the stream has come so far. To be freed with `free`. */
  allocate(numBytes: number): bigint {
    const address = this.runtime.create(`allocate ${numBytes} bytes of the device's memory`, "cudaMalloc", numBytes);
    try {
      this.zero([{ address, numBytes }]);
    } catch (error) {
      callEachQuietly([() => this.free(address)]);
      throw error;
    }
    return address;
  }

  /** Waits for the device. */
  free(address: bigint): void {
    this.runtime.call("free memory", "cudaFree", address);
  }

  allocatePinned(numBytes: number): Pinned {
    const address = this.runtime.create(`pin ${numBytes} bytes of the host's memory`, "cudaHostAlloc", numBytes, 0);
    this.#pinned.set(address, numBytes);
    return { address, data: koffi.view(address, numBytes) };
  }

  freePinned({ address }: Pinned): void {
    this.#pinned.delete(address);
    this.runtime.call("free pinned memory", "cudaFreeHost", address);
  }

  zero(ranges: readonly Range[]): void {
    for (const { address, numBytes } of ranges) {
      this.runtime.call("clear memory", "cudaMemsetAsync", address, 0, numBytes, this.address);
    }
  }

  /**
   * In their order, after what is on the stream. Returns before they are made, unless memory of
   * the host is not pinned.
   */
  copy(copies: readonly Copy[]): void {
    for (const { to, from, numBytes } of copies) {
      this.runtime.call("copy memory", "cudaMemcpyAsync", to, from, numBytes, BY_ADDRESS, this.address);
    }
  }

  /** Returns when they are made; when nothing is at work any more, if they cannot be. */
  copyBlocking(copies: readonly Copy[]): void {
    const wait = () => this.runtime.call("copy memory", "cudaStreamSynchronize", this.address);
    try {
      this.copy(copies);
    } catch (error) {
      callEachQuietly([wait]);
      throw error;
    }
    wait();
  }

  /**
   * Launches the graph, if there is one, then the copies. Returns when all that is on the stream is
   * done, whatever fails.
   */
  async finish(copies: readonly Copy[], graph?: bigint): Promise<void> {
    try {
      if (graph !== undefined) this.runtime.call("launch a step", "cudaGraphLaunch", graph, this.address);
      this.copy(copies);
    } catch (error) {
      await this.#wait().catch(() => undefined);
      throw error;
    }
    await this.#wait();
  }

  /**
   * What `launch` launches on the stream is recorded and not computed.
   * @returns a graph of it, to be destroyed
   * @throws as well what `launch` throws, and if there is something in the graph that may not be
   * repeated
   */
  capture(launch: () => void): bigint {
    const { runtime } = this;
    runtime.call("begin a capture", "cudaStreamBeginCapture", this.address, THREAD_LOCAL);
    const out = new BigUint64Array(1);
    const end = () => runtime.try("cudaStreamEndCapture", this.address, out);
    try {
      try {
        launch();
      } catch (error) {
        end();
        throw error;
      }
      runtime.check("capture a step", end());
      this.#assertRepeatable(out[0]!);
      return runtime.create("make a graph", "cudaGraphInstantiate", out[0]!, 0);
    } finally {
      if (out[0] !== 0n) runtime.try("cudaGraphDestroy", out[0]!);
    }
  }

  destroyGraph(graph: bigint): void {
    this.runtime.call("destroy a graph", "cudaGraphExecDestroy", graph);
  }

  /**
   * By looking, while the event loop goes on: CUDA's own waiting keeps a thread as busy, and would
   * have to be another, which takes a step's time to wake up and keeps a last error of its own.
   */
  async #wait(): Promise<void> {
    for (let numLooks = 1; ; numLooks++) {
      const error = this.runtime.try("cudaStreamQuery", this.address);
      if (error !== NOT_READY) return this.runtime.check("finish a step", error);
      await (numLooks < NUM_EAGER_LOOKS ? turn() : delay(1));
    }
  }

  #assertRepeatable(graph: bigint): void {
    const count = new BigUint64Array(1);
    const list = (nodes: bigint | BigUint64Array) =>
      this.runtime.call("list a graph's nodes", "cudaGraphGetNodes", graph, nodes, count);
    list(0n);
    const nodes = new BigUint64Array(Number(count[0]));
    if (nodes.length > 0) list(nodes);
    const type = new Int32Array(1);
    for (const node of nodes) {
      this.runtime.call("tell a node's type", "cudaGraphNodeGetType", node, type);
      if (!REPEATABLE_NODES.has(type[0]!)) throw unrepeatable(`it has a node of type ${type[0]}`);
      if (type[0] === COPY_NODE) this.#assertRepeatableCopy(node);
    }
  }

  #isPinned(address: bigint): boolean {
    return [...this.#pinned].some(([start, numBytes]) => address >= start && address < start + BigInt(numBytes));
  }

  /** What ONNX Runtime has in the host's memory for one run is something else in the next. */
  #assertRepeatableCopy(node: bigint): void {
    const words = new BigUint64Array(COPY_WORDS.all);
    this.runtime.call("tell what a node copies", "cudaGraphMemcpyNodeGetParams", node, words);
    for (const address of [words[COPY_WORDS.from]!, words[COPY_WORDS.to]!]) {
      if (this.#isPinned(address) || this.#isOnDevice(address)) continue;
      throw unrepeatable("ONNX Runtime copies from or to the host's memory in it");
    }
  }

  #isOnDevice(address: bigint): boolean {
    const attributes = new Int32Array(POINTER_INTS);
    this.runtime.call("tell where memory is", "cudaPointerGetAttributes", attributes, address);
    return attributes[0] === DEVICE_MEMORY;
  }
}

function unrepeatable(reason: string): DenseMambaError {
  return new DenseMambaError("runtime_fault", `CUDA cannot repeat a step: ${reason}`);
}
