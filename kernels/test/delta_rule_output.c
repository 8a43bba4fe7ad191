/**
 * DeltaRuleOutput against the same in double: widths of a head that are no multiple of a vector, a
 * readout far from zero.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(delta_rule_output);

enum { READOUT, R, KEY, VALUE, GATE, WEIGHT, BIAS, BONUS, NUM_INPUTS };

static void set_up(FakeNode *node, int64_t rows, int64_t heads, int64_t width) {
  const int64_t C = heads * width;
  for (size_t i = 0; i < NUM_INPUTS; i++) {
    const int64_t count = i >= WEIGHT ? C : rows * C;
    uint32_t seed = (uint32_t)i + 1;
    float *values = malloc((size_t)count * sizeof *values + 1);
    for (int64_t n = 0; n < count; n++) values[n] = fake_random(&seed) + (i == READOUT ? 5 : 0);
    fake_input(node, i, DM_FLOAT, i >= WEIGHT ? &C : (int64_t[]){1, rows, C}, i >= WEIGHT ? 1 : 3, values);
    free(values);
  }
  fake_int(node, "heads", heads);
  fake_float(node, "epsilon", 1e-2f);
}

static void check(int64_t rows, int64_t heads, int64_t width) {
  FakeNode node = {0};
  set_up(&node, rows, heads, width);
  CHECK(fake_run(&node, &DM_NAME(delta_rule_output)) == NULL);
  const float *in[NUM_INPUTS], *out = node.outputs[0].data;
  for (size_t i = 0; i < NUM_INPUTS; i++) in[i] = node.inputs[i].data;
  for (int64_t head = 0; head < rows * heads; head++) {
    const int64_t first = head * width, firstChannel = head % heads * width;
    double sum = 0, squares = 0, bonus = 0;
    for (int64_t i = 0; i < width; i++) {
      sum += in[READOUT][first + i];
      bonus += (double)in[R][first + i] * in[KEY][first + i] * in[BONUS][firstChannel + i];
    }
    const double mean = sum / (double)width;
    for (int64_t i = 0; i < width; i++) squares += (in[READOUT][first + i] - mean) * (in[READOUT][first + i] - mean);
    const double factor = 1 / sqrt(squares / (double)width + 1e-2);
    for (int64_t i = 0; i < width; i++) {
      const double normed = (in[READOUT][first + i] - mean) * factor * in[WEIGHT][firstChannel + i] + in[BIAS][firstChannel + i];
      CHECK(fabs(out[first + i] - (normed + bonus * in[VALUE][first + i]) * in[GATE][first + i]) < 2e-5);
    }
  }
  fake_free(&node);
}

static void check_refused(int64_t heads, size_t cut, const char *reason) {
  FakeNode node = {0};
  set_up(&node, 2, 2, 4);
  node.attributes[0].whole = heads;
  if (cut > 0) node.inputs[cut].dims[node.inputs[cut].rank - 1]--;
  const char *error = fake_run(&node, &DM_NAME(delta_rule_output));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
}

int main(void) {
  for (int64_t width = 1; width < 70; width += 9) {
    check(1, 2, width);
    check(3, 3, width);
  }
  check(40, 12, 64);
  check(0, 2, 4);
  check_refused(3, 0, "8 columns, of 3 heads");
  check_refused(2, GATE, "input 4 must have 16 elements, given 14");
  check_refused(2, BONUS, "input 7 must have 8 elements, given 7");
  check_refused(0, 0, "there must be a head");
  return 0;
}
