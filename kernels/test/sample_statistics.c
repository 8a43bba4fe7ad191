/**
 * SampleStatistics against a full sort and sums in double: ties, masked logits, tiny and large
 * temperatures.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(sample_statistics);

static void set_up(FakeNode *node, int64_t rows, int64_t V, int64_t top, const float *logits, const float *temperature) {
  fake_int(node, "top", top);
  fake_input(node, 0, DM_FLOAT, (int64_t[]){rows, V}, 2, logits);
  fake_input(node, 1, DM_FLOAT, (int64_t[]){rows}, 1, temperature);
}

static double log_sum(const float *logits, int64_t V, double scale) {
  double largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < V; i++) largest = fmax(largest, logits[i] / scale);
  for (int64_t i = 0; i < V; i++) sum += exp(logits[i] / scale - largest);
  return largest + log(sum);
}

static void check_row(const float *logits, int64_t V, int64_t top, const float *values, const int64_t *ids) {
  bool *taken = calloc((size_t)V, sizeof *taken);
  for (int64_t k = 0; k < top; k++) { /* the largest that is left; of equal ones the first */
    int64_t best = -1;
    for (int64_t i = 0; i < V; i++) {
      if (!taken[i] && !isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
    }
    taken[best] = true;
    CHECK(ids[k] == best && values[k] == logits[best]);
  }
  free(taken);
}

/**
 * Numbers before NaN, as if it were the smallest; the groups of 32 are whole ones, mixed ones and
 * none but NaN.
 */
static void check_nan(int64_t V, int64_t top) {
  float *logits = malloc((size_t)V * sizeof *logits);
  uint32_t seed = 5;
  int64_t numNumbers = 0;
  for (int64_t i = 0; i < V; i++) {
    const bool isNumber = i / 32 % 3 == 0 || (i / 32 % 3 == 1 && i % 2 == 0);
    logits[i] = isNumber ? fake_random(&seed) : NAN;
    numNumbers += isNumber;
  }
  FakeNode node = {0};
  set_up(&node, 1, V, top, logits, (float[]){1});
  CHECK(fake_run(&node, &DM_NAME(sample_statistics)) == NULL);
  const float *values = node.outputs[0].data;
  check_row(logits, V, top < numNumbers ? top : numNumbers, values, node.outputs[1].data);
  for (int64_t k = numNumbers; k < top; k++) CHECK(isnan(values[k]));
  fake_free(&node);
  free(logits);
}

static void check(int64_t rows, int64_t V, int64_t top, int kind) {
  uint32_t seed = 11;
  float *logits = malloc((size_t)(rows * V) * sizeof *logits + 1);
  float temperature[4] = {1, 0.7f, 1e-3f, 50};
  for (int64_t i = 0; i < rows * V; i++) {
    logits[i] = fake_random(&seed) * 10;
    if (kind == 1) logits[i] = floorf(logits[i] / 4);                /* ties */
    if (kind == 2 && i % V >= V / 3) logits[i] = -INFINITY;          /* masked */
    if (kind == 3) logits[i] = (float)(i % V) * 0.01f;               /* ascending: every group enters */
  }
  FakeNode node = {0};
  set_up(&node, rows, V, top, logits, temperature);
  CHECK(fake_run(&node, &DM_NAME(sample_statistics)) == NULL);
  const float *values = node.outputs[0].data, *logSumExp = node.outputs[2].data, *tempered = node.outputs[3].data;
  const int64_t *ids = node.outputs[1].data;
  for (int64_t row = 0; row < rows; row++) {
    check_row(logits + row * V, V, top, values + row * top, ids + row * top);
    CHECK(fabs(logSumExp[row] - log_sum(logits + row * V, V, 1)) < 1e-5);
    const double expected = log_sum(logits + row * V, V, temperature[row]);
    CHECK(fabs(tempered[row] - expected) < 2e-6 * fmax(1, fabs(expected)));
  }
  fake_free(&node);
  free(logits);
}

int main(void) {
  for (int kind = 0; kind < 4; kind++) {
    check(4, 1000, 64, kind);
    check(2, 4100, 64, kind); /* more groups than are asked for */
    check(2, 1000, 5, kind);
    check(2, 97, 64, kind);
    check(1, 64, 64, kind);
  }
  check(1, 1, 1, 0);
  check_nan(4096, 64);
  check_nan(4096, 5);
  check_nan(96, 64);
  check(3, 33, 5, 0);
  check(0, 40, 8, 0);

  const float broken[4] = {1, NAN, 3, 2};
  FakeNode node = {0};
  set_up(&node, 1, 4, 4, broken, (float[]){1});
  CHECK(fake_run(&node, &DM_NAME(sample_statistics)) == NULL);
  CHECK(isnan(((const float *)node.outputs[2].data)[0])); /* who samples sees it */
  node.attributes[0].whole = 5;
  CHECK(strstr(fake_run(&node, &DM_NAME(sample_statistics)), "V at least 5") != NULL);
  node.attributes[0].whole = 0;
  CHECK(strstr(fake_run(&node, &DM_NAME(sample_statistics)), "top must be at least 1, given 0") != NULL);
  fake_free(&node);
  return 0;
}
