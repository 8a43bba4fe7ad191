/**
 * densemamba.CausalConv: the short convolution along time, u_t = SiLU(b + Σ_k w_k x_{t-K+1+k}). The
 * last K-1 inputs are its state, oldest first. A task is a range of channels of one sequence.
 */
#include "limits.h"
#include "op.h"
#include "simd.h"

enum { USUAL_TAPS = 4, CHANNELS_PER_TASK = 256, LENGTHS = 4 };

typedef struct {
  size_t numSequences, numChannels, numTaps, stride;
  const size_t *starts; /* [B+1]: the sequences' rows */
  const float *x;       /* [rows,E], `stride` apart */
  const float *past;    /* [B,K-1,E] */
  const float *taps;    /* [K,E] */
  const float *bias;    /* [E] or NULL */
  float *u;             /* [rows,E] */
  float *present;       /* [B,K-1,E] */
} Convolution;

/** With constant `K` and `lanes` the window stays in registers. */
DM_INLINE void convolve(const Convolution *c, size_t b, size_t e, size_t lanes, size_t K) {
  const size_t E = c->numChannels, end = c->starts[b + 1];
  /* The past is read before the present, which may be the same memory, is written. */
  vf window[DM_MAX_TAPS], taps[DM_MAX_TAPS];
  for (size_t k = 0; k + 1 < K; k++) window[k] = vf_load_some(c->past + (b * (K - 1) + k) * E + e, lanes);
  for (size_t k = 0; k < K; k++) taps[k] = vf_load_some(c->taps + k * E + e, lanes);
  const vf bias = c->bias ? vf_load_some(c->bias + e, lanes) : (vf){0};
  for (size_t row = c->starts[b]; row < end; row++) {
    window[K - 1] = vf_load_some(c->x + row * c->stride + e, lanes);
    vf sum = bias;
    for (size_t k = 0; k < K; k++) sum += taps[k] * window[k];
    vf_store_some(c->u + row * E + e, vf_silu(sum), lanes);
    for (size_t k = 0; k + 1 < K; k++) window[k] = window[k + 1];
  }
  for (size_t k = 0; k + 1 < K; k++) vf_store_some(c->present + (b * (K - 1) + k) * E + e, window[k], lanes);
}

static void convolve_channels(void *user, size_t task) {
  const Convolution copy = *(const Convolution *)user, *c = &copy;
  const size_t E = c->numChannels, tasksPerSequence = (E + CHANNELS_PER_TASK - 1) / CHANNELS_PER_TASK;
  const size_t b = task / tasksPerSequence;
  size_t e = (task % tasksPerSequence) * CHANNELS_PER_TASK;
  const size_t end = e + CHANNELS_PER_TASK < E ? e + CHANNELS_PER_TASK : E;
  if (c->numTaps == USUAL_TAPS) {
    for (; e + DM_LANES <= end; e += DM_LANES) convolve(c, b, e, DM_LANES, USUAL_TAPS);
  }
  for (; e + DM_LANES <= end; e += DM_LANES) convolve(c, b, e, DM_LANES, c->numTaps);
  if (e < end) convolve(c, b, e, end - e, c->numTaps);
}

/** Below so many outputs the work costs less than handing it to another thread. */
enum { OUTPUTS_WORTH_A_THREAD = 4096 };

/**
 * Inputs: x [B,T,E], past [B,K-1,E], taps [K,E], bias [E]?, lengths int64 [B]?, and with them x is
 * [1,rows,E]. Outputs: u as x, present [B,K-1,E], which may be the memory of `past`.
 */
static bool compute(const void *state, DmContext *context) {
  (void)state;
  DmTensor x, past, taps, bias = {0}, lengths;
  if (!dm_input_rows(context, 0, &x) || !dm_input(context, 1, &past) || !dm_input(context, 2, &taps)) return false;
  const bool hasBias = dm_input(context, 3, &bias), hasLengths = dm_input(context, LENGTHS, &lengths);
  if (x.rank != 3 || past.rank != 3 || taps.rank != 2 || x.dims[0] != (hasLengths ? 1 : past.dims[0]) || x.dims[2] != taps.dims[1] ||
      past.dims[1] != taps.dims[0] - 1 || past.dims[2] != taps.dims[1] ||
      (hasBias && dm_num_elements(&bias) != (size_t)taps.dims[1])) {
    return dm_fail(context, "CausalConv: x must be [B,T,E], past [B,K-1,E], taps [K,E] and bias [E]");
  }
  if (taps.dims[0] > DM_MAX_TAPS) return dm_fail(context, "CausalConv: at most %d taps, given %d", DM_MAX_TAPS, (int)taps.dims[0]);
  const size_t numRows = (size_t)(x.dims[0] * x.dims[1]);
  Convolution c = {
      .numSequences = (size_t)past.dims[0],
      .numChannels = (size_t)taps.dims[1],
      .numTaps = (size_t)taps.dims[0],
      .stride = x.stride,
      .starts = dm_sequence_starts(context, LENGTHS, (size_t)past.dims[0], numRows),
      .x = x.data,
      .past = past.data,
      .taps = taps.data,
      .bias = bias.data,
  };
  if (c.starts == NULL) return false;
  c.u = dm_output(context, 0, x.dims, 3);
  c.present = dm_output(context, 1, past.dims, 3);
  if (context->failure.exists) return false;
  const size_t numTasks = c.numSequences * ((c.numChannels + CHANNELS_PER_TASK - 1) / CHANNELS_PER_TASK);
  if (numRows * c.numChannels >= OUTPUTS_WORTH_A_THREAD) {
    return dm_parallel_for(context, convolve_channels, numTasks, &c);
  }
  for (size_t task = 0; task < numTasks; task++) convolve_channels(&c, task);
  return true;
}

const DmOp DM_NAME(causal_conv) = {
    .name = "CausalConv",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_INT64, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .compute = compute,
};
