/**
 * SelectiveScan against the equations in double: states of f32 and f16, links through histories and
 * through states, shared gates, norms, widths that are no multiple of a vector or of a task, steps
 * at once and one by one, few and many, sequences of unequal lengths.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(selective_scan);

#ifdef DM_ON_DEVICE
enum { HAS_DEVICE = true }; /* where the host does not see lengths, and so cannot refuse them */
#else
enum { HAS_DEVICE = false };
#endif

enum { PAST = 5, LENGTHS = 10, GATES = 11, FIRST_HISTORY = 12, PART = 64, MAX_STATE = 256 };

typedef struct {
  int64_t B, T, E, N, R, links, gates;
  bool norms, history, half;
  const int64_t *lengths; /* [B], or NULL: T each */
  bool summed;            /* W_dt dt is given: on a device */
  bool stateIsHalf;
} Case;

static int64_t start_of(const Case *c, int64_t b) { return fake_start(c->lengths, c->T, b); }

/** The nearest f16. */
static double rounded_half(double x) {
  int exponent;
  frexp(x, &exponent);
  const int last = (exponent < -13 ? -13 : exponent) - 11; /* of its last bit */
  return ldexp(rint(ldexp(x, -last)), last);
}

static double value_of_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -size : size;
}

/** Element `at` of a history, or of a state. */
static double kept_value(const void *kept, int64_t at, bool isHalf) {
  return isHalf ? value_of_half(((const uint16_t *)kept)[at]) : (double)((const float *)kept)[at];
}

static float *randoms(int64_t count, uint32_t seed, float from, float to) {
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = from + (to - from) * (fake_random(&seed) + 1) / 2;
  return values;
}

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank, float from, float to) {
  int64_t count = 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = randoms(count, (uint32_t)index + 1, from, to);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

/** f16 between -2 and 2, whatever the bits were; tiny ones among them. */
static void make_halves(FakeValue *value) {
  uint16_t *halves = value->data;
  for (size_t k = 0; k < fake_bytes(value) / sizeof *halves; k++) halves[k] &= k % 3 ? 0xbfff : 0x83ff;
}

static void put_state(FakeNode *node, const Case *c, size_t index) {
  const int64_t dims[] = {c->B, c->N, c->E};
  put(node, index, dims, 3, -1, 1);
  if (!c->stateIsHalf) return;
  void *bits = node->inputs[index].data;
  fake_input(node, index, DM_HALF, dims, 3, bits);
  free(bits);
  make_halves(&node->inputs[index]);
}

static int64_t num_parts(const Case *c) {
  return (c->E + PART - 1) / PART;
}

static void set_up(FakeNode *node, const Case *c) {
  fake_int(node, "links", c->links);
  fake_int(node, "gates", c->gates);
  if (c->half) fake_int(node, "half", 1);
  if (c->norms) fake_float(node, "epsilon", 1e-6f);
  const int64_t numRows = start_of(c, c->B), B = c->lengths ? 1 : c->B, T = c->lengths ? numRows : c->T;
  put(node, 0, (int64_t[]){B, T, c->E}, 3, -1, 1);
  put(node, 1, (int64_t[]){B, T, 2 * c->E}, 3, -3, 3);
  node->columns[1] = (DmColumns){c->E, 2 * c->E};
  const int64_t packed[] = {B, T, c->R + 2 * c->N}; /* dt, B and C */
  put(node, 2, packed, 3, -1, 1);
  for (size_t i = 3; i <= 4; i++) fake_input(node, i, DM_FLOAT, packed, 3, node->inputs[2].data);
  node->columns[2] = (DmColumns){0, c->R};
  node->columns[3] = (DmColumns){c->R, c->R + c->N};
  node->columns[4] = (DmColumns){c->R + c->N, c->R + 2 * c->N};
  put_state(node, c, PAST);
  if (c->summed) fake_int(node, "summed", 1);
  if (c->summed) put(node, 6, (int64_t[]){B, T, c->E}, 3, -2, 2);
  else put(node, 6, (int64_t[]){c->R, c->E}, 2, -1, 1);
  put(node, 7, (int64_t[]){c->E}, 1, -4, 1);
  put(node, 8, (int64_t[]){c->N, c->E}, 2, -8, -0.01f);
  put(node, 9, (int64_t[]){c->E}, 1, -1, 1);
  if (c->lengths) fake_input(node, LENGTHS, DM_INT64, &c->B, 1, c->lengths);
  if (c->links > 0) put(node, GATES, (int64_t[]){B, T, c->gates * c->E}, 3, -1, 1);
  for (int64_t i = 0; i < c->links; i++) {
    const size_t index = FIRST_HISTORY + (size_t)i;
    if (c->T == 1 && !c->history && !c->lengths) put_state(node, c, index);
    else put(node, index, (int64_t[]){num_parts(c), numRows, c->N, c->half ? PART / 2 : PART}, 4, -1, 1);
    if (c->half && node->inputs[index].rank == 4) make_halves(&node->inputs[index]);
  }
  node->isWanted[2] = c->history;
}

/** Of a history's number `n` of channel `e`, behind `row`. */
static int64_t history_at(const Case *c, int64_t row, int64_t n, int64_t e) {
  return ((e / PART * start_of(c, c->B) + row) * c->N + n) * PART + e % PART;
}

static double link_state(const FakeNode *node, const Case *c, int64_t link, int64_t b, int64_t row, int64_t n, int64_t e) {
  const FakeValue *value = &node->inputs[FIRST_HISTORY + link];
  if (value->rank == 3) {
    const double h = kept_value(value->data, (b * c->N + n) * c->E + e, c->stateIsHalf);
    return c->half ? rounded_half(h) : h;
  }
  return kept_value(value->data, history_at(c, row, n, e), c->half);
}

static double rms(const float *values, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; i++) squares += (double)values[i] * values[i];
  return sqrt(squares / (double)count + 1e-6);
}

static void check_channel(const FakeNode *node, const Case *c, const void *past, int64_t b, int64_t e) {
  const float *u = node->inputs[0].data, *xz = node->inputs[1].data, *parameters = node->inputs[2].data;
  const float *W = node->inputs[6].data, *bias = node->inputs[7].data, *A = node->inputs[8].data, *D = node->inputs[9].data;
  const float *gates = node->inputs[GATES].data, *out = node->outputs[0].data;
  double h[MAX_STATE];
  for (int64_t n = 0; n < c->N; n++) h[n] = kept_value(past, (b * c->N + n) * c->E + e, c->stateIsHalf);
  for (int64_t row = start_of(c, b); row < start_of(c, b + 1); row++) {
    const float *dt = parameters + row * (c->R + 2 * c->N), *Bt = dt + c->R, *Ct = Bt + c->N;
    const double norms[3] = {c->norms ? rms(dt, c->R) : 1, c->norms ? rms(Bt, c->N) : 1, c->norms ? rms(Ct, c->N) : 1};
    double sum = bias[e];
    if (c->summed) sum += W[row * c->E + e];
    else for (int64_t r = 0; r < c->R; r++) sum += W[r * c->E + e] * dt[r] / norms[0];
    const double delta = log1p(exp(sum));
    double y = D[e] * u[row * c->E + e], size = fabs(y);
    for (int64_t n = 0; n < c->N; n++) {
      h[n] = exp(delta * A[n * c->E + e]) * h[n] + delta * u[row * c->E + e] * Bt[n] / norms[1];
      y += Ct[n] / norms[2] * h[n];
      size += fabs(Ct[n] / norms[2] * h[n]);
      if (c->history) {
        const double kept = kept_value(node->outputs[2].data, history_at(c, row, n, e), c->half);
        CHECK(fabs(kept - h[n]) < (c->half ? 6e-4 : 1e-5) * fmax(1, fabs(h[n])));
      }
    }
    for (int64_t link = 0; link < c->links; link++) {
      double readout = 0;
      double readoutSize = 0;
      for (int64_t n = 0; n < c->N; n++) {
        const double term = Ct[n] / norms[2] * link_state(node, c, link, b, row, n, e);
        readout += term, readoutSize += fabs(term);
      }
      const double gate = gates[(row * c->gates + (c->gates == 1 ? 0 : link)) * c->E + e];
      y += gate * readout, size += fabs(gate) * readoutSize;
    }
    const double z = xz[row * 2 * c->E + c->E + e], gated = z / (1 + exp(-z)), expected = y * gated;
    /* Terms that cancel each other leave their rounding errors. */
    CHECK(fabs(out[row * c->E + e] - expected) < 1e-5 + 2e-7 * size * fabs(gated));
  }
  for (int64_t n = 0; n < c->N; n++) {
    const double present = kept_value(node->outputs[1].data, (b * c->N + n) * c->E + e, c->stateIsHalf);
    CHECK(fabs(present - h[n]) < (c->stateIsHalf ? 6e-4 : 1e-5) * fmax(1, fabs(h[n])));
  }
}

/** With states of f32, and of f16. */
static void check(Case c, bool inPlace) {
  if (!c.stateIsHalf) {
    Case halves = c;
    halves.stateIsHalf = halves.half = true;
    check(halves, inPlace);
  }
  FakeNode node = {0};
  set_up(&node, &c);
  const size_t bytes = fake_bytes(&node.inputs[PAST]);
  void *past = malloc(bytes + 1);
  memcpy(past, node.inputs[PAST].data, bytes);
  if (inPlace) node.inPlaceOf[1] = 1 + PAST;
  CHECK(fake_run(&node, &DM_NAME(selective_scan)) == NULL);
  for (int64_t b = 0; b < c.B; b++) {
    for (int64_t e = 0; e < c.E; e++) check_channel(&node, &c, past, b, e);
  }
  free(past);
  fake_free(&node);
}

/** What f16 does not reach is kept as its largest; a NaN stays one. */
static void check_large(void) {
  const Case c = {1, 2, 20, 1, 3, 0, 0, false, true, true};
  FakeNode node = {0};
  set_up(&node, &c);
  float *past = node.inputs[PAST].data, *A = node.inputs[8].data;
  for (int64_t e = 0; e < c.E; e++) past[e] = e % 2 ? -1e6f : 1e6f, A[e] = -1e-6f;
  past[7] = NAN;
  CHECK(fake_run(&node, &DM_NAME(selective_scan)) == NULL);
  const uint16_t *history = node.outputs[2].data;
  for (int64_t i = 0; i < c.T; i++) {
    for (int64_t e = 0; e < c.E; e++) {
      const uint16_t bits = history[i * PART + e];
      if (e == 7) CHECK((bits & 0x7fff) > 0x7c00);
      else CHECK(bits == (e % 2 ? 0xfbff : 0x7bff));
    }
  }
  fake_free(&node);
}

#ifdef DM_ON_DEVICE
extern unsigned dm_emulated_waits;

/** A thread takes few of many steps: at each it meets those of its channel. */
static void check_parallel(void) {
  const Case c = {1, 512, 8, 16, 4, 0, 0, false, false};
  FakeNode node = {0};
  set_up(&node, &c);
  CHECK(fake_run(&node, &DM_NAME(selective_scan)) == NULL);
  CHECK(dm_emulated_waits > 0 && dm_emulated_waits < c.T / 2);
  fake_free(&node);
}
#else
static void check_parallel(void) {}
#endif

/** A NaN in one sequence's state reaches none of the other's numbers. */
static void check_nan(void) {
  const Case c = {2, 3, 70, 4, 3, 0, 0, false, false};
  FakeNode node = {0};
  set_up(&node, &c);
  ((float *)node.inputs[PAST].data)[5] = NAN; /* sequence 0, n = 0, channel 5 */
  CHECK(fake_run(&node, &DM_NAME(selective_scan)) == NULL);
  const float *out = node.outputs[0].data;
  for (int64_t i = 0; i < 2 * c.T * c.E; i++) CHECK(isnan(out[i]) == (i < c.T * c.E && i % c.E == 5));
  fake_free(&node);
}

static void check_refused(Case c, size_t input, const int64_t *dims, size_t rank, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  if (rank > 0) {
    free(node.inputs[input].data);
    put(&node, input, dims, rank, 0, 1);
  }
  const char *error = fake_run(&node, &DM_NAME(selective_scan));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

/** Of two sequences with two rows in all. */
static void check_lengths(const int64_t *lengths, int64_t count, const char *reason) {
  const int64_t sound[] = {1, 1};
  const Case c = {2, 0, 40, 4, 7, 0, 0, false, false, false, sound};
  FakeNode node = {0};
  set_up(&node, &c);
  free(node.inputs[LENGTHS].data);
  fake_input(&node, LENGTHS, DM_INT64, &count, 1, lengths);
  const char *error = fake_run(&node, &DM_NAME(selective_scan));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t E = 1; E <= 150; E += 37) {
    for (int64_t T = 1; T <= 5; T += 2) check((Case){2, T, E, 5, 3, 0, 0, false, T == 3}, E % 2 == 0);
  }
  check((Case){1, 4, 80, 16, 4, 2, 2, false, true}, true);
  check((Case){2, 3, 65, 16, 4, 3, 1, false, false}, true);
  check((Case){7, 1, 300, 16, 8, 2, 2, false, false}, true); /* links through states */
  check((Case){2, 1, 70, 3, 8, 2, 1, false, true}, true);    /* and through histories of one step */
  check((Case){1, 3, 40, 4, 7, 0, 0, true, false}, true);
  check((Case){0, 3, 40, 4, 7, 0, 0, false, false}, false);
  check((Case){2, 4, 150, 5, 4, 2, 2, false, true, true}, true);
  check((Case){2, 1, 77, 16, 4, 2, 2, false, false, true}, true);
  check((Case){1, 1, 77, 16, 4, 2, 1, false, true, true}, true);
  const int64_t unequal[] = {1, 4, 0, 1, 1, 7, 0}, single[] = {0, 1, 1}, one[] = {5};
  for (int64_t E = 1; E <= 150; E += 37) {
    check((Case){7, 0, E, 5, 3, 0, 0, false, true, false, unequal}, E % 2 == 0);
    check((Case){7, 0, E, 16, 4, 2, 2, E % 2 == 0, true, true, unequal}, E % 2 == 1);
  }
  check((Case){3, 0, 77, 16, 4, 2, 1, false, false, true, single}, true);
  check((Case){3, 0, 300, 16, 4, 0, 0, false, false, false, single}, false);
  check((Case){1, 0, 77, 16, 4, 2, 1, false, true, false, one}, true);
  const int64_t many[] = {1, 257, 0, 16, 290, 33, 2};
  for (int summed = 0; summed <= HAS_DEVICE; summed++) {
    for (int64_t T = 15; T <= 17; T++) check((Case){2, T, 9, 5, 3, 0, 0, false, true, false, NULL, summed}, true);
    check((Case){1, 300, 9, 16, 4, 2, 2, true, true, false, NULL, summed}, false);
    check((Case){1, 700, 3, 3, 4, 0, 0, false, false, false, NULL, summed}, true);
    check((Case){7, 0, 9, 17, 4, 2, 1, false, true, true, many, summed}, true);
    check((Case){7, 0, 3, 100, 4, 1, 1, false, true, false, many, summed}, true);
  }
  check((Case){2, 0, 3, MAX_STATE, 4, 0, 0, true, true, true, many}, false);
  for (int64_t N = 63; N <= 65; N++) check((Case){2, 1, 9, N, 4, 1, 1, true, false, true}, true);
  check((Case){1, 1, 9, MAX_STATE, 4, 0, 0, false, true}, false);
  check_large();
  check_nan();
  check_parallel();

  const Case sound = {1, 2, 40, 4, 7, 1, 1, false, false};
  check_refused((Case){1, 0, 40, 4, 7, 0, 0, false, false}, 0, NULL, 0, "at least one step");
  check_refused((Case){1, 2, 40, 4, 7, 2, 3, false, false}, 0, NULL, 0, "one gate or one each, given 2 and 3");
  const char *tooLarge = HAS_DEVICE ? "must be at most 256, given 2100" : "must be at most 4096 together, given 4207";
  check_refused((Case){1, 2, 8, 2100, 7, 0, 0, false, false}, 0, NULL, 0, tooLarge);
  check_refused(sound, 8, (int64_t[]){4, 39}, 2, "A must have 160 elements, given 156");
  check_refused(sound, FIRST_HISTORY, (int64_t[]){1, 4, 40}, 3, "do not have the size of this layer's");
  check_refused(sound, 0, (int64_t[]){1, 1, 40}, 3, "z must be 1 rows of 40, given 80 elements");
  check_refused(sound, PAST, (int64_t[]){1, 4, 41}, 3, "u must be [B,T,E] and past [B,N,E]");
  const int64_t short_of[] = {1, 0}, too_long[] = {1, 2}, negative[] = {-1, 3}, none[] = {0, 0};
  const int64_t *const bad[] = {short_of, too_long, negative};
  const char *const reasons[] = {"2 rows, but sequences of 1 in all", "sequence 1 cannot have 2 of the 1 rows left",
                                 "sequence 0 cannot have -1 of the 2 rows left"};
  for (size_t i = 0; i < 3 && !HAS_DEVICE; i++) check_lengths(bad[i], 2, reasons[i]);
  check_lengths(one, 1, "there must be a length for each of 2 sequences, given 1");
  check_refused((Case){2, 0, 40, 4, 7, 0, 0, false, false, false, none}, 0, NULL, 0, "at least one step");
  return 0;
}
