/**
 * Memory of a CUDA device through our own library (kernels/cuda/memory.cu): taken, cleared and copied between runs. Addresses are
 * those of the device; what they point at is not to be read here. Knows nothing of states.
 */
import type { LibraryHandle } from "koffi";
import { cudaCheck } from "./cuda-error.ts";

/** Between any two memories, the host's among them. */
export interface Copy {
  readonly to: bigint;
  readonly from: bigint;
  readonly numBytes: number;
}

/** Every call waits for the device. All @throws `runtime_fault` with CUDA's message. */
export interface CudaMemory {
  /** Zeros. To be freed with `free`. */
  allocate(numBytes: number): bigint;
  free(address: bigint): void;
  zero(address: bigint, numBytes: number): void;
  /** In their order. */
  copy(copies: readonly Copy[]): void;
}

/** @throws koffi's error if the library has no such functions. */
export function bindCudaMemory(library: LibraryHandle): CudaMemory {
  const allocate = library.func("densemamba_cuda_allocate", "int", ["size_t", "void *"]);
  const free = library.func("densemamba_cuda_free", "int", ["void *"]);
  const zero = library.func("densemamba_cuda_zero", "int", ["void *", "size_t"]);
  const copy = library.func("densemamba_cuda_copy", "int", ["void *", "size_t"]);
  const check = cudaCheck(library);
  return {
    allocate(numBytes) {
      const out = new BigUint64Array(1);
      check(`allocate ${numBytes} bytes of the device's memory`, allocate(numBytes, out));
      return out[0]!;
    },
    free: (address) => check("free memory", free(address)),
    zero: (address, numBytes) => check("clear memory", zero(address, numBytes)),
    copy: (copies) => check("copy memory", copy(copyFields(copies), copies.length)),
  };
}

/** `struct Copy` each. */
export function copyFields(copies: readonly Copy[]): BigUint64Array {
  return BigUint64Array.from(copies.flatMap(({ to, from, numBytes }) => [to, from, BigInt(numBytes)]));
}
