/**
 * densemamba.SelectiveScan in CUDA: the recurrence of a Mamba layer with step size, readouts, skip and output gate in one kernel,
 * any number of steps. Symbols as in docs/compiler.md. Twin: ../selective_scan.c, of the same inputs, outputs and layouts.
 *
 *     Δ = softplus(W_dt dt + b)    h_t = exp(Δ A) h_{t-1} + (Δ u) B    y = C h + Σ_i G_i (C h^{l-i}) + D u    out = y SiLU(z)
 *
 * A warp is eight neighbouring channels, whose floats are one sector of memory, and four lanes for each, which share the N
 * numbers of its state and the R of dt. The state stays in the lanes' registers from the first step to the last.
 */
#include "device.h"

namespace {

constexpr size_t MAX_LINKS = 8, LENGTHS = 8, GATES = 9, FIRST_HISTORY = 10;
/** Of a warp, and the lanes of each. */
constexpr unsigned CHANNELS = 8, LANES = DM_WARP / CHANNELS;
/** Of a block. */
constexpr unsigned WARPS = 4;
/** Channels that lie together in a history, as in ../selective_scan.c. */
constexpr size_t PART = 64;
/** 2N + R, as there. */
constexpr size_t MAX_ROWS = 4096;

struct Scan {
  size_t numSequences, numRows, numChannels, stateSize, rank, numLinks, numGates;
  const int64_t *lengths;            /* [B] on the device, or NULL */
  float epsilon;                     /* of the norms of dt, B and C; negative: none */
  const float *u;                    /* [rows,E] */
  const float *xz;                   /* [rows,2E]: z is the second half of each row */
  const float *parameters;           /* [rows,R+2N]: dt, B, C */
  const float *past;                 /* [B,N,E] */
  const float *stepWeight;           /* [R,E] */
  const float *stepBias;             /* [E] */
  const float *A;                    /* [N,E], negative */
  const float *D;                    /* [E] */
  const float *gates;                /* [rows,numGates·E] */
  const void *histories[MAX_LINKS];  /* h^{l-1}, h^{l-2}, …: [parts,rows,N,PART], or of a single step states, float [B,N,E] */
  bool linksAreStates;
  bool half;                         /* histories are in f16, and links read f16 whatever they read */
  float *out;                        /* [rows,E] */
  float *present;                    /* [B,N,E], or the past's memory */
  void *history;                     /* or NULL */
};

__host__ __device__ inline size_t num_parts(size_t numChannels) { return (numChannels + PART - 1) / PART; }

/** Of the state's first number of channel `e`; the next ones are PART further on. */
__device__ inline size_t history_offset(const Scan &s, size_t row, size_t e) {
  return (e / PART * s.numRows + row) * s.stateSize * PART + e % PART;
}

__device__ inline void keep(const Scan &s, size_t at, float h) {
  if (s.half) ((uint16_t *)s.history)[at] = dm_half_of(h);
  else ((float *)s.history)[at] = h;
}

/** What a link reads: of a history, or of a state, rounded as a history would hold it. */
__device__ inline float linked_state(const Scan &s, size_t link, size_t at) {
  const float *exact = (const float *)s.histories[link];
  if (!s.half) return exact[at];
  return dm_float_of(s.linksAreStates ? dm_half_of(exact[at]) : ((const uint16_t *)s.histories[link])[at]);
}

__device__ inline float over_channel_lanes(float x) {
  for (unsigned bit = CHANNELS; bit < DM_WARP; bit *= 2) x = dm_add_across(x, bit);
  return x;
}

/** 1 / √(mean(x²) + ε) of `width` numbers, by the whole warp. */
__device__ inline float inverse_rms(const float *x, size_t width, float epsilon) {
  float squares = 0;
  for (size_t i = threadIdx.x % DM_WARP; i < width; i += DM_WARP) squares += x[i] * x[i];
  for (unsigned bit = 1; bit < DM_WARP; bit *= 2) squares = dm_add_across(squares, bit);
  return 1.0f / sqrtf(squares / (float)width + epsilon);
}

/** `STATES`: of a lane, the numbers lane, lane + LANES, … of its channel; at least N / LANES. */
template <int STATES>
__global__ void scan(const Scan s) {
  [[maybe_unused]] constexpr int UNROLL = STATES <= 16 ? STATES : 1; /* beyond, the arrays are in memory */
  const size_t E = s.numChannels, N = s.stateSize, R = s.rank, b = blockIdx.y;
  const size_t first = (blockIdx.x * (size_t)WARPS + threadIdx.x / DM_WARP) * CHANNELS;
  if (first >= E) return; /* the whole warp */
  const size_t wanted = first + threadIdx.x % CHANNELS, lane = threadIdx.x % DM_WARP / CHANNELS;
  const bool isReal = wanted < E;            /* the others read along, for the sums' sake, and write nothing */
  const size_t e = isReal ? wanted : E - 1;

  float h[STATES], A[STATES];
#pragma unroll UNROLL
  for (int i = 0; i < STATES; i++) {
    const size_t n = lane + i * LANES;
    h[i] = n < N ? s.past[(b * N + n) * E + e] : 0.0f;
    A[i] = n < N ? s.A[n * E + e] * 1.44269504088896341f : 0.0f; /* e^(Δ A) = 2^(Δ A log2 e) */
  }
  const float bias = s.stepBias[e], D = s.D[e];
  const DmRows rows = dm_rows_of(b, s.lengths, s.numSequences, s.numRows);
  for (size_t row = rows.start; row < rows.start + rows.count; row++) {
    const float *dt = s.parameters + row * (R + 2 * N), *B = dt + R, *C = B + N;
    float dtScale = 1, BScale = 1, CScale = 1;
    if (s.epsilon >= 0) {
      dtScale = inverse_rms(dt, R, s.epsilon);
      BScale = inverse_rms(B, N, s.epsilon);
      CScale = inverse_rms(C, N, s.epsilon);
    }
    float sum = 0;
    for (size_t r = lane; r < R; r += LANES) sum += s.stepWeight[r * E + e] * dt[r];
    const float delta = dm_softplus(bias + dtScale * over_channel_lanes(sum));
    const float u = s.u[row * E + e], deltaU = delta * u * BScale;

    float y = 0; /* of this lane's numbers: all that is read out with C */
    const bool keeps = s.history != NULL && isReal;
    const size_t historyAt = history_offset(s, row, e);
#pragma unroll UNROLL
    for (int i = 0; i < STATES; i++) {
      const size_t n = lane + i * LANES;
      if (n >= N) continue;
      h[i] = exp2f(delta * A[i]) * h[i] + deltaU * B[n];
      if (keeps) keep(s, historyAt + n * PART, h[i]);
      y += C[n] * h[i];
    }
    for (size_t link = 0; link < s.numLinks; link++) {
      const size_t at = s.linksAreStates ? b * N * E + e : historyAt;
      const size_t stride = s.linksAreStates ? E : PART;
      float readout = 0;
      for (size_t n = lane; n < N; n += LANES) readout += C[n] * linked_state(s, link, at + n * stride);
      y += s.gates[(row * s.numGates + (s.numGates == 1 ? 0 : link)) * E + e] * readout;
    }
    y = CScale * over_channel_lanes(y) + D * u;
    if (isReal && lane == 0) s.out[row * E + e] = y * dm_silu(s.xz[row * 2 * E + E + e]);
  }
  if (!isReal) return;
#pragma unroll UNROLL
  for (int i = 0; i < STATES; i++) {
    const size_t n = lane + i * LANES;
    if (n < N) s.present[(b * N + n) * E + e] = h[i];
  }
}

void *create(DmAttributes *attributes) {
  Scan s = {};
  s.rank = (size_t)dm_int(attributes, "rank");
  s.numLinks = (size_t)dm_int_or(attributes, "links", 0);
  s.numGates = (size_t)dm_int_or(attributes, "gates", 0);
  s.epsilon = dm_float_or(attributes, "epsilon", -1);
  s.half = dm_int_or(attributes, "half", 0) != 0;
  if (attributes->status != NULL) return NULL;
  if (s.numLinks > MAX_LINKS || (s.numLinks > 0 && s.numGates != 1 && s.numGates != s.numLinks)) {
    return dm_reject(attributes, "SelectiveScan: at most %zu links, with one gate or one each, given %zu and %zu gates",
                     MAX_LINKS, s.numLinks, s.numGates);
  }
  Scan *state = (Scan *)malloc(sizeof *state);
  if (state == NULL) return dm_reject(attributes, "SelectiveScan: no memory");
  *state = s;
  return state;
}

/** The pointer, if input `index` has so many elements. */
const float *expect(DmContext *context, size_t index, size_t numElements, const char *name) {
  DmTensor tensor;
  if (!dm_input(context, index, &tensor)) {
    dm_fail(context, "SelectiveScan: %s is missing", name);
    return NULL;
  }
  if (dm_num_elements(&tensor) != numElements) {
    dm_fail(context, "SelectiveScan: %s must have %zu elements, given %zu", name, numElements, dm_num_elements(&tensor));
    return NULL;
  }
  return (const float *)tensor.data;
}

/** Of PART numbers of a history. */
size_t floats_per_row(const Scan &s) { return s.half ? PART / 2 : PART; }

/** Fills in the links. `@returns` false after a `dm_fail`. */
bool find_links(Scan *s, DmContext *context) {
  const size_t stateElements = s->numSequences * s->stateSize * s->numChannels;
  const size_t historyElements = num_parts(s->numChannels) * s->numRows * s->stateSize * floats_per_row(*s);
  const bool isSingleStep = s->lengths == NULL && s->numRows == s->numSequences;
  for (size_t i = 0; i < s->numLinks; i++) {
    DmTensor link;
    if (!dm_input(context, FIRST_HISTORY + i, &link)) return dm_fail(context, "SelectiveScan: a link's states are missing");
    s->linksAreStates = link.rank == 3;
    s->histories[i] = link.data;
    if (dm_num_elements(&link) != (s->linksAreStates ? stateElements : historyElements) ||
        (s->linksAreStates && !isSingleStep)) {
      return dm_fail(context, "SelectiveScan: a link's states do not have the size of this layer's");
    }
  }
  return true;
}

bool launch(const Scan &s, DmContext *context) {
  const dim3 grid((unsigned)dm_ceil_div(s.numChannels, CHANNELS * WARPS), (unsigned)s.numSequences), block(DM_WARP * WARPS);
  return dm_on_stream(context, "SelectiveScan", [&](cudaStream_t stream) {
    if (s.stateSize <= 4 * LANES) DM_LAUNCH(scan<4>, grid, block, stream, s);
    else if (s.stateSize <= 16 * LANES) DM_LAUNCH(scan<16>, grid, block, stream, s);
    else DM_LAUNCH(scan<MAX_ROWS / 2 / LANES>, grid, block, stream, s);
  });
}

/**
 * Inputs: u [B,T,E], xz [B,T,2E] (z is the second half), parameters [B,T,R+2N], past [B,N,E], W_dt [R,E], b_dt [E], A [N,E],
 * D [E], lengths int64 [B]?, gates [B,T,gates·E]?, then what the links read, the nearest layer's first: its history, or of a
 * single step its present. Outputs: out [B,T,E], present [B,N,E], history f32 [parts,rows,N,64]?, of which one element holds two
 * of f16. With lengths, all that is [B,T,…] is [1,rows,…]. `present` may be the memory of `past`.
 */
bool compute(const void *state, DmContext *context) {
  Scan s = *(const Scan *)state;
  DmTensor u, past, lengths = {};
  if (!dm_input(context, 0, &u) || !dm_input(context, 3, &past)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (u.rank != 3 || past.rank != 3 || u.dims[0] != (hasLengths ? 1 : past.dims[0]) || u.dims[2] != past.dims[2]) {
    return dm_fail(context, "SelectiveScan: u must be [B,T,E] and past [B,N,E]");
  }
  const size_t B = s.numSequences = (size_t)past.dims[0], numRows = s.numRows = (size_t)(u.dims[0] * u.dims[1]);
  const size_t E = s.numChannels = (size_t)u.dims[2], N = s.stateSize = (size_t)past.dims[1];
  if (2 * N + s.rank > MAX_ROWS) {
    return dm_fail(context, "SelectiveScan: twice the state size and the rank must be at most %zu together, given %zu",
                   MAX_ROWS, 2 * N + s.rank);
  }
  if (B > DM_MAX_GRID) return dm_fail(context, "SelectiveScan: at most %u sequences, given %zu", DM_MAX_GRID, B);
  if (!dm_expect_rows(context, hasLengths ? &lengths : NULL, B, numRows)) return false;
  s.lengths = (const int64_t *)lengths.data;
  s.u = (const float *)u.data;
  s.past = (const float *)past.data;
  s.xz = expect(context, 1, numRows * 2 * E, "xz");
  s.parameters = expect(context, 2, numRows * (s.rank + 2 * N), "parameters");
  s.stepWeight = expect(context, 4, s.rank * E, "W_dt");
  s.stepBias = expect(context, 5, E, "b_dt");
  s.A = expect(context, 6, N * E, "A");
  s.D = expect(context, 7, E, "D");
  if (s.numLinks > 0) s.gates = expect(context, GATES, numRows * s.numGates * E, "gates");
  if (context->status != NULL || !find_links(&s, context)) return false;
  const int64_t history[4] = {(int64_t)num_parts(E), (int64_t)numRows, past.dims[1], (int64_t)floats_per_row(s)};
  s.out = (float *)dm_output(context, 0, u.dims, 3);
  s.present = (float *)dm_output(context, 1, past.dims, 3);
  s.history = dm_output(context, 2, history, 4);
  if (context->status != NULL) return false;
  return B * E == 0 || launch(s, context);
}

}  // namespace

extern "C" const DmOp DM_NAME(selective_scan) = {
    .name = "SelectiveScan",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT},
               {DM_INT64, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true},
               {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
