/**
 * CUDA's runtime, the library that ONNX Runtime's provider is linked with: its functions, and what
 * they say of a failure as errors. Takes no compiler. Knows neither ONNX Runtime nor states.
 */
import type { LibraryHandle } from "koffi";
import { DenseMambaError } from "../../errors.ts";
import { cudaFailure } from "./cuda-error.ts";
import { readNeeded } from "./elf.ts";
import { loadSharedLibrary } from "./shared-library.ts";

/** Function → its arguments; each gives a `cudaError_t`. They are the same in CUDA 12 and 13. */
const SIGNATURES = {
  cudaMalloc: ["void *", "size_t"],
  cudaFree: ["void *"],
  cudaHostAlloc: ["void *", "size_t", "uint"],
  cudaFreeHost: ["void *"],
  cudaPointerGetAttributes: ["void *", "void *"],
  cudaMemsetAsync: ["void *", "int", "size_t", "void *"],
  cudaMemcpyAsync: ["void *", "void *", "size_t", "int", "void *"],
  cudaStreamCreateWithFlags: ["void *", "uint"],
  cudaStreamDestroy: ["void *"],
  cudaStreamQuery: ["void *"],
  cudaStreamSynchronize: ["void *"],
  cudaStreamBeginCapture: ["void *", "int"],
  cudaStreamEndCapture: ["void *", "void *"],
  cudaGraphGetNodes: ["void *", "void *", "void *"],
  cudaGraphNodeGetType: ["void *", "void *"],
  cudaGraphMemcpyNodeGetParams: ["void *", "void *"],
  cudaGraphInstantiate: ["void *", "void *", "uint64"],
  cudaGraphLaunch: ["void *", "void *"],
  cudaGraphDestroy: ["void *"],
  cudaGraphExecDestroy: ["void *"],
} as const satisfies Record<string, readonly string[]>;

type Name = keyof typeof SIGNATURES;
type Arguments = readonly (bigint | number | ArrayBufferView)[];

export class CudaRuntime {
  /** Held, or koffi unloads it. */
  readonly #library: LibraryHandle;
  readonly #functions: Readonly<Record<string, (...args: Arguments) => number>>;
  readonly #lastError: () => number;
  readonly #explain: (error: number) => string;

  /** @throws koffi's error if a function is missing */
  constructor(library: LibraryHandle) {
    this.#library = library;
    this.#functions = Object.fromEntries(
      Object.entries(SIGNATURES).map(([name, types]) => [name, this.#library.func(name, "int", [...types])]),
    );
    this.#lastError = this.#library.func("cudaGetLastError", "int", []);
    this.#explain = this.#library.func("cudaGetErrorString", "str", ["int"]);
  }

  /** @throws `runtime_fault`: `CUDA cannot <what>: <CUDA's message>` */
  call(what: string, name: Name, ...args: Arguments): void {
    this.check(what, this.try(name, ...args));
  }

  /** Calls a function that writes what it made to its first argument. @throws as `call` does */
  create(what: string, name: Name, ...args: Arguments): bigint {
    const out = new BigUint64Array(1);
    this.call(what, name, out, ...args);
    return out[0]!;
  }

  /** @returns 0, or CUDA's number of what went wrong */
  try(name: Name, ...args: Arguments): number {
    const error = this.#functions[name]!(...args);
    if (error !== 0) this.forgetLastError();
    return error;
  }

  /** @throws as `call` does, for an error other than 0 */
  check(what: string, error: number): void {
    if (error !== 0) throw cudaFailure(`CUDA cannot ${what}: ${this.#explain(error)} (error ${error})`, error);
  }

  /** Of this thread: or ONNX Runtime is told of it at its next launch. */
  forgetLastError(): void {
    this.#lastError();
  }
}

/** By their sonames; never emptied. */
const opened = new Map<string, CudaRuntime>();

/**
 * @param provider ONNX Runtime's CUDA provider, a file
 * @throws `device_unavailable` if its runtime does not load
 */
export async function openCudaRuntime(provider: string): Promise<CudaRuntime> {
  try {
    const soname = (await readNeeded(provider)).find((name) => name.startsWith("libcudart."));
    if (soname === undefined) throw new Error(`${provider} is not linked with it`);
    // The loader has one library of a soname: this is the provider's, whichever of us is first.
    const runtime = opened.get(soname) ?? new CudaRuntime(loadSharedLibrary(soname));
    opened.set(soname, runtime);
    return runtime;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DenseMambaError("device_unavailable", `CUDA's runtime cannot be loaded: ${reason}`, { cause });
  }
}
