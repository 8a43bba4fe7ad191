/**
 * SelectiveScan against the equations in double: links through histories and through states, shared gates, norms, widths that
 * are no multiple of a vector or of a task, steps at once and one by one.
 */
#include <math.h>

#include "fake_ort.h"

extern const DmOp DM_NAME(selective_scan);

enum { FIRST_HISTORY = 9, PART = 64 };

typedef struct {
  int64_t B, T, E, N, R, links, gates;
  bool norms, history, half;
} Case;

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

/** Element `at` of a history. */
static double history_value(const Case *c, const void *history, int64_t at) {
  return c->half ? value_of_half(((const uint16_t *)history)[at]) : (double)((const float *)history)[at];
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

static int64_t num_parts(const Case *c) {
  return (c->E + PART - 1) / PART;
}

static void set_up(FakeNode *node, const Case *c) {
  fake_int(node, "rank", c->R);
  fake_int(node, "links", c->links);
  fake_int(node, "gates", c->gates);
  if (c->half) fake_int(node, "half", 1);
  if (c->norms) fake_float(node, "epsilon", 1e-6f);
  put(node, 0, (int64_t[]){c->B, c->T, c->E}, 3, -1, 1);
  put(node, 1, (int64_t[]){c->B, c->T, 2 * c->E}, 3, -3, 3);
  put(node, 2, (int64_t[]){c->B, c->T, c->R + 2 * c->N}, 3, -1, 1);
  put(node, 3, (int64_t[]){c->B, c->N, c->E}, 3, -1, 1);
  put(node, 4, (int64_t[]){c->R, c->E}, 2, -1, 1);
  put(node, 5, (int64_t[]){c->E}, 1, -4, 1);
  put(node, 6, (int64_t[]){c->N, c->E}, 2, -8, -0.01f);
  put(node, 7, (int64_t[]){c->E}, 1, -1, 1);
  if (c->links > 0) put(node, 8, (int64_t[]){c->B, c->T, c->gates * c->E}, 3, -1, 1);
  for (int64_t i = 0; i < c->links; i++) {
    const size_t index = FIRST_HISTORY + (size_t)i;
    if (c->T == 1 && !c->history) put(node, index, (int64_t[]){c->B, c->N, c->E}, 3, -1, 1);
    else put(node, index, (int64_t[]){c->B, num_parts(c), c->T, c->N, c->half ? PART / 2 : PART}, 5, -1, 1);
    const OrtValue *link = &node->inputs[index];
    uint16_t *halves = link->data;
    /* Whatever the random bits were: f16 between -2 and 2, tiny ones among them. */
    for (size_t k = 0; c->half && link->rank == 5 && k < fake_bytes(link) / 2; k++) halves[k] &= k % 3 ? 0xbfff : 0x83ff;
  }
  node->isWanted[2] = c->history;
}

static double link_state(const FakeNode *node, const Case *c, int64_t link, int64_t b, int64_t t, int64_t n, int64_t e) {
  const OrtValue *value = &node->inputs[FIRST_HISTORY + link];
  const float *states = value->data;
  if (value->rank == 3) {
    const double h = states[(b * c->N + n) * c->E + e];
    return c->half ? rounded_half(h) : h;
  }
  return history_value(c, value->data, (((b * num_parts(c) + e / PART) * c->T + t) * c->N + n) * PART + e % PART);
}

static double rms(const float *values, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; i++) squares += (double)values[i] * values[i];
  return sqrt(squares / (double)count + 1e-6);
}

static void check_channel(const FakeNode *node, const Case *c, const float *past, int64_t b, int64_t e) {
  const float *u = node->inputs[0].data, *xz = node->inputs[1].data, *parameters = node->inputs[2].data;
  const float *W = node->inputs[4].data, *bias = node->inputs[5].data, *A = node->inputs[6].data, *D = node->inputs[7].data;
  const float *gates = node->inputs[8].data, *out = node->outputs[0].data, *present = node->outputs[1].data;
  double h[64];
  for (int64_t n = 0; n < c->N; n++) h[n] = past[(b * c->N + n) * c->E + e];
  for (int64_t t = 0; t < c->T; t++) {
    const int64_t row = b * c->T + t;
    const float *dt = parameters + row * (c->R + 2 * c->N), *Bt = dt + c->R, *Ct = Bt + c->N;
    const double norms[3] = {c->norms ? rms(dt, c->R) : 1, c->norms ? rms(Bt, c->N) : 1, c->norms ? rms(Ct, c->N) : 1};
    double sum = bias[e];
    for (int64_t r = 0; r < c->R; r++) sum += W[r * c->E + e] * dt[r] / norms[0];
    const double delta = log1p(exp(sum));
    double y = D[e] * u[row * c->E + e];
    for (int64_t n = 0; n < c->N; n++) {
      h[n] = exp(delta * A[n * c->E + e]) * h[n] + delta * u[row * c->E + e] * Bt[n] / norms[1];
      y += Ct[n] / norms[2] * h[n];
      if (c->history) {
        const int64_t at = (((b * num_parts(c) + e / PART) * c->T + t) * c->N + n) * PART + e % PART;
        const double kept = history_value(c, node->outputs[2].data, at);
        CHECK(fabs(kept - h[n]) < (c->half ? 6e-4 : 1e-5) * fmax(1, fabs(h[n])));
      }
    }
    for (int64_t link = 0; link < c->links; link++) {
      double readout = 0;
      for (int64_t n = 0; n < c->N; n++) readout += Ct[n] / norms[2] * link_state(node, c, link, b, t, n, e);
      y += gates[(row * c->gates + (c->gates == 1 ? 0 : link)) * c->E + e] * readout;
    }
    const double z = xz[row * 2 * c->E + c->E + e], expected = y * z / (1 + exp(-z));
    CHECK(fabs(out[row * c->E + e] - expected) < 2e-5 * fmax(1, fabs(expected)));
  }
  for (int64_t n = 0; n < c->N; n++) CHECK(fabs(present[(b * c->N + n) * c->E + e] - h[n]) < 1e-5 * fmax(1, fabs(h[n])));
}

static void check(Case c, bool inPlace) {
  FakeNode node = {0};
  set_up(&node, &c);
  const size_t bytes = fake_bytes(&node.inputs[3]);
  float *past = malloc(bytes + 1);
  memcpy(past, node.inputs[3].data, bytes);
  if (inPlace) node.inPlaceOf[1] = 4;
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
  float *past = node.inputs[3].data, *A = node.inputs[6].data;
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

/** A NaN in one sequence's state reaches none of the other's numbers. */
static void check_nan(void) {
  const Case c = {2, 3, 70, 4, 3, 0, 0, false, false};
  FakeNode node = {0};
  set_up(&node, &c);
  ((float *)node.inputs[3].data)[5] = NAN; /* sequence 0, n = 0, channel 5 */
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

int main(void) {
  for (int64_t E = 1; E <= 150; E += 37) {
    for (int64_t T = 1; T <= 5; T += 2) check((Case){2, T, E, 5, 3, 0, 0, false, T == 3}, E % 2 == 0);
  }
  check((Case){1, 4, 80, 16, 4, 2, 2, false, true}, true);
  check((Case){2, 3, 65, 16, 4, 3, 1, false, false}, true);
  check((Case){2, 1, 300, 16, 8, 2, 2, false, false}, true); /* links through states */
  check((Case){2, 1, 70, 3, 8, 2, 1, false, true}, true);    /* and through histories of one step */
  check((Case){1, 3, 40, 4, 7, 0, 0, true, false}, true);
  check((Case){0, 3, 40, 4, 7, 0, 0, false, false}, false);
  check((Case){2, 4, 150, 5, 4, 2, 2, false, true, true}, true);
  check((Case){2, 1, 77, 16, 4, 2, 2, false, false, true}, true);
  check((Case){1, 1, 77, 16, 4, 2, 1, false, true, true}, true);
  check_large();
  check_nan();

  const Case sound = {1, 2, 40, 4, 7, 1, 1, false, false};
  check_refused((Case){1, 0, 40, 4, 7, 0, 0, false, false}, 0, NULL, 0, "at least one step");
  check_refused((Case){1, 2, 40, 4, 7, 2, 3, false, false}, 0, NULL, 0, "one gate or one each, given 2 and 3");
  check_refused((Case){1, 2, 8, 2100, 7, 0, 0, false, false}, 0, NULL, 0, "must be at most 4096");
  check_refused(sound, 6, (int64_t[]){4, 39}, 2, "A must have 160 elements, given 156");
  check_refused(sound, FIRST_HISTORY, (int64_t[]){1, 4, 40}, 3, "do not have the size of this layer's");
  check_refused(sound, 3, (int64_t[]){1, 4, 41}, 3, "u must be [B,T,E] and past [B,N,E]");
  return 0;
}
