/**
 * EmbedRows against the layout's own words, at the edges: one row, a tile and a bit, one block and
 * several, no ids.
 */
#include "fake_host.h"

extern const DmOp DM_NAME(embed_rows);

typedef struct {
  int64_t rows, columns, block, bits;
} Table;

static size_t num_tiles(const Table *table) {
  return (size_t)((table->rows + 15) / 16);
}

static void set_up(FakeNode *node, const Table *table, const int64_t *ids, int64_t B, int64_t T) {
  const size_t numCodes = num_tiles(table) * 16 * (size_t)table->columns;
  const size_t numScales = numCodes / (size_t)table->block;
  uint8_t *codes = malloc(numCodes);
  float *scales = malloc(numScales * sizeof *scales);
  uint32_t seed = 7;
  for (size_t i = 0; i < numCodes; i++) codes[i] = (uint8_t)(int)(fake_random(&seed) * 128);
  for (size_t i = 0; i < numScales; i++) scales[i] = fake_random(&seed);
  fake_int(node, "rows", table->rows);
  fake_int(node, "columns", table->columns);
  fake_int(node, "block", table->block);
  fake_int(node, "bits", table->bits);
  fake_input(node, 0, DM_UINT8, (int64_t[]){(int64_t)numCodes}, 1, codes);
  fake_input(node, 1, DM_FLOAT, (int64_t[]){(int64_t)numScales}, 1, scales);
  fake_input(node, 2, DM_INT64, (int64_t[]){B, T}, 2, ids);
  free(codes);
  free(scales);
}

static float entry(const FakeNode *node, const Table *table, int64_t row, int64_t column) {
  const int64_t tile = row / 16, lane = row % 16;
  const int8_t *codes = node->inputs[0].data;
  const float *scales = node->inputs[1].data;
  const int8_t code = codes[((tile * (table->columns / 4) + column / 4) * 16 + lane) * 4 + column % 4];
  return (float)code * scales[(tile * (table->columns / table->block) + column / table->block) * 16 + lane];
}

static void check_rows(Table table) {
  const int64_t ids[] = {table.rows - 1, 0, table.rows / 2, 0, table.rows - 1, table.rows / 3};
  FakeNode node = {0};
  set_up(&node, &table, ids, 2, 3);
  CHECK(fake_run(&node, &DM_NAME(embed_rows)) == NULL);
  const FakeValue *out = &node.outputs[0];
  CHECK(out->rank == 3 && out->dims[0] == 2 && out->dims[1] == 3 && out->dims[2] == table.columns);
  for (int64_t i = 0; i < 6; i++) {
    for (int64_t k = 0; k < table.columns; k++) {
      CHECK(((const float *)out->data)[i * table.columns + k] == entry(&node, &table, ids[i], k));
    }
  }
  fake_free(&node);
}

static void check_refused(Table table, int64_t id, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &table, &id, 1, 1);
  const char *error = fake_run(&node, &DM_NAME(embed_rows));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  check_rows((Table){1, 4, 4, 8});
  check_rows((Table){15, 8, 4, 8});
  check_rows((Table){16, 32, 32, 8});
  check_rows((Table){33, 96, 32, 8});

  const Table table = {33, 8, 4, 8};
  check_refused(table, -1, "id -1 is not in 0..32");
  check_refused(table, 33, "id 33 is not in 0..32");
  check_refused((Table){33, 8, 4, 4}, 0, "bits must be 8, not 4");
  check_refused((Table){33, 12, 6, 8}, 0, "block must be a multiple of 4, not 6");

  FakeNode none = {0};
  set_up(&none, &table, (int64_t[]){0}, 0, 1);
  CHECK(fake_run(&none, &DM_NAME(embed_rows)) == NULL);
  CHECK(none.outputs[0].dims[0] == 0);
  fake_int(&none, "rows", 33);
  none.attributes[0].name = "other";
  none.attributes[4].name = "another";
  CHECK(strstr(fake_run(&none, &DM_NAME(embed_rows)), "rows is missing") != NULL);
  fake_free(&none);
  return 0;
}
