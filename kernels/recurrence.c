/**
 * densemamba.Recurrence: a linear recurrence whose state is a matrix per head, any number of steps.
 * It is a RetNet's retention (decay [H]), Mamba-2's (decay [rows,H], k and q in groups, scale,
 * skip), that of models with a decay for each key ([rows,H,dk]), and with a and b, which remove
 * what the state holds for a key, RWKV-7's.
 *
 *     S_t = decay_t ⊙ S_{t-1} + b_t ⊗ (a_t S_{t-1}) + k_t ⊗ v_t    v = scale x
 *     y_t = q_t S_t + skip x_t
 *
 * A state is [dk,dv] for every family, in f32 or f16: columns of values do not see each other, so a
 * task is a range of them, of one head of one sequence. A single step goes over the state where it
 * lies, once (with removal twice, the second time in the cache). Several steps keep their columns
 * of the state in a buffer of their own:
 *
 * - With one decay a head and no removal, in blocks: the past is read out for all steps of a block
 *   and advanced over all of them at once, and the steps see each other through their scores, which
 *   all columns of a head, and all heads of a group, share.
 *
 *       y_i = c_i q_i S + Σ_{j≤i} (c_i / c_j) (q_i·k_j) v_j    c_i = Π_{j≤i} decay_j
 *       S = c_n S + Σ_i (c_n / c_i) k_i v_iᵀ
 *
 *   A quotient is the product of the decays in between: nothing is divided, so decays may be 0.
 * - Otherwise step by step, one pass over the state each, which reads out a_{t+1} S_t on the way.
 *   The sums are those of a single step, so the bits of a sequence do not depend on how its prompt
 *   is cut.
 */
#include <stdlib.h>

#include "limits.h"
#include "op.h"
#include "simd.h"

enum { Q, K, V, PAST, DECAY, LENGTHS, A, B, SCALE, SKIP };

/** Of a single step. The sums of a row of 64 numbers stay in registers. */
enum { VALUES_PER_STEP_TASK = 256, VECTORS_AT_ONCE = DM_LANES == 16 ? 4 : 8, FEWER_VECTORS = VECTORS_AT_ONCE / 2 };
enum { AHEAD_BYTES = 4096, LINE_BYTES = 64 };
/**
 * Of several. A longer block has more work of its own, a shorter one passes over the state more.
 */
enum { VALUES_PER_TASK = 64, BLOCK = 16 };
/**
 * Steps whose readouts, and rows of the state whose sums, stay in registers together: two vectors
 * of each.
 */
enum { STEPS_AT_ONCE = DM_LANES == 16 ? 8 : 4, ROWS_AT_ONCE = 4, PAIR = 2 };
/**
 * A task's part of the state is [VALUES_PER_TASK / PANEL][dk][PANEL]: what is gone through at once
 * lies together, and does not push itself out of the cache.
 */
enum { PANEL = PAIR * DM_LANES };

/** Numbers of every row and head, or of every row and group of `share` heads. */
typedef struct {
  const float *data; /* NULL: the node does not have them */
  size_t rowStride, headStride, share;
} Operand;

typedef struct {
  size_t numSequences, numHeads, numGroups, keyWidth, valueWidth; /* widths of a head: dk, dv */
  const size_t *starts;     /* [B+1]: the sequences' rows */
  const size_t *firstTask;  /* [B+1] */
  const size_t *firstBlock; /* [B+1]: of sequences of several steps */
  Operand q, k;             /* dk of each group */
  Operand x;                /* dv of each head */
  Operand decay;            /* one or dk of each head */
  size_t decayStride;       /* from key to key: 0 or 1 */
  Operand a, b;             /* dk of each head, or neither */
  Operand scale, skip;      /* one of each head */
  bool isHalf;              /* the states are f16 */
  const void *past;         /* [B,H,dk,dv] */
  void *present;            /* the same, and maybe the same memory */
  float *scores;            /* [rows,G,BLOCK]: q_i·k_j, j from the block's first step to i */
  float *y;                 /* [rows,H,dv] */
} Recurrence;

/** What a head reads, row after row. */
typedef struct {
  const float *data;
  size_t stride;
} Rows;

typedef struct {
  Rows q, k, x, decay, a, b, scale, skip;
  size_t state; /* where its state begins */
  float *y;
  size_t yStride;
} Head;

static Rows rows_of(const Operand *operand, size_t head) {
  if (operand->data == NULL) return (Rows){0};
  return (Rows){operand->data + head / operand->share * operand->headStride, operand->rowStride};
}

static Head head_of(const Recurrence *r, size_t b, size_t head) {
  return (Head){
      .q = rows_of(&r->q, head),
      .k = rows_of(&r->k, head),
      .x = rows_of(&r->x, head),
      .decay = rows_of(&r->decay, head),
      .a = rows_of(&r->a, head),
      .b = rows_of(&r->b, head),
      .scale = rows_of(&r->scale, head),
      .skip = rows_of(&r->skip, head),
      .state = (b * r->numHeads + head) * r->keyWidth * r->valueWidth,
      .y = r->y + head * r->valueWidth,
      .yStride = r->numHeads * r->valueWidth,
  };
}

DM_INLINE const float *row_of(const Rows *rows, size_t row) { return rows->data + row * rows->stride; }
DM_INLINE float number_of(const Rows *rows, size_t row, float missing) { return rows->data ? *row_of(rows, row) : missing; }

DM_INLINE vf load_state(const void *state, size_t at, size_t lanes, bool isHalf) {
  return isHalf ? vf_of(vh_load_some((const half *)state + at, lanes)) : vf_load_some((const float *)state + at, lanes);
}

DM_INLINE void store_state(void *state, size_t at, vf s, size_t lanes, bool isHalf) {
  if (isHalf) vh_store_some((half *)state + at, vh_of(s), lanes);
  else vf_store_some((float *)state + at, s, lanes);
}

/**
 * a x + y, rounded once where there is an instruction for it. Where y is a product itself, a
 * compiler would choose which of the two to round, here the one and there the other, and a step's
 * bits would depend on how it is taken.
 */
DM_INLINE vf add_product(float a, vf x, vf y) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)vf_all(a), (__m512)x, (__m512)y);
#elif defined(__AVX2__)
  return (vf)_mm256_fmadd_ps((__m256)vf_all(a), (__m256)x, (__m256)y);
#else
  return a * x + y;
#endif
}

/* --- a single step --- */

/**
 * Asks for what comes next. The processor's own prefetcher stops at pages, and where a state is
 * gone over twice, between the two.
 */
DM_INLINE void prefetch_state(const Recurrence *r, size_t at, size_t count, bool isHalf) {
  const size_t size = isHalf ? sizeof(half) : sizeof(float);
  for (size_t i = 0; i < count * size; i += LINE_BYTES) __builtin_prefetch((const char *)r->past + at * size + i);
}

/**
 * Applied to each vector of a row. They have names, not indices: compilers keep arrays in memory.
 */
#define EACH_OF_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

/**
 * `count` vectors of columns from j on; of a single one, `lanes` columns. All but r, h, row and j
 * are constants.
 */
DM_INLINE void step(const Recurrence *r, const Head *h, size_t row, size_t j, size_t count, size_t lanes, bool removes, bool isHalf) {
  const size_t dk = r->keyWidth, dv = r->valueWidth;
  const float *q = row_of(&h->q, row), *k = row_of(&h->k, row), *a = row_of(&h->a, row), *b = row_of(&h->b, row);
  const float *x = row_of(&h->x, row) + j, *decay = row_of(&h->decay, row);
  float *y = h->y + row * h->yStride + j;
  const float scale = number_of(&h->scale, row, 1), skip = number_of(&h->skip, row, 0);
#define DECLARE(i)                                                       \
  vf v##i = {0}, y##i = {0}, removed##i = {0};                           \
  if (i < count) v##i = scale * vf_load_some(x + i * DM_LANES, lanes);
  EACH_OF_ROW(DECLARE)
  for (size_t d = 0, at = h->state + j; removes && d < dk; d++, at += dv) {
    const float removal = a[d];
#define REMOVE(i) \
  if (i < count) removed##i += removal * load_state(r->past, at + i * DM_LANES, lanes, isHalf);
    EACH_OF_ROW(REMOVE)
  }
  /* To where the next columns, or the next head's, begin. */
  const size_t rest = j + count * DM_LANES < dv ? count * DM_LANES : dk * dv - j;
  const size_t ahead = removes ? rest : AHEAD_BYTES / (isHalf ? sizeof(half) : sizeof(float));
  for (size_t d = 0, at = h->state + j; d < dk; d++, at += dv, decay += r->decayStride) {
    /* Read before any store, which for all the compiler knows is to them. */
    const float left = *decay, key = k[d], query = q[d], replaced = removes ? b[d] : 0;
    if (count > 1) prefetch_state(r, at + ahead, count * DM_LANES, isHalf);
#define ADVANCE(i)                                                                                          \
  if (i < count) {                                                                                          \
    vf s = add_product(left, load_state(r->past, at + i * DM_LANES, lanes, isHalf), key * v##i);            \
    if (removes) s += replaced * removed##i;                                                                \
    store_state(r->present, at + i * DM_LANES, s, lanes, isHalf);                                           \
    y##i += query * s;                                                                                      \
  }
    EACH_OF_ROW(ADVANCE)
  }
#define READ_OUT(i)                                                                                         \
  if (i < count) {                                                                                          \
    if (h->skip.data) y##i += skip * vf_load_some(x + i * DM_LANES, lanes);                                 \
    vf_store_some(y + i * DM_LANES, y##i, lanes);                                                           \
  }
  EACH_OF_ROW(READ_OUT)
}

DM_INLINE void step_columns(const Recurrence *r, const Head *h, size_t row, size_t j, size_t end, bool removes, bool isHalf) {
  for (; j + VECTORS_AT_ONCE * DM_LANES <= end; j += VECTORS_AT_ONCE * DM_LANES) {
    step(r, h, row, j, VECTORS_AT_ONCE, DM_LANES, removes, isHalf);
  }
  for (; j + FEWER_VECTORS * DM_LANES <= end; j += FEWER_VECTORS * DM_LANES) {
    step(r, h, row, j, FEWER_VECTORS, DM_LANES, removes, isHalf);
  }
  for (; j + DM_LANES <= end; j += DM_LANES) step(r, h, row, j, 1, DM_LANES, removes, isHalf);
  if (j < end) step(r, h, row, j, 1, end - j, removes, isHalf);
}

static void single_step(const Recurrence *r, const Head *h, size_t row, size_t j, size_t end) {
  if (h->a.data == NULL) {
    if (r->isHalf) step_columns(r, h, row, j, end, false, true);
    else step_columns(r, h, row, j, end, false, false);
  } else {
    if (r->isHalf) step_columns(r, h, row, j, end, true, true);
    else step_columns(r, h, row, j, end, true, false);
  }
}

/* --- several steps, in blocks --- */

static float dot(const float *a, const float *b, size_t count) {
  vf sum = {0};
  size_t d = 0;
  for (; d + DM_LANES <= count; d += DM_LANES) sum += vf_load(a + d) * vf_load(b + d);
  if (d < count) sum += vf_load_some(a + d, count - d) * vf_load_some(b + d, count - d);
  return vf_sum(sum);
}

static void score_block(void *user, size_t task) {
  const Recurrence *r = user;
  const size_t G = r->numGroups, group = task % G, block = task / G;
  const size_t b = dm_sequence_of(r->firstBlock, r->numSequences, block);
  const size_t first = r->starts[b] + (block - r->firstBlock[b]) * BLOCK, rest = r->starts[b + 1] - first;
  const Rows q = rows_of(&r->q, group * r->q.share), k = rows_of(&r->k, group * r->k.share);
  for (size_t i = 0; i < (rest < BLOCK ? rest : BLOCK); i++) {
    float *scores = r->scores + ((first + i) * G + group) * BLOCK;
    for (size_t j = 0; j <= i; j++) scores[j] = dot(row_of(&q, first + i), row_of(&k, first + j), r->keyWidth);
  }
}

/** The steps of one block, and the columns of a task. Values beyond the last column are zero. */
typedef struct {
  size_t numSteps, keyWidth;
  Rows q, k;    /* from the block's first step on */
  float *state; /* panels */
  _Alignas(64) float v[BLOCK][VALUES_PER_TASK];
  float since[BLOCK];          /* what is left of the state before the block, c_i */
  float until[BLOCK];          /* what is left of step i at the end of the block */
  float scores[BLOCK][BLOCK];  /* what is left of step j at step i, times q_i·k_j */
} Block;

/** Decays of the block's steps, and what they leave of the scores. */
static void decay_block(Block *block, const Rows *decay, size_t first, const float *scores, size_t scoresApart) {
  const size_t numSteps = block->numSteps;
  float steps[BLOCK], power = 1;
  for (size_t i = 0; i < numSteps; i++) {
    steps[i] = *row_of(decay, first + i);
    power *= steps[i];
    block->since[i] = power;
  }
  power = 1;
  for (size_t i = numSteps; i-- > 0; power *= steps[i]) block->until[i] = power;
  for (size_t i = 0; i < numSteps; i++) {
    power = 1;
    for (size_t j = i + 1; j-- > 0; power *= steps[j]) block->scores[i][j] = power * scores[i * scoresApart + j];
  }
}

/**
 * q_i S of steps [i, i + STEPS_AT_ONCE) and two vectors of columns; of steps that are not there,
 * the last one's.
 */
DM_INLINE void read_out(const Block *block, size_t i, size_t column, vf sums[STEPS_AT_ONCE][PAIR]) {
  const float *q[STEPS_AT_ONCE], *state = block->state + column * block->keyWidth;
  for (size_t s = 0; s < STEPS_AT_ONCE; s++) {
    q[s] = row_of(&block->q, i + s < block->numSteps ? i + s : block->numSteps - 1);
    for (size_t p = 0; p < PAIR; p++) sums[s][p] = (vf){0};
  }
  for (size_t d = 0; d < block->keyWidth; d++, state += PANEL) {
    const vf first = vf_load(state), second = vf_load(state + DM_LANES);
    for (size_t s = 0; s < STEPS_AT_ONCE; s++) {
      sums[s][0] += q[s][d] * first;
      sums[s][1] += q[s][d] * second;
    }
  }
}

/**
 * Row d of the state and, with `count` rows, the next ones, over all steps: two vectors of columns.
 * `count` is a constant.
 */
DM_INLINE void advance(const Block *block, size_t d, size_t column, size_t count) {
  const float *k = block->k.data + d, decay = block->since[block->numSteps - 1];
  float *state = block->state + column * block->keyWidth + d * PANEL;
  vf sums[ROWS_AT_ONCE][PAIR];
  for (size_t n = 0; n < count; n++) {
    for (size_t p = 0; p < PAIR; p++) sums[n][p] = decay * vf_load(state + n * PANEL + p * DM_LANES);
  }
  for (size_t i = 0; i < block->numSteps; i++, k += block->k.stride) {
    const vf first = vf_load(block->v[i] + column), second = vf_load(block->v[i] + column + DM_LANES);
    for (size_t n = 0; n < count; n++) {
      sums[n][0] += k[n] * first;
      sums[n][1] += k[n] * second;
    }
  }
  for (size_t n = 0; n < count; n++) {
    for (size_t p = 0; p < PAIR; p++) vf_store(state + n * PANEL + p * DM_LANES, sums[n][p]);
  }
}

/** Writes y of the block's steps, the first of which is row `first`: `count` columns from j on. */
static void read_block(const Block *block, const Head *h, size_t first, size_t j, size_t count) {
  for (size_t column = 0; column < count; column += PANEL) {
    for (size_t i = 0; i < block->numSteps; i += STEPS_AT_ONCE) {
      vf sums[STEPS_AT_ONCE][PAIR];
      read_out(block, i, column, sums);
      for (size_t s = 0; s < STEPS_AT_ONCE && i + s < block->numSteps; s++) {
        const size_t row = first + i + s;
        const float skip = number_of(&h->skip, row, 0);
        for (size_t p = 0; p < PAIR; p++) {
          const size_t at = column + p * DM_LANES, lanes = count - at < DM_LANES ? count - at : DM_LANES;
          if (at >= count) break;
          vf sum = add_product(block->scores[i + s][0], vf_load(block->v[0] + at), block->since[i + s] * sums[s][p]);
          for (size_t n = 1; n <= i + s; n++) sum += block->scores[i + s][n] * vf_load(block->v[n] + at);
          if (h->skip.data) sum += skip * vf_load_some(row_of(&h->x, row) + j + at, lanes);
          vf_store_some(h->y + row * h->yStride + j + at, sum, lanes);
        }
      }
    }
  }
}

static void advance_block(Block *block) {
  for (size_t i = 0; i < block->numSteps; i++) {
    for (size_t at = 0; at < VALUES_PER_TASK; at += DM_LANES) {
      vf_store(block->v[i] + at, block->until[i] * vf_load(block->v[i] + at));
    }
  }
  for (size_t column = 0; column < VALUES_PER_TASK; column += PANEL) {
    size_t d = 0;
    for (; d + ROWS_AT_ONCE <= block->keyWidth; d += ROWS_AT_ONCE) advance(block, d, column, ROWS_AT_ONCE);
    for (; d < block->keyWidth; d++) advance(block, d, column, 1);
  }
}

/** v = scale x of one row, `count` columns from j on. */
DM_INLINE void load_values(const Head *h, size_t row, size_t j, size_t count, float *v) {
  const float *x = row_of(&h->x, row) + j, scale = number_of(&h->scale, row, 1);
  for (size_t at = 0; at < count; at += DM_LANES) {
    const size_t lanes = count - at < DM_LANES ? count - at : DM_LANES;
    vf_store_some(v + at, scale * vf_load_some(x + at, lanes), lanes);
  }
}

static void steps_in_blocks(const Recurrence *r, const Head *h, size_t head, size_t first, size_t end, size_t j, size_t count,
                            float *state) {
  Block block = {.keyWidth = r->keyWidth, .state = state};
  const size_t G = r->numGroups, group = head / r->q.share;
  for (size_t row = first; row < end; row += BLOCK) {
    block.numSteps = end - row < BLOCK ? end - row : BLOCK;
    block.q = (Rows){row_of(&h->q, row), h->q.stride};
    block.k = (Rows){row_of(&h->k, row), h->k.stride};
    for (size_t i = 0; i < block.numSteps; i++) load_values(h, row + i, j, count, block.v[i]);
    decay_block(&block, &h->decay, row, r->scores + (row * G + group) * BLOCK, G * BLOCK);
    read_block(&block, h, row, j, count);
    advance_block(&block);
  }
}

/* --- several steps, one by one --- */

/**
 * Step `row` of a panel, and in `removed` what the next one removes of it. `removes` is a constant.
 */
DM_INLINE void pass(const Recurrence *r, const Head *h, size_t row, const float *nextA, const float *v, float *state, float *y,
                    float *removed, bool removes) {
  const float *q = row_of(&h->q, row), *k = row_of(&h->k, row), *b = row_of(&h->b, row), *decay = row_of(&h->decay, row);
  const size_t dk = r->keyWidth, decayStride = r->decayStride;
  const vf v0 = vf_load(v), v1 = vf_load(v + DM_LANES), removed0 = vf_load(removed), removed1 = vf_load(removed + DM_LANES);
  vf y0 = {0}, y1 = {0}, next0 = {0}, next1 = {0};
  for (size_t d = 0; d < dk; d++, state += PANEL, decay += decayStride) {
    const float left = *decay, key = k[d], query = q[d];
    vf s0 = add_product(left, vf_load(state), key * v0), s1 = add_product(left, vf_load(state + DM_LANES), key * v1);
    if (removes) {
      const float replaced = b[d], next = nextA[d];
      s0 += replaced * removed0;
      s1 += replaced * removed1;
      next0 += next * s0;
      next1 += next * s1;
    }
    vf_store(state, s0);
    vf_store(state + DM_LANES, s1);
    y0 += query * s0;
    y1 += query * s1;
  }
  vf_store(y, y0);
  vf_store(y + DM_LANES, y1);
  vf_store(removed, next0);
  vf_store(removed + DM_LANES, next1);
}

/** What the first step removes of a panel. */
static void remove_first(const Recurrence *r, const float *a, const float *state, float *removed) {
  vf sums[PAIR] = {{0}};
  for (size_t d = 0; d < r->keyWidth; d++) {
    for (size_t p = 0; p < PAIR; p++) sums[p] += a[d] * vf_load(state + d * PANEL + p * DM_LANES);
  }
  for (size_t p = 0; p < PAIR; p++) vf_store(removed + p * DM_LANES, sums[p]);
}

/** A block of steps goes over one panel, then over the next: it stays in the first-level cache. */
static void steps_one_by_one(const Recurrence *r, const Head *h, size_t first, size_t end, size_t j, size_t count, float *state) {
  _Alignas(64) float v[BLOCK][VALUES_PER_TASK], y[BLOCK][VALUES_PER_TASK], removed[VALUES_PER_TASK];
  memset(v, 0, sizeof v);
  for (size_t at = 0; h->a.data && at < count; at += PANEL) {
    remove_first(r, row_of(&h->a, first), state + at * r->keyWidth, removed + at);
  }
  for (size_t row = first; row < end; row += BLOCK) {
    const size_t numSteps = end - row < BLOCK ? end - row : BLOCK;
    for (size_t i = 0; i < numSteps; i++) load_values(h, row + i, j, count, v[i]);
    for (size_t at = 0; at < count; at += PANEL) {
      float *panel = state + at * r->keyWidth;
      for (size_t i = 0; i < numSteps; i++) {
        const float *nextA = row_of(&h->a, row + i + 1 < end ? row + i + 1 : row + i);
        if (h->a.data) pass(r, h, row + i, nextA, v[i] + at, panel, y[i] + at, removed + at, true);
        else pass(r, h, row + i, NULL, v[i] + at, panel, y[i] + at, removed + at, false);
      }
    }
    for (size_t i = 0; i < numSteps; i++) {
      const float *x = row_of(&h->x, row + i) + j, skip = number_of(&h->skip, row + i, 0);
      for (size_t at = 0; at < count; at += DM_LANES) {
        const size_t lanes = count - at < DM_LANES ? count - at : DM_LANES;
        vf sum = vf_load(y[i] + at);
        if (h->skip.data) sum += skip * vf_load_some(x + at, lanes);
        vf_store_some(h->y + (row + i) * h->yStride + j + at, sum, lanes);
      }
    }
  }
}

/* --- all sequences --- */

static size_t length_of(const Recurrence *r, size_t b) { return r->starts[b + 1] - r->starts[b]; }

static bool goes_in_blocks(const Recurrence *r) { return r->a.data == NULL && r->decayStride == 0; }

static size_t columns_per_task(const Recurrence *r, size_t b) {
  return length_of(r, b) > 1 ? VALUES_PER_TASK : VALUES_PER_STEP_TASK;
}

/**
 * Columns [j, j + count) of all steps of sequence `b`. DM_MAX_KEY_WIDTH bounds what they take of
 * the thread's stack.
 */
static void several_steps(const Recurrence *r, const Head *h, size_t b, size_t head, size_t j, size_t count) {
  const size_t dk = r->keyWidth, dv = r->valueWidth;
  _Alignas(64) float state[dk * VALUES_PER_TASK];
  memset(state, 0, sizeof state);
#define EACH_STATE_VECTOR(body)                                                   \
  for (size_t d = 0; d < dk; d++) {                                               \
    for (size_t i = 0; i < count; i += DM_LANES) {                                \
      const size_t lanes = count - i < DM_LANES ? count - i : DM_LANES;           \
      const size_t here = (i / PANEL * dk + d) * PANEL + i % PANEL;               \
      const size_t there = h->state + d * dv + j + i;                             \
      body;                                                                       \
    }                                                                             \
  }
  EACH_STATE_VECTOR(vf_store_some(state + here, load_state(r->past, there, lanes, r->isHalf), lanes))
  if (goes_in_blocks(r)) steps_in_blocks(r, h, head, r->starts[b], r->starts[b + 1], j, count, state);
  else steps_one_by_one(r, h, r->starts[b], r->starts[b + 1], j, count, state);
  EACH_STATE_VECTOR(store_state(r->present, there, vf_load_some(state + here, lanes), lanes, r->isHalf))
}

static void copy_state(const Recurrence *r, const Head *h, size_t j, size_t count) {
  const size_t size = r->isHalf ? sizeof(half) : sizeof(float);
  for (size_t d = 0; d < r->keyWidth; d++) {
    const size_t at = (h->state + d * r->valueWidth + j) * size;
    memcpy((char *)r->present + at, (const char *)r->past + at, count * size);
  }
}

static void advance_columns(void *user, size_t task) {
  const Recurrence copy = *(const Recurrence *)user, *r = &copy; /* no store can change a copy */
  const size_t dv = r->valueWidth, b = dm_sequence_of(r->firstTask, r->numSequences, task), width = columns_per_task(r, b);
  const size_t tasksPerHead = (dv + width - 1) / width, head = (task - r->firstTask[b]) / tasksPerHead;
  const size_t j = (task - r->firstTask[b]) % tasksPerHead * width, count = dv - j < width ? dv - j : width;
  const Head h = head_of(r, b, head);
  if (length_of(r, b) > 1) several_steps(r, &h, b, head, j, count);
  else if (length_of(r, b) == 1) single_step(r, &h, r->starts[b], j, j + count);
  else if (r->present != r->past) copy_state(r, &h, j, count);
}

/** Fills in the tables of tasks and of blocks. `@returns` false after a `dm_fail`. */
static bool divide(Recurrence *r, DmContext *context) {
  size_t *firstTask = dm_scratch(context, (r->numSequences + 1) * sizeof *firstTask);
  size_t *firstBlock = dm_scratch(context, (r->numSequences + 1) * sizeof *firstBlock);
  if (firstTask == NULL || firstBlock == NULL) return false;
  firstTask[0] = firstBlock[0] = 0;
  for (size_t b = 0; b < r->numSequences; b++) {
    const size_t width = columns_per_task(r, b), length = length_of(r, b);
    firstTask[b + 1] = firstTask[b] + r->numHeads * ((r->valueWidth + width - 1) / width);
    firstBlock[b + 1] = firstBlock[b] + (length > 1 && goes_in_blocks(r) ? (length + BLOCK - 1) / BLOCK : 0);
  }
  r->firstTask = firstTask;
  r->firstBlock = firstBlock;
  return true;
}

static bool run(Recurrence *r, DmContext *context) {
  if (!divide(r, context)) return false;
  const size_t numBlocks = r->firstBlock[r->numSequences], numRows = r->starts[r->numSequences];
  if (numBlocks > 0) {
    r->scores = dm_scratch(context, numRows * r->numGroups * BLOCK * sizeof *r->scores);
    if (r->scores == NULL || !dm_parallel_for(context, score_block, numBlocks * r->numGroups, r)) return false;
  }
  return dm_parallel_for(context, advance_columns, r->firstTask[r->numSequences], r);
}

/* --- the node --- */

typedef struct {
  size_t numGroups; /* 0: one a head */
} Options;

static void *create(DmAttributes *attributes) {
  Options *options = malloc(sizeof *options);
  if (options == NULL) return dm_reject(attributes, "Recurrence: no memory");
  options->numGroups = (size_t)dm_int_or(attributes, "groups", 0);
  return options;
}

/** Input `index`: `width` columns for every `share` heads. Without it, nothing. */
static Operand columns_of(DmContext *context, size_t index, const char *name, size_t numRows, size_t width,
                          size_t numHeads, size_t share) {
  DmTensor tensor;
  if (!dm_input_rows(context, index, &tensor) || numRows == 0) return (Operand){0};
  const size_t numNumbers = dm_num_elements(&tensor), needed = numHeads / share * width;
  if (tensor.rank != 3 || numNumbers != numRows * needed || (size_t)tensor.dims[2] != needed) {
    dm_fail(context, "Recurrence: %s must have %zu rows of %zu columns, given %zu numbers", name, numRows, needed, numNumbers);
    return (Operand){0};
  }
  return (Operand){(const float *)tensor.data, tensor.stride, width, share};
}

/** One number of each head, or of each head and row; or as many as the key is wide. */
static bool read_decay(Recurrence *r, DmContext *context, size_t numRows) {
  DmTensor tensor;
  const size_t H = r->numHeads, dk = r->keyWidth;
  if (!dm_input(context, DECAY, &tensor)) return false;
  const size_t count = dm_num_elements(&tensor);
  r->decay = (Operand){.data = tensor.data, .share = 1, .headStride = 1};
  if (tensor.rank == 1 && count == H) return true;
  r->decay.rowStride = H;
  if (count == numRows * H) return true;
  r->decay.rowStride = H * dk;
  r->decay.headStride = dk;
  r->decayStride = 1;
  return count == numRows * H * dk || dm_fail(context, "Recurrence: decay must be [H], [B,T,H] or [B,T,H·dk], given %zu numbers", count);
}

/**
 * Inputs: q, k [B,T,G·dk], v [B,T,H·dv], past [B,H,dk,dv], decay [H], [B,T,H] or [B,T,H·dk],
 * lengths int64 [B]?, a, b [B,T,H·dk]?, scale [B,T,H]?, skip [H]?. With lengths, all that is
 * [B,T,…] is [1,rows,…]. Attribute: groups G (H). Outputs: y [B,T,H·dv] and present, as past, f32
 * or f16, which may be its memory.
 */
static bool compute(const void *state, DmContext *context) {
  const Options *options = state;
  DmTensor q, past, skip, lengths;
  if (!dm_input_rows(context, Q, &q) || !dm_input(context, PAST, &past)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (past.rank != 4 || q.rank != 3 || q.dims[0] != (hasLengths ? 1 : past.dims[0])) {
    return dm_fail(context, "Recurrence: past must be [B,H,dk,dv] and q [B,T,G·dk]");
  }
  const size_t H = (size_t)past.dims[1], numRows = (size_t)(q.dims[0] * q.dims[1]);
  const size_t G = options->numGroups == 0 ? H : options->numGroups;
  if (H == 0 || H % G != 0) return dm_fail(context, "Recurrence: %zu heads do not divide into %zu groups", H, G);
  Recurrence r = {
      .numSequences = (size_t)past.dims[0],
      .numHeads = H,
      .numGroups = G,
      .keyWidth = (size_t)past.dims[2],
      .valueWidth = (size_t)past.dims[3],
      .starts = dm_sequence_starts(context, LENGTHS, (size_t)past.dims[0], numRows),
      .isHalf = past.type == DM_HALF,
      .past = past.data,
  };
  if (r.starts == NULL) return false;
  const size_t dk = r.keyWidth, dv = r.valueWidth;
  if (dk > DM_MAX_KEY_WIDTH) {
    return dm_fail(context, "Recurrence: a head's key must be at most %d wide, given %zu", DM_MAX_KEY_WIDTH, dk);
  }
  r.q = columns_of(context, Q, "q", numRows, dk, H, H / G);
  r.k = columns_of(context, K, "k", numRows, dk, H, H / G);
  r.x = columns_of(context, V, "v", numRows, dv, H, 1);
  r.a = columns_of(context, A, "a", numRows, dk, H, 1);
  r.b = columns_of(context, B, "b", numRows, dk, H, 1);
  r.scale = columns_of(context, SCALE, "scale", numRows, 1, H, 1);
  if (context->failure.exists || !read_decay(&r, context, numRows)) return false;
  if ((r.a.data == NULL) != (r.b.data == NULL)) return dm_fail(context, "Recurrence: a and b are given together or not at all");
  if (dm_input(context, SKIP, &skip)) {
    if (dm_num_elements(&skip) != H) return dm_fail(context, "Recurrence: skip must be [H], %zu numbers, given %zu", H, dm_num_elements(&skip));
    r.skip = (Operand){.data = skip.data, .headStride = 1, .share = 1};
  }
  r.y = dm_output(context, 0, (const int64_t[]){q.dims[0], q.dims[1], (int64_t)(H * dv)}, 3);
  r.present = dm_output(context, 1, past.dims, 4);
  return !context->failure.exists && run(&r, context);
}

const DmOp DM_NAME(recurrence) = {
    .name = "Recurrence",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_STATE}, {DM_FLOAT}, {DM_INT64, true}, {DM_FLOAT, true}, {DM_FLOAT, true},
               {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_STATE}},
    .create = create,
    .compute = compute,
};
