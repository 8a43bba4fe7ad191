/**
 * What our own .cu files use of CUDA, where they are compiled for the simulated device: included by
 * kernels/test/cuda_emulation.h. A launch goes to a stream and is computed, in emulation, when the
 * stream comes to it.
 */
#ifndef SIMULATED_KERNELS_H
#define SIMULATED_KERNELS_H

#include <stddef.h>

typedef struct SimulatedStream *cudaStream_t;
typedef struct SimulatedGraph *cudaGraph_t;
typedef struct SimulatedGraphExec *cudaGraphExec_t;
typedef struct SimulatedNode *cudaGraphNode_t;
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorNotSupported = 801 };
enum { cudaMemcpyDefault = 4 };
enum { cudaStreamNonBlocking = 1 };
enum { cudaHostAllocDefault = 0 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaGraphNodeType {
  cudaGraphNodeTypeKernel = 0,
  cudaGraphNodeTypeMemcpy = 1,
  cudaGraphNodeTypeMemset = 2,
  cudaGraphNodeTypeEmpty = 5,
  cudaGraphNodeTypeMemAlloc = 10,
  cudaGraphNodeTypeMemFree = 11,
};

extern "C" {
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaMalloc(void **out, size_t numBytes);
cudaError_t cudaFree(void *data);
cudaError_t cudaHostAlloc(void **out, size_t numBytes, unsigned flags);
cudaError_t cudaFreeHost(void *data);
cudaError_t cudaMemsetAsync(void *data, int value, size_t numBytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t numBytes, int kind, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count);
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType *type);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
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

#define cudaGetLastError(...) in_own_runtime([&] { return cudaGetLastError(__VA_ARGS__); })
#define cudaGetErrorString(...) in_own_runtime([&] { return cudaGetErrorString(__VA_ARGS__); })
#define cudaMalloc(...) in_own_runtime([&] { return cudaMalloc(__VA_ARGS__); })
#define cudaFree(...) in_own_runtime([&] { return cudaFree(__VA_ARGS__); })
#define cudaHostAlloc(...) in_own_runtime([&] { return cudaHostAlloc(__VA_ARGS__); })
#define cudaFreeHost(...) in_own_runtime([&] { return cudaFreeHost(__VA_ARGS__); })
#define cudaMemsetAsync(...) in_own_runtime([&] { return cudaMemsetAsync(__VA_ARGS__); })
#define cudaMemcpyAsync(...) in_own_runtime([&] { return cudaMemcpyAsync(__VA_ARGS__); })
#define cudaStreamCreateWithFlags(...) in_own_runtime([&] { return cudaStreamCreateWithFlags(__VA_ARGS__); })
#define cudaStreamDestroy(...) in_own_runtime([&] { return cudaStreamDestroy(__VA_ARGS__); })
#define cudaStreamSynchronize(...) in_own_runtime([&] { return cudaStreamSynchronize(__VA_ARGS__); })
#define cudaStreamBeginCapture(...) in_own_runtime([&] { return cudaStreamBeginCapture(__VA_ARGS__); })
#define cudaStreamEndCapture(...) in_own_runtime([&] { return cudaStreamEndCapture(__VA_ARGS__); })
#define cudaGraphGetNodes(...) in_own_runtime([&] { return cudaGraphGetNodes(__VA_ARGS__); })
#define cudaGraphNodeGetType(...) in_own_runtime([&] { return cudaGraphNodeGetType(__VA_ARGS__); })
#define cudaGraphInstantiate(...) in_own_runtime([&] { return cudaGraphInstantiate(__VA_ARGS__); })
#define cudaGraphLaunch(...) in_own_runtime([&] { return cudaGraphLaunch(__VA_ARGS__); })
#define cudaGraphDestroy(...) in_own_runtime([&] { return cudaGraphDestroy(__VA_ARGS__); })
#define cudaGraphExecDestroy(...) in_own_runtime([&] { return cudaGraphExecDestroy(__VA_ARGS__); })

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
