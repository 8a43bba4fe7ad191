/**
 * Steps on a stream of ours: what ONNX Runtime launches on it, with the copies to and from the host
 * around it, is waited for once. A step can be recorded as a CUDA graph, copies included, and
 * launched as a whole after that.
 */
#include "device.h"

#ifndef DM_WITHOUT_GRAPHS

#define DM_EXPORT extern "C" __attribute__((visibility("default")))

/**
 * For `user_compute_stream`. `@returns` 0, or what `densemamba_cuda_error` explains; likewise the
 * others.
 */
DM_EXPORT int densemamba_cuda_stream_create(cudaStream_t *out) {
  return dm_taken(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking));
}

namespace {
__global__ void do_nothing() {}
}  // namespace

/**
 * Whether the device runs what is compiled here: there may be no code for it, or PTX that its
 * driver is too old for.
 */
DM_EXPORT int densemamba_cuda_probe(void) {
  cudaStream_t stream;
  cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return dm_taken(error);
  DM_LAUNCH(do_nothing, dim3(1), dim3(1), stream);
  error = cudaGetLastError();
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  dm_taken(cudaStreamDestroy(stream));
  return dm_taken(error);
}

DM_EXPORT int densemamba_cuda_stream_destroy(cudaStream_t stream) { return dm_taken(cudaStreamDestroy(stream)); }

/** From here to the end, on this thread: nothing that is launched on the stream is computed. */
DM_EXPORT int densemamba_cuda_capture_begin(cudaStream_t stream) {
  return dm_taken(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

/**
 * cuBLAS takes memory for a product in a captured stream, and gives it back, by nodes of the graph.
 */
static bool may_repeat(cudaGraphNodeType type) {
  return type == cudaGraphNodeTypeKernel || type == cudaGraphNodeTypeMemcpy || type == cudaGraphNodeTypeMemset ||
         type == cudaGraphNodeTypeMemAlloc || type == cudaGraphNodeTypeMemFree || type == cudaGraphNodeTypeEmpty;
}

/**
 * `cudaErrorNotSupported` if there is anything in the graph that may be done once only: ONNX
 * Runtime releases memory by functions of the host.
 */
static cudaError_t check_nodes(cudaGraph_t graph) {
  size_t count = 0;
  cudaError_t error = cudaGraphGetNodes(graph, NULL, &count);
  if (error != cudaSuccess) return error;
  cudaGraphNode_t *nodes = (cudaGraphNode_t *)calloc(count + 1, sizeof *nodes);
  if (nodes == NULL) return cudaErrorMemoryAllocation;
  error = cudaGraphGetNodes(graph, nodes, &count);
  for (size_t i = 0; i < count && error == cudaSuccess; i++) {
    cudaGraphNodeType type;
    error = cudaGraphNodeGetType(nodes[i], &type);
    if (error == cudaSuccess && !may_repeat(type)) error = cudaErrorNotSupported;
  }
  free(nodes);
  return error;
}

/** Ends the capture in any case. `isWanted`: whether the graph is to be made. */
DM_EXPORT int densemamba_cuda_capture_end(cudaStream_t stream, int isWanted, cudaGraphExec_t *out) {
  *out = NULL;
  cudaGraph_t graph = NULL;
  cudaError_t error = cudaStreamEndCapture(stream, &graph);
  if (error == cudaSuccess && isWanted) error = check_nodes(graph);
  if (error == cudaSuccess && isWanted) error = cudaGraphInstantiate(out, graph, 0);
  if (graph != NULL) cudaGraphDestroy(graph);
  return dm_taken(error);
}

/**
 * The graph, unless it is NULL, and the copies behind it. Returns when all that is on the stream is
 * done.
 */
DM_EXPORT int densemamba_cuda_finish(cudaGraphExec_t exec, cudaStream_t stream, const DmCopy *copies, size_t count) {
  cudaError_t error = exec != NULL ? cudaGraphLaunch(exec, stream) : cudaSuccess;
  if (error == cudaSuccess) error = dm_copy_all(copies, count, stream);
  const cudaError_t last = cudaStreamSynchronize(stream); /* whatever went wrong: the host's memory is its own again */
  return dm_taken(error != cudaSuccess ? error : last);
}

DM_EXPORT int densemamba_cuda_graph_destroy(cudaGraphExec_t exec) { return dm_taken(cudaGraphExecDestroy(exec)); }

/** Of the host, where copies to and from the device need neither a detour nor a wait. */
DM_EXPORT int densemamba_cuda_pinned_allocate(size_t numBytes, void **out) {
  return dm_taken(cudaHostAlloc(out, numBytes, cudaHostAllocDefault));
}

DM_EXPORT int densemamba_cuda_pinned_free(void *data) { return dm_taken(cudaFreeHost(data)); }

#endif
