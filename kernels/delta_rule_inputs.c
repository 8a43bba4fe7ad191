/**
 * densemamba.DeltaRuleInputs: RWKV-7's decay, removal and replacement keys and values, from their
 * projections, for `Recurrence`.
 *
 *     decay = exp(-e^{-1/2} σ(w0 + w))    rate = σ(a0 + a)    κ = k ⊙ k_k of norm 1 in each head
 *     removed = -κ    replaced = κ ⊙ rate    k ← k ⊙ (1 + (rate - 1) ⊙ k_a)
 *     v ← v + (v_first - v) ⊙ σ(v0 + mix)
 *
 * A task is a range of heads, through all rows. A head's result depends on its own numbers alone.
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

enum { KEY, W, RATE, KEY_SCALE, KEY_RATE, W0, A0, VALUE, FIRST_VALUE, MIX, V0, NUM_INPUTS };
enum { DECAY, REMOVED, REPLACED, NEW_KEY, NEW_VALUE, NUM_OUTPUTS };
/**
 * Below so many numbers a task costs less than handing it to another thread: each takes four
 * exponentials.
 */
enum { NUMBERS_PER_TASK = 1 << 11 };

/** Of inputs and outputs, in the order of the node: [rows,H·W], and of parameters [H·W]. */
typedef struct {
  size_t numRows, numHeads, width, headsPerTask;
  bool mixesValues;
  const float *in[NUM_INPUTS];
  float *out[NUM_OUTPUTS];
} Inputs;

/** e^{-1/2} */
#define STRONGEST 0.60653065971263342f
/** Of a norm, as PyTorch's. */
#define SMALLEST 1e-12f

DM_INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }

/** Calls `body(i, lanes)` for each vector of a head; with constant lanes for all but the last. */
#define EACH_VECTOR(body)                                             \
  do {                                                                \
    size_t i = 0;                                                     \
    for (; i + DM_LANES <= width; i += DM_LANES) body(i, DM_LANES);   \
    if (i < width) body(i, (width - i));                              \
  } while (0)

/** `at`: among all rows' numbers; `c`: among the channels. */
DM_INLINE void prepare_vector(const Inputs *n, size_t at, size_t c, float factor, size_t lanes) {
#define OF_ROW(index) vf_load_some(n->in[index] + at, lanes)
#define OF_CHANNEL(index) vf_load_some(n->in[index] + c, lanes)
  const vf key = OF_ROW(KEY), removal = factor * (key * OF_CHANNEL(KEY_SCALE));
  const vf rate = sigmoid(OF_CHANNEL(A0) + OF_ROW(RATE)), decay = vf_exp(-STRONGEST * sigmoid(OF_CHANNEL(W0) + OF_ROW(W)));
  const vf replacement = key * (1.0f + (rate - 1.0f) * OF_CHANNEL(KEY_RATE));
  if (n->mixesValues) {
    const vf value = OF_ROW(VALUE), mixed = value + (OF_ROW(FIRST_VALUE) - value) * sigmoid(OF_CHANNEL(V0) + OF_ROW(MIX));
    vf_store_some(n->out[NEW_VALUE] + at, mixed, lanes);
  }
  vf_store_some(n->out[DECAY] + at, decay, lanes);
  vf_store_some(n->out[REMOVED] + at, -removal, lanes);
  vf_store_some(n->out[REPLACED] + at, removal * rate, lanes);
  vf_store_some(n->out[NEW_KEY] + at, replacement, lanes);
}

/** `at`: where the head begins among all rows' numbers; `c`: among the channels. */
static void prepare_head(const Inputs *n, size_t at, size_t c) {
  const size_t width = n->width;
  vf squares = {0};
#define ADD_SQUARES(i, lanes)                                                                                 \
  do {                                                                                                        \
    const vf key = vf_load_some(n->in[KEY] + at + i, lanes) * vf_load_some(n->in[KEY_SCALE] + c + i, lanes);  \
    squares += key * key;                                                                                     \
  } while (0)
  EACH_VECTOR(ADD_SQUARES);
  const float norm = __builtin_sqrtf(vf_sum(squares)), factor = 1.0f / (norm < SMALLEST ? SMALLEST : norm);
#define PREPARE(i, lanes) prepare_vector(n, at + i, c + i, factor, lanes)
  EACH_VECTOR(PREPARE);
}

static void prepare_heads(void *user, size_t task) {
  const Inputs copy = *(const Inputs *)user, *n = &copy; /* no store can change a copy */
  const size_t total = n->numRows * n->numHeads, first = task * n->headsPerTask;
  const size_t end = first + n->headsPerTask < total ? first + n->headsPerTask : total;
  for (size_t head = first; head < end; head++) prepare_head(n, head * n->width, head % n->numHeads * n->width);
}

static void *create(DmAttributes *attributes) {
  size_t *numHeads = malloc(sizeof *numHeads);
  if (numHeads == NULL) return dm_reject(attributes, "DeltaRuleInputs: no memory");
  *numHeads = (size_t)dm_int(attributes, "heads");
  if (!attributes->failure.exists && *numHeads > 0) return numHeads;
  free(numHeads);
  return !attributes->failure.exists ? dm_reject(attributes, "DeltaRuleInputs: there must be a head") : NULL;
}

/**
 * Inputs: k, w, a [B,T,C], k_k, k_a, w0, a0 [C], and where values are mixed v, v_first, mix
 * [B,T,C]?, v0 [C]?. Attribute: heads. Outputs: decay, removed, replaced, k [B,T,C], v [B,T,C]?.
 */
static bool compute(const void *state, DmContext *context) {
  const size_t numHeads = *(const size_t *)state;
  DmTensor tensors[NUM_INPUTS];
  size_t numInputs = 0;
  while (numInputs < NUM_INPUTS && dm_input(context, numInputs, &tensors[numInputs])) numInputs++;
  if (context->failure.exists) return false;
  if (numInputs != VALUE && numInputs != NUM_INPUTS) {
    return dm_fail(context, "DeltaRuleInputs: v, v_first, mix and v0 are given together or not at all");
  }
  const DmTensor *key = &tensors[KEY];
  const size_t C = dm_num_elements(&tensors[KEY_SCALE]);
  if (key->rank == 0 || C == 0 || C % numHeads != 0 || (size_t)key->dims[key->rank - 1] != C) {
    return dm_fail(context, "DeltaRuleInputs: k must have %zu columns, of %zu heads", C, numHeads);
  }
  Inputs n = {.numRows = dm_num_elements(key) / C, .numHeads = numHeads, .width = C / numHeads, .mixesValues = numInputs == NUM_INPUTS};
  for (size_t i = 0; i < numInputs; i++) {
    const bool isParameter = (i >= KEY_SCALE && i <= A0) || i == V0;
    const size_t expected = isParameter ? C : n.numRows * C;
    if (dm_num_elements(&tensors[i]) != expected) {
      return dm_fail(context, "DeltaRuleInputs: input %zu must have %zu elements, given %zu", i, expected, dm_num_elements(&tensors[i]));
    }
    n.in[i] = tensors[i].data;
  }
  for (size_t i = 0; i < (n.mixesValues ? NUM_OUTPUTS : NEW_VALUE); i++) n.out[i] = dm_output(context, i, key->dims, key->rank);
  if (context->failure.exists) return false;
  if (n.mixesValues && n.out[NEW_VALUE] == NULL) return dm_fail(context, "DeltaRuleInputs: mixed values need an output");
  n.headsPerTask = 1 + NUMBERS_PER_TASK / n.width;
  return dm_parallel_for(context, prepare_heads, (n.numRows * numHeads + n.headsPerTask - 1) / n.headsPerTask, &n);
}

const DmOp DM_NAME(delta_rule_inputs) = {
    .name = "DeltaRuleInputs",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true},
               {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
};
