/**
 * densemamba.SelectiveScan: the recurrence of a Mamba layer with everything that stands around it elementwise: step size,
 * readouts of the own and of the linked states, skip and output gate. Symbols as in docs/compiler.md.
 *
 *     Δ = softplus(W_dt dt + b)    h_t = exp(Δ A) h_{t-1} + (Δ u) B    y = C h + Σ_i G_i (C h^{l-i}) + D u    out = y SiLU(z)
 *
 * A task is a range of channels of one sequence: it walks over time with its part of the state in the cache, and reads and
 * writes each state once a step. So the state is updated in place.
 */
#include <stdlib.h>

#include "op.h"
#include "simd.h"

enum { MAX_LINKS = 8, FIRST_HISTORY = 9 };

typedef struct {
  size_t numSequences, numSteps, numChannels, stateSize, rank, numLinks, numGates, zStride;
  float epsilon;                     /* of the norms of dt, B and C; negative: none */
  const float *u;                    /* [B,T,E] */
  const float *z;                    /* [B,T,zStride], the first E of each row */
  const float *parameters;           /* [B,T,R+2N]: dt, B, C */
  const float *past;                 /* [B,N,E] */
  const float *stepWeight;           /* [R,E] */
  const float *stepBias;             /* [E] */
  const float *A;                    /* [N,E], negative */
  const float *D;                    /* [E] */
  const float *gates;                /* [B,T,numGates·E] */
  const float *histories[MAX_LINKS]; /* h^{l-1}, h^{l-2}, …: [B,T,N,E] */
  float *out;                        /* [B,T,E] */
  float *present;                    /* [B,N,E] */
  float *history;                    /* [B,T,N,E] or NULL */
  size_t channelsPerTask;
} Scan;

/** softplus(W_dt dt + b): four sums at once, since one would wait for itself. */
DM_INLINE vf step_size(const Scan *s, const float *dt, size_t e, size_t lanes) {
  const size_t E = s->numChannels;
  const float *w = s->stepWeight + e;
  vf sum[4] = {vf_load_some(s->stepBias + e, lanes), {0}, {0}, {0}};
  size_t r = 0;
  for (; r + 4 <= s->rank; r += 4) {
    for (size_t i = 0; i < 4; i++) sum[i] += dt[r + i] * vf_load_some(w + (r + i) * E, lanes);
  }
  for (; r < s->rank; r++) sum[0] += dt[r] * vf_load_some(w + r * E, lanes);
  return vf_softplus((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/** C · h of one step of a shallower layer. */
DM_INLINE vf readout(const float *h, const float *C, size_t N, size_t E, size_t lanes) {
  vf even = {0}, odd = {0};
  size_t n = 0;
  for (; n + 2 <= N; n += 2) {
    even += C[n] * vf_load_some(h + n * E, lanes);
    odd += C[n + 1] * vf_load_some(h + (n + 1) * E, lanes);
  }
  if (n < N) even += C[n] * vf_load_some(h + n * E, lanes);
  return even + odd;
}

/** One step of `lanes` channels from e on. `from` and `to` are the states at channel e, and may be the same. */
DM_INLINE void step(const Scan *s, size_t row, size_t e, const float *parameters, const float *from, float *to,
                    size_t lanes) {
  const size_t E = s->numChannels, N = s->stateSize;
  const float *B = parameters + s->rank, *C = B + N;
  float *kept = s->history ? s->history + row * N * E + e : NULL;
  const vf u = vf_load_some(s->u + row * E + e, lanes);
  const vf delta = step_size(s, parameters, e, lanes);
  const vf deltaU = delta * u;
  vf y = vf_load_some(s->D + e, lanes) * u;
  for (size_t n = 0; n < N; n++) {
    const vf decay = vf_exp(delta * vf_load_some(s->A + n * E + e, lanes));
    const vf h = decay * vf_load_some(from + n * E, lanes) + B[n] * deltaU;
    vf_store_some(to + n * E, h, lanes);
    if (kept) vf_store_some(kept + n * E, h, lanes);
    y += C[n] * h;
  }
  const float *gates = s->gates + row * s->numGates * E + e;
  for (size_t link = 0; link < s->numLinks; link++) {
    const vf gate = vf_load_some(gates + (s->numGates == 1 ? 0 : link) * E, lanes);
    y += gate * readout(s->histories[link] + row * N * E + e, C, N, E, lanes);
  }
  vf_store_some(s->out + row * E + e, y * vf_silu(vf_load_some(s->z + row * s->zStride + e, lanes)), lanes);
}

/** dt, B and C, each divided by its root mean square. */
static void normalise(const Scan *s, const float *parameters, float *normalised) {
  const size_t widths[3] = {s->rank, s->stateSize, s->stateSize};
  for (size_t part = 0; part < 3; part++) {
    float squares = 0;
    for (size_t i = 0; i < widths[part]; i++) squares += parameters[i] * parameters[i];
    const float factor = 1.0f / __builtin_sqrtf(squares / (float)widths[part] + s->epsilon);
    for (size_t i = 0; i < widths[part]; i++) normalised[i] = parameters[i] * factor;
    parameters += widths[part];
    normalised += widths[part];
  }
}

static void scan_channels(void *user, size_t task) {
  const Scan copy = *(const Scan *)user, *s = &copy; /* no store can change it: its fields stay in registers */
  const size_t E = s->numChannels, N = s->stateSize, width = s->rank + 2 * N;
  const size_t tasksPerSequence = (E + s->channelsPerTask - 1) / s->channelsPerTask;
  const size_t b = task / tasksPerSequence;
  const size_t first = (task % tasksPerSequence) * s->channelsPerTask;
  const size_t end = first + s->channelsPerTask < E ? first + s->channelsPerTask : E;
  float *present = s->present + b * N * E;
  for (size_t t = 0; t < s->numSteps; t++) {
    const size_t row = b * s->numSteps + t;
    const float *parameters = s->parameters + row * width;
    float normalised[s->epsilon < 0 ? 1 : width];
    if (s->epsilon >= 0) {
      normalise(s, parameters, normalised);
      parameters = normalised;
    }
    const float *from = t == 0 ? s->past + b * N * E : present;
    size_t e = first;
    for (; e + DM_LANES <= end; e += DM_LANES) step(s, row, e, parameters, from + e, present + e, DM_LANES);
    if (e < end) step(s, row, e, parameters, from + e, present + e, end - e);
  }
}

/** A task's part of the state, of A and of W_dt should stay in the first-level cache, and threads want work to share. */
enum { CHANNELS_PER_TASK = 128 };

static void *create(DmAttributes *attributes) {
  const Scan s = {
      .rank = (size_t)dm_int(attributes, "rank"),
      .numLinks = (size_t)dm_int_or(attributes, "links", 0),
      .numGates = (size_t)dm_int_or(attributes, "gates", 0),
      .epsilon = dm_float_or(attributes, "epsilon", -1),
  };
  if (s.numLinks > MAX_LINKS || (s.numLinks > 0 && s.numGates != 1 && s.numGates != s.numLinks)) {
    return dm_reject(attributes, "SelectiveScan: at most %d links, with one gate or one each, given %zu and %zu gates",
                     MAX_LINKS, s.numLinks, s.numGates);
  }
  Scan *state = malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "SelectiveScan: no memory");
  *state = s;
  return state;
}

/** The pointer, if input `index` has so many elements. */
static const float *expect(DmContext *context, size_t index, size_t numElements, const char *name) {
  DmTensor tensor;
  if (!dm_input(context, index, &tensor)) {
    dm_fail(context, "SelectiveScan: %s is missing", name);
    return NULL;
  }
  if (dm_num_elements(&tensor) != numElements) {
    dm_fail(context, "SelectiveScan: %s must have %zu elements, given %zu", name, numElements, dm_num_elements(&tensor));
    return NULL;
  }
  return tensor.data;
}

/**
 * Inputs: u [B,T,E], xz [B,T,2E] (z is the second half), parameters [B,T,R+2N], past [B,N,E], W_dt [R,E], b_dt [E], A [N,E],
 * D [E], gates [B,T,gates·E]?, histories of the links, the nearest layer's first, [B,T,N,E] each. Outputs: out [B,T,E],
 * present [B,N,E], history [B,T,N,E]?. `present` may be the memory of `past`.
 */
static bool compute(const void *state, DmContext *context) {
  Scan s = *(const Scan *)state;
  DmTensor u, past;
  if (!dm_input(context, 0, &u) || !dm_input(context, 3, &past)) return false;
  if (u.rank != 3 || past.rank != 3 || u.dims[0] != past.dims[0] || u.dims[2] != past.dims[2]) {
    return dm_fail(context, "SelectiveScan: u must be [B,T,E] and past [B,N,E]");
  }
  const size_t B = s.numSequences = (size_t)u.dims[0], T = s.numSteps = (size_t)u.dims[1];
  const size_t E = s.numChannels = (size_t)u.dims[2], N = s.stateSize = (size_t)past.dims[1];
  if (T == 0) return dm_fail(context, "SelectiveScan: there must be at least one step");
  s.zStride = 2 * E;
  s.u = u.data;
  s.past = past.data;
  const float *xz = expect(context, 1, B * T * 2 * E, "xz");
  s.parameters = expect(context, 2, B * T * (s.rank + 2 * N), "parameters");
  s.stepWeight = expect(context, 4, s.rank * E, "W_dt");
  s.stepBias = expect(context, 5, E, "b_dt");
  s.A = expect(context, 6, N * E, "A");
  s.D = expect(context, 7, E, "D");
  if (s.numLinks > 0) s.gates = expect(context, 8, B * T * s.numGates * E, "gates");
  for (size_t i = 0; i < s.numLinks; i++) {
    s.histories[i] = expect(context, FIRST_HISTORY + i, B * T * N * E, "a history");
  }
  if (context->status != NULL) return false;
  s.out = dm_output(context, 0, u.dims, 3);
  s.present = dm_output(context, 1, past.dims, 3);
  s.history = dm_output(context, 2, (const int64_t[]){u.dims[0], u.dims[1], past.dims[1], u.dims[2]}, 4);
  if (context->status != NULL) return false;
  if (B == 0) return true;
  s.z = xz + E;
  s.channelsPerTask = CHANNELS_PER_TASK;
  return dm_parallel_for(context, scan_channels, B * ((E + CHANNELS_PER_TASK - 1) / CHANNELS_PER_TASK), &s);
}

const DmOp DM_NAME(selective_scan) = {
    .name = "SelectiveScan",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT},
               {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true},
               {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
};
