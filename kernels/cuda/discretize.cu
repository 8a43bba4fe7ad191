/**
 * densemamba.Discretize in CUDA: Δ = clamp(softplus(dt + b), least, most) and decay = e^(Δ A), one
 * of each a head. A thread is a head of a row. Twin: ../discretize.c.
 */
#include "device.h"

namespace {

constexpr unsigned THREADS = 128;

struct Steps {
  size_t numRows, numHeads, stride;
  float least, most;
  const float *dt;   /* [rows,H], `stride` apart */
  const float *bias; /* [H] */
  const float *A;    /* [H], negative */
  float *delta;      /* [rows,H] */
  float *decay;      /* [rows,H] */
};

/** NaN stays NaN, which `fminf` and `fmaxf` would drop. */
__global__ void discretize(const Steps s) {
  const size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x, head = i % s.numHeads;
  if (i >= s.numRows * s.numHeads) return;
  const float step = dm_softplus(s.dt[i / s.numHeads * s.stride + head] + s.bias[head]);
  const float delta = step < s.least ? s.least : step > s.most ? s.most : step;
  s.delta[i] = delta;
  s.decay[i] = expf(delta * s.A[head]);
}

struct Options {
  float least, most;
};

void *create(DmAttributes *attributes) {
  Options *options = (Options *)malloc(sizeof(Options));
  if (options == NULL) return dm_reject(attributes, "Discretize: no memory");
  options->least = dm_float_or(attributes, "least", 0);
  options->most = dm_float_or(attributes, "most", INFINITY);
  return options;
}

/** Inputs, attributes and outputs as the twin has them. */
bool compute(const void *state, DmContext *context) {
  const Options *options = (const Options *)state;
  DmTensor dt, bias, A;
  if (!dm_input_rows(context, 0, &dt) || !dm_input(context, 1, &bias) || !dm_input(context, 2, &A)) return false;
  const size_t H = dm_num_elements(&A);
  if (dt.rank != 3 || H == 0 || (size_t)dt.dims[2] != H || dm_num_elements(&bias) != H) {
    return dm_fail(context, "Discretize: A and b must be [H] and dt [B,T,H], H is %zu", H);
  }
  Steps s = {};
  s.numRows = (size_t)(dt.dims[0] * dt.dims[1]);
  s.numHeads = H;
  s.stride = dt.stride;
  s.least = options->least;
  s.most = options->most;
  s.dt = (const float *)dt.data;
  s.bias = (const float *)bias.data;
  s.A = (const float *)A.data;
  s.delta = (float *)dm_output(context, 0, dt.dims, 3);
  s.decay = (float *)dm_output(context, 1, dt.dims, 3);
  if (context->failure.exists) return false;
  if (s.numRows == 0) return true;
  const dim3 grid((unsigned)dm_ceil_div(s.numRows * H, THREADS));
  return dm_on_stream(context, "Discretize", [&](cudaStream_t stream) { DM_LAUNCH(discretize, grid, dim3(THREADS), stream, s); });
}

}  // namespace

extern "C" const DmOp DM_NAME(discretize) = {
    .name = "Discretize",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
