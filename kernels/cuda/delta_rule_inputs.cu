/**
 * densemamba.DeltaRuleInputs in CUDA: RWKV-7's decay, removal and replacement keys and values, from
 * their projections. A warp is a head of a row. Twin: ../delta_rule_inputs.c, which has the
 * equations.
 */
#include "device.h"

namespace {

enum { KEY, W, RATE, KEY_SCALE, KEY_RATE, W0, A0, VALUE, FIRST_VALUE, MIX, V0, NUM_INPUTS };
enum { DECAY, REMOVED, REPLACED, NEW_KEY, NEW_VALUE, NUM_OUTPUTS };

constexpr unsigned WARPS = 4;
/** e^{-1/2} */
constexpr float STRONGEST = 0.60653065971263342f;
/** Of a norm, as PyTorch's. */
constexpr float SMALLEST = 1e-12f;

struct Inputs {
  size_t numRows, numHeads, width;
  bool mixesValues;
  const float *in[NUM_INPUTS]; /* in the order of the node: [rows,H·W], and of parameters [H·W] */
  float *out[NUM_OUTPUTS];
};

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__global__ void prepare(const Inputs n) {
  const size_t head = blockIdx.x * (size_t)WARPS + threadIdx.x / DM_WARP, lane = threadIdx.x % DM_WARP;
  if (head >= n.numRows * n.numHeads) return; /* the whole warp */
  const size_t first = head * n.width, channel = head % n.numHeads * n.width;
  float squares = 0;
  for (size_t i = lane; i < n.width; i += DM_WARP) {
    const float key = n.in[KEY][first + i] * n.in[KEY_SCALE][channel + i];
    squares += key * key;
  }
  for (unsigned bit = 1; bit < DM_WARP; bit *= 2) squares = dm_add_across(squares, bit);
  const float norm = sqrtf(squares), factor = 1.0f / (norm < SMALLEST ? SMALLEST : norm);
  for (size_t i = lane; i < n.width; i += DM_WARP) {
    const size_t at = first + i, c = channel + i;
    const float key = n.in[KEY][at], rate = sigmoid(n.in[A0][c] + n.in[RATE][at]), removal = factor * (key * n.in[KEY_SCALE][c]);
    n.out[DECAY][at] = expf(-STRONGEST * sigmoid(n.in[W0][c] + n.in[W][at]));
    n.out[REMOVED][at] = -removal;
    n.out[REPLACED][at] = removal * rate;
    n.out[NEW_KEY][at] = key * (1.0f + (rate - 1.0f) * n.in[KEY_RATE][c]);
    if (!n.mixesValues) continue;
    const float value = n.in[VALUE][at];
    n.out[NEW_VALUE][at] = value + (n.in[FIRST_VALUE][at] - value) * sigmoid(n.in[V0][c] + n.in[MIX][at]);
  }
}

void *create(DmAttributes *attributes) {
  size_t *numHeads = (size_t *)malloc(sizeof(size_t));
  if (numHeads == NULL) return dm_reject(attributes, "DeltaRuleInputs: no memory");
  *numHeads = (size_t)dm_int(attributes, "heads");
  if (!attributes->failure.exists && *numHeads > 0) return numHeads;
  free(numHeads);
  return !attributes->failure.exists ? dm_reject(attributes, "DeltaRuleInputs: there must be a head") : NULL;
}

/** Inputs, attribute and outputs as the twin has them. */
bool compute(const void *state, DmContext *context) {
  const size_t numHeads = *(const size_t *)state;
  DmTensor tensors[NUM_INPUTS];
  size_t numInputs = 0;
  while (numInputs < NUM_INPUTS && dm_input(context, numInputs, &tensors[numInputs])) numInputs++;
  if (context->failure.exists) return false;
  if (numInputs != VALUE && numInputs != NUM_INPUTS) {
    return dm_fail(context, "DeltaRuleInputs: v, v_first, mix and v0 are given together or not at all");
  }
  const DmTensor *key = &tensors[KEY];
  const size_t C = dm_num_elements(&tensors[KEY_SCALE]);
  if (key->rank == 0 || C == 0 || C % numHeads != 0 || (size_t)key->dims[key->rank - 1] != C) {
    return dm_fail(context, "DeltaRuleInputs: k must have %zu columns, of %zu heads", C, numHeads);
  }
  Inputs n = {};
  n.numRows = dm_num_elements(key) / C;
  n.numHeads = numHeads;
  n.width = C / numHeads;
  n.mixesValues = numInputs == NUM_INPUTS;
  for (size_t i = 0; i < numInputs; i++) {
    const bool isParameter = (i >= KEY_SCALE && i <= A0) || i == V0;
    const size_t expected = isParameter ? C : n.numRows * C;
    if (dm_num_elements(&tensors[i]) != expected) {
      return dm_fail(context, "DeltaRuleInputs: input %zu must have %zu elements, given %zu", i, expected, dm_num_elements(&tensors[i]));
    }
    n.in[i] = (const float *)tensors[i].data;
  }
  for (size_t i = 0; i < (size_t)(n.mixesValues ? NUM_OUTPUTS : NEW_VALUE); i++) {
    n.out[i] = (float *)dm_output(context, i, key->dims, key->rank);
  }
  if (context->failure.exists) return false;
  if (n.mixesValues && n.out[NEW_VALUE] == NULL) return dm_fail(context, "DeltaRuleInputs: mixed values need an output");
  if (n.numRows == 0) return true;
  const dim3 grid((unsigned)dm_ceil_div(n.numRows * numHeads, WARPS));
  return dm_on_stream(context, "DeltaRuleInputs", [&](cudaStream_t stream) { DM_LAUNCH(prepare, grid, dim3(DM_WARP * WARPS), stream, n); });
}

}  // namespace

extern "C" const DmOp DM_NAME(delta_rule_inputs) = {
    .name = "DeltaRuleInputs",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true},
               {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
