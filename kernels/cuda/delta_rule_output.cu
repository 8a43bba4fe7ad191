/**
 * densemamba.DeltaRuleOutput in CUDA: each head of RWKV-7's readout normalised, plus what its
 * newest key holds for the receptance, times the gate. A warp is a head of a row. Twin:
 * ../delta_rule_output.c, which has the equation.
 */
#include "device.h"

namespace {

enum { READOUT, R, KEY, VALUE, GATE, WEIGHT, BIAS, BONUS, NUM_INPUTS };

constexpr unsigned WARPS = 4;

struct Output {
  size_t numRows, numHeads, width;
  float epsilon;
  const float *in[NUM_INPUTS]; /* in the order of the node: [rows,H·W], and of parameters [H·W] */
  float *out;                  /* [rows,H·W] */
};

__device__ inline float sum_lanes(float x) {
  for (unsigned bit = 1; bit < DM_WARP; bit *= 2) x = dm_add_across(x, bit);
  return x;
}

__global__ void finish(const Output n) {
  const size_t head = blockIdx.x * (size_t)WARPS + threadIdx.x / DM_WARP, lane = threadIdx.x % DM_WARP;
  if (head >= n.numRows * n.numHeads) return; /* the whole warp */
  const size_t first = head * n.width, channel = head % n.numHeads * n.width;
  float sum = 0, bonus = 0, squares = 0;
  for (size_t i = lane; i < n.width; i += DM_WARP) {
    sum += n.in[READOUT][first + i];
    bonus += n.in[R][first + i] * n.in[KEY][first + i] * n.in[BONUS][channel + i];
  }
  const float mean = sum_lanes(sum) / (float)n.width;
  bonus = sum_lanes(bonus);
  for (size_t i = lane; i < n.width; i += DM_WARP) {
    const float apart = n.in[READOUT][first + i] - mean;
    squares += apart * apart;
  }
  const float factor = 1.0f / sqrtf(sum_lanes(squares) / (float)n.width + n.epsilon);
  for (size_t i = lane; i < n.width; i += DM_WARP) {
    const size_t at = first + i, c = channel + i;
    const float normed = (n.in[READOUT][at] - mean) * factor * n.in[WEIGHT][c] + n.in[BIAS][c];
    n.out[at] = (normed + bonus * n.in[VALUE][at]) * n.in[GATE][at];
  }
}

struct Options {
  size_t numHeads;
  float epsilon;
};

void *create(DmAttributes *attributes) {
  const size_t numHeads = (size_t)dm_int(attributes, "heads");
  if (attributes->failure.exists) return NULL;
  if (numHeads == 0) return dm_reject(attributes, "DeltaRuleOutput: there must be a head");
  Options *options = (Options *)malloc(sizeof(Options));
  if (options == NULL) return dm_reject(attributes, "DeltaRuleOutput: no memory");
  options->numHeads = numHeads;
  options->epsilon = dm_float_or(attributes, "epsilon", 64e-5f);
  return options;
}

/** Inputs, attributes and output as the twin has them. */
bool compute(const void *state, DmContext *context) {
  const Options *options = (const Options *)state;
  DmTensor tensors[NUM_INPUTS];
  for (size_t i = 0; i < NUM_INPUTS; i++) {
    if (!dm_input(context, i, &tensors[i])) return false;
  }
  const DmTensor *r = &tensors[R];
  const size_t C = dm_num_elements(&tensors[WEIGHT]), H = options->numHeads;
  if (r->rank == 0 || C == 0 || C % H != 0 || (size_t)r->dims[r->rank - 1] != C) {
    return dm_fail(context, "DeltaRuleOutput: r must have %zu columns, of %zu heads", C, H);
  }
  Output n = {};
  n.numRows = dm_num_elements(r) / C;
  n.numHeads = H;
  n.width = C / H;
  n.epsilon = options->epsilon;
  for (size_t i = 0; i < NUM_INPUTS; i++) {
    const size_t expected = i >= WEIGHT ? C : n.numRows * C;
    if (dm_num_elements(&tensors[i]) != expected) {
      return dm_fail(context, "DeltaRuleOutput: input %zu must have %zu elements, given %zu", i, expected, dm_num_elements(&tensors[i]));
    }
    n.in[i] = (const float *)tensors[i].data;
  }
  n.out = (float *)dm_output(context, 0, r->dims, r->rank);
  if (context->failure.exists) return false;
  if (n.numRows == 0) return true;
  const dim3 grid((unsigned)dm_ceil_div(n.numRows * H, WARPS));
  return dm_on_stream(context, "DeltaRuleOutput", [&](cudaStream_t stream) { DM_LAUNCH(finish, grid, dim3(DM_WARP * WARPS), stream, n); });
}

}  // namespace

extern "C" const DmOp DM_NAME(delta_rule_output) = {
    .name = "DeltaRuleOutput",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
