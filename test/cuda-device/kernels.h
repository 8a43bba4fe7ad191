/**
 * What our own .cu files use of CUDA, where they are compiled for the simulated device: included by
 * kernels/test/cuda_emulation.h. A launch goes to a stream and is computed, in emulation, when the
 * stream comes to it.
 */
#ifndef SIMULATED_KERNELS_H
#define SIMULATED_KERNELS_H

#include <stddef.h>

typedef struct SimulatedStream *cudaStream_t;
/** As CUDA numbers them. */
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorInvalidKernelImage = 200,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorInvalidPtx = 218,
  cudaErrorUnsupportedPtxVersion = 222,
};
struct cudaFuncAttributes {
  char fields[144];
};

extern "C" {
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel);
int simulated_cuda_use_runtime(int number);
int simulated_cuda_launch(void *stream, const char *name, void (*call)(void *), void *kernel, void (*destroy)(void *));
}

/**
 * Our library has CUDA's runtime linked in (src/runtime/native/cuda-build.ts), the provider is
 * linked with another: what one keeps for itself the other does not see. Streams, memory and graphs
 * are the driver's.
 */
template <typename Call>
static auto in_own_runtime(Call call) {
  const int before = simulated_cuda_use_runtime(1);
  const auto result = call();
  simulated_cuda_use_runtime(before);
  return result;
}

#define cudaGetLastError() in_own_runtime([] { return cudaGetLastError(); })
/** As CUDA's own header has it, of a kernel in place of an address. */
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, Kernel *kernel) {
  return in_own_runtime([&] { return cudaFuncGetAttributes(attributes, (const void *)kernel); });
}

namespace emulation {

template <typename Kernel>
void submit(const char *name, cudaStream_t stream, dim3 grid, dim3 size, const Kernel &kernel) {
  struct Launch {
    dim3 grid, size;
    Kernel kernel;
  };
  const auto call = [](void *data) {
    const auto *launched = static_cast<const Launch *>(data);
    launch(launched->grid, launched->size, launched->kernel);
  };
  const auto destroy = [](void *data) { delete static_cast<Launch *>(data); };
  in_own_runtime([&] { return simulated_cuda_launch(stream, name, call, new Launch{grid, size, kernel}, destroy); });
}

}  // namespace emulation

#define DM_LAUNCH(kernel, grid, block, stream, ...) \
  emulation::submit(#kernel, stream, grid, block, [=] { kernel(__VA_ARGS__); })

#endif
