/**
 * densemamba.Norm: of each group of columns of a row, x · rsqrt(mean(x²) + ε) · weight + bias;
 * where `centred` (LayerNorm, GroupNorm) of x less its mean. x may be the sum of two inputs, which
 * it gives too, or come gated: x ⊙ SiLU(gate) (Mamba-2's). A row's result depends on the row alone.
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

enum { X, WEIGHT, BIAS, PENDING, GATE };
/** Below so many numbers a task costs less than handing it to another thread. */
enum { NUMBERS_PER_TASK = 1 << 13 };

typedef struct {
  size_t numRows, width, groupWidth, gateStride, rowsPerTask;
  float epsilon;
  bool isCentred;
  const float *x, *weight;    /* [rows,D], [D] */
  const float *bias;          /* [D], or NULL */
  const float *pending;       /* [rows,D], or NULL */
  const float *gate;          /* [rows,gateStride], or NULL */
  float *normed, *sum;        /* [rows,D]; `sum` may be NULL, or the memory of x or `pending` */
} Norm;

#define EACH_VECTOR for (size_t i = first, lanes; i < end && (lanes = end - i < DM_LANES ? end - i : DM_LANES); i += DM_LANES)

/** Σ (x - mean)² of columns [first, end) of `row`. */
static float sum_squares(const float *row, size_t first, size_t end, float mean) {
  vf squares[4] = {{0}};
  EACH_VECTOR {
    vf apart = vf_load_some(row + i, lanes) - mean;
    if (lanes < DM_LANES) memset((float *)&apart + lanes, 0, (DM_LANES - lanes) * sizeof(float));
    squares[(i - first) / DM_LANES % 4] += apart * apart;
  }
  return vf_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
}

/**
 * Columns [first, end) of a row. What is normalised is written first, to where it is kept or to
 * where its norm will be.
 */
static void normalise_group(const Norm *n, size_t row, size_t first, size_t end) {
  const size_t D = n->width;
  const float *x = n->x + row * D, width = (float)(end - first);
  float *normed = n->normed + row * D, *sum = n->sum ? n->sum + row * D : normed;
  vf sums = {0};
  EACH_VECTOR {
    vf v = vf_load_some(x + i, lanes);
    if (n->pending) v += vf_load_some(n->pending + row * D + i, lanes);
    if (n->gate) v *= vf_silu(vf_load_some(n->gate + row * n->gateStride + i, lanes));
    sums += v;
    vf_store_some(sum + i, v, lanes);
  }
  const float mean = n->isCentred ? vf_sum(sums) / width : 0;
  const float factor = 1.0f / __builtin_sqrtf(sum_squares(sum, first, end, mean) / width + n->epsilon);
  EACH_VECTOR {
    vf v = (vf_load_some(sum + i, lanes) - mean) * factor * vf_load_some(n->weight + i, lanes);
    if (n->bias) v += vf_load_some(n->bias + i, lanes);
    vf_store_some(normed + i, v, lanes);
  }
}

static void normalise_rows(void *user, size_t task) {
  const Norm copy = *(const Norm *)user, *n = &copy; /* no store can change a copy */
  const size_t first = task * n->rowsPerTask;
  for (size_t row = first; row < first + n->rowsPerTask && row < n->numRows; row++) {
    for (size_t group = 0; group < n->width; group += n->groupWidth) normalise_group(n, row, group, group + n->groupWidth);
  }
}

typedef struct {
  size_t numGroups, gateAt;
  float epsilon;
  bool isCentred;
} Options;

static void *create(DmAttributes *attributes) {
  Options *options = malloc(sizeof *options);
  if (options == NULL) return dm_reject(attributes, "Norm: no memory");
  *options = (Options){
      .numGroups = (size_t)dm_int_or(attributes, "groups", 1),
      .gateAt = (size_t)dm_int_or(attributes, "gate_at", 0),
      .epsilon = dm_float_or(attributes, "epsilon", 1e-5f),
      .isCentred = dm_int_or(attributes, "centred", 0) != 0,
  };
  if (options->numGroups > 0) return options;
  free(options);
  return dm_reject(attributes, "Norm: there must be a group");
}

/**
 * Inputs: x [..., D] (or of other dimensions, with as many numbers a row), weight [D], bias [D]?,
 * pending, as x?, gate [..., S]?, of which D columns from `gate_at` on. Attributes: groups (1),
 * centred (0), epsilon (1e-5), gate_at (0). Outputs: normed, and x with the pending summand and
 * gate?; both as x.
 */
static bool compute(const void *state, DmContext *context) {
  const Options *options = state;
  DmTensor x, weight, bias = {0}, pending = {0}, gate = {0};
  if (!dm_input(context, X, &x) || !dm_input(context, WEIGHT, &weight)) return false;
  const bool hasBias = dm_input(context, BIAS, &bias), hasPending = dm_input(context, PENDING, &pending);
  const bool hasGate = dm_input(context, GATE, &gate);
  const size_t D = dm_num_elements(&weight), numNumbers = dm_num_elements(&x);
  if (D == 0 || D % options->numGroups != 0) {
    return dm_fail(context, "Norm: %zu columns do not divide into %zu groups", D, options->numGroups);
  }
  if (x.rank == 0 || numNumbers % D != 0 || (size_t)x.dims[x.rank - 1] > D || D % (size_t)x.dims[x.rank - 1] != 0) {
    return dm_fail(context, "Norm: x must have %zu columns", D);
  }
  if ((hasBias && dm_num_elements(&bias) != D) || (hasPending && dm_num_elements(&pending) != numNumbers)) {
    return dm_fail(context, "Norm: bias must have %zu elements, and pending as many as x, %zu", D, numNumbers);
  }
  Norm n = {
      .numRows = numNumbers / D,
      .width = D,
      .groupWidth = D / options->numGroups,
      .rowsPerTask = 1 + NUMBERS_PER_TASK / D,
      .epsilon = options->epsilon,
      .isCentred = options->isCentred,
      .x = x.data,
      .weight = weight.data,
      .bias = bias.data,
      .pending = pending.data,
  };
  if (hasGate && n.numRows > 0) {
    n.gateStride = dm_num_elements(&gate) / n.numRows;
    n.gate = (const float *)gate.data + options->gateAt;
    if (dm_num_elements(&gate) % n.numRows != 0 || n.gateStride < options->gateAt + D) {
      return dm_fail(context, "Norm: gate must have %zu columns from %zu on, given %zu", D, options->gateAt, n.gateStride);
    }
  }
  n.normed = dm_output(context, 0, x.dims, x.rank);
  n.sum = dm_output(context, 1, x.dims, x.rank);
  if (context->status != NULL) return false;
  return dm_parallel_for(context, normalise_rows, (n.numRows + n.rowsPerTask - 1) / n.rowsPerTask, &n);
}

const DmOp DM_NAME(norm) = {
    .name = "Norm",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
};
