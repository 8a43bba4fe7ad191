/**
 * TokenShift against the same in double: one mixture and several, widths that are no multiple of a
 * vector, in place and not, sequences of unequal lengths.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(token_shift);

enum { X, PAST, MIX, LENGTHS };

typedef struct {
  int64_t sequences, steps, channels, mixtures, stride;
  bool inPlace;
  const int64_t *lengths; /* [sequences], or NULL: `steps` each */
} Case;

static int64_t start_of(const Case *c, int64_t b) { return fake_start(c->lengths, c->steps, b); }

static void put(FakeNode *node, size_t index, const int64_t *dims, size_t rank) {
  int64_t count = 1;
  uint32_t seed = (uint32_t)index + 1;
  for (size_t i = 0; i < rank; i++) count *= dims[i];
  float *values = malloc((size_t)count * sizeof *values + 1);
  for (int64_t i = 0; i < count; i++) values[i] = fake_random(&seed);
  fake_input(node, index, DM_FLOAT, dims, rank, values);
  free(values);
}

static void set_up(FakeNode *node, const Case *c) {
  if (c->lengths) put(node, X, (int64_t[]){1, start_of(c, c->sequences), c->stride}, 3);
  else put(node, X, (int64_t[]){c->sequences, c->steps, c->stride}, 3);
  node->columns[X] = (DmColumns){0, c->channels};
  put(node, PAST, (int64_t[]){c->sequences, c->channels}, 2);
  put(node, MIX, (int64_t[]){c->mixtures, c->channels}, 2);
  if (c->lengths) fake_input(node, LENGTHS, DM_INT64, &c->sequences, 1, c->lengths);
  if (c->inPlace) node->inPlaceOf[0] = 1 + PAST;
  for (int64_t i = 0; i < c->mixtures; i++) node->isWanted[1 + i] = true;
}

static void check(Case c) {
  FakeNode node = {0};
  set_up(&node, &c);
  const size_t bytes = fake_bytes(&node.inputs[PAST]);
  float *past = malloc(bytes + 1);
  memcpy(past, node.inputs[PAST].data, bytes);
  CHECK(fake_run(&node, &DM_NAME(token_shift)) == NULL);
  const float *x = node.inputs[X].data, *mix = node.inputs[MIX].data, *present = node.outputs[0].data;
  for (int64_t b = 0; b < c.sequences; b++) {
    for (int64_t e = 0; e < c.channels; e++) {
      float before = past[b * c.channels + e];
      for (int64_t row = start_of(&c, b); row < start_of(&c, b + 1); row++) {
        const float now = x[row * c.stride + e];
        for (int64_t i = 0; i < c.mixtures; i++) {
          const double expected = now + ((double)before - now) * mix[i * c.channels + e];
          CHECK(fabs(((const float *)node.outputs[1 + i].data)[row * c.channels + e] - expected) < 1e-6);
        }
        before = now;
      }
      CHECK(present[b * c.channels + e] == before);
    }
  }
  free(past);
  fake_free(&node);
}

static void check_refused(Case c, size_t numOutputs, const char *reason) {
  FakeNode node = {0};
  set_up(&node, &c);
  for (size_t i = numOutputs; i < DM_MAX_OUTPUTS; i++) node.isWanted[i] = false;
  const char *error = fake_run(&node, &DM_NAME(token_shift));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t channels = 1; channels < 40; channels += 6) {
    check((Case){2, 1, channels, 1, channels, true, NULL});
    check((Case){2, 5, channels, 6, channels + 3, false, NULL});
  }
  const int64_t unequal[] = {1, 17, 0, 2, 0}, single[] = {0, 1, 1};
  check((Case){5, 0, 300, 6, 300, true, unequal});
  check((Case){5, 0, 1030, 7, 1030, false, unequal});
  check((Case){3, 0, 64, 1, 64, true, single});
  check((Case){0, 1, 8, 2, 8, false, NULL});
  check_refused((Case){2, 1, 8, 1, 7, false, NULL}, 2, "columns 0 to 8 of 7");
  check_refused((Case){2, 1, 8, 3, 8, false, NULL}, 2, "3 mixtures have as many outputs, given 1");
  FakeNode node = {0};
  put(&node, X, (int64_t[]){1, 1, 4}, 3);
  put(&node, PAST, (int64_t[]){1, 4}, 2);
  put(&node, MIX, (int64_t[]){8, 4}, 2);
  const char *error = fake_run(&node, &DM_NAME(token_shift));
  CHECK(error != NULL && strstr(error, "at most 7 mixtures, given 8") != NULL);
  fake_free(&node);
  return 0;
}
