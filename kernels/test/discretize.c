/**
 * Discretize against the same in double: with and without limits, columns of a packed projection,
 * numbers from very small to very large.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(discretize);

static void check(int64_t rows, int64_t heads, int64_t at, int64_t stride, float least, float most) {
  FakeNode node = {0};
  uint32_t seed = 1;
  float *dt = malloc((size_t)(rows * stride) * sizeof *dt + 1), bias[64], A[64];
  for (int64_t i = 0; i < rows * stride; i++) dt[i] = 40 * fake_random(&seed);
  for (int64_t h = 0; h < heads; h++) {
    bias[h] = fake_random(&seed);
    A[h] = -expf(3 * fake_random(&seed));
  }
  fake_input(&node, 0, DM_FLOAT, (int64_t[]){1, rows, stride}, 3, dt);
  fake_input(&node, 1, DM_FLOAT, &heads, 1, bias);
  fake_input(&node, 2, DM_FLOAT, &heads, 1, A);
  node.columns[0] = (DmColumns){at, at + heads};
  if (least > 0) fake_float(&node, "least", least);
  if (most < INFINITY) fake_float(&node, "most", most);
  CHECK(fake_run(&node, &DM_NAME(discretize)) == NULL);
  const float *delta = node.outputs[0].data, *decay = node.outputs[1].data;
  CHECK(node.outputs[1].rank == 3 && node.outputs[1].dims[1] == rows && node.outputs[1].dims[2] == heads);
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t h = 0; h < heads; h++) {
      const double x = (double)dt[row * stride + at + h] + bias[h], step = x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
      const double expected = fmin(fmax(step, least), most), left = exp(expected * A[h]);
      /* The sum of dt and b is rounded. */
      CHECK(fabs(delta[row * heads + h] - expected) <= 1e-6 * (1 + fabs(x) / 10) * expected);
      CHECK(fabs(decay[row * heads + h] - left) <= 2e-6 * left * (1 - expected * A[h]) + 1e-37);
    }
  }
  free(dt);
  fake_free(&node);
}

static void check_refused(int64_t stride, int64_t heads, const char *reason) {
  FakeNode node = {0};
  const float numbers[16] = {0};
  fake_input(&node, 0, DM_FLOAT, (int64_t[]){1, 1, stride}, 3, numbers);
  fake_input(&node, 1, DM_FLOAT, &heads, 1, numbers);
  fake_input(&node, 2, DM_FLOAT, (int64_t[]){4}, 1, numbers);
  const char *error = fake_run(&node, &DM_NAME(discretize));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t heads = 1; heads < 40; heads += 6) {
    check(1, heads, 0, heads, 0, INFINITY);
    check(3, heads, 5, heads + 7, 0.25f, 3);
  }
  check(700, 24, 2, 27, 0, INFINITY);
  check(0, 4, 0, 4, 0, INFINITY);
  check_refused(6, 4, "dt [B,T,H], H is 4");
  check_refused(4, 5, "A and b must be [H]");

  FakeNode node = {0};
  const float dt[2] = {NAN, 1}, zero[2] = {0, 0};
  fake_input(&node, 0, DM_FLOAT, (int64_t[]){1, 1, 2}, 3, dt);
  fake_input(&node, 1, DM_FLOAT, (int64_t[]){2}, 1, zero);
  fake_input(&node, 2, DM_FLOAT, (int64_t[]){2}, 1, zero);
  fake_float(&node, "most", 1);
  CHECK(fake_run(&node, &DM_NAME(discretize)) == NULL);
  const float *delta = node.outputs[0].data, *decay = node.outputs[1].data;
  CHECK(isnan(delta[0]) && isnan(decay[0]) && delta[1] == 1 && decay[1] == 1);
  fake_free(&node);
  return 0;
}
