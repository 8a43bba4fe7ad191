/**
 * densemamba.TokenShift: between each step's x and that of the step before, as several learned
 * mixtures of the two as are wanted: out_i = x_t + (x_{t-1} - x_t) mix_i. The last x is its state.
 * A task is a range of channels of one sequence.
 */
#include "op.h"
#include "simd.h"

enum { LENGTHS = 3, MAX_MIXTURES = DM_MAX_OUTPUTS - 1, CHANNELS_PER_TASK = 256 };
/** Below so many outputs the work costs less than handing it to another thread. */
enum { OUTPUTS_WORTH_A_THREAD = 1 << 14 };

typedef struct {
  size_t numSequences, numChannels, numMixtures, stride;
  const size_t *starts;       /* [B+1]: the sequences' rows */
  const float *x;             /* [rows,D], `stride` apart */
  const float *past;          /* [B,D] */
  const float *mix;           /* [numMixtures,D] */
  float *out[MAX_MIXTURES];   /* [rows,D] */
  float *present;             /* [B,D], or the past's memory */
} Shift;

static size_t tasks_per_sequence(const Shift *s) { return (s->numChannels + CHANNELS_PER_TASK - 1) / CHANNELS_PER_TASK; }

DM_INLINE void shift_vector(const Shift *s, size_t row, const float *before, size_t at, size_t lanes) {
  const size_t D = s->numChannels;
  const vf x = vf_load_some(s->x + row * s->stride + at, lanes), change = vf_load_some(before + at, lanes) - x;
  for (size_t i = 0; i < s->numMixtures; i++) {
    vf_store_some(s->out[i] + row * D + at, x + change * vf_load_some(s->mix + i * D + at, lanes), lanes);
  }
}

/** Row by row: down a column, rows a power of two apart would push each other out of the cache. */
static void shift_channels(void *user, size_t task) {
  const Shift copy = *(const Shift *)user, *s = &copy; /* no store can change a copy */
  const size_t D = s->numChannels, b = task / tasks_per_sequence(s), start = s->starts[b], end = s->starts[b + 1];
  const size_t from = task % tasks_per_sequence(s) * CHANNELS_PER_TASK;
  const size_t to = from + CHANNELS_PER_TASK < D ? from + CHANNELS_PER_TASK : D;
  const float *past = s->past + b * D, *last = end > start ? s->x + (end - 1) * s->stride : past;
  for (size_t row = start; row < end; row++) {
    const float *before = row > start ? s->x + (row - 1) * s->stride : past;
    size_t at = from;
    for (; at + DM_LANES <= to; at += DM_LANES) shift_vector(s, row, before, at, DM_LANES);
    if (at < to) shift_vector(s, row, before, at, to - at);
  }
  if (last != s->present + b * D) memcpy(s->present + b * D + from, last + from, (to - from) * sizeof *last);
}

static bool run(Shift *s, DmContext *context) {
  const size_t numTasks = s->numSequences * tasks_per_sequence(s), numRows = s->starts[s->numSequences];
  if (numRows * s->numChannels * s->numMixtures >= OUTPUTS_WORTH_A_THREAD) {
    return dm_parallel_for(context, shift_channels, numTasks, s);
  }
  for (size_t task = 0; task < numTasks; task++) shift_channels(s, task);
  return true;
}

/**
 * Inputs: x [B,T,D], past [B,D], mix [n,D], lengths int64 [B]?, and with them x is [1,rows,D].
 * Outputs: present, as past, which may be its memory, then n times [B,T,D].
 */
static bool compute(const void *state, DmContext *context) {
  (void)state;
  DmTensor x, past, mix, lengths;
  if (!dm_input_rows(context, 0, &x) || !dm_input(context, 1, &past) || !dm_input(context, 2, &mix)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (x.rank != 3 || mix.rank != 2 || past.rank == 0 || x.dims[0] != (hasLengths ? 1 : past.dims[0]) || x.dims[2] != mix.dims[1] ||
      dm_num_elements(&past) != (size_t)(past.dims[0] * mix.dims[1])) {
    return dm_fail(context, "TokenShift: x must be [B,T,D], past [B,D] and mix [n,D]");
  }
  if (mix.dims[0] > MAX_MIXTURES) return dm_fail(context, "TokenShift: at most %d mixtures, given %d", MAX_MIXTURES, (int)mix.dims[0]);
  Shift s = {
      .numSequences = (size_t)past.dims[0],
      .numChannels = (size_t)mix.dims[1],
      .numMixtures = (size_t)mix.dims[0],
      .stride = x.stride,
      .starts = dm_sequence_starts(context, LENGTHS, (size_t)past.dims[0], (size_t)(x.dims[0] * x.dims[1])),
      .x = x.data,
      .past = past.data,
      .mix = mix.data,
  };
  if (s.starts == NULL) return false;
  s.present = dm_output(context, 0, past.dims, past.rank);
  for (size_t i = 0; i < s.numMixtures; i++) {
    s.out[i] = dm_output(context, 1 + i, x.dims, 3);
    if (!context->failure.exists && s.out[i] == NULL) {
      return dm_fail(context, "TokenShift: %zu mixtures have as many outputs, given %zu", s.numMixtures, i);
    }
  }
  return !context->failure.exists && run(&s, context);
}

const DmOp DM_NAME(token_shift) = {
    .name = "TokenShift",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_INT64, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true},
                {DM_FLOAT, true}},
    .compute = compute,
};
