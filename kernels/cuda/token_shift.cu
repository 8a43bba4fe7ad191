/**
 * densemamba.TokenShift in CUDA: out_i = x_t + (x_{t-1} - x_t) mix_i, the last x its state. A
 * thread is a channel, of a sequence's first step and its state, or of any later ones. Twin:
 * ../token_shift.c.
 */
#include "device.h"

namespace {

constexpr unsigned THREADS = 128;
constexpr size_t LENGTHS = 3, MAX_MIXTURES = DM_MAX_OUTPUTS - 1, STEPS_PER_THREAD = 8;

struct Shift {
  size_t numSequences, numRows, numChannels, numMixtures, stride;
  const int64_t *lengths;   /* [B] on the device, or NULL */
  const float *x;           /* [rows,stride], the first D of each */
  const float *past;        /* [B,D] */
  const float *mix;         /* [numMixtures,D] */
  float *out[MAX_MIXTURES]; /* [rows,D] */
  float *present;           /* [B,D], or the past's memory: one thread reads and writes it */
};

__device__ inline void mix_row(const Shift &s, size_t row, float before, size_t e) {
  const float x = s.x[row * s.stride + e], change = before - x;
  for (size_t i = 0; i < s.numMixtures; i++) s.out[i][row * s.numChannels + e] = x + change * s.mix[i * s.numChannels + e];
}

/** Blocks are the sequences, then ranges of all rows, which leave out each sequence's first. */
__global__ void shift(const Shift s) {
  const size_t D = s.numChannels, e = blockIdx.y * (size_t)THREADS + threadIdx.x, b = blockIdx.x;
  if (e >= D) return;
  if (b < s.numSequences) {
    const DmRows rows = dm_rows_of(b, s.lengths, s.numSequences, s.numRows);
    const float before = s.past[b * D + e];
    if (rows.count > 0) mix_row(s, rows.start, before, e);
    s.present[b * D + e] = rows.count > 0 ? s.x[(rows.start + rows.count - 1) * s.stride + e] : before;
    return;
  }
  const size_t first = (b - s.numSequences) * STEPS_PER_THREAD, end = first + STEPS_PER_THREAD;
  for (size_t row = first; row < end && row < s.numRows; row++) {
    if (dm_rows_at(row, s.lengths, s.numSequences, s.numRows).start < row) mix_row(s, row, s.x[(row - 1) * s.stride + e], e);
  }
}

/** Inputs and outputs as the twin has them. */
bool compute(const void *, DmContext *context) {
  DmTensor x, past, mix, lengths = {};
  if (!dm_input_rows(context, 0, &x) || !dm_input(context, 1, &past) || !dm_input(context, 2, &mix)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (x.rank != 3 || mix.rank != 2 || past.rank == 0 || x.dims[0] != (hasLengths ? 1 : past.dims[0]) || x.dims[2] != mix.dims[1] ||
      dm_num_elements(&past) != (size_t)(past.dims[0] * mix.dims[1])) {
    return dm_fail(context, "TokenShift: x must be [B,T,D], past [B,D] and mix [n,D]");
  }
  if (mix.dims[0] > (int64_t)MAX_MIXTURES) {
    return dm_fail(context, "TokenShift: at most %d mixtures, given %d", (int)MAX_MIXTURES, (int)mix.dims[0]);
  }
  Shift s = {};
  s.numSequences = (size_t)past.dims[0];
  s.numRows = (size_t)(x.dims[0] * x.dims[1]);
  if (!dm_expect_rows(context, hasLengths ? &lengths : NULL, s.numSequences, s.numRows)) return false;
  s.numChannels = (size_t)mix.dims[1];
  s.numMixtures = (size_t)mix.dims[0];
  s.stride = x.stride;
  s.lengths = (const int64_t *)lengths.data;
  s.x = (const float *)x.data;
  s.past = (const float *)past.data;
  s.mix = (const float *)mix.data;
  s.present = (float *)dm_output(context, 0, past.dims, past.rank);
  for (size_t i = 0; i < s.numMixtures; i++) {
    s.out[i] = (float *)dm_output(context, 1 + i, x.dims, 3);
    if (!context->failure.exists && s.out[i] == NULL) {
      return dm_fail(context, "TokenShift: %zu mixtures have as many outputs, given %zu", s.numMixtures, i);
    }
  }
  if (context->failure.exists) return false;
  if (s.numSequences * s.numChannels == 0) return true;
  const dim3 grid((unsigned)(s.numSequences + dm_ceil_div(s.numRows, STEPS_PER_THREAD)), (unsigned)dm_ceil_div(s.numChannels, THREADS));
  return dm_on_stream(context, "TokenShift", [&](cudaStream_t stream) { DM_LAUNCH(shift, grid, dim3(THREADS), stream, s); });
}

}  // namespace

extern "C" const DmOp DM_NAME(token_shift) = {
    .name = "TokenShift",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_INT64, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true},
                {DM_FLOAT, true}},
    .create = NULL,
    .compute = compute,
    .destroy = NULL,
};
