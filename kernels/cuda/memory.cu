/**
 * Memory of the device, for the program that keeps states there: taken, filled and copied between runs. Nothing of ONNX Runtime.
 * Every function waits for the whole device, before and after: runs compute on streams of their own.
 */
#include "device.h"

#define DM_EXPORT extern "C" __attribute__((visibility("default")))

/** A part of memory to be copied, of the host or of the device either of them. As src/runtime/native/cuda-memory.ts writes it. */
struct Copy {
  void *to;
  const void *from;
  size_t numBytes;
};

static cudaError_t first_failure(cudaError_t first, cudaError_t second) { return dm_taken(first != cudaSuccess ? first : second); }

/** Zeros. `@returns` 0, or what `densemamba_cuda_error` explains; likewise the others. */
DM_EXPORT int densemamba_cuda_allocate(size_t numBytes, void **out) {
  cudaError_t error = cudaMalloc(out, numBytes);
  if (error != cudaSuccess) return dm_taken(error);
  error = first_failure(cudaMemset(*out, 0, numBytes), cudaDeviceSynchronize());
  if (error != cudaSuccess) dm_taken(cudaFree(*out));
  return error;
}

DM_EXPORT int densemamba_cuda_free(void *data) { return dm_taken(cudaFree(data)); }

DM_EXPORT int densemamba_cuda_zero(void *data, size_t numBytes) {
  const cudaError_t error = first_failure(cudaDeviceSynchronize(), cudaMemset(data, 0, numBytes));
  return first_failure(error, cudaDeviceSynchronize());
}

/** In their order. */
DM_EXPORT int densemamba_cuda_copy(const Copy *copies, size_t numCopies) {
  cudaError_t error = cudaDeviceSynchronize();
  for (size_t i = 0; i < numCopies && error == cudaSuccess; i++) {
    error = cudaMemcpyAsync(copies[i].to, copies[i].from, copies[i].numBytes, cudaMemcpyDefault, 0);
  }
  return first_failure(error, cudaDeviceSynchronize());
}

DM_EXPORT const char *densemamba_cuda_error(int error) { return cudaGetErrorString((cudaError_t)error); }
