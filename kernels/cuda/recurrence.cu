/**
 * densemamba.Recurrence in CUDA: S_t = decay_t ⊙ S_{t-1} + b_t ⊗ (a_t S_{t-1}) + k_t ⊗ v_t and y_t
 * = q_t S_t + skip x_t for every head. The columns of a state do not see each other: four threads
 * (eight above dk = 128) have one, each every fourth key, and keep it in registers through all
 * steps of a sequence. So a step's bits depend neither on the batch nor on the pass. Twin:
 * ../recurrence.c.
 */
#include "../limits.h"
#include "device.h"

namespace {

enum { Q, K, V, PAST, DECAY, LENGTHS, A, B, SCALE, SKIP };

constexpr unsigned WARPS = 4;
/** Steps whose keys and queries a block fetches together. */
constexpr size_t STEPS = 4;

/** Numbers of every row and head, or of every row and group of `share` heads. */
struct Operand {
  const float *data; /* NULL: the node does not have them */
  size_t rowStride, headStride, share;
};

struct Recurrence {
  size_t numSequences, numRows, numHeads, keyWidth, valueWidth; /* widths of a head: dk, dv */
  const int64_t *lengths;                                       /* [B] on the device, or NULL */
  Operand q, k, x, decay, a, b, scale, skip;
  size_t decayStride; /* from key to key: 0 or 1 */
  bool isHalf;       /* the states are f16 */
  const void *past;  /* [B,H,dk,dv] */
  void *present;     /* the same, or its memory: a thread reads its part before it writes it */
  float *y;          /* [rows,H,dv] */
};

__device__ inline const float *row_of(const Operand &o, size_t row, size_t head) {
  return o.data + row * o.rowStride + head / o.share * o.headStride;
}

__device__ inline float number_of(const Operand &o, size_t row, size_t head, float missing) {
  return o.data != NULL ? *row_of(o, row, head) : missing;
}

/** The sum over a column's threads, which all of them get. */
template <unsigned PARTS>
__device__ inline float sum_parts(float x) {
  for (unsigned bit = DM_WARP / PARTS; bit < DM_WARP; bit *= 2) x = dm_add_across(x, bit);
  return x;
}

/**
 * The numbers of each of `count` rows for the whole block: of every key, or one for all of them
 * (`apart` is 0). Beyond the last key they are zero.
 */
template <size_t SIZE>
__device__ inline void fetch(float (&to)[STEPS][SIZE], const Operand &o, size_t row, size_t count, size_t head, size_t dk, size_t apart) {
  if (o.data == NULL) return;
  for (size_t i = threadIdx.x; i < count * SIZE; i += DM_WARP * WARPS) {
    to[i / SIZE][i % SIZE] = i % SIZE < dk ? row_of(o, row + i / SIZE, head)[i % SIZE * apart] : 0.0f;
  }
}

/**
 * PARTS: a column's threads; with four a warp has eight columns, whose floats are one sector. KEYS:
 * a thread's, at least dk / PARTS.
 */
template <int KEYS, unsigned PARTS>
__global__ void advance(const Recurrence r) {
  __shared__ float q[STEPS][KEYS * PARTS], k[STEPS][KEYS * PARTS], decay[STEPS][KEYS * PARTS];
  __shared__ float a[STEPS][KEYS * PARTS], b[STEPS][KEYS * PARTS];
  constexpr unsigned WARP_COLUMNS = DM_WARP / PARTS, COLUMNS = WARP_COLUMNS * WARPS;
  const size_t dk = r.keyWidth, dv = r.valueWidth, numBlocks = dm_ceil_div(dv, COLUMNS);
  const size_t all = blockIdx.x / numBlocks, head = all % r.numHeads; /* `all`: of all sequences */
  const unsigned part = threadIdx.x % DM_WARP / WARP_COLUMNS;
  const size_t j = blockIdx.x % numBlocks * COLUMNS + threadIdx.x / DM_WARP * WARP_COLUMNS + threadIdx.x % WARP_COLUMNS;
  const DmRows rows = dm_rows_of(all / r.numHeads, r.lengths, r.numSequences, r.numRows);
  const size_t state = all * dk * dv; /* from there on 32 bits do, and half the registers */
  const unsigned own = part * (unsigned)dv + (unsigned)j, apart = PARTS * (unsigned)dv;
  float s[KEYS];
#pragma unroll
  for (int i = 0; i < KEYS; i++) {
    s[i] = 0;
    if (i * PARTS + part >= dk || j >= dv) continue;
    const unsigned at = own + i * apart;
    s[i] = r.isHalf ? dm_float_of(((const uint16_t *)r.past + state)[at]) : ((const float *)r.past + state)[at];
  }
  for (size_t first = 0; first < rows.count; first += STEPS) {
    const size_t row = rows.start + first, count = rows.count - first < STEPS ? rows.count - first : STEPS;
    __syncthreads(); /* the last ones are read */
    fetch(q, r.q, row, count, head, dk, 1);
    fetch(k, r.k, row, count, head, dk, 1);
    fetch(decay, r.decay, row, count, head, dk, r.decayStride);
    fetch(a, r.a, row, count, head, dk, 1);
    fetch(b, r.b, row, count, head, dk, 1);
    __syncthreads();
    for (size_t n = 0; n < count; n++) {
      const float x = j < dv ? row_of(r.x, row + n, head)[j] : 0.0f, v = number_of(r.scale, row + n, head, 1) * x;
      float removed = 0, y = 0;
      if (r.a.data != NULL) {
#pragma unroll
        for (int i = 0; i < KEYS; i++) removed += a[n][i * PARTS + part] * s[i];
        removed = sum_parts<PARTS>(removed);
      }
#pragma unroll
      for (int i = 0; i < KEYS; i++) {
        const unsigned d = i * PARTS + part;
        s[i] = decay[n][d] * s[i] + k[n][d] * v;
        if (r.a.data != NULL) s[i] += b[n][d] * removed;
        y += q[n][d] * s[i];
      }
      y = sum_parts<PARTS>(y);
      if (r.skip.data != NULL) y += number_of(r.skip, row + n, head, 0) * x;
      if (part == 0 && j < dv) r.y[((row + n) * r.numHeads + head) * dv + j] = y;
    }
  }
#pragma unroll
  for (int i = 0; i < KEYS; i++) {
    if (i * PARTS + part >= dk || j >= dv) continue;
    const unsigned at = own + i * apart;
    if (r.isHalf) ((uint16_t *)r.present + state)[at] = dm_half_of(s[i]);
    else ((float *)r.present + state)[at] = s[i];
  }
}

/* --- the node --- */

struct Options {
  size_t numGroups; /* 0: one a head */
};

void *create(DmAttributes *attributes) {
  Options *options = (Options *)malloc(sizeof(Options));
  if (options == NULL) return dm_reject(attributes, "Recurrence: no memory");
  options->numGroups = (size_t)dm_int_or(attributes, "groups", 0);
  return options;
}

/** Input `index`: `width` columns for every `share` heads. Without it, nothing. */
Operand columns_of(DmContext *context, size_t index, const char *name, size_t numRows, size_t width, size_t numHeads,
                   size_t share) {
  DmTensor tensor;
  if (!dm_input_rows(context, index, &tensor) || numRows == 0) return {};
  const size_t numNumbers = dm_num_elements(&tensor), needed = numHeads / share * width;
  if (tensor.rank != 3 || numNumbers != numRows * needed || (size_t)tensor.dims[2] != needed) {
    dm_fail(context, "Recurrence: %s must have %zu rows of %zu columns, given %zu numbers", name, numRows, needed, numNumbers);
    return {};
  }
  return {(const float *)tensor.data, tensor.stride, width, share};
}

/** One number of each head, or of each head and row; or as many as the key is wide. */
bool read_decay(Recurrence *r, DmContext *context) {
  DmTensor tensor;
  const size_t H = r->numHeads, dk = r->keyWidth, numRows = r->numRows;
  if (!dm_input(context, DECAY, &tensor)) return false;
  const size_t count = dm_num_elements(&tensor);
  r->decay = {(const float *)tensor.data, 0, 1, 1};
  if (tensor.rank == 1 && count == H) return true;
  r->decay.rowStride = H;
  if (count == numRows * H) return true;
  r->decay.rowStride = H * dk;
  r->decay.headStride = dk;
  r->decayStride = 1;
  return count == numRows * H * dk || dm_fail(context, "Recurrence: decay must be [H], [B,T,H] or [B,T,H·dk], given %zu numbers", count);
}

/** Inputs, attributes and outputs as the twin has them. */
bool compute(const void *state, DmContext *context) {
  const Options *options = (const Options *)state;
  DmTensor q, past, skip, lengths = {};
  if (!dm_input_rows(context, Q, &q) || !dm_input(context, PAST, &past)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (past.rank != 4 || q.rank != 3 || q.dims[0] != (hasLengths ? 1 : past.dims[0])) {
    return dm_fail(context, "Recurrence: past must be [B,H,dk,dv] and q [B,T,G·dk]");
  }
  const size_t H = (size_t)past.dims[1], G = options->numGroups == 0 ? H : options->numGroups;
  if (H == 0 || H % G != 0) return dm_fail(context, "Recurrence: %zu heads do not divide into %zu groups", H, G);
  Recurrence r = {};
  r.numSequences = (size_t)past.dims[0];
  r.numRows = (size_t)(q.dims[0] * q.dims[1]);
  r.numHeads = H;
  r.keyWidth = (size_t)past.dims[2];
  r.valueWidth = (size_t)past.dims[3];
  r.lengths = (const int64_t *)lengths.data;
  r.isHalf = past.type == DM_HALF;
  r.past = past.data;
  if (!dm_expect_rows(context, hasLengths ? &lengths : NULL, r.numSequences, r.numRows)) return false;
  const size_t dk = r.keyWidth, dv = r.valueWidth;
  if (dk > DM_MAX_CUDA_KEY_WIDTH) {
    return dm_fail(context, "Recurrence: a head's key must be at most %d wide, given %zu", DM_MAX_CUDA_KEY_WIDTH, dk);
  }
  r.q = columns_of(context, Q, "q", r.numRows, dk, H, H / G);
  r.k = columns_of(context, K, "k", r.numRows, dk, H, H / G);
  r.x = columns_of(context, V, "v", r.numRows, dv, H, 1);
  r.a = columns_of(context, A, "a", r.numRows, dk, H, 1);
  r.b = columns_of(context, B, "b", r.numRows, dk, H, 1);
  r.scale = columns_of(context, SCALE, "scale", r.numRows, 1, H, 1);
  if (context->failure.exists || !read_decay(&r, context)) return false;
  if ((r.a.data == NULL) != (r.b.data == NULL)) return dm_fail(context, "Recurrence: a and b are given together or not at all");
  if (dm_input(context, SKIP, &skip)) {
    if (dm_num_elements(&skip) != H) return dm_fail(context, "Recurrence: skip must be [H], %zu numbers, given %zu", H, dm_num_elements(&skip));
    r.skip = {(const float *)skip.data, 0, 1, 1};
  }
  const int64_t dims[3] = {q.dims[0], q.dims[1], (int64_t)(H * dv)};
  r.y = (float *)dm_output(context, 0, dims, 3);
  r.present = dm_output(context, 1, past.dims, 4);
  if (context->failure.exists) return false;
  if (r.numSequences * dk * dv == 0) return true;
  const size_t numParts = dk <= 128 ? 4 : 8;
  const dim3 grid((unsigned)(r.numSequences * H * dm_ceil_div(dv, WARPS * DM_WARP / numParts))), block(DM_WARP * WARPS);
  return dm_on_stream(context, "Recurrence", [&](cudaStream_t stream) {
    if (dk <= 64) DM_LAUNCH((advance<16, 4>), grid, block, stream, r);
    else if (dk <= 128) DM_LAUNCH((advance<32, 4>), grid, block, stream, r);
    else if (dk <= 256) DM_LAUNCH((advance<32, 8>), grid, block, stream, r);
    else DM_LAUNCH((advance<DM_MAX_CUDA_KEY_WIDTH / 8, 8>), grid, block, stream, r);
  });
}

}  // namespace

extern "C" const DmOp DM_NAME(recurrence) = {
    .name = "Recurrence",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_STATE}, {DM_FLOAT}, {DM_INT64, true}, {DM_FLOAT, true}, {DM_FLOAT, true},
               {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_STATE}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
