/**
 * Norm against sums in double: widths that are no multiple of a vector, sums, biases, groups,
 * gates, columns, in place and not.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(norm);

static const float epsilon = 1e-3f;

enum { X, WEIGHT, BIAS, ADDED, GATE, EXTRA = 3 };

typedef struct {
  int64_t rows, width, groups, weights;
  bool bias, added, wide; /* wide: x and gate are columns of wider values */
  int gate;               /* 1: after; 2: before */
  size_t inPlaceOf;       /* of the sum */
} Case;

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank) {
  float values[16384];
  uint32_t seed = (uint32_t)index + 1;
  int64_t count = 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  CHECK(count <= 16384);
  for (int64_t i = 0; i < count; i++) values[i] = fake_random(&seed) + (index == X ? 0.5f : 0);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
}

static void set_up(FakeNode *node, const Case *c) {
  const int64_t wide[] = {1, c->rows, c->width + (c->wide ? 2 * EXTRA : 0)}, whole[] = {1, c->rows, c->width};
  put(node, X, wide, 3);
  put(node, WEIGHT, &c->weights, 1);
  if (c->bias) put(node, BIAS, &c->weights, 1);
  if (c->added) put(node, ADDED, whole, 3);
  if (c->gate) put(node, GATE, wide, 3);
  if (c->wide) node->columns[X] = node->columns[GATE] = (DmColumns){EXTRA, EXTRA + c->width};
  fake_float(node, "epsilon", epsilon);
  fake_int(node, "groups", c->groups);
  fake_int(node, "gate", c->gate);
  node->isWanted[1] = c->added;
  node->inPlaceOf[1] = c->inPlaceOf;
}

static void check(Case c) {
  FakeNode node = {0};
  set_up(&node, &c);
  float x[16384]; /* as it was: in place it is overwritten */
  const int64_t stride = c.width + (c.wide ? 2 * EXTRA : 0), first = c.wide ? EXTRA : 0, D = c.width / c.groups;
  const float *weight = node.inputs[WEIGHT].data, *bias = node.inputs[BIAS].data, *gates = node.inputs[GATE].data;
  for (int64_t i = 0; i < c.rows * c.width; i++) {
    x[i] = ((const float *)node.inputs[X].data)[i / c.width * stride + first + i % c.width];
    if (c.added) x[i] += ((const float *)node.inputs[ADDED].data)[i];
  }
  CHECK(fake_run(&node, &DM_NAME(norm)) == NULL);
  const float *normed = node.outputs[0].data, *sum = node.outputs[1].data;
  CHECK(node.outputs[0].rank == 3 && node.outputs[0].dims[2] == c.width);
  for (int64_t start = 0; start < c.rows * c.width; start += D) {
    double values[1024], gate[1024], mean = 0, squares = 0;
    for (int64_t i = 0; i < D; i++) {
      const int64_t row = (start + i) / c.width, column = (start + i) % c.width;
      gate[i] = c.gate ? gates[row * stride + first + column] : 1;
      values[i] = x[start + i] * (c.gate == 2 ? gate[i] / (1 + exp(-gate[i])) : 1);
      mean += values[i] / (double)D;
    }
    for (int64_t i = 0; i < D; i++) {
      if (c.bias) values[i] -= mean;
      squares += values[i] * values[i];
    }
    for (int64_t i = 0; i < D; i++) {
      const int64_t at = c.weights == c.width ? (start + i) % c.width : i;
      double y = values[i] / sqrt(squares / (double)D + epsilon) * weight[at] + (c.bias ? bias[at] : 0);
      if (c.gate == 1) y *= gate[i];
      CHECK(fabs(normed[start + i] - y) < 1e-5);
      if (c.added) CHECK(sum[start + i] == x[start + i]);
    }
  }
  fake_free(&node);
}

static void check_refused(Case c, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  if (c.inPlaceOf > 0) node.inputs[c.inPlaceOf - 1].exists = false, free(node.inputs[c.inPlaceOf - 1].data);
  const char *error = fake_run(&node, &DM_NAME(norm));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t width = 1; width <= 67; width += 6) {
    for (int bias = 0; bias <= 1; bias++) {
      check((Case){1, width, 1, width, bias});
      check((Case){6, width, 1, width, bias, true});
      check((Case){6, width, 1, width, bias, true, false, 0, 1 + X}); /* the sum in the place of x */
      check((Case){6, width, 1, width, bias, true, false, 0, 1 + ADDED});
      check((Case){6, width, 1, width, bias, true, true});
      for (int gate = 1; gate <= 2; gate++) check((Case){4, width, 1, width, bias, false, width % 4 == 1, gate});
      for (int gate = 0; gate <= 2; gate++) {
        check((Case){3, 3 * width, 3, width, bias, false, gate == 1, gate});
        check((Case){3, 3 * width, 3, 3 * width, bias, false, gate == 1, gate});
      }
    }
  }
  check((Case){120, 33, 1, 33, false, true});
  check((Case){0, 8, 1, 8, false, true});
  check_refused((Case){2, 7, 1, 8}, "must have 8 columns in 1 groups, given 7");
  check_refused((Case){2, 8, 3, 8}, "must have 8 columns in 3 groups, given 8");
  check_refused((Case){2, 8, 0, 8}, "groups must be at least 1");
  check_refused((Case){2, 8, 1, 8, .gate = 1, .inPlaceOf = 1 + GATE}, "the gate is missing");
  return 0;
}
