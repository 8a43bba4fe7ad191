/**
 * densemamba.CausalConv in CUDA: u_t = SiLU(b + Σ_k w_k x_{t-K+1+k}), the last K-1 inputs its state, oldest first. A thread is
 * a range of steps of one channel. Twin: ../causal_conv.c.
 */
#include "device.h"

namespace {

constexpr int MAX_TAPS = 16;
constexpr unsigned THREADS = 128;
/** At least MAX_TAPS - 1, so that all ranges but the first see nothing of the past. */
constexpr long STEPS_PER_THREAD = 16;

struct Convolution {
  size_t numSequences, numSteps, numChannels, numTaps, stride;
  const float *x;    /* [B,T,stride], the first E of each row */
  const float *past; /* [B,K-1,E] */
  const float *taps; /* [K,E] */
  const float *bias; /* [E] or NULL */
  float *u;          /* [B,T,E] */
  float *present;    /* [B,K-1,E], or the past's memory: one thread reads and writes all of a channel */
};

/** Input `t` of channel `e`: of the past if it is below zero. */
__device__ inline float input_at(const Convolution &c, size_t b, long t, size_t e) {
  if (t >= 0) return c.x[(b * c.numSteps + t) * c.stride + e];
  return c.past[(b * (c.numTaps - 1) + (c.numTaps - 1 + t)) * c.numChannels + e];
}

__global__ void convolve(const Convolution c) {
  const size_t E = c.numChannels, e = blockIdx.x * (size_t)THREADS + threadIdx.x, b = blockIdx.z;
  const long K = (long)c.numTaps, T = (long)c.numSteps;
  if (e >= E) return;
  const long first = (long)blockIdx.y * STEPS_PER_THREAD, end = first + STEPS_PER_THREAD < T ? first + STEPS_PER_THREAD : T;
  float window[MAX_TAPS], taps[MAX_TAPS];
#pragma unroll
  for (int k = 0; k < MAX_TAPS; k++) {
    if (k < K) taps[k] = c.taps[k * E + e];
    if (k + 1 < K) window[k] = input_at(c, b, first - K + 1 + k, e);
  }
  const float bias = c.bias != NULL ? c.bias[e] : 0.0f;
  float kept[MAX_TAPS]; /* the state to come: it may have to be read before it is written */
  if (first == 0) {
#pragma unroll
    for (int k = 0; k < MAX_TAPS; k++) {
      if (k + 1 < K) kept[k] = input_at(c, b, T - K + 1 + k, e);
    }
  }
  for (long t = first; t < end; t++) {
    float sum = bias;
    const float x = input_at(c, b, t, e);
#pragma unroll
    for (int k = 0; k < MAX_TAPS; k++) { /* constant places: arrays that stay in registers */
      if (k + 1 < K) sum += taps[k] * window[k];
      if (k + 1 == K) sum += taps[k] * x;
      if (k + 2 < K) window[k] = window[k + 1];
      if (k + 2 == K) window[k] = x;
    }
    c.u[(b * c.numSteps + t) * E + e] = dm_silu(sum);
  }
  if (first > 0) return;
#pragma unroll
  for (int k = 0; k < MAX_TAPS; k++) {
    if (k + 1 < K) c.present[(b * (c.numTaps - 1) + k) * E + e] = kept[k];
  }
}

/**
 * Inputs: xz [B,T,S], of which the first E of each row are convolved, past [B,K-1,E], taps [K,E], bias [E]?. Outputs: u
 * [B,T,E], present [B,K-1,E], which may be the memory of `past`.
 */
bool compute(const void *, DmContext *context) {
  DmTensor x, past, taps, bias = {};
  if (!dm_input(context, 0, &x) || !dm_input(context, 1, &past) || !dm_input(context, 2, &taps)) return false;
  const bool hasBias = dm_input(context, 3, &bias);
  if (x.rank != 3 || past.rank != 3 || taps.rank != 2 || x.dims[0] != past.dims[0] || x.dims[2] < taps.dims[1] ||
      past.dims[1] != taps.dims[0] - 1 || past.dims[2] != taps.dims[1] ||
      (hasBias && dm_num_elements(&bias) != (size_t)taps.dims[1])) {
    return dm_fail(context, "CausalConv: x must be [B,T,S], past [B,K-1,E], taps [K,E] and bias [E] with E at most S");
  }
  if (taps.dims[0] > MAX_TAPS || x.dims[1] == 0) {
    return dm_fail(context, "CausalConv: at most %d taps and at least one step, given %d and %d", MAX_TAPS,
                   (int)taps.dims[0], (int)x.dims[1]);
  }
  Convolution c = {};
  c.numSequences = (size_t)x.dims[0];
  c.numSteps = (size_t)x.dims[1];
  c.numChannels = (size_t)taps.dims[1];
  c.numTaps = (size_t)taps.dims[0];
  c.stride = (size_t)x.dims[2];
  c.x = (const float *)x.data;
  c.past = (const float *)past.data;
  c.taps = (const float *)taps.data;
  c.bias = (const float *)bias.data;
  const int64_t dims[3] = {x.dims[0], x.dims[1], taps.dims[1]};
  c.u = (float *)dm_output(context, 0, dims, 3);
  c.present = (float *)dm_output(context, 1, past.dims, 3);
  if (context->status != NULL) return false;
  const size_t numRanges = dm_ceil_div(c.numSteps, STEPS_PER_THREAD);
  if (numRanges > DM_MAX_GRID || c.numSequences > DM_MAX_GRID) {
    return dm_fail(context, "CausalConv: at most %u sequences of %ld steps, given %zu of %zu", DM_MAX_GRID,
                   DM_MAX_GRID * STEPS_PER_THREAD, c.numSequences, c.numSteps);
  }
  if (c.numSequences * c.numChannels == 0) return true;
  const dim3 grid((unsigned)dm_ceil_div(c.numChannels, THREADS), (unsigned)numRanges, (unsigned)c.numSequences);
  return dm_on_stream(context, "CausalConv", [&](cudaStream_t stream) { DM_LAUNCH(convolve, grid, dim3(THREADS), stream, c); });
}

}  // namespace

extern "C" const DmOp DM_NAME(causal_conv) = {
    .name = "CausalConv",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .create = NULL,
    .compute = compute,
    .destroy = NULL,
};
