/**
 * CausalConv against sums in double: one tap and several, widths that are no multiple of a vector,
 * in place and not, sequences of unequal lengths.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(causal_conv);

typedef struct {
  int64_t sequences, steps, channels, taps, stride;
  bool bias, inPlace;
  const int64_t *lengths; /* [sequences], or NULL: `steps` each */
} Case;

static int64_t start_of(const Case *c, int64_t b) { return fake_start(c->lengths, c->steps, b); }

static float *randoms(int64_t count, uint32_t seed) {
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = fake_random(&seed);
  return values;
}

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank, uint32_t seed) {
  int64_t count = 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = randoms(count, seed);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

static void set_up(FakeNode *node, const Case *c) {
  node->columns[0] = (DmColumns){0, c->channels};
  if (c->lengths) put(node, 0, (int64_t[]){1, start_of(c, c->sequences), c->stride}, 3, 1);
  else put(node, 0, (int64_t[]){c->sequences, c->steps, c->stride}, 3, 1);
  put(node, 1, (int64_t[]){c->sequences, c->taps - 1, c->channels}, 3, 2);
  put(node, 2, (int64_t[]){c->taps, c->channels}, 2, 3);
  if (c->bias) put(node, 3, (int64_t[]){c->channels}, 1, 4);
  if (c->lengths) fake_input(node, 4, DM_INT64, &c->sequences, 1, c->lengths);
  if (c->inPlace) node->inPlaceOf[1] = 2;
}

/** Input `t` of a channel; the past has those below zero. */
static double at(const float *x, const float *past, const Case *c, int64_t b, int64_t t, int64_t e) {
  if (t >= 0) return x[(start_of(c, b) + t) * c->stride + e];
  return past[(b * (c->taps - 1) + c->taps - 1 + t) * c->channels + e];
}

static void check(Case c) {
  FakeNode node = {0};
  set_up(&node, &c);
  float *past = randoms(c.sequences * (c.taps - 1) * c.channels, 2); /* as it was: in place it is overwritten */
  CHECK(fake_run(&node, &DM_NAME(causal_conv)) == NULL);
  const float *x = node.inputs[0].data, *taps = node.inputs[2].data, *bias = node.inputs[3].data;
  const float *u = node.outputs[0].data, *present = node.outputs[1].data;
  for (int64_t b = 0; b < c.sequences; b++) {
    const int64_t numSteps = start_of(&c, b + 1) - start_of(&c, b);
    for (int64_t e = 0; e < c.channels; e++) {
      for (int64_t t = 0; t < numSteps; t++) {
        double sum = c.bias ? bias[e] : 0;
        for (int64_t k = 0; k < c.taps; k++) sum += taps[k * c.channels + e] * at(x, past, &c, b, t - c.taps + 1 + k, e);
        CHECK(fabs(u[(start_of(&c, b) + t) * c.channels + e] - sum / (1 + exp(-sum))) < 1e-5);
      }
      for (int64_t k = 0; k + 1 < c.taps; k++) {
        CHECK(present[(b * (c.taps - 1) + k) * c.channels + e] == (float)at(x, past, &c, b, numSteps - c.taps + 1 + k, e));
      }
    }
  }
  free(past);
  fake_free(&node);
}

static void check_refused(Case c, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  const char *error = fake_run(&node, &DM_NAME(causal_conv));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t channels = 1; channels <= 35; channels += 17) {
    for (int64_t steps = 1; steps <= 6; steps++) check((Case){2, steps, channels, 4, 2 * channels, true, steps % 2 == 0});
  }
  check((Case){1, 3, 600, 4, 1200, false, true});
  check((Case){3, 2, 20, 1, 40, true, false});
  check((Case){1, 2, 20, 16, 20, true, true});
  check((Case){0, 2, 20, 4, 40, true, false});
  const int64_t unequal[] = {2, 0, 1, 9, 1}, none[] = {0, 0};
  for (int64_t channels = 1; channels <= 600; channels += 299) {
    check((Case){5, 0, channels, 4, 2 * channels, true, true, unequal});
    check((Case){5, 0, channels, 3, channels, true, false, unequal});
  }
  check_refused((Case){1, 0, 20, 4, 40, true, false}, "at least one step");
  check_refused((Case){2, 0, 20, 4, 40, true, false, none}, "at least one step");
  check_refused((Case){1, 1, 20, 17, 40, true, false}, "at most 16 taps, given 17");
  check_refused((Case){1, 1, 20, 4, 19, true, false}, "columns 0 to 20 of 19");
  return 0;
}
