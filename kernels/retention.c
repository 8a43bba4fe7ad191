/**
 * densemamba.Retention: one step of S = γ S + k vᵀ and y = q S for every head, in one pass over the state. A task is a range of
 * the value's columns of one head.
 */
#include "op.h"
#include "simd.h"

enum { VALUES_PER_TASK = 256, VECTORS_AT_ONCE = 4 };

typedef struct {
  size_t numHeads, keyWidth, valueWidth; /* widths of a head: dk, dv */
  const float *q, *k;                    /* [B,H,dk] */
  const float *v;                        /* [B,H,dv] */
  const float *decay;                    /* [H] */
  const float *past;                     /* [B,H,dk,dv] */
  float *y;                              /* [B,H,dv] */
  float *present;                        /* [B,H,dk,dv] */
} Retention;

/** `count` vectors of columns from j on; of a single one, `lanes` columns. `head` counts through all sequences. */
DM_INLINE void retain(const Retention *r, size_t head, size_t j, size_t count, size_t lanes) {
  const size_t dk = r->keyWidth, dv = r->valueWidth;
  const float decay = r->decay[head % r->numHeads];
  const float *q = r->q + head * dk, *k = r->k + head * dk, *from = r->past + head * dk * dv + j;
  float *to = r->present + head * dk * dv + j;
  vf v[VECTORS_AT_ONCE], y[VECTORS_AT_ONCE];
  for (size_t i = 0; i < count; i++) {
    v[i] = vf_load_some(r->v + head * dv + j + i * DM_LANES, lanes);
    y[i] = (vf){0};
  }
  for (size_t d = 0; d < dk; d++) {
    for (size_t i = 0; i < count; i++) {
      const vf s = decay * vf_load_some(from + d * dv + i * DM_LANES, lanes) + k[d] * v[i];
      vf_store_some(to + d * dv + i * DM_LANES, s, lanes);
      y[i] += q[d] * s;
    }
  }
  for (size_t i = 0; i < count; i++) vf_store_some(r->y + head * dv + j + i * DM_LANES, y[i], lanes);
}

static void retain_columns(void *user, size_t task) {
  const Retention copy = *(const Retention *)user, *r = &copy;
  const size_t dv = r->valueWidth, tasksPerHead = (dv + VALUES_PER_TASK - 1) / VALUES_PER_TASK;
  const size_t head = task / tasksPerHead;
  size_t j = (task % tasksPerHead) * VALUES_PER_TASK;
  const size_t end = j + VALUES_PER_TASK < dv ? j + VALUES_PER_TASK : dv;
  for (; j + VECTORS_AT_ONCE * DM_LANES <= end; j += VECTORS_AT_ONCE * DM_LANES) {
    retain(r, head, j, VECTORS_AT_ONCE, DM_LANES);
  }
  for (; j + DM_LANES <= end; j += DM_LANES) retain(r, head, j, 1, DM_LANES);
  if (j < end) retain(r, head, j, 1, end - j);
}

/**
 * Inputs: q, k [B,1,H·dk], v [B,1,H·dv], past [B,H,dk,dv], decay [H]. Outputs: y [B,1,H,dv], present [B,H,dk,dv], which may be
 * the memory of `past`.
 */
static bool compute(const void *state, DmContext *context) {
  (void)state;
  DmTensor q, k, v, past, decay;
  if (!dm_input(context, 0, &q) || !dm_input(context, 1, &k) || !dm_input(context, 2, &v) ||
      !dm_input(context, 3, &past) || !dm_input(context, 4, &decay)) {
    return false;
  }
  if (past.rank != 4) return dm_fail(context, "Retention: past must be [B,H,dk,dv]");
  const size_t B = (size_t)past.dims[0], H = (size_t)past.dims[1];
  Retention r = {
      .numHeads = H,
      .keyWidth = (size_t)past.dims[2],
      .valueWidth = (size_t)past.dims[3],
      .q = q.data,
      .k = k.data,
      .v = v.data,
      .decay = decay.data,
      .past = past.data,
  };
  if (dm_num_elements(&q) != B * H * r.keyWidth || dm_num_elements(&k) != B * H * r.keyWidth ||
      dm_num_elements(&v) != B * H * r.valueWidth || dm_num_elements(&decay) != H) {
    return dm_fail(context, "Retention: q and k must be [B,1,H·dk], v [B,1,H·dv] and decay [H]");
  }
  r.y = dm_output(context, 0, (const int64_t[]){past.dims[0], 1, past.dims[1], past.dims[3]}, 4);
  r.present = dm_output(context, 1, past.dims, 4);
  if (context->status != NULL) return false;
  return dm_parallel_for(context, retain_columns, B * H * ((r.valueWidth + VALUES_PER_TASK - 1) / VALUES_PER_TASK), &r);
}

const DmOp DM_NAME(retention) = {
    .name = "Retention",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .compute = compute,
};
