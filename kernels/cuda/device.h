/**
 * What an operator's author needs in CUDA, beside op.h: launching a kernel on the session's stream,
 * sums over lanes, and the functions that the kernels share. Compiled by nvcc; or with
 * `DM_CUDA_EMULATION` by a C++ compiler, to run on a CPU for tests.
 */
#ifndef DENSEMAMBA_CUDA_DEVICE_H
#define DENSEMAMBA_CUDA_DEVICE_H

#include "../op.h"

#ifdef DM_CUDA_EMULATION
#include "../test/cuda_emulation.h"
#else
#include <cuda_runtime.h>
#define DM_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)

__device__ static inline uint16_t dm_convert_to_half(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

__device__ static inline float dm_float_of(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
#endif

#include <math.h>
#include <stdlib.h>

constexpr unsigned DM_WARP = 32;
#define DM_WHOLE_WARP 0xffffffffu
/**
 * x + that of the lane whose number differs by `bit`, a power of two. All lanes of the warp have to
 * come here.
 */
__device__ static inline float dm_add_across(float x, unsigned bit) { return x + __shfl_xor_sync(DM_WHOLE_WARP, x, bit); }

/** x / (1 + e^-x) */
__device__ static inline float dm_silu(float x) { return x / (1.0f + expf(-x)); }

/** log(1 + e^x), without overflow. NaN stays NaN, by the second term. */
__device__ static inline float dm_softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

/**
 * To the nearest f16, its bits; what is beyond the largest, 65,504, becomes it. NaN stays NaN. As
 * `vh_of` in ../simd.h.
 */
__device__ static inline uint16_t dm_half_of(float x) {
  return dm_convert_to_half(fabsf(x) > 65504.0f ? copysignf(65504.0f, x) : x);
}

/** A sequence's rows among those of all, one after another. */
struct DmRows {
  size_t start, count;
};

/**
 * Of sequence `b`. `lengths`, on the device, are the runner's to check: whatever they are, no row
 * is outside. NULL: all the same.
 */
__device__ static inline DmRows dm_rows_of(size_t b, const int64_t *lengths, size_t numSequences, size_t numRows) {
  if (lengths == NULL) return {b * (numRows / numSequences), numRows / numSequences};
  size_t start = 0;
  for (size_t i = 0; i < b && start < numRows; i++) start += (size_t)lengths[i];
  if (start >= numRows) return {numRows, 0};
  const size_t length = (size_t)lengths[b];
  return {start, length < numRows - start ? length : numRows - start};
}

/** Of the sequence that `row` belongs to. */
__device__ static inline DmRows dm_rows_at(size_t row, const int64_t *lengths, size_t numSequences, size_t numRows) {
  if (lengths == NULL) return {row - row % (numRows / numSequences), numRows / numSequences};
  size_t start = 0;
  for (size_t i = 0; i < numSequences; i++) {
    const size_t length = (size_t)lengths[i];
    if (row - start < length) return {start, length < numRows - start ? length : numRows - start};
    start += length;
  }
  return {numRows, 0};
}

/**
 * What can be told of the rows without the lengths' values, which are on the device. `@returns`
 * false after a `dm_fail`.
 */
static inline bool dm_expect_rows(DmContext *context, const DmTensor *lengths, size_t numSequences, size_t numRows) {
  if (lengths != NULL && dm_num_elements(lengths) != numSequences) {
    return dm_fail(context, "there must be a length for each of %zu sequences, given %zu", numSequences, dm_num_elements(lengths));
  }
  return numSequences == 0 || numRows > 0 || dm_fail(context, "there must be at least one step");
}

__host__ __device__ static inline size_t dm_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

/**
 * Calls `launch(stream)`, which launches one kernel. A grid's second and third axis end at 65,535:
 * what may be more, a model's sizes and a pass's steps, is the first. Nothing is waited for, and
 * nothing allocated: it may be in the course of a graph's capture. `@returns` false after a
 * `dm_fail` if it cannot be launched.
 */
template <typename Launch>
bool dm_on_stream(DmContext *context, const char *name, Launch launch) {
  void *stream = context->host->stream(context);
  if (context->failure.exists) return false;
  launch(static_cast<cudaStream_t>(stream));
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess || dm_fail(context, "%s: %s", name, cudaGetErrorString(error));
}

#endif
