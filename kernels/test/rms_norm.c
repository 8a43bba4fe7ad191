/** RmsNorm against sums in double: widths that are no multiple of a vector, with and without a pending summand, in place and not. */
#include <math.h>

#include "fake_ort.h"

extern const DmOp DM_NAME(rms_norm);

static const float epsilon = 1e-3f;

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank, uint32_t seed) {
  float values[4096];
  int64_t count = 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  CHECK(count <= 4096);
  for (int64_t i = 0; i < count; i++) values[i] = fake_random(&seed);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
}

static void check(int64_t B, int64_t T, int64_t width, bool hasPending, size_t inPlaceOf) {
  FakeNode node = {0};
  uint32_t seed = 1;
  float x[4096];
  for (int64_t i = 0; i < B * T * width; i++) x[i] = fake_random(&seed); /* as it was: in place it is overwritten */
  put(&node, 0, (int64_t[]){B, T, width}, 3, 1);
  put(&node, 1, (int64_t[]){width}, 1, 2);
  if (hasPending) put(&node, 2, (int64_t[]){B, T, width}, 3, 3);
  fake_float(&node, "epsilon", epsilon);
  node.isWanted[1] = hasPending;
  node.inPlaceOf[1] = inPlaceOf;
  seed = 3;
  for (int64_t i = 0; hasPending && i < B * T * width; i++) x[i] += fake_random(&seed);
  CHECK(fake_run(&node, &DM_NAME(rms_norm)) == NULL);
  const float *weight = node.inputs[1].data, *normed = node.outputs[0].data, *sum = node.outputs[1].data;
  CHECK(node.outputs[0].rank == 3 && node.outputs[0].dims[2] == width);
  for (int64_t row = 0; row < B * T; row++) {
    double squares = 0;
    for (int64_t i = 0; i < width; i++) squares += (double)x[row * width + i] * x[row * width + i];
    const double factor = 1 / sqrt(squares / (double)width + epsilon);
    for (int64_t i = 0; i < width; i++) {
      CHECK(fabs(normed[row * width + i] - x[row * width + i] * factor * weight[i]) < 1e-5);
      if (hasPending) CHECK(sum[row * width + i] == x[row * width + i]);
    }
  }
  fake_free(&node);
}

static void check_refused(int64_t width, int64_t pendingRows, const char *reason) {
  FakeNode node = {0};
  put(&node, 0, (int64_t[]){2, width}, 2, 1);
  put(&node, 1, (int64_t[]){8}, 1, 2);
  if (pendingRows > 0) put(&node, 2, (int64_t[]){pendingRows, width}, 2, 3);
  const char *error = fake_run(&node, &DM_NAME(rms_norm));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t width = 1; width <= 67; width += 6) {
    check(1, 1, width, false, 0);
    check(2, 3, width, true, 0);
    check(2, 3, width, true, 1); /* the sum in the place of x */
    check(2, 3, width, true, 3); /* and of the pending one */
  }
  check(40, 3, 33, true, 0);
  check(0, 3, 8, true, 0);
  check_refused(7, 0, "must have 8 columns");
  check_refused(8, 3, "must have 16 elements, given 24");
  return 0;
}
