/** Retention against sums in double: in place and not, one step and several, sequences of unequal lengths. */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(retention);

enum { LENGTHS = 5 };

typedef struct {
  int64_t B, T, H, dk, dv;
  const int64_t *lengths; /* [B], or NULL: T each */
} Case;

static int64_t start_of(const Case *c, int64_t b) { return fake_start(c->lengths, c->T, b); }

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank, float from) {
  int64_t count = 1;
  uint32_t seed = (uint32_t)index + 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = from + (1 - from) * (fake_random(&seed) + 1) / 2;
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

static void set_up(FakeNode *node, const Case *c) {
  const int64_t B = c->lengths ? 1 : c->B, T = c->lengths ? start_of(c, c->B) : c->T;
  put(node, 0, (int64_t[]){B, T, c->H * c->dk}, 3, -1);
  put(node, 1, (int64_t[]){B, T, c->H * c->dk}, 3, -1);
  put(node, 2, (int64_t[]){B, T, c->H * c->dv + 5}, 3, -1); /* v is columns of it */
  node->columns[2] = (DmColumns){3, 3 + c->H * c->dv};
  put(node, 3, (int64_t[]){c->B, c->H, c->dk, c->dv}, 4, -1);
  put(node, 4, (int64_t[]){c->H}, 1, 0.5f);
  if (c->lengths) fake_input(node, LENGTHS, DM_INT64, &c->B, 1, c->lengths);
}

/** A column of a head of a sequence: all steps, and the state after them. */
static void check_column(const FakeNode *node, const Case *c, const float *past, int64_t b, int64_t head, int64_t j) {
  const float *q = node->inputs[0].data, *k = node->inputs[1].data, *v = (const float *)node->inputs[2].data + 3, *decay = node->inputs[4].data;
  const float *y = node->outputs[0].data, *present = node->outputs[1].data;
  const int64_t dk = c->dk, state = (b * c->H + head) * dk * c->dv + j;
  double s[64];
  for (int64_t d = 0; d < dk; d++) s[d] = past[state + d * c->dv];
  for (int64_t row = start_of(c, b); row < start_of(c, b + 1); row++) {
    const int64_t at = row * c->H + head;
    double sum = 0;
    for (int64_t d = 0; d < dk; d++) {
      s[d] = (double)decay[head] * s[d] + (double)k[at * dk + d] * v[row * (c->H * c->dv + 5) + head * c->dv + j];
      sum += q[at * dk + d] * s[d];
    }
    CHECK(fabs(y[at * c->dv + j] - sum) < 4e-6 * (double)(dk + 4));
  }
  for (int64_t d = 0; d < dk; d++) CHECK(fabs(present[state + d * c->dv] - s[d]) < 4e-6);
}

static void check(Case c, bool inPlace) {
  FakeNode node = {0};
  set_up(&node, &c);
  const size_t bytes = fake_bytes(&node.inputs[3]);
  float *past = malloc(bytes + 1);
  memcpy(past, node.inputs[3].data, bytes);
  if (inPlace) node.inPlaceOf[1] = 4;
  CHECK(fake_run(&node, &DM_NAME(retention)) == NULL);
  for (int64_t b = 0; b < c.B; b++) {
    for (int64_t head = 0; head < c.H; head++) {
      for (int64_t j = 0; j < c.dv; j++) check_column(&node, &c, past, b, head, j);
    }
  }
  free(past);
  fake_free(&node);
}

/** A NaN in one sequence's state, or in one of its steps, reaches none of the other's numbers. */
static void check_nan(void) {
  const int64_t lengths[] = {19, 5};
  const Case c = {2, 0, 2, 6, 70, lengths};
  for (size_t input = 1; input <= 3; input += 2) {
    FakeNode node = {0};
    set_up(&node, &c);
    ((float *)node.inputs[input].data)[0] = NAN;
    CHECK(fake_run(&node, &DM_NAME(retention)) == NULL);
    const float *y = node.outputs[0].data, *present = node.outputs[1].data;
    CHECK(isnan(y[18 * c.H * c.dv]) && isnan(present[0]));
    for (int64_t i = 19 * c.H * c.dv; i < 24 * c.H * c.dv; i++) CHECK(!isnan(y[i]));
    for (int64_t i = c.H * c.dk * c.dv; i < 2 * c.H * c.dk * c.dv; i++) CHECK(!isnan(present[i]));
    fake_free(&node);
  }
}

static void check_refused(Case c, size_t input, const int64_t *dims, size_t rank, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  if (rank > 0) {
    free(node.inputs[input].data);
    put(&node, input, dims, rank, -1);
  }
  const char *error = fake_run(&node, &DM_NAME(retention));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  check((Case){1, 1, 1, 1, 1}, false);
  check((Case){2, 1, 2, 5, 7}, true);
  check((Case){1, 1, 2, 12, 300}, true);
  check((Case){3, 1, 1, 4, 67}, false);
  check((Case){0, 1, 2, 4, 8}, false);
#ifndef DM_ON_DEVICE /* whose operator is of a single step */
  for (int64_t T = 2; T <= 40; T += T < 5 ? 1 : 7) {
    check((Case){1, T, 1, 1, 1}, T % 2 == 0);
    check((Case){2, T, 2, 7, 67}, T % 2 == 1);
    check((Case){1, T, 3, 12, 150}, true);
  }
  const int64_t unequal[] = {1, 17, 0, 16, 1, 33, 2, 0}, single[] = {0, 1, 1};
  check((Case){8, 0, 2, 6, 300, unequal}, true);
  check((Case){8, 0, 1, 13, 65, unequal}, false);
  check((Case){3, 0, 2, 6, 300, single}, true);
  check((Case){3, 0, 2, 6, 300, single}, false);
  check_nan();
  check_refused((Case){1, 3, 1, 4097, 1}, 0, NULL, 0, "at most 4096 wide, given 4097");
  check_refused((Case){2, 0, 2, 2, 4}, 0, NULL, 0, "at least one step");
#endif
  check_refused((Case){1, 1, 2, 2, 4}, 1, (int64_t[]){1, 1, 6}, 3, "H·dv] and decay [H]");
  return 0;
}
