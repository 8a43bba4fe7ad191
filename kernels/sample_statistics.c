/**
 * densemamba.SampleStatistics: what sampling needs of logits: of each row the largest few with their indices, descending, and
 * the log-sum-exp of the logits and of logits / temperature. A task is a row.
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

/** Logits of which only the maximum is looked at first. */
enum { GROUP = 32 };

typedef struct {
  size_t numLogits, numTop;
  const float *logits;      /* [R,V] */
  const float *temperature; /* [R] */
  float *top;               /* [R,K] */
  int64_t *topIds;          /* [R,K] */
  float *logSumExp;         /* [R] */
  float *tempered;          /* [R] */
  float *maxima;            /* [R,groups]: working memory */
} Statistics;

/** Equal logits go by their index. NaN counts as the smallest. */
static inline bool is_before(float a, int64_t idA, float b, int64_t idB) {
  if (a > b) return true;
  if (a < b) return false;
  if (a == b) return idA < idB;
  return a == a && b != b ? true : b == b ? false : idA < idB;
}

/** Restores the heap whose root, the last in order of all, has been replaced. */
static void sift_down(float *values, int64_t *ids, size_t count, size_t at) {
  for (;;) {
    size_t last = at;
    for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
      if (is_before(values[last], ids[last], values[child], ids[child])) last = child;
    }
    if (last == at) return;
    const float value = values[at];
    const int64_t id = ids[at];
    values[at] = values[last];
    ids[at] = ids[last];
    values[last] = value;
    ids[last] = id;
    at = last;
  }
}

static float group_maximum(const float *logits, size_t count) {
  vf most = vf_all(-__builtin_inff());
  size_t i = 0;
  for (; i + DM_LANES <= count; i += DM_LANES) {
    const vf v = vf_load(logits + i);
    most = vf_select(v > most, v, most);
  }
  float largest = -__builtin_inff();
  for (int lane = 0; lane < DM_LANES; lane++) largest = most[lane] > largest ? most[lane] : largest;
  for (; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
  return largest;
}

/** A heap of the best so far; a group is looked into only if its maximum would enter. */
static float find_top(const Statistics *s, size_t row) {
  const size_t V = s->numLogits, K = s->numTop, numGroups = (V + GROUP - 1) / GROUP;
  const float *logits = s->logits + row * V;
  float *values = s->top + row * K, *maxima = s->maxima + row * numGroups;
  int64_t *ids = s->topIds + row * K;
  float largest = -__builtin_inff();
  for (size_t g = 0; g < numGroups; g++) {
    maxima[g] = group_maximum(logits + g * GROUP, g + 1 < numGroups ? GROUP : V - g * GROUP);
    largest = maxima[g] > largest ? maxima[g] : largest;
  }
  for (size_t i = 0; i < K; i++) {
    values[i] = logits[i];
    ids[i] = (int64_t)i;
  }
  for (size_t at = K / 2; at-- > 0;) sift_down(values, ids, K, at);
  for (size_t g = K / GROUP; g < numGroups; g++) {
    if (!(maxima[g] > values[0]) && values[0] == values[0]) continue;
    const size_t end = g + 1 < numGroups ? (g + 1) * GROUP : V;
    for (size_t i = g * GROUP < K ? K : g * GROUP; i < end; i++) {
      if (!is_before(logits[i], (int64_t)i, values[0], ids[0])) continue;
      values[0] = logits[i];
      ids[0] = (int64_t)i;
      sift_down(values, ids, K, 0);
    }
  }
  for (size_t count = K; count > 1; count--) { /* the last goes to the end, again and again */
    const float value = values[0];
    const int64_t id = ids[0];
    values[0] = values[count - 1];
    ids[0] = ids[count - 1];
    values[count - 1] = value;
    ids[count - 1] = id;
    sift_down(values, ids, count - 1, 0);
  }
  return largest;
}

/** log Σ exp((x - largest) · scale) over the row: at least 0 if `largest` is the maximum. */
static float log_sum_exp(const float *logits, size_t count, float largest, float scale) {
  vf sums[2] = {{0}, {0}};
  size_t i = 0;
  for (; i + 2 * DM_LANES <= count; i += 2 * DM_LANES) {
    sums[0] += vf_exp((vf_load(logits + i) - largest) * scale);
    sums[1] += vf_exp((vf_load(logits + i + DM_LANES) - largest) * scale);
  }
  float sum = vf_sum(sums[0] + sums[1]);
  for (; i < count; i++) sum += __builtin_expf((logits[i] - largest) * scale);
  return __builtin_logf(sum);
}

static void measure_row(void *user, size_t row) {
  const Statistics *s = user;
  const float *logits = s->logits + row * s->numLogits;
  const float largest = find_top(s, row), temperature = s->temperature[row];
  s->logSumExp[row] = largest + log_sum_exp(logits, s->numLogits, largest, 1);
  s->tempered[row] = temperature == 1 ? s->logSumExp[row]
                                      : largest / temperature + log_sum_exp(logits, s->numLogits, largest, 1 / temperature);
}

static void *create(DmAttributes *attributes) {
  const int64_t top = dm_int(attributes, "top");
  if (attributes->status != NULL) return NULL;
  if (top < 1) return dm_reject(attributes, "SampleStatistics: top must be at least 1, given %lld", (long long)top);
  Statistics *s = calloc(1, sizeof *s);
  if (s == NULL) return dm_reject(attributes, "SampleStatistics: no memory");
  s->numTop = (size_t)top;
  return s;
}

/**
 * Inputs: logits [R,V], temperature [R], above zero. Outputs: top [R,K], their ids i64 [R,K], log-sum-exp [R], that of logits /
 * temperature [R].
 */
static bool compute(const void *state, DmContext *context) {
  Statistics s = *(const Statistics *)state;
  DmTensor logits, temperature;
  if (!dm_input(context, 0, &logits) || !dm_input(context, 1, &temperature)) return false;
  if (logits.rank != 2 || (size_t)logits.dims[1] < s.numTop || dm_num_elements(&temperature) != (size_t)logits.dims[0]) {
    return dm_fail(context, "SampleStatistics: logits must be [R,V] with V at least %zu, temperature [R]", s.numTop);
  }
  const size_t R = (size_t)logits.dims[0];
  const int64_t dims[2] = {logits.dims[0], (int64_t)s.numTop};
  s.numLogits = (size_t)logits.dims[1];
  s.logits = logits.data;
  s.temperature = temperature.data;
  s.top = dm_output(context, 0, dims, 2);
  s.topIds = dm_output(context, 1, dims, 2);
  s.logSumExp = dm_output(context, 2, dims, 1);
  s.tempered = dm_output(context, 3, dims, 1);
  if (context->status != NULL || R == 0) return context->status == NULL;
  s.maxima = dm_scratch(context, R * ((s.numLogits + GROUP - 1) / GROUP) * sizeof(float));
  return s.maxima != NULL && dm_parallel_for(context, measure_row, R, &s);
}

const DmOp DM_NAME(sample_statistics) = {
    .name = "SampleStatistics",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}, {DM_INT64}, {DM_FLOAT}, {DM_FLOAT}},
    .create = create,
    .compute = compute,
};
