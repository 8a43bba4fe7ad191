/**
 * densemamba.Discretize: Mamba-2's step sizes and what a step leaves of the state, one of each a
 * head: Δ = clamp(softplus(dt + b), least, most) and decay = e^(Δ A).
 */
#include <math.h>
#include <stdlib.h>

#include "op.h"
#include "simd.h"

/** Below so many numbers a task costs less than handing it to another thread. */
enum { NUMBERS_PER_TASK = 1 << 11 };

typedef struct {
  size_t numRows, numHeads, stride, rowsPerTask;
  float least, most;
  const float *dt;    /* [rows,H], `stride` apart */
  const float *bias;  /* [H] */
  const float *A;     /* [H], negative */
  float *delta;       /* [rows,H] */
  float *decay;       /* [rows,H] */
} Steps;

static void discretize_rows(void *user, size_t task) {
  const Steps copy = *(const Steps *)user, *s = &copy;
  const size_t H = s->numHeads, first = task * s->rowsPerTask;
  const size_t end = first + s->rowsPerTask < s->numRows ? first + s->rowsPerTask : s->numRows;
  for (size_t row = first; row < end; row++) {
    for (size_t i = 0; i < H; i += DM_LANES) {
      const size_t lanes = H - i < DM_LANES ? H - i : DM_LANES;
      const vf dt = vf_load_some(s->dt + row * s->stride + i, lanes) + vf_load_some(s->bias + i, lanes);
      const vf delta = vf_at_most(vf_at_least(vf_softplus(dt), s->least), s->most);
      vf_store_some(s->delta + row * H + i, delta, lanes);
      vf_store_some(s->decay + row * H + i, vf_exp(delta * vf_load_some(s->A + i, lanes)), lanes);
    }
  }
}

typedef struct {
  float least, most;
} Options;

static void *create(DmAttributes *attributes) {
  Options *options = malloc(sizeof *options);
  if (options == NULL) return dm_reject(attributes, "Discretize: no memory");
  *options = (Options){
      .least = dm_float_or(attributes, "least", 0),
      .most = dm_float_or(attributes, "most", INFINITY),
  };
  return options;
}

/** Inputs: dt [B,T,H], b [H], A [H]. Attributes: least (0), most (∞). Outputs: Δ, decay [B,T,H]. */
static bool compute(const void *state, DmContext *context) {
  const Options *options = state;
  DmTensor dt, bias, A;
  if (!dm_input_rows(context, 0, &dt) || !dm_input(context, 1, &bias) || !dm_input(context, 2, &A)) return false;
  const size_t H = dm_num_elements(&A);
  if (dt.rank != 3 || H == 0 || (size_t)dt.dims[2] != H || dm_num_elements(&bias) != H) {
    return dm_fail(context, "Discretize: A and b must be [H] and dt [B,T,H], H is %zu", H);
  }
  Steps s = {
      .numRows = (size_t)(dt.dims[0] * dt.dims[1]),
      .numHeads = H,
      .stride = dt.stride,
      .rowsPerTask = 1 + NUMBERS_PER_TASK / H,
      .least = options->least,
      .most = options->most,
      .dt = (const float *)dt.data,
      .bias = bias.data,
      .A = A.data,
  };
  s.delta = dm_output(context, 0, dt.dims, 3);
  s.decay = dm_output(context, 1, dt.dims, 3);
  return !context->failure.exists && dm_parallel_for(context, discretize_rows, (s.numRows + s.rowsPerTask - 1) / s.rowsPerTask, &s);
}

const DmOp DM_NAME(discretize) = {
    .name = "Discretize",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .create = create,
    .compute = compute,
};
