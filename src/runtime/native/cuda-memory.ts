/**
 * Memory of a CUDA device through our own library (kernels/cuda/memory.cu): taken, cleared and
 * copied between runs, on the stream that they are launched on. Addresses are those of the device;
 * what they point at is not to be read here. Knows nothing of states.
 */
import type { LibraryHandle } from "koffi";
import { cudaCheck } from "./cuda-error.ts";

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

/** All @throws `runtime_fault` with CUDA's message. */
export interface CudaMemory {
  /** Zeros. To be freed with `free`. */
  allocate(numBytes: number): bigint;
  /** Waits for the device. */
  free(address: bigint): void;
  zero(ranges: readonly Range[]): void;
  /**
   * In their order, behind what is on the stream. Returns before they are made, unless memory of
   * the host is not pinned.
   */
  copy(copies: readonly Copy[]): void;
  /** Returns when they are made. */
  copyAndWait(copies: readonly Copy[]): void;
}

/**
 * @returns the memory as it is used on a stream; on 0 of an emulation, which has none
 * @throws koffi's error if the library has no such functions.
 */
export function bindCudaMemory(library: LibraryHandle): (stream: bigint) => CudaMemory {
  const allocate = library.func("densemamba_cuda_allocate", "int", ["size_t", "void *", "void *"]);
  const free = library.func("densemamba_cuda_free", "int", ["void *"]);
  const zero = library.func("densemamba_cuda_zero", "int", ["void *", "size_t", "void *"]);
  const copy = library.func("densemamba_cuda_copy", "int", ["void *", "size_t", "void *"]);
  const copyAndWait = library.func("densemamba_cuda_copy_and_wait", "int", ["void *", "size_t", "void *"]);
  const check = cudaCheck(library);
  return (stream) => ({
    allocate(numBytes) {
      const out = new BigUint64Array(1);
      check(`allocate ${numBytes} bytes of the device's memory`, allocate(numBytes, stream, out));
      return out[0]!;
    },
    free: (address) => check("free memory", free(address)),
    zero: (ranges) => check("clear memory", zero(rangeFields(ranges), ranges.length, stream)),
    copy: (copies) => check("copy memory", copy(copyFields(copies), copies.length, stream)),
    copyAndWait: (copies) => check("copy memory", copyAndWait(copyFields(copies), copies.length, stream)),
  });
}

/** `struct DmCopy` each. */
export function copyFields(copies: readonly Copy[]): BigUint64Array {
  return BigUint64Array.from(copies.flatMap(({ to, from, numBytes }) => [to, from, BigInt(numBytes)]));
}

/** `struct DmRange` each. */
function rangeFields(ranges: readonly Range[]): BigUint64Array {
  return BigUint64Array.from(ranges.flatMap(({ address, numBytes }) => [address, BigInt(numBytes)]));
}
