/**
 * The operators that have a kernel in CUDA, for register.c: they are those of ops.h, of the same
 * names, inputs and outputs, and stand in a library of their own, as an instruction set among the
 * others. What is not here is ONNX Runtime's on CUDA.
 */
#ifndef DENSEMAMBA_CUDA_OPS_H
#define DENSEMAMBA_CUDA_OPS_H

#define DM_OPS(X)      \
  X(causal_conv)       \
  X(selective_scan)    \
  X(recurrence)        \
  X(token_shift)       \
  X(discretize)        \
  X(delta_rule_inputs) \
  X(delta_rule_output) \
  X(norm)

#ifdef DM_CUDA_EMULATION
#define DM_ISAS(X) X(emulated)
#else
#define DM_ISAS(X) X(cuda)
#define DM_PROVIDER "CUDAExecutionProvider"
#endif

/** Whether there is a device shows when ONNX Runtime opens it. */
static inline int dm_supports_cuda(void) {
  return 1;
}

/** The same kernels on a CPU, as ONNX Runtime's CPU provider's: for tests. */
static inline int dm_supports_emulated(void) {
  return 1;
}

#endif
