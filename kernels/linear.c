/**
 * densemamba.Linear: y = W x with weights in 4 or 8 bits and inputs rounded to 8, both in blocks of
 * columns with a scale of their own. Products and sums within a block are exact integers, and
 * blocks add in f32 in a fixed order: a row's result does not depend on which rows it is computed
 * with. Layout of the weights: docs/kernels.md.
 */
#include <stdlib.h>

#include "activation.h"
#include "integer_dot.h"
#if defined(__AMX_INT8__)
#include "amx.h"
#endif
#include "op.h"
#include "simd.h"
#include "tiles.h"

/** A block of one input: x = scale · code. */
typedef struct {
  float scale;
  int32_t sum; /* of its codes */
} InputBlock;

/** Shapes: inputs [numInputs, numColumns], outputs [numInputs, numRows], bias [numRows]. */
typedef struct {
  size_t numInputs, numRows, numColumns, blockSize, bits;
  Activation activation;
  const uint8_t *codes;
  const float *scales;
  const float *bias; /* or NULL */
  const float *raw; /* rows `rawStride` apart */
  size_t rawStride;
  dot_input *inputs; /* raw ones, rounded: [paddedInputs, numColumns] */
  InputBlock *inputBlocks; /* [paddedInputs, numColumns / blockSize] */
  float *outputs;
  size_t tilesPerTask, inputsPerTask, rowsPerRounding;
} Linear;

enum { PARTS = DM_TILE / DOT_ROWS, QUAD = 4, MAX_BLOCK = 1024 };
_Static_assert(PARTS == 1 || PARTS == 2, "a vector has the rows of a tile, or of half of one");

#define MAX_INPUT 127.0f
/**
 * Bytes: far enough for memory to answer (at 256 a step took a sixth longer on a Xeon), near enough
 * for the first-level cache to keep. The processor's own prefetcher stops at pages.
 */
#define AHEAD 4096
/** Scales: two blocks. */
#define SCALES_AHEAD (2 * DM_TILE)
/** Below this a block counts as zero: its inverse would be infinite. */
#define SMALLEST 1e-30f

/**
 * Rounds one block to codes, |x| <= 127 · scale. With a NaN or an infinity in it the scale is NaN,
 * and so is the row's result.
 */
static InputBlock round_block(const float *x, size_t count, dot_input *codes) {
  vf most = {0}, invalid = {0};
  for (size_t i = 0; i < count; i += DM_LANES) {
    const vf v = vf_load(x + i);
    const vf size = vf_abs(v);
    most = vf_select(size > most, size, most);
    invalid += v - v; /* 0, or NaN from there on */
  }
  const float largest = vf_largest(most);
  const bool isValid = vf_sum(invalid) == 0;
  if (!isValid || largest < SMALLEST) {
    memset(codes, 0, count * sizeof *codes);
    return (InputBlock){isValid ? 0 : __builtin_nanf(""), 0};
  }
  const float inverse = MAX_INPUT / largest;
  vf sums = {0};
  for (size_t i = 0; i < count; i += DM_LANES) {
    const vf shifted = vf_load(x + i) * inverse + VF_ROUNDER;
    dot_store(codes + i, (vi)shifted);
    sums += shifted - VF_ROUNDER;
  }
  return (InputBlock){largest / MAX_INPUT, (int32_t)vf_sum(sums)};
}

static void round_rows(void *user, size_t task) {
  const Linear *l = user;
  const size_t blocksPerRow = l->numColumns / l->blockSize;
  const size_t first = task * l->rowsPerRounding, end = first + l->rowsPerRounding;
  for (size_t row = first; row < end && row < l->numInputs; row++) {
    for (size_t block = 0; block < blocksPerRow; block++) {
      const size_t at = block * l->blockSize;
      dot_input *codes = l->inputs + row * l->numColumns + at;
      l->inputBlocks[row * blocksPerRow + block] = round_block(l->raw + row * l->rawStride + at, l->blockSize, codes);
    }
  }
}

/** Writes rows [row, row + DOT_ROWS) of the output of one input. */
DM_INLINE void finish(const Linear *l, size_t input, size_t row, dot_floats y) {
  float *out = l->outputs + input * l->numRows + row;
  const size_t count = l->numRows - row < DOT_ROWS ? l->numRows - row : DOT_ROWS;
  float values[DOT_ROWS];
  memcpy(values, &y, sizeof values);
  for (size_t i = 0; i < DOT_ROWS; i += DM_LANES) {
    vf some = vf_load(values + i);
    if (l->bias && i < count) some += vf_load_some(l->bias + row + i, count - i < DM_LANES ? count - i : DM_LANES);
    vf_store(values + i, activated(l->activation, some));
  }
  if (count == DOT_ROWS) memcpy(out, values, sizeof values);
  else memcpy(out, values, count * sizeof *out);
}

/**
 * Applied to each input of a pass. The sums have names, not indices: compilers keep arrays in
 * memory.
 */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
_Static_assert(DOT_INPUTS <= 16, "EACH has 16");

/**
 * The sums of one block, for `numInputs` inputs at `x`. With `two` there are two sets of sums: the
 * tile's two parts, or, of a tile that is one part, its even and odd quads, since one set's
 * additions would wait for each other. `bits`, `two` and `numInputs` are constants.
 */
#define DECLARE(i) \
  dot_sums a##i, b##i; \
  if (i < numInputs) { \
    a##i = dot_start(bits, inputBlocks[i * blocksPerRow].sum); \
    b##i = PARTS == 2 ? a##i : dot_start(bits, 0); \
  }
#define ADD_A(i) \
  if (i < numInputs) a##i = dot_add(a##i, w, x + i * K + quad * QUAD);
#define ADD_B(i) \
  if (i < numInputs) b##i = dot_add(b##i, w, x + i * K + quad * QUAD);
#define FINISH(i) \
  if (i < numInputs) { \
    const float factor = inputBlocks[i * blocksPerRow].scale; \
    y[0][i] = dot_add_block(y[0][i], two && PARTS == 1 ? dot_rows(a##i) + dot_rows(b##i) : dot_rows(a##i), scale, factor); \
    if (two && PARTS == 2) y[1][i] = dot_add_block(y[1][i], dot_rows(b##i), scale2, factor); \
  }

DM_INLINE void add_block(dot_floats y[PARTS][DOT_INPUTS], const uint8_t *codes, const float *scales, const dot_input *x,
                         const InputBlock *inputBlocks, size_t K, size_t blockSize, size_t bits, bool two, bool isFirst,
                         size_t numInputs) {
  const size_t blocksPerRow = K / blockSize, bytesPerStep = 2 * QUAD * DM_TILE * bits / 8;
  EACH(DECLARE)
  for (const dot_input *end = x + blockSize; x < end; codes += bytesPerStep, x += 2 * QUAD) {
    if (isFirst) { /* what comes from memory; a second pass finds it in the cache */
      for (size_t line = 0; line < bytesPerStep; line += 64) __builtin_prefetch(codes + AHEAD + line);
    }
    _Pragma("GCC unroll 2") for (size_t quad = 0; quad < 2; quad++) {
      const uint8_t *at = bits == 8 ? codes + quad * QUAD * DM_TILE : codes;
      dot_weights w = bits == 8 ? dot_load8(at) : dot_load4(at, quad);
      if (PARTS == 1 && two && quad == 1) {
        EACH(ADD_B)
      } else {
        EACH(ADD_A)
      }
      if (PARTS == 2 && two) {
        w = bits == 8 ? dot_load8(at + DOT_ROWS * QUAD) : dot_load4(at + DOT_ROWS * QUAD, quad);
        EACH(ADD_B)
      }
    }
  }
  dot_floats scale, scale2 = {0};
  memcpy(&scale, scales, sizeof scale);
  if (PARTS == 2 && two) memcpy(&scale2, scales + DOT_ROWS, sizeof scale2);
  EACH(FINISH)
}

/** One part of a tile, or, with `two`, the whole tile, times inputs [input, input + numInputs). */
DM_INLINE void multiply(const Linear *l, size_t tile, size_t part, bool two, bool isFirst, size_t input, size_t numInputs, size_t bits) {
  const size_t K = l->numColumns, numBlocks = K / l->blockSize, bytesPerBlock = l->blockSize * DM_TILE * bits / 8;
  const uint8_t *codes = l->codes + tile * numBlocks * bytesPerBlock + part * DOT_ROWS * QUAD;
  const float *scales = l->scales + tile * numBlocks * DM_TILE + part * DOT_ROWS;
  const dot_input *x = l->inputs + input * K;
  const InputBlock *inputBlocks = l->inputBlocks + input * numBlocks;
  const size_t numParts = two ? PARTS : 1;
  dot_floats y[PARTS][DOT_INPUTS];
  for (size_t p = 0; p < numParts; p++) {
    for (size_t i = 0; i < numInputs; i++) y[p][i] = (dot_floats){0};
  }
  for (size_t block = 0; block < numBlocks; block++) {
    add_block(y, codes, scales, x, inputBlocks, K, l->blockSize, bits, two, isFirst, numInputs);
    codes += bytesPerBlock;
    scales += DM_TILE;
    x += l->blockSize;
    inputBlocks++;
  }
  for (size_t p = 0; p < numParts; p++) {
    const size_t row = tile * DM_TILE + (part + p) * DOT_ROWS;
    if (row >= l->numRows) break;
    for (size_t i = 0; i < numInputs; i++) finish(l, input + i, row, y[p][i]);
  }
}

/** Of a tile and one input: of its two parts, or, if it is one, of its even and odd quads. */
typedef struct {
  dot_sums a, b;
} TileSums;

DM_INLINE TileSums add_quad(TileSums sums, const uint8_t *codes, size_t quad, const dot_input *x, size_t bits) {
  const uint8_t *at = bits == 8 ? codes + quad * QUAD * DM_TILE : codes, *second = at + DOT_ROWS * QUAD;
  const dot_weights w = bits == 8 ? dot_load8(at) : dot_load4(at, quad);
  if (PARTS == 1 && quad == 1) sums.b = dot_add(sums.b, w, x);
  else sums.a = dot_add(sums.a, w, x);
  if (PARTS == 2) sums.b = dot_add(sums.b, bits == 8 ? dot_load8(second) : dot_load4(second, quad), x);
  return sums;
}

DM_INLINE void add_sums(dot_floats y[PARTS], TileSums sums, const float *scales, float factor) {
  dot_floats scale;
  memcpy(&scale, scales, sizeof scale);
  y[0] = dot_add_block(y[0], PARTS == 2 ? dot_rows(sums.a) : dot_rows(sums.a) + dot_rows(sums.b), scale, factor);
  if (PARTS == 1) return;
  memcpy(&scale, scales + DOT_ROWS, sizeof scale);
  y[PARTS - 1] = dot_add_block(y[PARTS - 1], dot_rows(sums.b), scale, factor);
}

/**
 * A single input times `tile` and the tile that is `apart` tiles further on, a few columns of each
 * in turns: memory answers two streams faster than one, and faster the finer they are mixed.
 */
DM_INLINE void multiply_pair(const Linear *l, size_t tile, size_t apart, size_t input, size_t bits) {
  const size_t K = l->numColumns, numBlocks = K / l->blockSize;
  const size_t bytesPerStep = 2 * QUAD * DM_TILE * bits / 8, bytesPerTile = K * DM_TILE * bits / 8;
  const uint8_t *codes = l->codes + tile * bytesPerTile, *others = codes + apart * bytesPerTile;
  const float *scales = l->scales + tile * numBlocks * DM_TILE, *otherScales = scales + apart * numBlocks * DM_TILE;
  const dot_input *x = l->inputs + input * K;
  const InputBlock *inputBlock = l->inputBlocks + input * numBlocks;
  dot_floats y[2][PARTS] = {{{0}}};
  for (const dot_input *end = x + K; x < end; inputBlock++, scales += DM_TILE, otherScales += DM_TILE) {
    TileSums sums = {dot_start(bits, inputBlock->sum), dot_start(bits, PARTS == 2 ? inputBlock->sum : 0)}, otherSums = sums;
    __builtin_prefetch(scales + SCALES_AHEAD);
    __builtin_prefetch(otherScales + SCALES_AHEAD);
    for (const dot_input *last = x + l->blockSize; x < last; codes += bytesPerStep, others += bytesPerStep, x += 2 * QUAD) {
      for (size_t line = 0; line < bytesPerStep; line += 64) {
        __builtin_prefetch(codes + AHEAD + line);
        __builtin_prefetch(others + AHEAD + line);
      }
      _Pragma("GCC unroll 2") for (size_t quad = 0; quad < 2; quad++) {
        sums = add_quad(sums, codes, quad, x + quad * QUAD, bits);
        otherSums = add_quad(otherSums, others, quad, x + quad * QUAD, bits);
      }
    }
    add_sums(y[0], sums, scales, inputBlock->scale);
    add_sums(y[1], otherSums, otherScales, inputBlock->scale);
  }
  for (size_t t = 0; t < 2; t++) {
    for (size_t p = 0; p < PARTS; p++) {
      const size_t row = (tile + t * apart) * DM_TILE + p * DOT_ROWS;
      if (row < l->numRows) finish(l, input, row, y[t][p]);
    }
  }
}

#if defined(__AMX_INT8__)
/** Fewer are as fast without. */
enum { FEWEST_FOR_AMX = 4 };
/** Bytes, as `AHEAD`; a tile's instructions wait for more at once. */
enum { AMX_AHEAD = 2048 };

#define START_16(i) dot_floats y##i = {0};
#define ADD_16(i) \
  memcpy(&integers, last->of[i], sizeof integers); \
  y##i = dot_add_block(y##i, integers, scale, inputBlocks[i * numBlocks].scale);
#define WRITE_16(i) memcpy(out + i * l->numRows, &y##i, sizeof y##i);
#define FINISH_16(i) \
  if (i < count) finish(l, input + i, tile * DM_TILE, y##i);

/**
 * A tile times inputs [input, input + count), at most 16; what lies behind them is multiplied as
 * well, and given to nobody.
 */
DM_INLINE void multiply_by_amx(const Linear *l, size_t tile, size_t input, size_t count, bool isFirst) {
  const size_t K = l->numColumns, numBlocks = K / l->blockSize, bytesPerBlock = l->blockSize * DM_TILE;
  const size_t columns = amx_columns(l->blockSize);
  const uint8_t *codes = l->codes + tile * numBlocks * bytesPerBlock;
  const float *scales = l->scales + tile * numBlocks * DM_TILE;
  const dot_input *x = l->inputs + input * K;
  const InputBlock *inputBlocks = l->inputBlocks + input * numBlocks;
  AmxSums sums[2];
  EACH(START_16)
  for (size_t block = 0; block <= numBlocks; block++) {
    if (block < numBlocks) {
      if (isFirst) { /* the others find them in the cache */
        for (size_t line = 0; line < bytesPerBlock; line += AMX_LINE) __builtin_prefetch(codes + AMX_AHEAD + line);
      }
      amx_multiply(&sums[block % 2], x, K, (const int8_t *)codes, l->blockSize, columns);
      codes += bytesPerBlock;
      x += l->blockSize;
    }
    if (block > 0) { /* those of the block before: to read what a tile has just stored takes long */
      const AmxSums *last = &sums[(block - 1) % 2];
      dot_floats scale;
      dot_integers integers;
      memcpy(&scale, scales, sizeof scale);
      EACH(ADD_16)
      scales += DM_TILE;
      inputBlocks++;
    }
  }
  if (count == AMX_INPUTS && l->bias == NULL && l->activation == ACTIVATION_NONE && (tile + 1) * DM_TILE <= l->numRows) {
    float *out = l->outputs + input * l->numRows + tile * DM_TILE;
    EACH(WRITE_16)
  } else {
    EACH(FINISH_16)
  }
}

/** Not of four bits: their blocks are short, and adding those up is most of the work. */
static bool takes_amx(const Linear *l, size_t numInputs) { return l->bits == 8 && numInputs >= FEWEST_FOR_AMX; }

/** @returns how many of the inputs it has multiplied the tile by. */
DM_INLINE size_t multiply_many(const Linear *l, size_t tile, size_t first, size_t count) {
  size_t done = 0;
  while (takes_amx(l, count - done)) {
    const size_t some = count - done < AMX_INPUTS ? count - done : AMX_INPUTS;
    multiply_by_amx(l, tile, first + done, some, done == 0);
    done += some;
  }
  return done;
}

static void begin_many(const Linear *l, size_t count) {
  if (takes_amx(l, count)) amx_begin(amx_columns(l->blockSize));
}
static void end_many(const Linear *l, size_t count) {
  if (takes_amx(l, count)) amx_end();
}
#else
enum { AMX_INPUTS = 1 };
static bool takes_amx(const Linear *l, size_t numInputs) { return (void)l, (void)numInputs, false; }
DM_INLINE size_t multiply_many(const Linear *l, size_t tile, size_t first, size_t count) {
  return (void)l, (void)tile, (void)first, (void)count, 0;
}
static void begin_many(const Linear *l, size_t count) { (void)l, (void)count; }
static void end_many(const Linear *l, size_t count) { (void)l, (void)count; }
#endif

/**
 * Many inputs take a part at a time, from the cache; few share a pass over the whole tile, which
 * comes from memory.
 */
DM_INLINE void multiply_tile(const Linear *l, size_t tile, size_t first, size_t count, size_t bits) {
  const size_t start = first + multiply_many(l, tile, first, count), end = first + count;
  size_t i = start;
  for (size_t part = 0; part < PARTS; part++) {
    for (i = start; i + DOT_INPUTS <= end; i += DOT_INPUTS) {
      if (i == first) multiply(l, tile, part, false, true, i, DOT_INPUTS, bits);
      else multiply(l, tile, part, false, false, i, DOT_INPUTS, bits);
    }
  }
  for (; DOT_FEW >= 8 && i + 8 <= end; i += 8) multiply(l, tile, 0, true, true, i, 8, bits);
  for (; DOT_FEW >= 4 && i + 4 <= end; i += 4) multiply(l, tile, 0, true, true, i, 4, bits);
  for (; i + 2 <= end; i += 2) multiply(l, tile, 0, true, true, i, 2, bits);
  if (i < end) multiply(l, tile, 0, true, true, i, 1, bits);
}

/**
 * Numbers of a matrix that a step finds in memory: those of a small model are in a cache, where one
 * stream is as fast.
 */
enum { LARGE = 1 << 19 };

static void multiply_tiles(void *user, size_t task) {
  const Linear copy = *(const Linear *)user, *l = &copy; /* no store can change it: its fields stay in registers */
  const size_t numTiles = dm_num_tiles(l->numRows);
  const size_t tasksPerRange = (numTiles + l->tilesPerTask - 1) / l->tilesPerTask;
  const size_t first = (task / tasksPerRange) * l->inputsPerTask;
  const size_t rest = l->numInputs - first;
  const size_t count = rest < l->inputsPerTask ? rest : l->inputsPerTask;
  size_t tile = (task % tasksPerRange) * l->tilesPerTask;
  const size_t end = tile + l->tilesPerTask < numTiles ? tile + l->tilesPerTask : numTiles;
  if (count == 1 && l->numRows * l->numColumns >= LARGE) {
    const size_t half = (end - tile) / 2;
    for (const size_t middle = tile + half; tile < middle; tile++) {
      if (l->bits == 8) multiply_pair(l, tile, half, first, 8);
      else multiply_pair(l, tile, half, first, 4);
    }
    tile += half;
  }
  begin_many(l, count);
  for (; tile < end; tile++) {
    if (l->bits == 8) multiply_tile(l, tile, first, count, 8);
    else multiply_tile(l, tile, first, count, 4);
  }
  end_many(l, count);
}

/** Small enough for the second-level cache beside a tile, and a multiple of every DOT_INPUTS. */
enum { INPUTS_PER_TASK = 96 };
/** Half of a second-level cache: AMX is so fast that what weights there are should be read once. */
enum { AMX_INPUT_BYTES_PER_TASK = 1 << 20 };
/** Below so many products a task costs less than handing it to another thread. */
enum { PRODUCTS_PER_TASK = 1 << 17, PRODUCTS_PER_AMX_TASK = 1 << 20 };
enum { ROUNDED_PER_TASK = 1 << 14 };

static bool run(Linear *l, DmContext *context) {
  const bool isAmx = takes_amx(l, l->numInputs);
  const size_t K = l->numColumns, blocksPerRow = K / l->blockSize;
  const size_t paddedInputs = isAmx ? (l->numInputs + AMX_INPUTS - 1) / AMX_INPUTS * AMX_INPUTS : l->numInputs;
  l->inputs = dm_scratch(context, paddedInputs * K * sizeof(dot_input));
  l->inputBlocks = dm_scratch(context, paddedInputs * blocksPerRow * sizeof(InputBlock));
  if (l->inputs == NULL || l->inputBlocks == NULL) return false;
  memset(l->inputBlocks + l->numInputs * blocksPerRow, 0, (paddedInputs - l->numInputs) * blocksPerRow * sizeof(InputBlock));

  l->rowsPerRounding = 1 + ROUNDED_PER_TASK / K;
  const size_t numRoundings = (l->numInputs + l->rowsPerRounding - 1) / l->rowsPerRounding;
  if (!dm_parallel_for(context, round_rows, numRoundings, l)) return false;

  const size_t most = isAmx ? AMX_INPUT_BYTES_PER_TASK / K / AMX_INPUTS * AMX_INPUTS + AMX_INPUTS : INPUTS_PER_TASK;
  l->inputsPerTask = l->numInputs < most ? l->numInputs : most;
  l->tilesPerTask = 1 + (isAmx ? PRODUCTS_PER_AMX_TASK : PRODUCTS_PER_TASK) / (K * DM_TILE * l->inputsPerTask);
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
      .activation = (Activation)dm_int_or(attributes, "activation", ACTIVATION_NONE),
  };
  if (attributes->failure.exists) return NULL;
  if (l.activation < 0 || l.activation >= NUM_ACTIVATIONS) {
    return dm_reject(attributes, "Linear: activation must be below %d, given %d", NUM_ACTIVATIONS, (int)l.activation);
  }
  if (l.bits != 4 && l.bits != 8) return dm_reject(attributes, "Linear: bits must be 4 or 8, given %zu", l.bits);
  if (l.blockSize == 0 || l.blockSize > MAX_BLOCK || l.blockSize % 16 != 0 || l.numColumns % l.blockSize != 0) {
    return dm_reject(attributes,
                     "Linear: block must be a multiple of 16, at most %d, that divides the %zu columns, given %zu", MAX_BLOCK,
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
  if (!dm_input_rows(context, 0, &x) || !dm_input(context, 1, &codes) || !dm_input(context, 2, &scales)) return false;
  const bool hasBias = dm_input(context, 3, &bias);
  if (x.rank == 0 || (size_t)x.dims[x.rank - 1] != l.numColumns) {
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
  l.raw = x.data;
  l.rawStride = x.stride;
  x.dims[x.rank - 1] = (int64_t)l.numRows;
  l.codes = codes.data;
  l.scales = scales.data;
  l.bias = bias.data;
  l.outputs = dm_output(context, 0, x.dims, x.rank);
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
