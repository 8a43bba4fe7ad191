/**
 * densemamba.Retention in CUDA: one step of S = γ S + k vᵀ and y = q S for every head, in one pass over the state. A block is a
 * few columns of one head, its threads share the rows: a state is large and heads are few. Twin: ../retention.c.
 */
#include "device.h"

namespace {

/** Columns of a block, whose floats lie together, and into how many parts their rows go. */
constexpr unsigned COLUMNS = 32, PARTS = 16;

struct Retention {
  size_t numHeads, keyWidth, valueWidth; /* widths of a head: dk, dv */
  const float *q, *k;                    /* [B,H,dk] */
  const float *v;                        /* [B,H,dv], sequences `valueStride` apart */
  size_t valueStride;
  const float *decay;                    /* [H] */
  const float *past;                     /* [B,H,dk,dv] */
  float *y;                              /* [B,H,dv] */
  float *present;                        /* [B,H,dk,dv], or the past's memory: a thread reads each number before it writes it */
};

__global__ void retain(const Retention r) {
  __shared__ float sums[PARTS][COLUMNS];
  const size_t dk = r.keyWidth, dv = r.valueWidth;
  const size_t numBlocks = dm_ceil_div(dv, COLUMNS); /* of a head */
  const size_t j = blockIdx.x % numBlocks * COLUMNS + threadIdx.x, head = blockIdx.x / numBlocks; /* through all sequences */
  float sum = 0;
  if (j < dv) {
    const float *q = r.q + head * dk, *k = r.k + head * dk, *from = r.past + head * dk * dv + j;
    float *to = r.present + head * dk * dv + j;
    const float v = r.v[head / r.numHeads * r.valueStride + head % r.numHeads * dv + j], decay = r.decay[head % r.numHeads];
#pragma unroll 4
    for (size_t d = threadIdx.y; d < dk; d += PARTS) {
      const float s = decay * from[d * dv] + k[d] * v;
      to[d * dv] = s;
      sum += q[d] * s;
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || j >= dv) return;
  float y = 0;
  for (unsigned part = 0; part < PARTS; part++) y += sums[part][threadIdx.x];
  r.y[head * dv + j] = y;
}

/**
 * Inputs: q, k [B,1,H·dk], v [B,1,H·dv], past [B,H,dk,dv], decay [H]. Outputs: y as v, present [B,H,dk,dv], which may be the
 * memory of `past`.
 */
bool compute(const void *, DmContext *context) {
  DmTensor q, k, v, past, decay;
  if (!dm_input(context, 0, &q) || !dm_input(context, 1, &k) || !dm_input_rows(context, 2, &v) ||
      !dm_input(context, 3, &past) || !dm_input(context, 4, &decay)) {
    return false;
  }
  if (past.rank != 4) return dm_fail(context, "Retention: past must be [B,H,dk,dv]");
  const size_t B = (size_t)past.dims[0], H = (size_t)past.dims[1];
  Retention r = {};
  r.numHeads = H;
  r.keyWidth = (size_t)past.dims[2];
  r.valueWidth = (size_t)past.dims[3];
  r.q = (const float *)q.data;
  r.k = (const float *)k.data;
  r.v = (const float *)v.data;
  r.valueStride = v.stride;
  r.decay = (const float *)decay.data;
  r.past = (const float *)past.data;
  if (dm_num_elements(&q) != B * H * r.keyWidth || dm_num_elements(&k) != B * H * r.keyWidth ||
      dm_num_elements(&v) != B * H * r.valueWidth || dm_num_elements(&decay) != H) {
    return dm_fail(context, "Retention: q and k must be [B,1,H·dk], v [B,1,H·dv] and decay [H]");
  }
  r.y = (float *)dm_output(context, 0, v.dims, v.rank);
  r.present = (float *)dm_output(context, 1, past.dims, 4);
  if (context->failure.exists) return false;
  if (B * H * r.valueWidth == 0) return true;
  const dim3 grid((unsigned)(B * H * dm_ceil_div(r.valueWidth, COLUMNS))), block(COLUMNS, PARTS);
  return dm_on_stream(context, "Retention", [&](cudaStream_t stream) { DM_LAUNCH(retain, grid, block, stream, r); });
}

}  // namespace

extern "C" const DmOp DM_NAME(retention) = {
    .name = "Retention",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .create = NULL,
    .compute = compute,
    .destroy = NULL,
};
