/**
 * densemamba.SampleStatistics: what sampling needs of logits: of each row the largest few with
 * their indices, descending, and the log-sum-exp of the logits and of logits / temperature. A task
 * is a row.
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
  uint64_t *heaps;          /* [R,K]: working memory */
  float *maxima;            /* [R,groups]: working memory */
} Statistics;

/**
 * Keys are in order as the pairs are: by the logit, equal ones by their index, the first one
 * largest. NaN is the smallest.
 */
static inline uint64_t key_of(float logit, size_t id) {
  uint32_t bits;
  logit += 0.0f; /* of the two zeros the positive one */
  memcpy(&bits, &logit, sizeof bits);
  bits = logit != logit ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (uint64_t)bits << 32 | (uint32_t)~(uint32_t)id;
}
static inline size_t id_of(uint64_t key) { return (uint32_t)~(uint32_t)key; }

/** Puts `key` into the place of the root, the smallest, and restores the heap. */
static inline void replace_root(uint64_t *heap, size_t count, uint64_t key) {
  size_t at = 0;
  for (size_t child = 1; child < count; child = 2 * at + 1) {
    child += child + 1 < count && heap[child + 1] < heap[child];
    if (heap[child] >= key) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = key;
}

static float group_maximum(const float *logits, size_t count) {
  vf most = vf_all(-__builtin_inff());
  size_t i = 0;
  for (; i + DM_LANES <= count; i += DM_LANES) {
    const vf v = vf_load(logits + i);
    most = vf_select(v > most, v, most);
  }
  float largest = vf_largest(most);
  for (; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
  return largest;
}

/**
 * A number that at least `numTop` of the maxima reach, and so as many logits; not many more do.
 * Halving the interval needs no order among them.
 */
static float find_threshold(const float *maxima, size_t numGroups, size_t numTop, float largest) {
  if (numGroups < numTop) return -__builtin_inff();
  float low = largest, high = largest;
  for (size_t g = 0; g < numGroups; g++) low = maxima[g] < low ? maxima[g] : low;
  for (int halving = 0; halving < 10; halving++) {
    const float middle = low / 2 + high / 2;
    size_t numAbove = 0;
    for (size_t g = 0; g < numGroups; g++) numAbove += maxima[g] >= middle;
    if (numAbove >= numTop) low = middle;
    else high = middle;
  }
  return low;
}

/** The best of what reaches the threshold, in a heap. */
static float find_top(const Statistics *s, size_t row) {
  const size_t V = s->numLogits, K = s->numTop, numGroups = (V + GROUP - 1) / GROUP;
  const float *logits = s->logits + row * V;
  float *maxima = s->maxima + row * numGroups, largest = -__builtin_inff();
  for (size_t g = 0; g < numGroups; g++) {
    maxima[g] = group_maximum(logits + g * GROUP, g + 1 < numGroups ? GROUP : V - g * GROUP);
    largest = maxima[g] > largest ? maxima[g] : largest;
  }
  const float threshold = find_threshold(maxima, numGroups, K, largest);
  uint64_t *heap = s->heaps + row * K;
  memset(heap, 0, K * sizeof *heap); /* less than any key */
  for (size_t g = 0; g < numGroups; g++) {
    if (maxima[g] < threshold) continue;
    const size_t end = g + 1 < numGroups ? (g + 1) * GROUP : V;
    for (size_t i = g * GROUP; i < end; i++) {
      if (logits[i] < threshold) continue; /* a NaN is not */
      const uint64_t key = key_of(logits[i], i);
      if (key > heap[0]) replace_root(heap, K, key);
    }
  }
  for (size_t count = K; count-- > 0;) { /* the smallest first, from the end */
    const size_t id = id_of(heap[0]);
    s->top[row * K + count] = logits[id];
    s->topIds[row * K + count] = (int64_t)id;
    replace_root(heap, count, heap[count]);
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
  if (attributes->failure.exists) return NULL;
  if (top < 1) return dm_reject(attributes, "SampleStatistics: top must be at least 1, given %lld", (long long)top);
  Statistics *s = calloc(1, sizeof *s);
  if (s == NULL) return dm_reject(attributes, "SampleStatistics: no memory");
  s->numTop = (size_t)top;
  return s;
}

/**
 * Inputs: logits [R,V], temperature [R], above zero. Outputs: top [R,K], their ids i64 [R,K],
 * log-sum-exp [R], that of logits / temperature [R].
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
  if (context->failure.exists || R == 0) return !context->failure.exists;
  const size_t numGroups = (s.numLogits + GROUP - 1) / GROUP;
  s.heaps = dm_scratch(context, R * (s.numTop * sizeof *s.heaps + numGroups * sizeof *s.maxima));
  if (s.heaps == NULL) return false;
  s.maxima = (float *)(s.heaps + R * s.numTop);
  return dm_parallel_for(context, measure_row, R, &s);
}

const DmOp DM_NAME(sample_statistics) = {
    .name = "SampleStatistics",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}},
    .outputs = {{DM_FLOAT}, {DM_INT64}, {DM_FLOAT}, {DM_FLOAT}},
    .create = create,
    .compute = compute,
};
