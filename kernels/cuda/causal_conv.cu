/**
 * densemamba.CausalConv in CUDA: u_t = SiLU(b + Σ_k w_k x_{t-K+1+k}), the last K-1 inputs its
 * state, oldest first. A thread is a range of steps of one channel: a sequence's first ones, with
 * its state, or any later ones. Twin: ../causal_conv.c.
 */
#include "../limits.h"
#include "device.h"

namespace {

constexpr unsigned THREADS = 128;
constexpr size_t LENGTHS = 4;
/** At least DM_MAX_TAPS - 1, so that a sequence's first steps alone see its past. */
constexpr long STEPS_PER_THREAD = 16;

struct Convolution {
  size_t numSequences, numRows, numChannels, numTaps, stride;
  const int64_t *lengths; /* [B] on the device, or NULL */
  const float *x;         /* [rows,E], `stride` apart */
  const float *past;      /* [B,K-1,E] */
  const float *taps;      /* [K,E] */
  const float *bias;      /* [E] or NULL */
  float *u;               /* [rows,E] */
  float *present;         /* [B,K-1,E], or the past's memory: one thread reads and writes all of a channel */
};

/**
 * Input `t` of channel `e` of a sequence whose rows begin at `start`: of the past if `t` is below
 * zero.
 */
__device__ inline float input_at(const Convolution &c, size_t b, size_t start, long t, size_t e) {
  if (t >= 0) return c.x[(start + t) * c.stride + e];
  return c.past[(b * (c.numTaps - 1) + (c.numTaps - 1 + t)) * c.numChannels + e];
}

/**
 * Blocks are the sequences' first steps, then ranges of all rows, of which they leave out each
 * sequence's first steps.
 */
__global__ void convolve(const Convolution c) {
  const size_t E = c.numChannels, e = blockIdx.y * (size_t)THREADS + threadIdx.x, b = blockIdx.x;
  const bool isStart = b < c.numSequences;
  const size_t row = isStart ? 0 : (b - c.numSequences) * STEPS_PER_THREAD;
  const DmRows rows = isStart ? dm_rows_of(b, c.lengths, c.numSequences, c.numRows) : dm_rows_at(row, c.lengths, c.numSequences, c.numRows);
  const long K = (long)c.numTaps, T = (long)rows.count, from = isStart ? 0 : (long)(row - rows.start);
  const long first = isStart || from > STEPS_PER_THREAD ? from : STEPS_PER_THREAD;
  const long end = from + STEPS_PER_THREAD < T ? from + STEPS_PER_THREAD : T;
  if (e >= E || (!isStart && first >= end)) return;
  float window[DM_MAX_TAPS], taps[DM_MAX_TAPS];
#pragma unroll
  for (int k = 0; k < DM_MAX_TAPS; k++) {
    if (k < K) taps[k] = c.taps[k * E + e];
    if (k + 1 < K) window[k] = input_at(c, b, rows.start, first - K + 1 + k, e);
  }
  const float bias = c.bias != NULL ? c.bias[e] : 0.0f;
  float kept[DM_MAX_TAPS]; /* the state to come: it may have to be read before it is written */
  if (isStart) {
#pragma unroll
    for (int k = 0; k < DM_MAX_TAPS; k++) {
      if (k + 1 < K) kept[k] = input_at(c, b, rows.start, T - K + 1 + k, e);
    }
  }
  for (long t = first; t < end; t++) {
    float sum = bias;
    const float x = input_at(c, b, rows.start, t, e);
#pragma unroll
    for (int k = 0; k < DM_MAX_TAPS; k++) { /* constant places: arrays that stay in registers */
      if (k + 1 < K) sum += taps[k] * window[k];
      if (k + 1 == K) sum += taps[k] * x;
      if (k + 2 < K) window[k] = window[k + 1];
      if (k + 2 == K) window[k] = x;
    }
    c.u[(rows.start + t) * E + e] = dm_silu(sum);
  }
  if (!isStart) return;
#pragma unroll
  for (int k = 0; k < DM_MAX_TAPS; k++) {
    if (k + 1 < K) c.present[(b * (c.numTaps - 1) + k) * E + e] = kept[k];
  }
}

/**
 * Inputs: x [B,T,E], past [B,K-1,E], taps [K,E], bias [E]?, lengths int64 [B]?, and with them x is
 * [1,rows,E]. Outputs: u as x, present [B,K-1,E], which may be the memory of `past`.
 */
bool compute(const void *, DmContext *context) {
  DmTensor x, past, taps, bias = {}, lengths = {};
  if (!dm_input_rows(context, 0, &x) || !dm_input(context, 1, &past) || !dm_input(context, 2, &taps)) return false;
  const bool hasBias = dm_input(context, 3, &bias), hasLengths = dm_input(context, LENGTHS, &lengths);
  if (x.rank != 3 || past.rank != 3 || taps.rank != 2 || x.dims[0] != (hasLengths ? 1 : past.dims[0]) || x.dims[2] != taps.dims[1] ||
      past.dims[1] != taps.dims[0] - 1 || past.dims[2] != taps.dims[1] ||
      (hasBias && dm_num_elements(&bias) != (size_t)taps.dims[1])) {
    return dm_fail(context, "CausalConv: x must be [B,T,E], past [B,K-1,E], taps [K,E] and bias [E]");
  }
  if (taps.dims[0] > DM_MAX_TAPS) return dm_fail(context, "CausalConv: at most %d taps, given %d", DM_MAX_TAPS, (int)taps.dims[0]);
  Convolution c = {};
  c.numSequences = (size_t)past.dims[0];
  c.numRows = (size_t)(x.dims[0] * x.dims[1]);
  if (!dm_expect_rows(context, hasLengths ? &lengths : NULL, c.numSequences, c.numRows)) return false;
  c.lengths = (const int64_t *)lengths.data;
  c.numChannels = (size_t)taps.dims[1];
  c.numTaps = (size_t)taps.dims[0];
  c.stride = x.stride;
  c.x = (const float *)x.data;
  c.past = (const float *)past.data;
  c.taps = (const float *)taps.data;
  c.bias = (const float *)bias.data;
  c.u = (float *)dm_output(context, 0, x.dims, 3);
  c.present = (float *)dm_output(context, 1, past.dims, 3);
  if (context->failure.exists) return false;
  if (c.numSequences * c.numChannels == 0) return true;
  const dim3 grid((unsigned)(c.numSequences + dm_ceil_div(c.numRows, STEPS_PER_THREAD)), (unsigned)dm_ceil_div(c.numChannels, THREADS));
  return dm_on_stream(context, "CausalConv", [&](cudaStream_t stream) { DM_LAUNCH(convolve, grid, dim3(THREADS), stream, c); });
}

}  // namespace

extern "C" const DmOp DM_NAME(causal_conv) = {
    .name = "CausalConv",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_INT64, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .create = NULL,
    .compute = compute,
    .destroy = NULL,
};
