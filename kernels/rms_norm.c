/**
 * densemamba.RmsNorm: x · rsqrt(mean(x²) + ε) · weight over the last axis; of the sum of two inputs, which it gives too, where there
 * are two. A row's result depends on the row alone.
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

/** Below so many numbers a task costs less than handing it to another thread. */
enum { NUMBERS_PER_TASK = 1 << 13 };

typedef struct {
  size_t numRows, width, rowsPerTask;
  float epsilon;
  const float *x, *pending, *weight; /* `pending` may be NULL */
  float *normed, *sum;               /* `sum` may be NULL, or the memory of x or `pending` */
} Norm;

static void normalise_row(const Norm *n, size_t row) {
  const size_t D = n->width;
  const float *x = n->x + row * D, *pending = n->pending ? n->pending + row * D : NULL;
  float *normed = n->normed + row * D, *sum = n->sum ? n->sum + row * D : normed;
  vf squares[4] = {{0}};
  size_t i = 0;
  for (; i < D; i += DM_LANES) {
    const size_t lanes = D - i < DM_LANES ? D - i : DM_LANES;
    vf v = vf_load_some(x + i, lanes);
    if (pending) v += vf_load_some(pending + i, lanes);
    squares[i / DM_LANES % 4] += v * v;
    vf_store_some(sum + i, v, lanes);
  }
  const float total = vf_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const float factor = 1.0f / __builtin_sqrtf(total / (float)D + n->epsilon);
  for (i = 0; i < D; i += DM_LANES) {
    const size_t lanes = D - i < DM_LANES ? D - i : DM_LANES;
    vf_store_some(normed + i, vf_load_some(sum + i, lanes) * factor * vf_load_some(n->weight + i, lanes), lanes);
  }
}

static void normalise_rows(void *user, size_t task) {
  const Norm *n = user;
  const size_t first = task * n->rowsPerTask;
  for (size_t row = first; row < first + n->rowsPerTask && row < n->numRows; row++) normalise_row(n, row);
}

static void *create(DmAttributes *attributes) {
  float *epsilon = malloc(sizeof *epsilon);
  if (epsilon == NULL) return dm_reject(attributes, "RmsNorm: no memory");
  *epsilon = dm_float_or(attributes, "epsilon", 1e-5f);
  return epsilon;
}

/** Inputs: x [..., D], weight [D], pending [..., D]?. Outputs: normed [..., D], x + pending [..., D]?. */
static bool compute(const void *epsilon, DmContext *context) {
  DmTensor x, weight, pending = {0};
  if (!dm_input(context, 0, &x) || !dm_input(context, 1, &weight)) return false;
  const bool hasPending = dm_input(context, 2, &pending);
  const size_t D = dm_num_elements(&weight);
  if (D == 0 || x.rank == 0 || (size_t)x.dims[x.rank - 1] != D) {
    return dm_fail(context, "RmsNorm: x must have %zu columns", D);
  }
  if (hasPending && dm_num_elements(&pending) != dm_num_elements(&x)) {
    return dm_fail(context, "RmsNorm: pending must have %zu elements, given %zu", dm_num_elements(&x), dm_num_elements(&pending));
  }
  Norm n = {
      .numRows = dm_num_elements(&x) / D,
      .width = D,
      .rowsPerTask = 1 + NUMBERS_PER_TASK / D,
      .epsilon = *(const float *)epsilon,
      .x = x.data,
      .weight = weight.data,
      .pending = pending.data,
  };
  n.normed = dm_output(context, 0, x.dims, x.rank);
  n.sum = dm_output(context, 1, x.dims, x.rank);
  if (context->status != NULL) return false;
  return dm_parallel_for(context, normalise_rows, (n.numRows + n.rowsPerTask - 1) / n.rowsPerTask, &n);
}

const DmOp DM_NAME(rms_norm) = {
    .name = "RmsNorm",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
};
