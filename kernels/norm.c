/**
 * densemamba.Norm: x · rsqrt(mean(x²) + ε) · weight of each row, or of each group of its columns;
 * with a bias the mean is taken away first, a LayerNorm. x may be the sum of two inputs, which it
 * gives too, and it or its norm may be multiplied by a gate. A row's result depends on the row
 * alone.
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

/** Below so many numbers a task costs less than handing it to another thread. */
enum { NUMBERS_PER_TASK = 1 << 13 };

enum { INPUT_X, WEIGHT, BIAS, ADDED, GATE };
/** The attribute `gate`: the norm is multiplied by it; or x is by its SiLU. */
enum { NO_GATE, GATE_AFTER, GATE_BEFORE };

/** Rows `stride` apart. */
typedef struct {
  const float *data; /* or NULL */
  size_t stride;
} Rows;

typedef struct {
  size_t numRows, width, numGroups, rowsPerTask;
  int64_t gatePlace;
  float epsilon;
  Rows x, added, gate;
  const float *weight, *bias; /* [width], or [width / numGroups]: `weightStride` from group to group; `bias` or NULL */
  size_t weightStride;
  float *normed, *sum;        /* `sum` may be NULL, or the memory of x or `added` */
} Norm;

static const float *group_of(Rows rows, size_t row, size_t first) { return rows.data ? rows.data + row * rows.stride + first : NULL; }

/** A vector of what is normalised, which `sum` gets, from column i on. @returns it or its square */
DM_INLINE vf sum_vector(const float *x, const float *added, const float *gate, float *sum, size_t i, size_t lanes, bool ofSquares) {
  vf v = vf_load_some(x + i, lanes);
  if (added) v += vf_load_some(added + i, lanes);
  if (gate) v *= vf_silu(vf_load_some(gate + i, lanes));
  vf_store_some(sum + i, v, lanes);
  return ofSquares ? v * v : v;
}

/**
 * @returns the mean of what is normalised, or of its squares. The sums have names, not indices:
 * compilers keep arrays in memory.
 */
DM_INLINE float sum_up(const float *x, const float *added, const float *gate, float *sum, size_t D, bool ofSquares) {
  vf sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
#define ADD_TO(which, lanes) which += sum_vector(x, added, gate, sum, i, lanes, ofSquares), i += lanes
  size_t i = 0;
  while (i + 4 * DM_LANES <= D) {
    ADD_TO(sum0, DM_LANES);
    ADD_TO(sum1, DM_LANES);
    ADD_TO(sum2, DM_LANES);
    ADD_TO(sum3, DM_LANES);
  }
#define REST (D - i < DM_LANES ? D - i : DM_LANES)
  if (i < D) ADD_TO(sum0, REST);
  if (i < D) ADD_TO(sum1, REST);
  if (i < D) ADD_TO(sum2, REST);
  if (i < D) ADD_TO(sum3, REST);
  return vf_sum((sum0 + sum1) + (sum2 + sum3)) / (float)D;
}

/** Of x - mean. */
static float variance(const float *x, float mean, size_t D) {
  vf squares = {0};
  float rest = 0;
  size_t i = 0;
  for (; i + DM_LANES <= D; i += DM_LANES) {
    const vf v = vf_load(x + i) - mean;
    squares += v * v;
  }
  for (; i < D; i++) rest += (x[i] - mean) * (x[i] - mean);
  return (vf_sum(squares) + rest) / (float)D;
}

static void normalise_group(const Norm *n, size_t row, size_t group) {
  const size_t D = n->width / n->numGroups, first = group * D, at = row * n->width + first;
  const float *x = group_of(n->x, row, first), *added = group_of(n->added, row, first), *gate = group_of(n->gate, row, first);
  const float *weight = n->weight + group * n->weightStride, *bias = n->bias ? n->bias + group * n->weightStride : NULL;
  const float *before = n->gatePlace == GATE_BEFORE ? gate : NULL, *after = n->gatePlace == GATE_AFTER ? gate : NULL;
  float *normed = n->normed + at, *sum = n->sum ? n->sum + at : normed;
  const float mean = bias ? sum_up(x, added, before, sum, D, false) : 0;
  const float square = bias ? variance(sum, mean, D) : sum_up(x, added, before, sum, D, true);
  const float factor = 1.0f / __builtin_sqrtf(square + n->epsilon);
  for (size_t i = 0; i < D; i += DM_LANES) {
    const size_t lanes = D - i < DM_LANES ? D - i : DM_LANES;
    vf v = vf_load_some(sum + i, lanes);
    if (bias) v = (v - mean) * factor * vf_load_some(weight + i, lanes) + vf_load_some(bias + i, lanes);
    else v = v * factor * vf_load_some(weight + i, lanes);
    if (after) v *= vf_load_some(after + i, lanes);
    vf_store_some(normed + i, v, lanes);
  }
}

static void normalise_rows(void *user, size_t task) {
  const Norm *n = user;
  const size_t first = task * n->rowsPerTask;
  for (size_t row = first; row < first + n->rowsPerTask && row < n->numRows; row++) {
    for (size_t group = 0; group < n->numGroups; group++) normalise_group(n, row, group);
  }
}

static void *create(DmAttributes *attributes) {
  const Norm n = {
      .numGroups = (size_t)dm_int_or(attributes, "groups", 1),
      .gatePlace = dm_int_or(attributes, "gate", NO_GATE),
      .epsilon = dm_float_or(attributes, "epsilon", 1e-5f),
  };
  if (n.numGroups == 0) return dm_reject(attributes, "Norm: groups must be at least 1");
  Norm *state = malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "Norm: no memory");
  *state = n;
  return state;
}

/** An optional input of the size of x. */
static Rows rows_of(DmContext *context, size_t index, const DmTensor *x, const char *name) {
  DmTensor tensor;
  if (!dm_input_rows(context, index, &tensor)) return (Rows){0};
  if (dm_num_elements(&tensor) != dm_num_elements(x) || tensor.dims[tensor.rank - 1] != x->dims[x->rank - 1]) {
    dm_fail(context, "Norm: %s must have %zu elements, given %zu", name, dm_num_elements(x), dm_num_elements(&tensor));
  }
  return (Rows){tensor.data, tensor.stride};
}

/**
 * Inputs: x [..., D], weight [D] or [D / groups], bias as weight?, added [..., D]?, gate [..., D]?.
 * Outputs: normed [..., D], x + added [..., D]?.
 */
static bool compute(const void *state, DmContext *context) {
  Norm n = *(const Norm *)state;
  DmTensor x, weight, bias = {0};
  if (!dm_input_rows(context, INPUT_X, &x) || !dm_input(context, WEIGHT, &weight)) return false;
  const bool hasBias = dm_input(context, BIAS, &bias);
  const size_t D = x.rank == 0 ? 0 : (size_t)x.dims[x.rank - 1], numWeights = dm_num_elements(&weight);
  if (D == 0 || D % n.numGroups != 0 || (numWeights != D && numWeights != D / n.numGroups)) {
    return dm_fail(context, "Norm: x must have %zu columns in %zu groups, given %zu", numWeights, n.numGroups, D);
  }
  if (hasBias && dm_num_elements(&bias) != numWeights) {
    return dm_fail(context, "Norm: bias must have %zu elements, given %zu", numWeights, dm_num_elements(&bias));
  }
  n.numRows = dm_num_elements(&x) / D;
  n.width = D;
  n.rowsPerTask = 1 + NUMBERS_PER_TASK / D;
  n.x = (Rows){x.data, x.stride};
  n.added = rows_of(context, ADDED, &x, "added");
  n.gate = rows_of(context, GATE, &x, "gate");
  n.weight = weight.data;
  n.bias = bias.data;
  n.weightStride = numWeights == D ? D / n.numGroups : 0;
  if (n.gatePlace != NO_GATE && n.gate.data == NULL && n.numRows > 0) return dm_fail(context, "Norm: the gate is missing");
  n.normed = dm_output(context, 0, x.dims, x.rank);
  n.sum = dm_output(context, 1, x.dims, x.rank);
  if (context->failure.exists) return false;
  return dm_parallel_for(context, normalise_rows, (n.numRows + n.rowsPerTask - 1) / n.rowsPerTask, &n);
}

const DmOp DM_NAME(norm) = {
    .name = "Norm",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
};
