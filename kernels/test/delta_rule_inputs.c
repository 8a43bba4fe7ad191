/**
 * DeltaRuleInputs against the same in double: with and without mixed values, widths of a head that
 * are no multiple of a vector, a head of zeros.
 */
#include <math.h>

#include "fake_host.h"

extern const DmOp DM_NAME(delta_rule_inputs);

enum { KEY, W, RATE, KEY_SCALE, KEY_RATE, W0, A0, VALUE, FIRST_VALUE, MIX, V0, NUM_INPUTS };
enum { DECAY, REMOVED, REPLACED, NEW_KEY, NEW_VALUE };

static bool is_parameter(size_t i) { return (i >= KEY_SCALE && i <= A0) || i == V0; }

static void set_up(FakeNode *node, int64_t rows, int64_t heads, int64_t width, bool mixesValues) {
  const int64_t C = heads * width;
  for (size_t i = 0; i < (mixesValues ? NUM_INPUTS : VALUE); i++) {
    const int64_t count = is_parameter(i) ? C : rows * C;
    uint32_t seed = (uint32_t)i + 1;
    float *values = malloc((size_t)count * sizeof *values + 1);
    for (int64_t n = 0; n < count; n++) values[n] = 4 * fake_random(&seed);
    if (i == KEY && count >= width) memset(values, 0, (size_t)width * sizeof *values);
    fake_input(node, i, DM_FLOAT, is_parameter(i) ? &C : (int64_t[]){1, rows, C}, is_parameter(i) ? 1 : 3, values);
    free(values);
  }
  fake_int(node, "heads", heads);
  node->isWanted[NEW_VALUE] = mixesValues;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void check(int64_t rows, int64_t heads, int64_t width, bool mixesValues) {
  FakeNode node = {0};
  set_up(&node, rows, heads, width, mixesValues);
  CHECK(fake_run(&node, &DM_NAME(delta_rule_inputs)) == NULL);
  const float *in[NUM_INPUTS], *out[NEW_VALUE + 1];
  for (size_t i = 0; i < NUM_INPUTS; i++) in[i] = node.inputs[i].data;
  for (size_t i = 0; i <= NEW_VALUE; i++) out[i] = node.outputs[i].data;
  for (int64_t head = 0; head < rows * heads; head++) {
    double squares = 0;
    for (int64_t i = 0; i < width; i++) {
      const double key = (double)in[KEY][head * width + i] * in[KEY_SCALE][head % heads * width + i];
      squares += key * key;
    }
    for (int64_t i = 0; i < width; i++) {
      const int64_t at = head * width + i, c = head % heads * width + i;
      const double rate = sigmoid((double)in[A0][c] + in[RATE][at]), removal = in[KEY][at] * in[KEY_SCALE][c] / fmax(sqrt(squares), 1e-12);
      CHECK(fabs(out[DECAY][at] - exp(-exp(-0.5) * sigmoid((double)in[W0][c] + in[W][at]))) < 2e-6);
      CHECK(fabs(out[REMOVED][at] + removal) < 2e-6);
      CHECK(fabs(out[REPLACED][at] - removal * rate) < 2e-6);
      CHECK(fabs(out[NEW_KEY][at] - in[KEY][at] * (1 + (rate - 1) * in[KEY_RATE][c])) < 2e-5);
      if (!mixesValues) continue;
      const double gate = sigmoid((double)in[V0][c] + in[MIX][at]);
      CHECK(fabs(out[NEW_VALUE][at] - (in[VALUE][at] + ((double)in[FIRST_VALUE][at] - in[VALUE][at]) * gate)) < 1e-5);
    }
  }
  fake_free(&node);
}

static void check_refused(int64_t heads, size_t missing, size_t cut, const char *reason) {
  FakeNode node = {0};
  set_up(&node, 2, 2, 4, true);
  node.attributes[0].whole = heads;
  node.inputs[missing].exists = false;
  if (cut > 0) node.inputs[cut].dims[node.inputs[cut].rank - 1]--;
  const char *error = fake_run(&node, &DM_NAME(delta_rule_inputs));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  node.inputs[missing].exists = true;
  fake_free(&node);
}

int main(void) {
  for (int64_t width = 1; width < 70; width += 9) {
    check(1, 2, width, false);
    check(3, 3, width, true);
  }
  check(40, 12, 64, true);
  check(0, 2, 4, true);
  check_refused(2, MIX, 0, "given together or not at all");
  check_refused(2, NUM_INPUTS, W, "input 1 must have 16 elements, given 14");
  check_refused(3, NUM_INPUTS, 0, "8 columns, of 3 heads");
  check_refused(0, NUM_INPUTS, 0, "there must be a head");
  return 0;
}
