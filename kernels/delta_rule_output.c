/**
 * densemamba.DeltaRuleOutput: what RWKV-7 makes of a recurrence's readout: each head normalised,
 * plus what its newest key holds for the receptance, times the gate.
 *
 *     normed = (y - mean) rsqrt(variance + ε) ⊙ weight + bias
 *     out = (normed + (Σ r ⊙ k ⊙ r_k) v) ⊙ gate    mean, variance and sum of a head
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

enum { READOUT, R, KEY, VALUE, GATE, WEIGHT, BIAS, BONUS, NUM_INPUTS };
/** Below so many numbers a task costs less than handing it to another thread. */
enum { NUMBERS_PER_TASK = 1 << 12 };

typedef struct {
  size_t numRows, numHeads, width, headsPerTask;
  float epsilon;
  const float *in[NUM_INPUTS]; /* in the order of the node: [rows,H·W], and of parameters [H·W] */
  float *out;                  /* [rows,H·W] */
} Output;

/** Calls `body(i, lanes)` for each vector of a head; with constant lanes for all but the last. */
#define EACH_VECTOR(body)                                             \
  do {                                                                \
    size_t i = 0;                                                     \
    for (; i + DM_LANES <= width; i += DM_LANES) body(i, DM_LANES);   \
    if (i < width) body(i, (width - i));                              \
  } while (0)

/** `at`: where the head begins among all rows' numbers; `c`: among the channels. */
static void finish_head(const Output *n, size_t at, size_t c) {
  const size_t width = n->width;
#define OF_ROW(index, i, lanes) vf_load_some(n->in[index] + at + i, lanes)
#define OF_CHANNEL(index, i, lanes) vf_load_some(n->in[index] + c + i, lanes)
  vf sums = {0}, bonuses = {0}, squares = {0};
#define ADD(i, lanes)                                                                                \
  do {                                                                                               \
    sums += OF_ROW(READOUT, i, lanes);                                                               \
    bonuses += OF_ROW(R, i, lanes) * OF_ROW(KEY, i, lanes) * OF_CHANNEL(BONUS, i, lanes);            \
  } while (0)
  EACH_VECTOR(ADD);
  const float mean = vf_sum(sums) / (float)width, bonus = vf_sum(bonuses);
#define ADD_SQUARES(i, lanes)                                                                        \
  do {                                                                                               \
    vf apart = OF_ROW(READOUT, i, lanes) - mean;                                                     \
    if (lanes < DM_LANES) memset((float *)&apart + lanes, 0, (DM_LANES - lanes) * sizeof(float));    \
    squares += apart * apart;                                                                        \
  } while (0)
  EACH_VECTOR(ADD_SQUARES);
  const float factor = 1.0f / __builtin_sqrtf(vf_sum(squares) / (float)width + n->epsilon);
#define FINISH(i, lanes)                                                                             \
  do {                                                                                               \
    const vf apart = OF_ROW(READOUT, i, lanes) - mean;                                               \
    const vf normed = apart * factor * OF_CHANNEL(WEIGHT, i, lanes) + OF_CHANNEL(BIAS, i, lanes);    \
    const vf out = (normed + bonus * OF_ROW(VALUE, i, lanes)) * OF_ROW(GATE, i, lanes);              \
    vf_store_some(n->out + at + i, out, lanes);                                                      \
  } while (0)
  EACH_VECTOR(FINISH);
}

static void finish_heads(void *user, size_t task) {
  const Output copy = *(const Output *)user, *n = &copy; /* no store can change a copy */
  const size_t total = n->numRows * n->numHeads, first = task * n->headsPerTask;
  const size_t end = first + n->headsPerTask < total ? first + n->headsPerTask : total;
  for (size_t head = first; head < end; head++) finish_head(n, head * n->width, head % n->numHeads * n->width);
}

typedef struct {
  size_t numHeads;
  float epsilon;
} Options;

static void *create(DmAttributes *attributes) {
  const Options options = {.numHeads = (size_t)dm_int(attributes, "heads"), .epsilon = dm_float_or(attributes, "epsilon", 64e-5f)};
  if (attributes->failure.exists) return NULL;
  if (options.numHeads == 0) return dm_reject(attributes, "DeltaRuleOutput: there must be a head");
  Options *state = malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "DeltaRuleOutput: no memory");
  *state = options;
  return state;
}

/**
 * Inputs: y [B,T,C] or [B,T,H,C/H], r, k, v, gate [B,T,C], weight, bias, r_k [C]. Attributes: heads
 * H, epsilon. Output: [B,T,C], as r.
 */
static bool compute(const void *state, DmContext *context) {
  const Options *options = state;
  DmTensor tensors[NUM_INPUTS];
  for (size_t i = 0; i < NUM_INPUTS; i++) {
    if (!dm_input(context, i, &tensors[i])) return false;
  }
  const DmTensor *r = &tensors[R];
  const size_t C = dm_num_elements(&tensors[WEIGHT]), H = options->numHeads;
  if (r->rank == 0 || C == 0 || C % H != 0 || (size_t)r->dims[r->rank - 1] != C) {
    return dm_fail(context, "DeltaRuleOutput: r must have %zu columns, of %zu heads", C, H);
  }
  Output n = {.numRows = dm_num_elements(r) / C, .numHeads = H, .width = C / H, .epsilon = options->epsilon};
  for (size_t i = 0; i < NUM_INPUTS; i++) {
    const size_t expected = i >= WEIGHT ? C : n.numRows * C;
    if (dm_num_elements(&tensors[i]) != expected) {
      return dm_fail(context, "DeltaRuleOutput: input %zu must have %zu elements, given %zu", i, expected, dm_num_elements(&tensors[i]));
    }
    n.in[i] = tensors[i].data;
  }
  n.out = dm_output(context, 0, r->dims, r->rank);
  if (context->failure.exists) return false;
  n.headsPerTask = 1 + NUMBERS_PER_TASK / n.width;
  return dm_parallel_for(context, finish_heads, (n.numRows * H + n.headsPerTask - 1) / n.headsPerTask, &n);
}

const DmOp DM_NAME(delta_rule_output) = {
    .name = "DeltaRuleOutput",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}},
    .create = create,
    .compute = compute,
};
