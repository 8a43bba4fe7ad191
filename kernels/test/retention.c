/** Retention against sums in double, in place and not. */
#include <math.h>

#include "fake_ort.h"

extern const DmOp DM_NAME(retention);

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank, uint32_t seed) {
  int64_t count = 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = fake_random(&seed);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

static void check(int64_t B, int64_t H, int64_t dk, int64_t dv, bool inPlace) {
  FakeNode node = {0};
  put(&node, 0, (int64_t[]){B, 1, H * dk}, 3, 1);
  put(&node, 1, (int64_t[]){B, 1, H * dk}, 3, 2);
  put(&node, 2, (int64_t[]){B, 1, H * dv}, 3, 3);
  put(&node, 3, (int64_t[]){B, H, dk, dv}, 4, 4);
  put(&node, 4, (int64_t[]){H}, 1, 5);
  const size_t numStates = (size_t)(B * H * dk * dv);
  float *past = malloc(numStates * sizeof *past + 1);
  memcpy(past, node.inputs[3].data, numStates * sizeof *past);
  if (inPlace) node.inPlaceOf[1] = 4;
  CHECK(fake_run(&node, &DM_NAME(retention)) == NULL);
  const float *q = node.inputs[0].data, *k = node.inputs[1].data, *v = node.inputs[2].data, *decay = node.inputs[4].data;
  const float *y = node.outputs[0].data, *present = node.outputs[1].data;
  for (int64_t head = 0; head < B * H; head++) {
    for (int64_t j = 0; j < dv; j++) {
      double sum = 0;
      for (int64_t d = 0; d < dk; d++) {
        const int64_t i = (head * dk + d) * dv + j;
        const double s = (double)decay[head % H] * past[i] + (double)k[head * dk + d] * v[head * dv + j];
        CHECK(fabs(present[i] - s) < 1e-6);
        sum += q[head * dk + d] * s;
      }
      CHECK(fabs(y[head * dv + j] - sum) < 1e-6 * (double)(dk + 4));
    }
  }
  free(past);
  fake_free(&node);
}

int main(void) {
  check(1, 1, 1, 1, false);
  check(2, 2, 5, 7, true);
  check(1, 2, 12, 300, true);
  check(3, 1, 4, 67, false);
  check(0, 2, 4, 8, false);

  FakeNode node = {0};
  put(&node, 0, (int64_t[]){1, 1, 4}, 3, 1);
  put(&node, 1, (int64_t[]){1, 1, 4}, 3, 2);
  put(&node, 2, (int64_t[]){1, 1, 6}, 3, 3);
  put(&node, 3, (int64_t[]){1, 2, 2, 4}, 4, 4);
  put(&node, 4, (int64_t[]){2}, 1, 5);
  CHECK(strstr(fake_run(&node, &DM_NAME(retention)), "v [B,1,H·dv]") != NULL);
  fake_free(&node);
  return 0;
}
