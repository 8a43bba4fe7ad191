/**
 * Memory of the device, for the program that keeps states there: taken, filled and copied between
 * runs. Nothing of ONNX Runtime. All of it happens on one stream, behind the runs that were
 * launched there before; only `copy_and_wait` waits.
 */
#include "device.h"

#define DM_EXPORT extern "C" __attribute__((visibility("default")))

/**
 * Zeros, once the stream has come so far. `@returns` 0, or what `densemamba_cuda_error` explains;
 * likewise the others.
 */
DM_EXPORT int densemamba_cuda_allocate(size_t numBytes, cudaStream_t stream, void **out) {
  cudaError_t error = cudaMalloc(out, numBytes);
  if (error != cudaSuccess) return dm_taken(error);
  error = dm_taken(cudaMemsetAsync(*out, 0, numBytes, stream));
  if (error != cudaSuccess) dm_taken(cudaFree(*out));
  return error;
}

DM_EXPORT int densemamba_cuda_free(void *data) { return dm_taken(cudaFree(data)); }

DM_EXPORT int densemamba_cuda_zero(const DmRange *ranges, size_t count, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  for (size_t i = 0; i < count && error == cudaSuccess; i++) {
    error = cudaMemsetAsync(ranges[i].data, 0, ranges[i].numBytes, stream);
  }
  return dm_taken(error);
}

/**
 * In their order. Nothing is waited for where the host's memory is pinned, or none of it takes
 * part.
 */
DM_EXPORT int densemamba_cuda_copy(const DmCopy *copies, size_t count, cudaStream_t stream) {
  return dm_taken(dm_copy_all(copies, count, stream));
}

DM_EXPORT int densemamba_cuda_copy_and_wait(const DmCopy *copies, size_t count, cudaStream_t stream) {
  const cudaError_t error = dm_copy_all(copies, count, stream);
  const cudaError_t last = cudaStreamSynchronize(stream); /* whatever went wrong: the host's memory is its own again */
  return dm_taken(error != cudaSuccess ? error : last);
}

DM_EXPORT const char *densemamba_cuda_error(int error) { return cudaGetErrorString((cudaError_t)error); }
