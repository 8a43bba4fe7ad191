/**
 * Norm against the same in double: centred and not, groups, bias, a pending summand, a gate among
 * the columns of a projection, in place and not.
 */
#include <math.h>

#include "fake_ort.h"

extern const DmOp DM_NAME(norm);

enum { X, WEIGHT, BIAS, PENDING, GATE, GATE_AT = 3 };

typedef struct {
  int64_t rows, groups, groupWidth;
  bool isCentred, hasBias, hasPending, hasGate;
  size_t inPlaceOf; /* the sum's: 1 + X or PENDING */
} Case;

static int64_t gate_stride(const Case *c) { return c->groups * c->groupWidth + GATE_AT + 2; }

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank) {
  int64_t count = 1;
  uint32_t seed = (uint32_t)index + 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = fake_random(&seed) + (index == X ? 2 : 0);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

static void set_up(FakeNode *node, const Case *c) {
  const int64_t D = c->groups * c->groupWidth;
  put(node, X, (int64_t[]){1, c->rows, D}, 3);
  put(node, WEIGHT, &D, 1);
  if (c->hasBias) put(node, BIAS, &D, 1);
  if (c->hasPending) put(node, PENDING, (int64_t[]){1, c->rows, D}, 3);
  if (c->hasGate) put(node, GATE, (int64_t[]){1, c->rows, gate_stride(c)}, 3);
  fake_int(node, "groups", c->groups);
  fake_int(node, "centred", c->isCentred);
  fake_int(node, "gate_at", GATE_AT);
  fake_float(node, "epsilon", 1e-3f);
  node->isWanted[1] = c->hasPending;
  node->inPlaceOf[1] = c->inPlaceOf;
}

static void check(Case c) {
  FakeNode node = {0};
  set_up(&node, &c);
  const int64_t D = c.groups * c.groupWidth;
  /* As it was: in place it is overwritten. */
  double *x = malloc((size_t)(c.rows * D) * sizeof *x + 1);
  const float *in[GATE + 1];
  for (size_t i = 0; i <= GATE; i++) in[i] = node.inputs[i].data;
  for (int64_t i = 0; i < c.rows * D; i++) {
    const double z = c.hasGate ? in[GATE][i / D * gate_stride(&c) + GATE_AT + i % D] : 0;
    x[i] = (in[X][i] + (c.hasPending ? in[PENDING][i] : 0)) * (c.hasGate ? z / (1 + exp(-z)) : 1);
  }
  CHECK(fake_run(&node, &DM_NAME(norm)) == NULL);
  const float *normed = node.outputs[0].data, *sum = node.outputs[1].data;
  for (int64_t first = 0; first < c.rows * D; first += c.groupWidth) {
    double mean = 0, squares = 0;
    for (int64_t i = first; c.isCentred && i < first + c.groupWidth; i++) mean += x[i] / (double)c.groupWidth;
    for (int64_t i = first; i < first + c.groupWidth; i++) squares += (x[i] - mean) * (x[i] - mean);
    const double factor = 1 / sqrt(squares / (double)c.groupWidth + 1e-3);
    for (int64_t i = first; i < first + c.groupWidth; i++) {
      CHECK(fabs(normed[i] - ((x[i] - mean) * factor * in[WEIGHT][i % D] + (c.hasBias ? in[BIAS][i % D] : 0))) < 2e-5);
      if (c.hasPending) CHECK(fabs(sum[i] - x[i]) < 1e-6);
    }
  }
  free(x);
  fake_free(&node);
}

static void check_refused(Case c, size_t cut, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  if (cut > 0) node.inputs[cut].dims[node.inputs[cut].rank - 1]--;
  const char *error = fake_run(&node, &DM_NAME(norm));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
#ifdef DM_ON_DEVICE /* which is slow where it is emulated */
  enum { WIDER = 33 };
#else
  enum { WIDER = 6 };
#endif
  for (int64_t width = 1; width <= 67; width += WIDER) {
    for (int bits = 0; bits < 16; bits++) {
      Case c = {3, 1, width, bits & 1, bits & 2, bits & 4, bits & 8, 0};
      check(c);
      c.groups = 3;
      c.inPlaceOf = c.hasPending ? 1 + (bits & 1 ? X : PENDING) : 0;
      check(c);
    }
  }
  check((Case){12, 2, 500, true, true, false, false, 0});
  check((Case){0, 1, 8, true, true, true, true, 0});
  check_refused((Case){2, 2, 4, .hasBias = true}, WEIGHT, "7 columns do not divide into 2 groups");
  check_refused((Case){2, 1, 8, .hasBias = true}, WEIGHT, "x must have 7 columns");
  check_refused((Case){2, 1, 8, .hasBias = true}, BIAS, "bias must have 8 elements");
  check_refused((Case){2, 1, 8, .hasPending = true}, PENDING, "as many as x, 16");
  FakeNode node = {0};
  put(&node, X, (int64_t[]){2, 8}, 2);
  put(&node, WEIGHT, (int64_t[]){8}, 1);
  put(&node, GATE, (int64_t[]){2, 10}, 2);
  fake_int(&node, "gate_at", GATE_AT);
  const char *error = fake_run(&node, &DM_NAME(norm));
  CHECK(error != NULL && strstr(error, "gate must have 8 columns from 3 on, given 10") != NULL);
  fake_free(&node);
  return 0;
}
