/**
 * Steps on a stream of ours: what ONNX Runtime launches on it, with the copies to and from the host around it, is waited for once.
 * A step can be recorded as a CUDA graph, copies included, and launched as a whole after that.
 */
#include "device.h"

#ifndef DM_WITHOUT_GRAPHS

#define DM_EXPORT extern "C" __attribute__((visibility("default")))

/** As in memory.cu. */
struct Copy {
  void *to;
  const void *from;
  size_t numBytes;
};

/** For `user_compute_stream`. `@returns` 0, or what `densemamba_cuda_error` explains; likewise the others. */
DM_EXPORT int densemamba_cuda_stream_create(cudaStream_t *out) {
  return dm_taken(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking));
}

DM_EXPORT int densemamba_cuda_stream_destroy(cudaStream_t stream) { return dm_taken(cudaStreamDestroy(stream)); }

/** From here to the end, on this thread: nothing that is launched on the stream is computed. */
DM_EXPORT int densemamba_cuda_capture_begin(cudaStream_t stream) {
  return dm_taken(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

/**
 * `cudaErrorNotSupported` if there is more in the graph than kernels, copies and fills: a function of the host may be called once
 * only, for ONNX Runtime releases memory by them.
 */
static cudaError_t check_nodes(cudaGraph_t graph) {
  size_t count = 0;
  cudaError_t error = cudaGraphGetNodes(graph, NULL, &count);
  cudaGraphNode_t *nodes = error == cudaSuccess ? (cudaGraphNode_t *)calloc(count + 1, sizeof *nodes) : NULL;
  if (nodes != NULL) error = cudaGraphGetNodes(graph, nodes, &count);
  for (size_t i = 0; nodes != NULL && i < count && error == cudaSuccess; i++) {
    cudaGraphNodeType type;
    error = cudaGraphNodeGetType(nodes[i], &type);
    const bool mayRepeat = type == cudaGraphNodeTypeKernel || type == cudaGraphNodeTypeMemcpy || type == cudaGraphNodeTypeMemset;
    if (error == cudaSuccess && !mayRepeat) error = cudaErrorNotSupported;
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

static cudaError_t copy_all(const Copy *copies, size_t count, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  for (size_t i = 0; i < count && error == cudaSuccess; i++) {
    error = cudaMemcpyAsync(copies[i].to, copies[i].from, copies[i].numBytes, cudaMemcpyDefault, stream);
  }
  return error;
}

/** In their order, behind what is on the stream. Nothing is waited for where the host's memory is pinned. */
DM_EXPORT int densemamba_cuda_enqueue(cudaStream_t stream, const Copy *copies, size_t count) {
  return dm_taken(copy_all(copies, count, stream));
}

/** The graph, unless it is NULL, and the copies behind it. Returns when all that is on the stream is done. */
DM_EXPORT int densemamba_cuda_finish(cudaGraphExec_t exec, cudaStream_t stream, const Copy *copies, size_t count) {
  cudaError_t error = exec != NULL ? cudaGraphLaunch(exec, stream) : cudaSuccess;
  if (error == cudaSuccess) error = copy_all(copies, count, stream);
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
