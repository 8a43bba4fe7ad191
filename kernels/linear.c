/**
 * densemamba.Linear: y = W x with weights in 4 or 8 bits and inputs rounded to 16. Products and sums within a block of
 * columns are exact integers, and blocks add in f32 in a fixed order: a row's result does not depend on which rows it is
 * computed with. Layout of the weights: docs/kernels.md.
 */
#include <stdlib.h>

#include "integer_dot.h"
#include "op.h"
#include "simd.h"
#include "tiles.h"

/** Shapes: inputs [numInputs, numColumns], outputs [numInputs, numRows], bias [numRows]. */
typedef struct {
  size_t numInputs, numRows, numColumns, blockSize, bits;
  bool silu;
  const uint8_t *codes;
  const float *scales;
  const float *bias; /* or NULL */
  const float *raw;
  int16_t *inputs; /* raw ones, rounded */
  float *inputScales;
  float *outputs;
  size_t tilesPerTask, inputsPerTask, rowsPerRounding;
} Linear;

enum { HALVES = DM_TILE / DOT_ROWS };
_Static_assert(HALVES == 2, "a tile is two halves");

#define MAX_INPUT 32767.0f
/** Bytes: far enough for memory to answer, near enough for the first-level cache to keep. The processor's own prefetcher stops at pages. */
#define AHEAD 1024
/** Below this a row counts as zero: its inverse would be infinite. */
#define SMALLEST 1e-30f

/** Rounds one row to int16 codes, |x| <= 32767 · scale. With a NaN or an infinity in it the scale is NaN, and so is the result. */
static void round_row(const float *x, size_t count, int16_t *codes, float *scale) {
  vf most = {0}, invalid = {0};
  size_t i = 0;
  for (; i + DM_LANES <= count; i += DM_LANES) {
    const vf v = vf_load(x + i);
    const vf size = vf_abs(v);
    most = vf_select(size > most, size, most);
    invalid += v - v; /* 0, or NaN from there on */
  }
  float largest = 0, check = vf_sum(invalid);
  for (int lane = 0; lane < DM_LANES; lane++) largest = most[lane] > largest ? most[lane] : largest;
  for (; i < count; i++) {
    const float size = __builtin_fabsf(x[i]);
    largest = size > largest ? size : largest;
    check += x[i] - x[i];
  }
  *scale = check == 0 ? largest / MAX_INPUT : __builtin_nanf("");
  if (check != 0 || largest < SMALLEST) {
    memset(codes, 0, count * sizeof *codes);
    return;
  }
  typedef int16_t narrow __attribute__((vector_size(DM_LANES * 2)));
  const float inverse = MAX_INPUT / largest;
  for (i = 0; i + DM_LANES <= count; i += DM_LANES) {
    const narrow whole = __builtin_convertvector((vi)(vf_load(x + i) * inverse + VF_ROUNDER), narrow); /* the low 16 bits */
    memcpy(codes + i, &whole, sizeof whole);
  }
  for (; i < count; i++) codes[i] = (int16_t)__builtin_rintf(x[i] * inverse);
}

static void round_rows(void *user, size_t task) {
  const Linear *l = user;
  const size_t first = task * l->rowsPerRounding;
  for (size_t row = first; row < first + l->rowsPerRounding && row < l->numInputs; row++) {
    round_row(l->raw + row * l->numColumns, l->numColumns, l->inputs + row * l->numColumns, l->inputScales + row);
  }
}

/** Writes rows [row, row + 8) of the output of one input. */
DM_INLINE void finish(const Linear *l, size_t input, size_t row, dot_floats y) {
  float *out = l->outputs + input * l->numRows + row;
  const size_t count = l->numRows - row < DOT_ROWS ? l->numRows - row : DOT_ROWS;
  y *= l->inputScales[input];
  if (DM_LANES == DOT_ROWS && count == DOT_ROWS) {
    vf whole;
    memcpy(&whole, &y, sizeof whole);
    if (l->bias) whole += vf_load(l->bias + row);
    vf_store(out, l->silu ? vf_silu(whole) : whole);
    return;
  }
  float values[DOT_ROWS];
  memcpy(values, &y, sizeof values);
  if (l->bias) {
    for (size_t i = 0; i < count; i++) values[i] += l->bias[row + i];
  }
  if (l->silu) {
    for (size_t i = 0; i < DOT_ROWS; i += DM_LANES) {
      if (DM_LANES <= DOT_ROWS) vf_store(values + i, vf_silu(vf_load(values + i)));
      else vf_store_some(values, vf_silu(vf_load_some(values, DOT_ROWS)), DOT_ROWS);
    }
  }
  memcpy(out, values, count * sizeof *out);
}

/**
 * The sums of one block: of the half tile at `codes` and, if `both`, of the one behind it, for `numInputs` inputs. `bits`, `both`
 * and `numInputs` are constants. The sums have names, not indices: compilers keep arrays in memory.
 */
#define DECLARE(i) dot_sums low##i = dot_zero(), high##i = dot_zero();
#define ACCUMULATE_LOW(i) \
  if (i < numInputs) low##i = dot_add(low##i, w, x + i * K);
#define ACCUMULATE_HIGH(i) \
  if (i < numInputs) high##i = dot_add(high##i, w, x + i * K);
#define FINISH_LOW(i) \
  if (i < numInputs) y[0][i] = dot_add_block(y[0][i], low##i, scale);
#define FINISH_HIGH(i) \
  if (i < numInputs) y[1][i] = dot_add_block(y[1][i], high##i, scale);

DM_INLINE void add_block(dot_partial y[HALVES][DOT_INPUTS], const uint8_t *codes, const float *scales, const int16_t *x,
                         size_t K, size_t blockSize, size_t bits, bool both, size_t numInputs) {
  DOT_EACH(DECLARE)
  const size_t halfBytes = bits == 8 ? 32 : 64, numParts = bits == 8 ? 1 : 4;
  for (const int16_t *end = x + blockSize; x < end; codes += 2 * halfBytes) {
    if (both) { /* a pass over what comes from memory */
      for (size_t line = 0; line < 2 * halfBytes; line += 64) __builtin_prefetch(codes + AHEAD + line);
    }
    _Pragma("GCC unroll 4") for (size_t part = 0; part < numParts; part++, x += 4) {
      dot_weights w = bits == 8 ? dot_load8(codes) : dot_load4(codes, part);
      DOT_EACH(ACCUMULATE_LOW)
      if (both) {
        w = bits == 8 ? dot_load8(codes + halfBytes) : dot_load4(codes + halfBytes, part);
        DOT_EACH(ACCUMULATE_HIGH)
      }
    }
  }
  dot_scales scale = dot_load_scales(scales);
  DOT_EACH(FINISH_LOW)
  if (both) {
    scale = dot_load_scales(scales + DOT_ROWS);
    DOT_EACH(FINISH_HIGH)
  }
}

/** One half of a tile, or both, times inputs [input, input + numInputs). `both`, `numInputs` and `bits` are constants. */
DM_INLINE void multiply(const Linear *l, size_t tile, size_t half, bool both, size_t input, size_t numInputs,
                        size_t bits) {
  const size_t K = l->numColumns, numBlocks = K / l->blockSize, bytesPerBlock = l->blockSize * DM_TILE * bits / 8;
  const uint8_t *codes = l->codes + tile * numBlocks * bytesPerBlock + half * (bits == 8 ? 32 : 64);
  const float *scales = l->scales + tile * numBlocks * DM_TILE + half * DOT_ROWS;
  const int16_t *x = l->inputs + input * K;
  dot_partial y[HALVES][DOT_INPUTS];
  for (size_t h = 0; h < (both ? 2 : 1); h++) {
    for (size_t i = 0; i < numInputs; i++) y[h][i] = dot_none();
  }
  for (size_t block = 0; block < numBlocks; block++) {
    add_block(y, codes, scales, x, K, l->blockSize, bits, both, numInputs);
    codes += bytesPerBlock;
    scales += DM_TILE;
    x += l->blockSize;
  }
  for (size_t h = 0; h < (both ? 2 : 1); h++) {
    const size_t row = tile * DM_TILE + (half + h) * DOT_ROWS;
    if (row >= l->numRows) return;
    for (size_t i = 0; i < numInputs; i++) finish(l, input + i, row, dot_total(y[h][i]));
  }
}

/** Few inputs share a pass over the whole tile, which comes from memory; many take a half at a time, from the cache. */
DM_INLINE void multiply_tile(const Linear *l, size_t tile, size_t first, size_t count, size_t bits) {
  for (size_t half = 0; half < HALVES && count >= DOT_INPUTS; half++) {
    for (size_t i = 0; i + DOT_INPUTS <= count; i += DOT_INPUTS) multiply(l, tile, half, false, first + i, DOT_INPUTS, bits);
  }
  size_t i = count - count % DOT_INPUTS;
  for (; i + 2 <= count; i += 2) multiply(l, tile, 0, true, first + i, 2, bits);
  if (i < count) multiply(l, tile, 0, true, first + i, 1, bits);
}

static void multiply_tiles(void *user, size_t task) {
  const Linear copy = *(const Linear *)user, *l = &copy; /* no store can change it: its fields stay in registers */
  const size_t numTiles = dm_num_tiles(l->numRows);
  const size_t tasksPerRange = (numTiles + l->tilesPerTask - 1) / l->tilesPerTask;
  const size_t first = (task / tasksPerRange) * l->inputsPerTask;
  const size_t rest = l->numInputs - first;
  const size_t count = rest < l->inputsPerTask ? rest : l->inputsPerTask;
  size_t tile = (task % tasksPerRange) * l->tilesPerTask;
  const size_t end = tile + l->tilesPerTask < numTiles ? tile + l->tilesPerTask : numTiles;
  for (; tile < end; tile++) {
    if (l->bits == 8) multiply_tile(l, tile, first, count, 8);
    else multiply_tile(l, tile, first, count, 4);
  }
}

/** Small enough for the second-level cache beside a tile, and a multiple of every DOT_INPUTS. */
enum { INPUTS_PER_TASK = 96 };
/** Below so many products a task costs less than handing it to another thread. */
enum { PRODUCTS_PER_TASK = 1 << 17 };
enum { ROUNDED_PER_TASK = 1 << 14 };

static bool run(Linear *l, DmContext *context) {
  const size_t K = l->numColumns;
  l->inputs = dm_scratch(context, l->numInputs * (K * sizeof(int16_t) + sizeof(float)));
  if (l->inputs == NULL) return false;
  l->inputScales = (float *)(l->inputs + l->numInputs * K); /* K is even */

  l->rowsPerRounding = 1 + ROUNDED_PER_TASK / K;
  const size_t numRoundings = (l->numInputs + l->rowsPerRounding - 1) / l->rowsPerRounding;
  if (!dm_parallel_for(context, round_rows, numRoundings, l)) return false;

  l->inputsPerTask = l->numInputs < INPUTS_PER_TASK ? l->numInputs : INPUTS_PER_TASK;
  l->tilesPerTask = 1 + PRODUCTS_PER_TASK / (K * DM_TILE * l->inputsPerTask);
  const size_t numTiles = dm_num_tiles(l->numRows);
  const size_t numRanges = (l->numInputs + l->inputsPerTask - 1) / l->inputsPerTask;
  const size_t numTasks = (numTiles + l->tilesPerTask - 1) / l->tilesPerTask * numRanges;
  return dm_parallel_for(context, multiply_tiles, numTasks, l);
}

static void *create(DmAttributes *attributes) {
  const Linear l = {
      .numRows = (size_t)dm_int(attributes, "rows"),
      .numColumns = (size_t)dm_int(attributes, "columns"),
      .blockSize = (size_t)dm_int(attributes, "block"),
      .bits = (size_t)dm_int(attributes, "bits"),
      .silu = dm_int_or(attributes, "silu", 0) != 0,
  };
  if (attributes->status != NULL) return NULL;
  if (l.bits != 4 && l.bits != 8) return dm_reject(attributes, "Linear: bits must be 4 or 8, given %zu", l.bits);
  if (l.blockSize == 0 || l.blockSize > 1024 || l.blockSize % 16 != 0 || l.numColumns % l.blockSize != 0) {
    return dm_reject(attributes,
                     "Linear: block must be a multiple of 16, at most 1024, that divides the %zu columns, given %zu",
                     l.numColumns, l.blockSize);
  }
  Linear *state = malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "Linear: no memory");
  *state = l;
  return state;
}

/** Inputs: x f32 [..., columns], codes, scales, bias f32 [rows]?. Output: y f32 [..., rows]. */
static bool compute(const void *state, DmContext *context) {
  Linear l = *(const Linear *)state;
  DmTensor x, codes, scales, bias = {0};
  if (!dm_input(context, 0, &x) || !dm_input(context, 1, &codes) || !dm_input(context, 2, &scales)) return false;
  const bool hasBias = dm_input(context, 3, &bias);
  if (x.rank == 0 || x.rank > 8 || (size_t)x.dims[x.rank - 1] != l.numColumns) {
    return dm_fail(context, "Linear: x must have %zu columns", l.numColumns);
  }
  const size_t paddedRows = dm_num_tiles(l.numRows) * DM_TILE;
  if (dm_num_elements(&codes) != paddedRows * l.numColumns * l.bits / 8 ||
      dm_num_elements(&scales) != paddedRows * (l.numColumns / l.blockSize)) {
    return dm_fail(context, "Linear: codes or scales do not have the size of %zu x %zu", l.numRows, l.numColumns);
  }
  l.numInputs = dm_num_elements(&x) / l.numColumns;
  if (hasBias && dm_num_elements(&bias) != l.numRows) {
    return dm_fail(context, "Linear: bias must have %zu elements, given %zu", l.numRows, dm_num_elements(&bias));
  }
  int64_t dims[8];
  memcpy(dims, x.dims, x.rank * sizeof *dims);
  dims[x.rank - 1] = (int64_t)l.numRows;
  l.raw = x.data;
  l.codes = codes.data;
  l.scales = scales.data;
  l.bias = bias.data;
  l.outputs = dm_output(context, 0, dims, x.rank);
  if (l.numInputs == 0) return true;
  return l.outputs != NULL && run(&l, context);
}

const DmOp DM_NAME(linear) = {
    .name = "Linear",
    .inputs = {{DM_FLOAT}, {DM_UINT8}, {DM_FLOAT}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}},
    .create = create,
    .compute = compute,
};
