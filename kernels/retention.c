/**
 * densemamba.Retention: S_t = γ S_{t-1} + k_t v_tᵀ and y_t = q_t S_t for every head, any number of steps. Symbols as in
 * docs/compiler.md. A task is a range of the value's columns of one head of one sequence.
 *
 * A single step is one pass over the state, where it lies. Several steps are taken a block at a time, with their part of the state
 * in the second-level cache: the past is read out for all steps of the block and advanced over all of them at once, and the steps
 * see each other through their scores, which all tasks of a head share.
 *
 *     y_i = γ^{i+1} q_i S + Σ_{j≤i} γ^{i-j} (q_i·k_j) v_j    S = γ^n S + Σ_i γ^{n-1-i} k_i v_iᵀ
 */
#include "limits.h"
#include "op.h"
#include "simd.h"

enum { LENGTHS = 5 };
/** Of a single step. */
enum { VALUES_PER_STEP_TASK = 256, VECTORS_AT_ONCE = 4 };
/** Of several: a block's own work grows with its square, and the state is passed over once for each. */
enum { VALUES_PER_TASK = 64, BLOCK = 16, VECTORS = VALUES_PER_TASK / DM_LANES };
/** Steps whose readouts, and rows of the state whose sums, stay in registers together: two vectors of each. */
enum { STEPS_AT_ONCE = DM_LANES == 16 ? 8 : 4, ROWS_AT_ONCE = 4, PAIR = 2 };

typedef struct {
  size_t numSequences, numHeads, keyWidth, valueWidth; /* widths of a head: dk, dv */
  const size_t *starts;     /* [B+1]: the sequences' rows */
  const size_t *firstTask;  /* [B+1] */
  const size_t *firstBlock; /* [B+1]: of sequences of several steps */
  const float *q, *k;       /* [rows,H,dk] */
  const float *v;           /* [rows,H,dv], rows `valueStride` apart */
  size_t valueStride;
  const float *decay;       /* [H] */
  const float *past;        /* [B,H,dk,dv] */
  float *scores;            /* [rows,H,BLOCK]: γ^{i-j} q_i·k_j, j from the block's first step to i */
  float *y;                 /* [rows,H,dv] */
  float *present;           /* [B,H,dk,dv] */
} Retention;

/* --- a single step --- */

/** `count` vectors of columns from j on; of a single one, `lanes` columns. */
DM_INLINE void retain(const Retention *r, size_t b, size_t head, size_t j, size_t count, size_t lanes) {
  const size_t H = r->numHeads, dk = r->keyWidth, dv = r->valueWidth, at = r->starts[b] * H + head;
  const float decay = r->decay[head];
  const float *q = r->q + at * dk, *k = r->k + at * dk, *from = r->past + (b * H + head) * dk * dv + j;
  float *to = r->present + (b * H + head) * dk * dv + j;
  vf v[VECTORS_AT_ONCE], y[VECTORS_AT_ONCE];
  for (size_t i = 0; i < count; i++) {
    v[i] = vf_load_some(r->v + r->starts[b] * r->valueStride + head * dv + j + i * DM_LANES, lanes);
    y[i] = (vf){0};
  }
  for (size_t d = 0; d < dk; d++) {
    for (size_t i = 0; i < count; i++) {
      const vf s = decay * vf_load_some(from + d * dv + i * DM_LANES, lanes) + k[d] * v[i];
      vf_store_some(to + d * dv + i * DM_LANES, s, lanes);
      y[i] += q[d] * s;
    }
  }
  for (size_t i = 0; i < count; i++) vf_store_some(r->y + at * dv + j + i * DM_LANES, y[i], lanes);
}

static void retain_step(const Retention *r, size_t b, size_t head, size_t j, size_t end) {
  for (; j + VECTORS_AT_ONCE * DM_LANES <= end; j += VECTORS_AT_ONCE * DM_LANES) {
    retain(r, b, head, j, VECTORS_AT_ONCE, DM_LANES);
  }
  for (; j + DM_LANES <= end; j += DM_LANES) retain(r, b, head, j, 1, DM_LANES);
  if (j < end) retain(r, b, head, j, 1, end - j);
}

/* --- several steps --- */

static float dot(const float *a, const float *b, size_t count) {
  vf sum = {0};
  size_t d = 0;
  for (; d + DM_LANES <= count; d += DM_LANES) sum += vf_load(a + d) * vf_load(b + d);
  if (d < count) sum += vf_load_some(a + d, count - d) * vf_load_some(b + d, count - d);
  return vf_sum(sum);
}

static void score_block(void *user, size_t task) {
  const Retention *r = user;
  const size_t H = r->numHeads, dk = r->keyWidth, head = task % H, block = task / H;
  const size_t b = dm_sequence_of(r->firstBlock, r->numSequences, block);
  const size_t first = r->starts[b] + (block - r->firstBlock[b]) * BLOCK, rest = r->starts[b + 1] - first;
  for (size_t i = 0; i < (rest < BLOCK ? rest : BLOCK); i++) {
    float *scores = r->scores + ((first + i) * H + head) * BLOCK, power = 1;
    for (size_t j = i + 1; j-- > 0; power *= r->decay[head]) {
      scores[j] = power * dot(r->q + ((first + i) * H + head) * dk, r->k + ((first + j) * H + head) * dk, dk);
    }
  }
}

/** The steps of one block, and the columns of a task. Values beyond the last column are zero. */
typedef struct {
  size_t numSteps, keyWidth, stride; /* rows of q and k are `stride` apart */
  const float *q, *k;
  float *state;                                     /* [dk,VALUES_PER_TASK] */
  _Alignas(64) float v[BLOCK][VALUES_PER_TASK];
  float powers[BLOCK + 1]; /* of γ */
} Block;

/** q_i S of steps [i, i + STEPS_AT_ONCE) and two vectors of columns; of steps that are not there, the last one's. */
DM_INLINE void read_out(const Block *block, size_t i, size_t column, vf sums[STEPS_AT_ONCE][PAIR]) {
  const float *q[STEPS_AT_ONCE], *state = block->state + column;
  for (size_t s = 0; s < STEPS_AT_ONCE; s++) {
    q[s] = block->q + (i + s < block->numSteps ? i + s : block->numSteps - 1) * block->stride;
    for (size_t p = 0; p < PAIR; p++) sums[s][p] = (vf){0};
  }
  for (size_t d = 0; d < block->keyWidth; d++, state += VALUES_PER_TASK) {
    const vf first = vf_load(state), second = vf_load(state + DM_LANES);
    for (size_t s = 0; s < STEPS_AT_ONCE; s++) {
      sums[s][0] += q[s][d] * first;
      sums[s][1] += q[s][d] * second;
    }
  }
}

/** Row d of the state and, with `count` rows, the next ones, over all steps: two vectors of columns. `count` is a constant. */
DM_INLINE void advance(const Block *block, size_t d, size_t column, size_t count) {
  const float *k = block->k + d, decay = block->powers[block->numSteps];
  float *state = block->state + d * VALUES_PER_TASK + column;
  vf sums[ROWS_AT_ONCE][PAIR];
  for (size_t n = 0; n < count; n++) {
    for (size_t p = 0; p < PAIR; p++) sums[n][p] = decay * vf_load(state + n * VALUES_PER_TASK + p * DM_LANES);
  }
  for (size_t i = 0; i < block->numSteps; i++, k += block->stride) {
    const vf first = vf_load(block->v[i] + column), second = vf_load(block->v[i] + column + DM_LANES);
    for (size_t n = 0; n < count; n++) {
      sums[n][0] += k[n] * first;
      sums[n][1] += k[n] * second;
    }
  }
  for (size_t n = 0; n < count; n++) {
    for (size_t p = 0; p < PAIR; p++) vf_store(state + n * VALUES_PER_TASK + p * DM_LANES, sums[n][p]);
  }
}

/** Writes y of the block's steps, `count` columns of it. `scores` and `y` are the first step's; the next ones' are so far apart. */
static void read_block(const Block *block, const float *scores, size_t scoresApart, float *y, size_t yApart, size_t count) {
  for (size_t column = 0; column < count; column += PAIR * DM_LANES) {
    for (size_t i = 0; i < block->numSteps; i += STEPS_AT_ONCE) {
      vf sums[STEPS_AT_ONCE][PAIR];
      read_out(block, i, column, sums);
      for (size_t s = 0; s < STEPS_AT_ONCE && i + s < block->numSteps; s++) {
        for (size_t p = 0; p < PAIR; p++) {
          const size_t at = column + p * DM_LANES;
          vf sum = block->powers[i + s + 1] * sums[s][p];
          for (size_t j = 0; j <= i + s; j++) sum += scores[(i + s) * scoresApart + j] * vf_load(block->v[j] + at);
          if (at < count) vf_store_some(y + (i + s) * yApart + at, sum, count - at < DM_LANES ? count - at : DM_LANES);
        }
      }
    }
  }
}

static void advance_block(Block *block) {
  for (size_t i = 0; i < block->numSteps; i++) {
    const float power = block->powers[block->numSteps - 1 - i];
    for (size_t at = 0; at < VALUES_PER_TASK; at += DM_LANES) vf_store(block->v[i] + at, power * vf_load(block->v[i] + at));
  }
  for (size_t column = 0; column < VALUES_PER_TASK; column += PAIR * DM_LANES) {
    size_t d = 0;
    for (; d + ROWS_AT_ONCE <= block->keyWidth; d += ROWS_AT_ONCE) advance(block, d, column, ROWS_AT_ONCE);
    for (; d < block->keyWidth; d++) advance(block, d, column, 1);
  }
}

/** Columns [j, j + count) of all steps of sequence `b`. DM_MAX_KEY_WIDTH bounds what they take of the thread's stack. */
static void retain_steps(const Retention *r, size_t b, size_t head, size_t j, size_t count) {
  const size_t H = r->numHeads, dk = r->keyWidth, dv = r->valueWidth;
  _Alignas(64) float state[dk * VALUES_PER_TASK];
  const float *past = r->past + (b * H + head) * dk * dv + j;
  float *present = r->present + (b * H + head) * dk * dv + j;
  Block block = {.keyWidth = dk, .stride = H * dk, .state = state, .powers = {1}};
  for (size_t n = 0; n < BLOCK; n++) block.powers[n + 1] = block.powers[n] * r->decay[head];
  memset(state, 0, sizeof state);
  for (size_t d = 0; d < dk; d++) memcpy(state + d * VALUES_PER_TASK, past + d * dv, count * sizeof *state);
  for (size_t row = r->starts[b]; row < r->starts[b + 1]; row += BLOCK) {
    const size_t rest = r->starts[b + 1] - row, at = row * H + head;
    block.numSteps = rest < BLOCK ? rest : BLOCK;
    block.q = r->q + at * dk;
    block.k = r->k + at * dk;
    const float *v = r->v + row * r->valueStride + head * dv + j;
    for (size_t i = 0; i < block.numSteps; i++) memcpy(block.v[i], v + i * r->valueStride, count * sizeof *state);
    read_block(&block, r->scores + at * BLOCK, H * BLOCK, r->y + at * dv + j, H * dv, count);
    advance_block(&block);
  }
  for (size_t d = 0; d < dk; d++) memcpy(present + d * dv, state + d * VALUES_PER_TASK, count * sizeof *state);
}

/* --- all sequences --- */

static size_t length_of(const Retention *r, size_t b) { return r->starts[b + 1] - r->starts[b]; }

static size_t columns_per_task(const Retention *r, size_t b) {
  return length_of(r, b) > 1 ? VALUES_PER_TASK : VALUES_PER_STEP_TASK;
}

static void retain_columns(void *user, size_t task) {
  const Retention copy = *(const Retention *)user, *r = &copy; /* no store can change it: its fields stay in registers */
  const size_t dv = r->valueWidth, b = dm_sequence_of(r->firstTask, r->numSequences, task), width = columns_per_task(r, b);
  const size_t tasksPerHead = (dv + width - 1) / width, head = (task - r->firstTask[b]) / tasksPerHead;
  const size_t j = (task - r->firstTask[b]) % tasksPerHead * width, count = dv - j < width ? dv - j : width;
  if (length_of(r, b) > 1) {
    retain_steps(r, b, head, j, count);
  } else if (length_of(r, b) == 1) {
    retain_step(r, b, head, j, j + count);
  } else if (r->present != r->past) {
    const size_t first = (b * r->numHeads + head) * r->keyWidth * dv + j;
    for (size_t d = 0; d < r->keyWidth; d++) memcpy(r->present + first + d * dv, r->past + first + d * dv, count * sizeof(float));
  }
}

/** Fills in the tables of tasks and of blocks. `@returns` false after a `dm_fail`. */
static bool divide(Retention *r, DmContext *context) {
  size_t *firstTask = dm_scratch(context, (r->numSequences + 1) * sizeof *firstTask);
  size_t *firstBlock = dm_scratch(context, (r->numSequences + 1) * sizeof *firstBlock);
  if (firstTask == NULL || firstBlock == NULL) return false;
  firstTask[0] = firstBlock[0] = 0;
  for (size_t b = 0; b < r->numSequences; b++) {
    const size_t width = columns_per_task(r, b), length = length_of(r, b);
    firstTask[b + 1] = firstTask[b] + r->numHeads * ((r->valueWidth + width - 1) / width);
    firstBlock[b + 1] = firstBlock[b] + (length > 1 ? (length + BLOCK - 1) / BLOCK : 0);
  }
  r->firstTask = firstTask;
  r->firstBlock = firstBlock;
  return true;
}

/**
 * Inputs: q, k [B,T,H·dk], v [B,T,H·dv], past [B,H,dk,dv], decay [H], lengths int64 [B]?, and with them q, k and v are
 * [1,rows,…]. Outputs: y as v, and present [B,H,dk,dv], which may be the memory of `past`.
 */
static bool compute(const void *state, DmContext *context) {
  (void)state;
  DmTensor q, k, v, past, decay, lengths;
  if (!dm_input(context, 0, &q) || !dm_input(context, 1, &k) || !dm_input_rows(context, 2, &v) ||
      !dm_input(context, 3, &past) || !dm_input(context, 4, &decay)) {
    return false;
  }
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (past.rank != 4 || q.rank != 3 || v.rank != 3 || q.dims[0] != (hasLengths ? 1 : past.dims[0])) {
    return dm_fail(context, "Retention: past must be [B,H,dk,dv] and q [B,T,H·dk]");
  }
  const size_t B = (size_t)past.dims[0], H = (size_t)past.dims[1], numRows = (size_t)(q.dims[0] * q.dims[1]);
  Retention r = {
      .numSequences = B,
      .numHeads = H,
      .keyWidth = (size_t)past.dims[2],
      .valueWidth = (size_t)past.dims[3],
      .starts = dm_sequence_starts(context, LENGTHS, B, numRows),
      .q = q.data,
      .k = k.data,
      .v = v.data,
      .valueStride = v.stride,
      .decay = decay.data,
      .past = past.data,
  };
  if (r.starts == NULL) return false;
  if (r.keyWidth > DM_MAX_KEY_WIDTH) {
    return dm_fail(context, "Retention: a head's key must be at most %d wide, given %zu", DM_MAX_KEY_WIDTH, r.keyWidth);
  }
  if (dm_num_elements(&q) != numRows * H * r.keyWidth || dm_num_elements(&k) != numRows * H * r.keyWidth ||
      dm_num_elements(&v) != numRows * H * r.valueWidth || dm_num_elements(&decay) != H) {
    return dm_fail(context, "Retention: q and k must be [B,T,H·dk], v [B,T,H·dv] and decay [H]");
  }
  r.y = dm_output(context, 0, v.dims, 3);
  r.present = dm_output(context, 1, past.dims, 4);
  if (context->failure.exists || !divide(&r, context)) return false;
  const size_t numBlocks = r.firstBlock[B];
  if (numBlocks > 0) {
    r.scores = dm_scratch(context, numRows * H * BLOCK * sizeof *r.scores);
    if (r.scores == NULL || !dm_parallel_for(context, score_block, numBlocks * H, &r)) return false;
  }
  return dm_parallel_for(context, retain_columns, r.firstTask[B], &r);
}

const DmOp DM_NAME(retention) = {
    .name = "Retention",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_INT64, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}},
    .compute = compute,
};
