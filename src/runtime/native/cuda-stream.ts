/**
 * A CUDA stream, what is captured and replayed on it, and pinned memory of the host, through our
 * own library (kernels/cuda/graph.cu). Addresses are the library's handles. Knows nothing of ONNX
 * Runtime: what is captured is whatever someone launches on the stream.
 */
import koffi, { type LibraryHandle } from "koffi";
import { cudaCheck, explainCuda } from "./cuda-error.ts";
import { type Copy, copyFields } from "./cuda-memory.ts";

/**
 * What ends a step: the graph's launch, if there is one, then copies, then the wait for all that is
 * on the stream.
 */
export interface Finish {
  readonly stream: bigint;
  readonly graph?: bigint | undefined;
  readonly copies: readonly Copy[];
}

/**
 * Memory of the host that a device reaches by itself. Gone with `freePinned`: nobody may look at
 * `data` after that.
 */
export interface Pinned {
  readonly address: bigint;
  readonly data: ArrayBuffer;
}

/** All @throws `runtime_fault` with CUDA's message. */
export interface CudaStreams {
  /**
   * Why the device cannot run this library; undefined if it can, or if that cannot be told. Does
   * not throw.
   */
  findMissingCode(): string | undefined;
  createStream(): bigint;
  destroyStream(stream: bigint): void;
  /**
   * From here to `end`, on this thread, what is launched on the stream is recorded and not
   * computed.
   */
  begin(stream: bigint): void;
  /** The graph, to be destroyed. @throws as well if it holds what may not be repeated. */
  end(stream: bigint): bigint;
  /** Ends a capture that went wrong. */
  abandon(stream: bigint): void;
  /** Waits on a thread of libuv's pool. */
  finish(work: Finish): Promise<void>;
  finishBlocking(work: Finish): void;
  destroyGraph(graph: bigint): void;
  allocatePinned(numBytes: number): Pinned;
  freePinned(memory: Pinned): void;
}

/**
 * cudaErrorInvalidDeviceFunction, InvalidKernelImage, NoKernelImageForDevice, InvalidPtx and
 * UnsupportedPtxVersion: there is no machine code for the device, and no PTX that its driver can
 * translate.
 */
const NO_CODE = new Set([98, 200, 209, 218, 222]);

/** @throws koffi's error if the library has no such functions. */
export function bindCudaStreams(library: LibraryHandle): CudaStreams {
  const createStream = library.func("densemamba_cuda_stream_create", "int", ["void *"]);
  const destroyStream = library.func("densemamba_cuda_stream_destroy", "int", ["void *"]);
  const probe = library.func("densemamba_cuda_probe", "int", []);
  const begin = library.func("densemamba_cuda_capture_begin", "int", ["void *"]);
  const end = library.func("densemamba_cuda_capture_end", "int", ["void *", "int", "void *"]);
  const finish = library.func("densemamba_cuda_finish", "int", ["void *", "void *", "void *", "size_t"]);
  const destroyGraph = library.func("densemamba_cuda_graph_destroy", "int", ["void *"]);
  const allocatePinned = library.func("densemamba_cuda_pinned_allocate", "int", ["size_t", "void *"]);
  const freePinned = library.func("densemamba_cuda_pinned_free", "int", ["void *"]);
  const check = cudaCheck(library);
  const explain = explainCuda(library);
  /** koffi hands out their addresses and lets the garbage collector have them. */
  const inFlight = new Set<BigUint64Array>();
  const parameters = ({ stream, graph = 0n, copies }: Finish) =>
    [graph, stream, copyFields(copies), copies.length] as const;
  const created = (what: string, create: (out: BigUint64Array) => number): bigint => {
    const out = new BigUint64Array(1);
    check(what, create(out));
    return out[0]!;
  };
  return {
    findMissingCode() {
      const error = probe();
      return NO_CODE.has(error) ? explain(error) : undefined;
    },
    createStream: () => created("make a stream", createStream),
    destroyStream: (stream) => check("destroy a stream", destroyStream(stream)),
    begin: (stream) => check("begin a capture", begin(stream)),
    end: (stream) => created("make a graph", (out) => end(stream, 1, out)),
    abandon: (stream) => void end(stream, 0, new BigUint64Array(1)),
    finish: (work) =>
      new Promise((resolve, reject) => {
        const [graph, stream, fields, length] = parameters(work);
        inFlight.add(fields);
        finish.async(graph, stream, fields, length, (error: Error | null, result: number) => {
          inFlight.delete(fields);
          try {
            if (error !== null) throw error;
            check("finish a step", result);
            resolve();
          } catch (failure) {
            reject(failure);
          }
        });
      }),
    finishBlocking: (work) => check("finish a step", finish(...parameters(work))),
    destroyGraph: (graph) => check("destroy a graph", destroyGraph(graph)),
    allocatePinned(numBytes) {
      const address = created(`pin ${numBytes} bytes of the host's memory`, (out) => allocatePinned(numBytes, out));
      return { address, data: koffi.view(address, numBytes) };
    },
    freePinned: ({ address }) => check("free pinned memory", freePinned(address)),
  };
}
