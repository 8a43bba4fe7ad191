/**
 * EmbedRows: the rows of a table of 8-bit codes that the token ids name, as floats.
 *   codes u8 [rows/16, columns/4, 16, 4] ("tiles": row 16t+lane, column 4q+j is int8 [t, q, lane, j]), rows padded to 16s;
 *   scales f32 [rows/16, columns/block, 16]; ids i64 [B, T] → f32 [B, T, columns] = code · scale
 * Attributes: rows, columns (a multiple of block), bits (8), block (a multiple of 4).
 */
#include <stdlib.h>

#include "op.h"

enum { LANES = 16, QUAD = 4 };

typedef struct {
  int64_t rows, columns, block;
} State;

static void *create(DmAttributes *attributes) {
  const State read = {
      .rows = dm_int(attributes, "rows"),
      .columns = dm_int(attributes, "columns"),
      .block = dm_int(attributes, "block"),
  };
  const int64_t bits = dm_int(attributes, "bits");
  if (attributes->failure.exists) return NULL;
  if (bits != 8) return dm_reject(attributes, "bits must be 8, not %lld", (long long)bits);
  if (read.rows < 1) return dm_reject(attributes, "rows must be at least 1, not %lld", (long long)read.rows);
  if (read.block < QUAD || read.block % QUAD != 0) {
    return dm_reject(attributes, "block must be a multiple of %d, not %lld", QUAD, (long long)read.block);
  }
  if (read.columns < 1 || read.columns % read.block != 0) {
    return dm_reject(attributes, "columns must be a multiple of block %lld, not %lld", (long long)read.block,
                     (long long)read.columns);
  }
  State *state = malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "no memory");
  *state = read;
  return state;
}

static void embed_row(const State *state, const int8_t *codes, const float *scales, int64_t row, float *out) {
  const int64_t tile = row / LANES, lane = row % LANES;
  const int64_t num_blocks = state->columns / state->block;
  const int8_t *code = codes + (tile * state->columns * LANES) + lane * QUAD;
  for (int64_t b = 0; b < num_blocks; b++) {
    const float scale = scales[(tile * num_blocks + b) * LANES + lane];
    for (int64_t k = 0; k < state->block; k += QUAD, code += LANES * QUAD, out += QUAD) {
      for (int64_t j = 0; j < QUAD; j++) out[j] = scale * (float)code[j];
    }
  }
}

static bool compute(const void *data, DmContext *context) {
  const State *state = data;
  DmTensor codes, scales, ids;
  if (!dm_input(context, 0, &codes) || !dm_input(context, 1, &scales) || !dm_input(context, 2, &ids)) return false;
  const size_t num_tiles = ((size_t)state->rows + LANES - 1) / LANES;
  const size_t num_codes = num_tiles * LANES * (size_t)state->columns;
  if (dm_num_elements(&codes) != num_codes) {
    return dm_fail(context, "EmbedRows: codes must have %zu elements, not %zu", num_codes, dm_num_elements(&codes));
  }
  const size_t num_scales = num_codes / (size_t)state->block;
  if (dm_num_elements(&scales) != num_scales) {
    return dm_fail(context, "EmbedRows: scales must have %zu elements, not %zu", num_scales, dm_num_elements(&scales));
  }
  if (ids.rank != 2) return dm_fail(context, "EmbedRows: ids must have 2 dimensions, not %zu", ids.rank);
  float *out = dm_output(context, 0, (int64_t[]){ids.dims[0], ids.dims[1], state->columns}, 3);
  const size_t num_ids = dm_num_elements(&ids);
  const int64_t *id = ids.data;
  for (size_t i = 0; i < num_ids && out != NULL; i++, out += state->columns) {
    if (id[i] < 0 || id[i] >= state->rows) {
      return dm_fail(context, "EmbedRows: id %lld is not in 0..%lld", (long long)id[i], (long long)state->rows - 1);
    }
    embed_row(state, codes.data, scales.data, id[i], out);
  }
  return !context->failure.exists;
}

const DmOp DM_NAME(embed_rows) = {
    .name = "EmbedRows",
    .inputs = {{DM_UINT8}, {DM_FLOAT}, {DM_INT64}},
    .outputs = {{DM_FLOAT}},
    .create = create,
    .compute = compute,
};
