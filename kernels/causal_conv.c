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

/** Input `i` of sequence `b`, of which the first K-1 are its past. */
static const float *input_of(const Convolution *c, size_t b, size_t i) {
  const size_t numPast = c->numTaps - 1;
  return i < numPast ? c->past + (b * numPast + i) * c->numChannels : c->x + (c->starts[b] + i - numPast) * c->stride;
}

/** A vector of u, from channel e on; `inputs` are K rows. `lanes` and, as a rule, K are constants. */
DM_INLINE void convolve(const Convolution *c, const float *const *inputs, float *u, size_t e, size_t lanes, size_t K) {
  vf sum = c->bias ? vf_load_some(c->bias + e, lanes) : (vf){0};
  for (size_t k = 0; k < K; k++) {
    sum += vf_load_some(c->taps + k * c->numChannels + e, lanes) * vf_load_some(inputs[k] + e, lanes);
  }
  vf_store_some(u + e, vf_silu(sum), lanes);
}

/**
 * Row by row: down a column, every step would be on a page of its own. The past is read before the
 * present, which may be the same memory, is written.
 */
static void convolve_channels(void *user, size_t task) {
  const Convolution copy = *(const Convolution *)user, *c = &copy;
  const size_t E = c->numChannels, K = c->numTaps, tasksPerSequence = (E + CHANNELS_PER_TASK - 1) / CHANNELS_PER_TASK;
  const size_t b = task / tasksPerSequence, numSteps = c->starts[b + 1] - c->starts[b];
  const size_t from = (task % tasksPerSequence) * CHANNELS_PER_TASK;
  const size_t to = from + CHANNELS_PER_TASK < E ? from + CHANNELS_PER_TASK : E;
  for (size_t step = 0; step < numSteps; step++) {
    const float *inputs[DM_MAX_TAPS];
    float *u = c->u + (c->starts[b] + step) * E;
    size_t e = from;
    for (size_t k = 0; k < K; k++) inputs[k] = input_of(c, b, step + k);
    if (K == USUAL_TAPS) {
      for (; e + DM_LANES <= to; e += DM_LANES) convolve(c, inputs, u, e, DM_LANES, USUAL_TAPS);
    }
    for (; e + DM_LANES <= to; e += DM_LANES) convolve(c, inputs, u, e, DM_LANES, K);
    if (e < to) convolve(c, inputs, u, e, to - e, K);
  }
  for (size_t k = 0; k + 1 < K; k++) { /* upwards: none is written before it is read */
    float *present = c->present + (b * (K - 1) + k) * E;
    const float *last = input_of(c, b, numSteps + k);
    if (last != present) memcpy(present + from, last + from, (to - from) * sizeof *last);
  }
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
