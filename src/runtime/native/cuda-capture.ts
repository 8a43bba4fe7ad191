/**
 * CUDA streams and graphs through our own library (kernels/cuda/graph.cu). Addresses are the library's handles. Knows nothing of
 * ONNX Runtime: what is captured is whatever someone launches on the stream.
 */
import type { LibraryHandle } from "koffi";
import { DenseMambaError } from "../../errors.ts";
import { type Copy, copyFields } from "./cuda-memory.ts";

export interface Replay {
  readonly graph: bigint;
  readonly stream: bigint;
  /** Made on the stream before the graph, in their order; `after` behind it. */
  readonly before: readonly Copy[];
  readonly after: readonly Copy[];
}

/** All @throws `runtime_fault` with CUDA's message. */
export interface CudaCapture {
  createStream(): bigint;
  destroyStream(stream: bigint): void;
  /** From here to `end`, on this thread, what is launched on the stream is recorded and not computed. */
  begin(stream: bigint): void;
  /** The graph, to be destroyed. @throws as well if it holds what may not be repeated. */
  end(stream: bigint): bigint;
  /** Ends a capture that went wrong. */
  abandon(stream: bigint): void;
  /** Ends when all is done: one wait. `replay` does so on a thread of libuv's pool. */
  replay(replay: Replay): Promise<void>;
  replayBlocking(replay: Replay): void;
  destroyGraph(graph: bigint): void;
}

/** @throws koffi's error if the library has no such functions. */
export function bindCudaCapture(library: LibraryHandle): CudaCapture {
  const createStream = library.func("densemamba_cuda_stream_create", "int", ["void *"]);
  const destroyStream = library.func("densemamba_cuda_stream_destroy", "int", ["void *"]);
  const begin = library.func("densemamba_cuda_capture_begin", "int", ["void *"]);
  const end = library.func("densemamba_cuda_capture_end", "int", ["void *", "int", "void *"]);
  const replay = library.func("densemamba_cuda_replay", "int", ["void *", "void *", "void *", "size_t", "size_t"]);
  const destroyGraph = library.func("densemamba_cuda_graph_destroy", "int", ["void *"]);
  const explain = library.func("densemamba_cuda_error", "str", ["int"]);
  const check = (what: string, error: number): void => {
    if (error !== 0) throw new DenseMambaError("runtime_fault", `CUDA cannot ${what}: ${explain(error)}`);
  };
  const parameters = ({ graph, stream, before, after }: Replay) =>
    [graph, stream, copyFields([...before, ...after]), before.length, after.length] as const;
  return {
    createStream() {
      const out = new BigUint64Array(1);
      check("make a stream", createStream(out));
      return out[0]!;
    },
    destroyStream: (stream) => check("destroy a stream", destroyStream(stream)),
    begin: (stream) => check("begin a capture", begin(stream)),
    end(stream) {
      const out = new BigUint64Array(1);
      check("make a graph", end(stream, 1, out));
      return out[0]!;
    },
    abandon: (stream) => void end(stream, 0, new BigUint64Array(1)),
    replay: (step) =>
      new Promise((resolve, reject) => {
        replay.async(...parameters(step), (error: Error | null, result: number) => {
          try {
            if (error !== null) throw error;
            check("replay a step", result);
            resolve();
          } catch (failure) {
            reject(failure);
          }
        });
      }),
    replayBlocking: (step) => check("replay a step", replay(...parameters(step))),
    destroyGraph: (graph) => check("destroy a graph", destroyGraph(graph)),
  };
}
