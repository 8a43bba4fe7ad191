/**
 * densemamba.Norm in CUDA: LayerNorm, RMSNorm or GroupNorm of x or of the sum of two, gated before
 * or after. A block is a group of a row. Twin: ../norm.c.
 */
#include "device.h"

namespace {

enum { INPUT_X, WEIGHT, BIAS, ADDED, GATE };
/** The attribute `gate`: the norm is multiplied by it; or x is by its SiLU. */
enum { NO_GATE, GATE_AFTER, GATE_BEFORE };

constexpr unsigned WARPS = 4, THREADS = DM_WARP * WARPS;

/** Rows `stride` apart; `data` may be NULL. */
struct Rows {
  const float *data;
  size_t stride;
  __device__ float at(size_t row, size_t column) const { return data[row * stride + column]; }
};

struct Norm {
  size_t numRows, width, numGroups, weightStride; /* from group to group: 0 if all have the same */
  int64_t gatePlace;
  float epsilon;
  Rows x, added, gate;
  const float *weight, *bias; /* [width] or [width / numGroups]; `bias` may be NULL */
  float *normed, *sum;        /* [rows,width]; `sum` may be NULL, or the memory of x or `added` */
};

/**
 * Of all threads of the block, in an order that does not depend on them. `shared` is free again
 * after the next barrier.
 */
__device__ inline float sum_block(float x, float (&shared)[WARPS]) {
  for (unsigned bit = 1; bit < DM_WARP; bit *= 2) x = dm_add_across(x, bit);
  if (threadIdx.x % DM_WARP == 0) shared[threadIdx.x / DM_WARP] = x;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < WARPS; i++) sum += shared[i];
  return sum;
}

__global__ void normalise(const Norm n) {
  __shared__ float ofSums[WARPS], ofSquares[WARPS];
  const size_t D = n.width / n.numGroups, row = blockIdx.x / n.numGroups, group = blockIdx.x % n.numGroups, first = group * D;
  const float *weight = n.weight + group * n.weightStride;
  float *sum = (n.sum != NULL ? n.sum : n.normed) + row * n.width + first, *normed = n.normed + row * n.width + first;
  float total = 0, squares = 0;
  for (size_t i = threadIdx.x; i < D; i += THREADS) { /* a thread sees its own again */
    float v = n.x.at(row, first + i);
    if (n.added.data != NULL) v += n.added.at(row, first + i);
    if (n.gatePlace == GATE_BEFORE) v *= dm_silu(n.gate.at(row, first + i));
    sum[i] = v;
    total += v;
  }
  const float mean = n.bias != NULL ? sum_block(total, ofSums) / (float)D : 0.0f;
  for (size_t i = threadIdx.x; i < D; i += THREADS) squares += (sum[i] - mean) * (sum[i] - mean);
  const float factor = 1.0f / sqrtf(sum_block(squares, ofSquares) / (float)D + n.epsilon);
  for (size_t i = threadIdx.x; i < D; i += THREADS) {
    float v = (sum[i] - mean) * factor * weight[i];
    if (n.bias != NULL) v += n.bias[group * n.weightStride + i];
    normed[i] = n.gatePlace == GATE_AFTER ? v * n.gate.at(row, first + i) : v;
  }
}

void *create(DmAttributes *attributes) {
  Norm n = {};
  n.numGroups = (size_t)dm_int_or(attributes, "groups", 1);
  n.gatePlace = dm_int_or(attributes, "gate", NO_GATE);
  n.epsilon = dm_float_or(attributes, "epsilon", 1e-5f);
  if (n.numGroups == 0) return dm_reject(attributes, "Norm: groups must be at least 1");
  Norm *state = (Norm *)malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "Norm: no memory");
  *state = n;
  return state;
}

/** An optional input of the size of x. */
Rows rows_of(DmContext *context, size_t index, const DmTensor *x, const char *name) {
  DmTensor tensor;
  if (!dm_input_rows(context, index, &tensor)) return {};
  if (dm_num_elements(&tensor) != dm_num_elements(x) || tensor.dims[tensor.rank - 1] != x->dims[x->rank - 1]) {
    dm_fail(context, "Norm: %s must have %zu elements, given %zu", name, dm_num_elements(x), dm_num_elements(&tensor));
  }
  return {(const float *)tensor.data, tensor.stride};
}

/** Inputs, attributes and outputs as the twin has them. */
bool compute(const void *state, DmContext *context) {
  Norm n = *(const Norm *)state;
  DmTensor x, weight, bias = {};
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
  n.x = {(const float *)x.data, x.stride};
  n.added = rows_of(context, ADDED, &x, "added");
  n.gate = rows_of(context, GATE, &x, "gate");
  n.weight = (const float *)weight.data;
  n.bias = (const float *)bias.data;
  n.weightStride = numWeights == D ? D / n.numGroups : 0;
  if (n.gatePlace != NO_GATE && n.gate.data == NULL && n.numRows > 0) return dm_fail(context, "Norm: the gate is missing");
  n.normed = (float *)dm_output(context, 0, x.dims, x.rank);
  n.sum = (float *)dm_output(context, 1, x.dims, x.rank);
  if (context->failure.exists) return false;
  if (n.numRows == 0) return true;
  const dim3 grid((unsigned)(n.numRows * n.numGroups));
  return dm_on_stream(context, "Norm", [&](cudaStream_t stream) { DM_LAUNCH(normalise, grid, dim3(THREADS), stream, n); });
}

}  // namespace

extern "C" const DmOp DM_NAME(norm) = {
    .name = "Norm",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
