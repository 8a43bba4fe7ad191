/**
 * Recurrence against the same in double, one step and several: all kinds of decay, with and without
 * removal, groups, columns of a packed projection, states of f32 and f16, sequences of unequal
 * lengths, in place and not. A sequence's bits are the same alone and in a batch, and on any number
 * of threads; where there is a decay for each key, also however its steps are cut.
 */
#include <math.h>

#include "../simd.h"
#include "fake_host.h"

extern const DmOp DM_NAME(recurrence);

enum { Q, K, V, PAST, DECAY, LENGTHS, A, B, SCALE, SKIP, MAX_KEY_WIDTH = 512 };
enum { FOR_HEAD, FOR_ROW, FOR_KEY }; /* kinds of decay */

typedef struct {
  int64_t B, T, H, G, dk, dv;
  int decay;
  bool removes, scales, skips, isPacked, isHalf, inPlace;
  const int64_t *lengths; /* [B], or NULL: T each */
} Case;

static int64_t start_of(const Case *c, int64_t b) { return fake_start(c->lengths, c->T, b); }
static int64_t num_rows(const Case *c) { return start_of(c, c->B); }

/** Random numbers between `from` and `to`. */
static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank, float from, float to) {
  int64_t count = 1;
  uint32_t seed = (uint32_t)index + 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = from + (to - from) * (fake_random(&seed) + 1) / 2;
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

/** The columns of q, k and v: together in rows of all three, or each its own. */
static int64_t width_of(const Case *c, int index) { return index == V ? c->H * c->dv : c->G * c->dk; }
static int64_t first_of(const Case *c, int index) {
  return c->isPacked ? 3 + (index > Q ? width_of(c, Q) : 0) + (index > K ? width_of(c, K) : 0) : 0;
}
static int64_t stride_of(const Case *c, int index) { return c->isPacked ? first_of(c, V) + width_of(c, V) + 2 : width_of(c, index); }

static void set_up(FakeNode *node, const Case *c) {
  const int64_t B0 = c->lengths ? 1 : c->B, T = c->lengths ? num_rows(c) : c->T;
  for (int i = Q; i <= V; i++) put(node, (size_t)i, (int64_t[]){B0, T, stride_of(c, i)}, 3, -1, 1);
  put(node, PAST, (int64_t[]){c->B, c->H, c->dk, c->dv}, 4, -1, 1);
  if (c->isHalf) {
    FakeValue *past = &node->inputs[PAST];
    const float *exact = past->data;
    half *rounded = malloc(fake_bytes(past) / 2 + 1);
    for (size_t i = 0; i < fake_bytes(past) / sizeof *exact; i++) rounded[i] = vh_of(vf_all(exact[i]))[0];
    free(past->data);
    past->data = rounded;
    past->type = DM_HALF;
  }
  if (c->decay == FOR_HEAD) put(node, DECAY, (int64_t[]){c->H}, 1, 0.5f, 1);
  if (c->decay == FOR_ROW) put(node, DECAY, (int64_t[]){B0, T, c->H}, 3, 0, 1);
  if (c->decay == FOR_KEY) put(node, DECAY, (int64_t[]){B0, T, c->H * c->dk}, 3, 0, 1);
  if (c->lengths) fake_input(node, LENGTHS, DM_INT64, &c->B, 1, c->lengths);
  if (c->removes) put(node, A, (int64_t[]){B0, T, c->H * c->dk}, 3, -1.0f / (float)c->dk, 1.0f / (float)c->dk);
  if (c->removes) put(node, B, (int64_t[]){B0, T, c->H * c->dk}, 3, -1, 1);
  if (c->scales) put(node, SCALE, (int64_t[]){B0, T, c->H}, 3, -1, 1);
  if (c->skips) put(node, SKIP, (int64_t[]){c->H}, 1, -1, 1);
  if (c->G != c->H) fake_int(node, "groups", c->G);
  for (int i = Q; i <= V; i++) node->columns[i] = (DmColumns){first_of(c, i), first_of(c, i) + width_of(c, i)};
  if (c->inPlace) node->inPlaceOf[1] = 1 + PAST;
}

static float number(const void *state, int64_t i, bool isHalf) {
  return isHalf ? vf_of(vh_load_some((const half *)state + i, 1))[0] : ((const float *)state)[i];
}

/** A column of a head of a sequence: all steps, and the state after them. */
static void check_column(const FakeNode *node, const Case *c, const void *past, int64_t b, int64_t head, int64_t j) {
  const float *in[SKIP + 1], *y = node->outputs[0].data;
  for (size_t i = 0; i <= SKIP; i++) in[i] = node->inputs[i].data;
  const int64_t dk = c->dk, H = c->H, state = (b * H + head) * dk * c->dv + j, group = head / (H / c->G);
  double s[MAX_KEY_WIDTH];
  for (int64_t d = 0; d < dk; d++) s[d] = number(past, state + d * c->dv, c->isHalf);
  for (int64_t row = start_of(c, b); row < start_of(c, b + 1); row++) {
    const int64_t at = row * H + head;
    const float *q = in[Q] + row * stride_of(c, Q) + first_of(c, Q) + group * dk;
    const float *k = in[K] + row * stride_of(c, K) + first_of(c, K) + group * dk;
    const double x = in[V][row * stride_of(c, V) + first_of(c, V) + head * c->dv + j];
    double sum = c->skips ? in[SKIP][head] * x : 0, removed = 0;
    for (int64_t d = 0; c->removes && d < dk; d++) removed += in[A][at * dk + d] * s[d];
    for (int64_t d = 0; d < dk; d++) {
      const float decay = in[DECAY][c->decay == FOR_HEAD ? head : c->decay == FOR_ROW ? at : at * dk + d];
      s[d] = decay * s[d] + k[d] * x * (c->scales ? in[SCALE][at] : 1) + (c->removes ? in[B][at * dk + d] * removed : 0);
      sum += q[d] * s[d];
    }
    CHECK(fabs(y[at * c->dv + j] - sum) < 4e-6 * (double)(dk + 4));
  }
  for (int64_t d = 0; d < dk; d++) {
    CHECK(fabs(number(node->outputs[1].data, state + d * c->dv, c->isHalf) - s[d]) < 4e-6 + (c->isHalf ? fabs(s[d]) / 2000 : 0));
  }
}

static void check(Case c) {
  FakeNode node = {0};
  set_up(&node, &c);
  const size_t bytes = fake_bytes(&node.inputs[PAST]);
  void *past = malloc(bytes + 1);
  memcpy(past, node.inputs[PAST].data, bytes);
  CHECK(fake_run(&node, &DM_NAME(recurrence)) == NULL);
  CHECK(node.outputs[0].rank == 3 && node.outputs[0].dims[2] == c.H * c.dv);
  for (int64_t b = 0; b < c.B; b++) {
    for (int64_t head = 0; head < c.H; head++) {
      for (int64_t j = 0; j < c.dv; j++) check_column(&node, &c, past, b, head, j);
    }
  }
  free(past);
  fake_free(&node);
}

/** Every kind of it. */
static void check_kinds(Case c) {
  for (int bits = 0; bits < 64; bits++) {
    c.decay = bits % 3;
    c.removes = bits & 1;
    c.scales = bits & 2;
    c.skips = bits & 4;
    c.isPacked = bits & 8;
    c.isHalf = bits & 16;
    c.inPlace = bits & 32;
    check(c);
  }
}

/**
 * Copies sequence `b` of `of`'s inputs, steps [first, first + count) of it, with `past` for a
 * state.
 */
static void take(FakeNode *node, const FakeNode *of, const Case *c, int64_t b, int64_t first, int64_t count, const void *past) {
  for (size_t i = 0; i <= SKIP; i++) {
    const FakeValue *value = &of->inputs[i];
    if (!value->exists || i == LENGTHS) continue;
    FakeValue part = *value;
    const char *data = value->data;
    if (i == PAST) {
      part.dims[0] = 1;
      data = past;
    } else if (value->rank > 1) {
      part.dims[0] = 1;
      part.dims[1] = count;
      data += (start_of(c, b) + first) * value->dims[2] * (int64_t)sizeof(float);
    }
    fake_input(node, i, (DmType)part.type, part.dims, part.rank, data);
  }
  memcpy(node->columns, of->columns, sizeof of->columns);
  memcpy(node->attributes, of->attributes, sizeof of->attributes);
  node->numAttributes = of->numAttributes;
}

/**
 * Sequence `b` by itself, its steps in parts of `numSteps`: its outputs are those it had in the
 * batch, bit for bit.
 */
static void check_alone(const FakeNode *batch, const Case *c, int64_t b, int64_t numSteps) {
  const int64_t length = start_of(c, b + 1) - start_of(c, b), width = c->H * c->dv;
  const size_t bytes = fake_bytes(&batch->inputs[PAST]) / (size_t)c->B;
  void *past = malloc(bytes);
  memcpy(past, (const char *)batch->inputs[PAST].data + (size_t)b * bytes, bytes);
  for (int64_t first = 0; first < length; first += numSteps) {
    const int64_t count = length - first < numSteps ? length - first : numSteps;
    FakeNode alone = {0};
    take(&alone, batch, c, b, first, count, past);
    CHECK(fake_run(&alone, &DM_NAME(recurrence)) == NULL);
    const float *y = (const float *)batch->outputs[0].data + (start_of(c, b) + first) * width;
    CHECK(memcmp(alone.outputs[0].data, y, (size_t)(count * width) * sizeof *y) == 0);
    memcpy(past, alone.outputs[1].data, bytes);
    fake_free(&alone);
  }
  CHECK(memcmp(past, (const char *)batch->outputs[1].data + (size_t)b * bytes, bytes) == 0);
  free(past);
}

static void check_bits(Case c, bool isCutAnywhere) {
  FakeNode node = {0};
  set_up(&node, &c);
  for (fake_num_threads = 1; fake_num_threads <= FAKE_THREADS; fake_num_threads++) {
    CHECK(fake_run(&node, &DM_NAME(recurrence)) == NULL);
    for (int64_t b = 0; b < c.B; b++) {
      check_alone(&node, &c, b, 64);
      for (int64_t numSteps = 1; isCutAnywhere && numSteps < 20; numSteps += 5) check_alone(&node, &c, b, numSteps);
    }
  }
  fake_num_threads = FAKE_THREADS;
  fake_free(&node);
}

/** A NaN in one sequence's state, or in one of its steps, reaches none of the other's numbers. */
static void check_nan(Case c, size_t input) {
  const int64_t lengths[] = {19, 5}, row = c.H * c.dv, state = c.H * c.dk * c.dv;
  c.B = 2;
  c.lengths = lengths;
  FakeNode node = {0};
  set_up(&node, &c);
  ((float *)node.inputs[input].data)[0] = NAN;
  CHECK(fake_run(&node, &DM_NAME(recurrence)) == NULL);
  const float *y = node.outputs[0].data, *present = node.outputs[1].data;
  CHECK(isnan(y[18 * row]) && isnan(present[0]));
  for (int64_t i = 19 * row; i < 24 * row; i++) CHECK(!isnan(y[i]));
  for (int64_t i = state; i < 2 * state; i++) CHECK(!isnan(present[i]));
  fake_free(&node);
}

static void check_refused(Case c, size_t input, const int64_t *dims, size_t rank, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  if (rank > 0) {
    free(node.inputs[input].data);
    put(&node, input, dims, rank, -1, 1);
  }
  const char *error = fake_run(&node, &DM_NAME(recurrence));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  check_kinds((Case){1, 1, 1, 1, 1, 1});
  check_kinds((Case){2, 1, 4, 2, 5, 6});
  check_kinds((Case){3, 1, 2, 2, 4, 67});
  check((Case){0, 1, 2, 2, 4, 8});
  check((Case){2, 1, 2, 2, 384, 40, .inPlace = true}); /* the 350M RetNet's keys */
  check((Case){1, 1, 1, 1, 512, 8});
  const int64_t unequal[] = {1, 17, 0, 16, 1, 33, 2, 0}, single[] = {0, 1, 1};
#ifdef DM_ON_DEVICE
  check_kinds((Case){2, 5, 2, 1, 7, 34});
  check_kinds((Case){3, 0, 2, 2, 6, 8, .lengths = single});
  check((Case){8, 0, 2, 1, 7, 10, FOR_ROW, .scales = true, .skips = true, .lengths = unequal});
  check((Case){1, 9, 1, 1, 160, 6, FOR_KEY, .removes = true});
  check_bits((Case){8, 0, 1, 1, 70, 8, FOR_KEY, .removes = true, .lengths = unequal}, true);
  check_bits((Case){8, 0, 2, 1, 7, 10, FOR_ROW, .isHalf = true, .lengths = unequal}, false);
  check_refused((Case){1, 3, 1, 1, 513, 1}, 0, NULL, 0, "at most 512 wide, given 513");
#else
  check_kinds((Case){1, 1, 2, 1, 12, 300});
  for (int64_t T = 2; T <= 40; T += T < 4 ? 1 : 15) { /* less than a block, and more */
    check_kinds((Case){1, T, 1, 1, 1, 1});
    check_kinds((Case){2, T, 2, 1, 7, 68});
  }
  check_kinds((Case){1, 19, 3, 3, 12, 150});
  check((Case){1, 40, 2, 2, 128, 64, FOR_ROW, .scales = true, .skips = true}); /* Mamba-2's */
  check((Case){1, 40, 2, 2, 64, 64, FOR_KEY, .removes = true});                /* RWKV-7's */
  check_kinds((Case){8, 0, 4, 2, 6, 130, .lengths = unequal});
  check_kinds((Case){8, 0, 1, 1, 13, 65, .lengths = unequal});
  check_kinds((Case){3, 0, 2, 2, 6, 300, .lengths = single});
  check_bits((Case){8, 0, 4, 2, 6, 130, FOR_ROW, .scales = true, .skips = true, .lengths = unequal}, false);
  check_bits((Case){8, 0, 2, 2, 64, 64, FOR_KEY, .removes = true, .skips = true, .lengths = unequal}, true);
  check_bits((Case){8, 0, 2, 1, 7, 37, FOR_KEY, .lengths = unequal}, true);
  check_bits((Case){8, 0, 2, 1, 7, 37, FOR_HEAD, .removes = true, .scales = true, .lengths = unequal}, true);
  check_bits((Case){8, 0, 4, 2, 6, 130, FOR_ROW, .isHalf = true, .lengths = unequal}, false);
  for (size_t input = K; input <= PAST; input++) {
    check_nan((Case){0, 0, 2, 2, 6, 70, FOR_ROW}, input);
    check_nan((Case){0, 0, 2, 2, 6, 70, FOR_KEY, .removes = true}, input);
  }
  check_refused((Case){1, 3, 1, 1, 4097, 1}, 0, NULL, 0, "at most 4096 wide, given 4097");
  check_refused((Case){2, 0, 2, 2, 2, 4}, 0, NULL, 0, "at least one step");
#endif
  const Case whole = {1, 1, 2, 2, 2, 4, FOR_KEY, .removes = true};
  check_refused(whole, V, (int64_t[]){1, 1, 6}, 3, "columns 0 to 8 of 6");
  check_refused(whole, V, (int64_t[]){1, 2, 8}, 3, "v must have 1 rows of 8 columns, given 16 numbers");
  check_refused(whole, DECAY, (int64_t[]){1, 1, 3}, 3, "decay must be [H], [B,T,H] or [B,T,H·dk], given 3 numbers");
  check_refused(whole, B, (int64_t[]){1, 1, 3}, 3, "b must have 1 rows of 4 columns");
  check_refused((Case){1, 1, 3, 2, 2, 4}, 0, NULL, 0, "3 heads do not divide into 2 groups");
  return 0;
}
