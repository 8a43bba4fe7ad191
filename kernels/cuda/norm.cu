/**
 * densemamba.Norm in CUDA: LayerNorm, RMSNorm or GroupNorm of x, of x and a pending summand, or of
 * x ⊙ SiLU(gate). A block is a group of a row. Twin: ../norm.c.
 */
#include "device.h"

namespace {

enum { X, WEIGHT, BIAS, PENDING, GATE };

constexpr unsigned WARPS = 4, THREADS = DM_WARP * WARPS;

struct Norm {
  size_t numRows, width, groupWidth, gateStride;
  float epsilon;
  bool isCentred;
  const float *x, *weight; /* [rows,D], [D] */
  const float *bias;       /* [D], or NULL */
  const float *pending;    /* [rows,D], or NULL */
  const float *gate;       /* [rows,gateStride], or NULL */
  float *normed, *sum;     /* [rows,D]; `sum` may be NULL, or the memory of x or `pending` */
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
  const size_t numGroups = n.width / n.groupWidth, row = blockIdx.x / numGroups, first = blockIdx.x % numGroups * n.groupWidth;
  float *sum = n.sum != NULL ? n.sum : n.normed, total = 0, squares = 0;
  for (size_t i = threadIdx.x; i < n.groupWidth; i += THREADS) { /* a thread sees its own again */
    const size_t at = row * n.width + first + i;
    float v = n.x[at];
    if (n.pending != NULL) v += n.pending[at];
    if (n.gate != NULL) v *= dm_silu(n.gate[row * n.gateStride + first + i]);
    sum[at] = v;
    total += v;
  }
  const float mean = n.isCentred ? sum_block(total, ofSums) / (float)n.groupWidth : 0.0f;
  for (size_t i = threadIdx.x; i < n.groupWidth; i += THREADS) {
    const float apart = sum[row * n.width + first + i] - mean;
    squares += apart * apart;
  }
  const float factor = 1.0f / sqrtf(sum_block(squares, ofSquares) / (float)n.groupWidth + n.epsilon);
  for (size_t i = threadIdx.x; i < n.groupWidth; i += THREADS) {
    const size_t c = first + i, at = row * n.width + c;
    n.normed[at] = (sum[at] - mean) * factor * n.weight[c] + (n.bias != NULL ? n.bias[c] : 0.0f);
  }
}

struct Options {
  size_t numGroups, gateAt;
  float epsilon;
  bool isCentred;
};

void *create(DmAttributes *attributes) {
  Options *options = (Options *)malloc(sizeof(Options));
  if (options == NULL) return dm_reject(attributes, "Norm: no memory");
  options->numGroups = (size_t)dm_int_or(attributes, "groups", 1);
  options->gateAt = (size_t)dm_int_or(attributes, "gate_at", 0);
  options->epsilon = dm_float_or(attributes, "epsilon", 1e-5f);
  options->isCentred = dm_int_or(attributes, "centred", 0) != 0;
  if (options->numGroups > 0) return options;
  free(options);
  return dm_reject(attributes, "Norm: there must be a group");
}

/** Inputs, attributes and outputs as the twin has them. */
bool compute(const void *state, DmContext *context) {
  const Options *options = (const Options *)state;
  DmTensor x, weight, bias = {}, pending = {}, gate = {};
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
  Norm n = {};
  n.numRows = numNumbers / D;
  n.width = D;
  n.groupWidth = D / options->numGroups;
  n.epsilon = options->epsilon;
  n.isCentred = options->isCentred;
  n.x = (const float *)x.data;
  n.weight = (const float *)weight.data;
  n.bias = (const float *)bias.data;
  n.pending = (const float *)pending.data;
  if (hasGate && n.numRows > 0) {
    n.gateStride = dm_num_elements(&gate) / n.numRows;
    n.gate = (const float *)gate.data + options->gateAt;
    if (dm_num_elements(&gate) % n.numRows != 0 || n.gateStride < options->gateAt + D) {
      return dm_fail(context, "Norm: gate must have %zu columns from %zu on, given %zu", D, options->gateAt, n.gateStride);
    }
  }
  n.normed = (float *)dm_output(context, 0, x.dims, x.rank);
  n.sum = (float *)dm_output(context, 1, x.dims, x.rank);
  if (context->status != NULL) return false;
  if (n.numRows == 0) return true;
  const dim3 grid((unsigned)(n.numRows * options->numGroups));
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
