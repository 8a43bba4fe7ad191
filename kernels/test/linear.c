/**
 * Linear against sums in double over the codes as the layout's words place them: edges of tiles and
 * of groups of inputs.
 */
#include <math.h>

#include "../activation.h"
#include "fake_host.h"

extern const DmOp DM_NAME(linear);

typedef struct {
  int64_t rows, columns, block, bits, inputs;
  bool bias;
  Activation activation;
  int64_t extra; /* columns of a wider value before and behind x */
} Case;

static int64_t padded(int64_t rows) {
  return (rows + 15) / 16 * 16;
}

static double code_at(const uint8_t *codes, const Case *c, int64_t row, int64_t column) {
  const int64_t tile = row / 16, lane = row % 16;
  if (c->bits == 8) return (int8_t)codes[((tile * (c->columns / 4) + column / 4) * 16 + lane) * 4 + column % 4];
  const int64_t byte = ((tile * (c->columns / 8) + column / 8) * 16 + lane) * 4 + column % 4;
  return ((codes[byte] >> (column % 8 < 4 ? 0 : 4)) & 15) - 8;
}

static void set_up(FakeNode *node, const Case *c) {
  uint32_t seed = 3;
  const int64_t numCodes = padded(c->rows) * c->columns * c->bits / 8, numScales = padded(c->rows) * c->columns / c->block;
  uint8_t *codes = malloc((size_t)numCodes);
  float *scales = malloc((size_t)numScales * sizeof *scales);
  const int64_t width = c->columns + 2 * c->extra;
  float *x = malloc((size_t)(c->inputs * width) * sizeof *x + 1);
  float *bias = malloc((size_t)c->rows * sizeof *bias);
  for (int64_t i = 0; i < numCodes; i++) {
    codes[i] = (uint8_t)(fake_random(&seed) * 128 + 128);
    if (c->bits == 8 && codes[i] == 128) codes[i] = 127; /* -128 is no code */
  }
  for (int64_t i = 0; i < numScales; i++) scales[i] = fake_random(&seed);
  for (int64_t i = 0; i < c->inputs * width; i++) x[i] = fake_random(&seed) * 3;
  for (int64_t i = 0; i < c->rows; i++) bias[i] = fake_random(&seed);
  fake_int(node, "rows", c->rows);
  fake_int(node, "columns", c->columns);
  fake_int(node, "block", c->block);
  fake_int(node, "bits", c->bits);
  fake_int(node, "activation", c->activation);
  fake_input(node, 0, DM_FLOAT, (int64_t[]){1, c->inputs, width}, 3, x);
  node->columns[0] = (DmColumns){c->extra, c->extra + c->columns};
  fake_input(node, 1, DM_UINT8, (int64_t[]){numCodes}, 1, codes);
  fake_input(node, 2, DM_FLOAT, (int64_t[]){numScales}, 1, scales);
  if (c->bias) fake_input(node, 3, DM_FLOAT, (int64_t[]){c->rows}, 1, bias);
  free(codes);
  free(scales);
  free(x);
  free(bias);
}

/** What an input's column is rounded to: 127 stands for the largest of its block. */
static double rounded(const float *block, int64_t size, int64_t column) {
  float largest = 0;
  for (int64_t k = 0; k < size; k++) {
    if (fabsf(block[k]) > largest) largest = fabsf(block[k]); /* fmaxf would be a call, and slow behind vectors */
  }
  return (double)rintf(block[column] * (127.0f / largest)) * (largest / 127.0f);
}

static double expected(const FakeNode *node, const Case *c, int64_t input, int64_t row) {
  const float *x = (const float *)node->inputs[0].data + input * (c->columns + 2 * c->extra) + c->extra, *scales = node->inputs[2].data;
  double sum = 0;
  for (int64_t k = 0; k < c->columns; k++) {
    const int64_t scale = (row / 16 * (c->columns / c->block) + k / c->block) * 16 + row % 16;
    sum += code_at(node->inputs[1].data, c, row, k) * scales[scale] * rounded(x + k / c->block * c->block, c->block, k % c->block);
  }
  if (c->bias) sum += ((const float *)node->inputs[3].data)[row];
  switch (c->activation) {
    case ACTIVATION_SILU:
      return sum / (1 + exp(-sum));
    case ACTIVATION_SIGMOID:
      return 1 / (1 + exp(-sum));
    case ACTIVATION_TANH:
      return tanh(sum);
    case ACTIVATION_RELU2:
      return sum > 0 ? sum * sum : 0;
    case ACTIVATION_GELU:
      return sum / 2 * (1 + erf(sum / sqrt(2)));
    default:
      return sum;
  }
}

static void check(Case c) {
  FakeNode node = {0};
  set_up(&node, &c);
  CHECK(fake_run(&node, &DM_NAME(linear)) == NULL);
  const FakeValue *y = &node.outputs[0];
  CHECK(y->rank == 3 && y->dims[1] == c.inputs && y->dims[2] == c.rows);
  const double tolerance = 1e-6 * (double)c.columns * (c.bits == 8 ? 128 : 8);
  for (int64_t i = 0; i < c.inputs; i++) {
    for (int64_t row = 0; row < c.rows; row++) {
      const double should = expected(&node, &c, i, row), size = c.activation == ACTIVATION_RELU2 ? 1 + 2 * sqrt(should) : 1;
      CHECK(fabs(((const float *)y->data)[i * c.rows + row] - should) < tolerance * size);
    }
  }
  fake_free(&node);
}

/** Any input alone gives the bits that it gives among others. */
static void check_alone(Case c) {
  FakeNode together = {0}, alone = {0};
  set_up(&together, &c);
  CHECK(fake_run(&together, &DM_NAME(linear)) == NULL);
  const int64_t which = c.inputs - 1;
  Case one = c;
  one.inputs = 1;
  set_up(&alone, &one);
  memcpy(alone.inputs[0].data, (float *)together.inputs[0].data + which * c.columns, (size_t)c.columns * sizeof(float));
  memcpy(alone.inputs[1].data, together.inputs[1].data, fake_bytes(&together.inputs[1]));
  memcpy(alone.inputs[2].data, together.inputs[2].data, fake_bytes(&together.inputs[2]));
  if (c.bias) memcpy(alone.inputs[3].data, together.inputs[3].data, fake_bytes(&together.inputs[3]));
  CHECK(fake_run(&alone, &DM_NAME(linear)) == NULL);
  const float *row = (const float *)together.outputs[0].data + which * c.rows;
  CHECK(memcmp(row, alone.outputs[0].data, (size_t)c.rows * sizeof(float)) == 0);
  fake_free(&together);
  fake_free(&alone);
}

/** NaN, infinity and a row of zeros stay in their rows. */
static void check_special(void) {
  const Case c = {20, 64, 32, 8, 4, false};
  FakeNode node = {0};
  set_up(&node, &c);
  float *x = node.inputs[0].data;
  x[5] = NAN;
  x[c.columns + 63] = INFINITY;
  memset(x + 2 * c.columns, 0, (size_t)c.columns * sizeof *x);
  CHECK(fake_run(&node, &DM_NAME(linear)) == NULL);
  const float *y = node.outputs[0].data;
  for (int64_t row = 0; row < c.rows; row++) {
    CHECK(isnan(y[row]) && isnan(y[c.rows + row]) && y[2 * c.rows + row] == 0);
    CHECK(fabs(y[3 * c.rows + row] - expected(&node, &c, 3, row)) < 1e-3);
  }
  fake_free(&node);
}

static void check_refused(Case c, const char *reason) {
  FakeNode node = {0};
  Case sound = {16, 32, 16, 8, 1, false};
  set_up(&node, &sound);
  node.attributes[0].whole = c.rows;
  node.attributes[1].whole = c.columns;
  node.attributes[2].whole = c.block;
  node.attributes[3].whole = c.bits;
  const char *error = fake_run(&node, &DM_NAME(linear));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

/** Small, middling and large numbers, to f32's rounding. */
static void check_activations(void) {
  for (float x = -30; x <= 30; x += 0.0137f) {
    const struct { Activation activation; double value; } each[] = {
        {ACTIVATION_SIGMOID, 1 / (1 + exp(-(double)x))},
        {ACTIVATION_TANH, tanh(x)},
        {ACTIVATION_RELU2, x > 0 ? (double)x * x : 0},
        {ACTIVATION_GELU, x / 2.0 * (1 + erf(x / sqrt(2)))},
        {ACTIVATION_SILU, x / (1 + exp(-(double)x))},
    };
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
      const float y = activated(each[i].activation, vf_all(x))[0];
      const double bound = each[i].activation == ACTIVATION_GELU ? 3e-7 * fabs(x) : 1e-6 * fabs(each[i].value);
      CHECK(fabs(y - each[i].value) <= bound + 1e-30);
    }
  }
  for (int i = 1; i < NUM_ACTIVATIONS; i++) CHECK(isnan(activated((Activation)i, vf_all(NAN))[0]));
}

int main(void) {
  check_activations();
  for (int64_t bits = 4; bits <= 8; bits += 4) {
    for (int64_t inputs = 1; inputs <= 33; inputs++) check((Case){33, 64, 32, bits, inputs, inputs % 2 == 0, (Activation)(inputs % NUM_ACTIVATIONS), inputs % 4});
    check((Case){1, 16, 16, bits, 3, true, ACTIVATION_SILU});
    check((Case){16, 256, 128, bits, 2, false});
    check((Case){77, 48, 16, bits, 1, true});
    for (int64_t inputs = 2; inputs <= 40; inputs++) {
      check_alone((Case){40, 96, 32, bits, inputs, true, ACTIVATION_SILU});
      check_alone((Case){16, 144, 48, bits, inputs, false});
      check_alone((Case){17, 512, 128, bits, inputs, true});
    }
  }
  for (int64_t bits = 4; bits <= 8; bits += 4) check((Case){1000 + bits, 640, 32, bits, 1, true}); /* tiles in pairs, and one left over */
  check((Case){300, 64, 32, 8, 100, true}); /* several tasks in both directions */
  check_special();
  check((Case){8, 32, 32, 8, 0, false}); /* no inputs: nothing happens */
  check_refused((Case){16, 32, 16, 5, 1, false}, "bits must be 4 or 8, given 5");
  check_refused((Case){16, 32, 24, 8, 1, false}, "block must be a multiple of 16");
  check_refused((Case){16, 64, 16, 8, 1, false}, "x must have 64 columns");
  check_refused((Case){17, 32, 16, 8, 1, false}, "codes or scales do not have the size of 17 x 32");
  return 0;
}
