/**
 * densemamba.SelectiveScan in CUDA: the recurrence of a Mamba layer with readouts, skip and output
 * gate in one kernel, any number of steps. Symbols as in docs/compiler.md. Twin:
 * ../selective_scan.c, of the same inputs, outputs and layouts.
 *
 *     Δ = softplus(W_dt dt + b)    h_t = exp(Δ A) h_{t-1} + (Δ u) B    y = C h + Σ_i G_i (C h^{l-i}) + D u    out = y SiLU(z)
 *
 * A warp is a few neighbouring channels, whose floats lie together, and several lanes for each,
 * which share the N numbers of its state and keep them in registers.
 *
 * Several steps are taken in parallel. A block has the same channels in all its warps, and each
 * warp takes a segment of consecutive steps twice: from a state of zeros first, which gives the
 * segment's end but for what came before; then, when these ends have been joined along time, from
 * the state that it really begins with. What a segment leaves of the state before it is exp(A ΣΔ)
 * of it: one sum for each channel.
 */
#include "../limits.h"
#include "device.h"

namespace {

/** The inputs, in their order. */
enum Input : size_t { INPUT_U, INPUT_Z, INPUT_DT, INPUT_B, INPUT_C, PAST, STEP_WEIGHT, STEP_BIAS, INPUT_A, INPUT_D, LENGTHS, GATES, FIRST_HISTORY };
/** Channels that lie together in a history, as in ../selective_scan.c. */
constexpr unsigned PART = 64;
/**
 * Of a block of single steps: so many warps have neighbouring channels, for as many sequences,
 * which share what they read of weights.
 */
constexpr unsigned STEP_WARPS = 4, STEP_SEQUENCES = 4;
/** Of a block of several steps: each has steps of its own. */
constexpr unsigned WARPS = 16;
/** At most, of a segment. */
constexpr unsigned STEPS = 16;

/**
 * How a warp is shared out: so many channels, the lanes of each, and as many numbers of its state
 * as a lane has.
 */
template <unsigned NUM_CHANNELS, int NUM_STATES>
struct Share {
  static constexpr unsigned CHANNELS = NUM_CHANNELS, LANES = DM_WARP / NUM_CHANNELS;
  static constexpr int STATES = NUM_STATES;
  static_assert(STATES <= (int)WARPS); /* a thread joins the ends of one number of a state */
};
/** By the largest state. */
using UpTo16 = Share<8, 4>;
using UpTo64 = Share<4, 8>;
using UpTo256 = Share<1, 8>;
static_assert(UpTo256::LANES * UpTo256::STATES == DM_MAX_CUDA_STATE_SIZE);

/** Rows `stride` apart. */
struct Rows {
  const float *data;
  size_t stride;
  __device__ const float *operator[](size_t row) const { return data + row * stride; }
};

struct Scan {
  size_t numSequences, numRows;
  unsigned numChannels, stateSize, rank, numLinks, numGates;
  const int64_t *lengths;              /* [B] on the device, or NULL */
  float epsilon;                       /* of the norms of dt, B and C; negative: none */
  const float *u;                      /* [rows,E] */
  Rows z;                              /* [rows,E] */
  Rows dt, B, C;                       /* [rows,R], [rows,N], [rows,N] */
  bool stateIsHalf;                    /* past and present are f16 */
  const void *past;                    /* [B,N,E] */
  const float *stepWeight;             /* W_dt [R,E]; or if they are summed up, W_dt dt [rows,E] */
  bool isSummed;
  const float *stepBias;               /* [E] */
  const float *A;                      /* [N,E], negative */
  const float *D;                      /* [E] */
  const float *gates;                  /* [rows,numGates·E] */
  const void *histories[DM_MAX_LINKS]; /* h^{l-1}, h^{l-2}, …: [parts,rows,N,PART], or of a single step states [B,N,E] */
  bool linksAreStates;
  bool half;                           /* histories are in f16, and links read f16 whatever they read */
  float *out;                          /* [rows,E] */
  void *present;                       /* the same, or its memory */
  void *history;                       /* or NULL */
};

__host__ __device__ inline size_t num_parts(size_t numChannels) { return (numChannels + PART - 1) / PART; }

/** Of the state's first number of channel `e`; the next ones are PART further on. */
__device__ inline size_t history_offset(const Scan &s, size_t row, unsigned e) {
  return (e / PART * s.numRows + row) * s.stateSize * PART + e % PART;
}

/** Of a state or a history. */
__device__ inline float load_kept(const void *kept, size_t at, bool isHalf) {
  return isHalf ? dm_float_of(((const uint16_t *)kept)[at]) : ((const float *)kept)[at];
}

__device__ inline void keep(void *kept, size_t at, float h, bool isHalf) {
  if (isHalf) ((uint16_t *)kept)[at] = dm_half_of(h);
  else ((float *)kept)[at] = h;
}

/** What a link reads: of a history, or of a state, rounded as a history would hold it. */
__device__ inline float linked_state(const Scan &s, unsigned link, size_t at) {
  const bool isHalf = s.linksAreStates ? s.stateIsHalf : s.half;
  const float number = load_kept(s.histories[link], at, isHalf);
  return s.half && !isHalf ? dm_float_of(dm_half_of(number)) : number;
}

/** 1 / √(mean(x²) + ε) of `width` numbers whose squares add up to that; 1 without norms. */
__device__ inline float inverse_rms(const Scan &s, float squares, unsigned width) {
  return s.epsilon < 0 ? 1.0f : 1.0f / sqrtf(squares / (float)width + s.epsilon);
}

/** The same of what is in memory, by the whole warp. */
__device__ inline float inverse_rms_of(const Scan &s, const float *x, unsigned width) {
  if (s.epsilon < 0) return 1.0f;
  float squares = 0;
  for (unsigned i = threadIdx.x % DM_WARP; i < width; i += DM_WARP) squares += x[i] * x[i];
  for (unsigned bit = 1; bit < DM_WARP; bit *= 2) squares = dm_add_across(squares, bit);
  return inverse_rms(s, squares, width);
}

/** A lane's part: a channel of a sequence, and of its state the numbers n, n + LANES, … */
template <typename Share>
struct Lane {
  static constexpr unsigned LANES = Share::LANES;
  static constexpr int STATES = Share::STATES;
  size_t b;
  unsigned e, n;
  bool isReal; /* the others read along, for the sums' sake, and write nothing */
  float A[STATES], h[STATES];

  __device__ Lane(const Scan &s, size_t b, unsigned firstChannel) : b(b) {
    const unsigned lane = threadIdx.x % DM_WARP;
    const unsigned wanted = firstChannel + lane % Share::CHANNELS;
    isReal = wanted < s.numChannels;
    e = isReal ? wanted : s.numChannels - 1;
    n = lane / Share::CHANNELS;
#pragma unroll
    for (int i = 0; i < STATES; i++) A[i] = number(i) < s.stateSize ? decay_of(s, number(i)) : 0.0f;
  }

  /** Of the state, the lane's `i`th; it may be beyond the last. */
  __device__ unsigned number(int i) const { return n + i * LANES; }

  /** Of numbers [B,N,E]. */
  __device__ size_t at(const Scan &s, unsigned number) const { return (b * s.stateSize + number) * s.numChannels + e; }

  /** e^(Δ A) = 2^(Δ A log2 e) */
  __device__ float decay_of(const Scan &s, unsigned number) const { return s.A[(size_t)number * s.numChannels + e] * 1.44269504088896341f; }

  __device__ void load(const Scan &s) {
#pragma unroll
    for (int i = 0; i < STATES; i++) h[i] = number(i) < s.stateSize ? load_kept(s.past, at(s, number(i)), s.stateIsHalf) : 0.0f;
  }

  __device__ void store(const Scan &s) const {
#pragma unroll
    for (int i = 0; i < STATES; i++) {
      if (isReal && number(i) < s.stateSize) keep(s.present, at(s, number(i)), h[i], s.stateIsHalf);
    }
  }

  static __device__ float over_lanes(float x) {
    for (unsigned bit = Share::CHANNELS; bit < DM_WARP; bit *= 2) x = dm_add_across(x, bit);
    return x;
  }

  /** W_dt dt, by the lanes of the channel. */
  __device__ float sum_of_step(const Scan &s, size_t row) const {
    if (s.isSummed) return s.stepWeight[row * s.numChannels + e];
    const float *dt = s.dt[row];
    float sum = 0;
    for (unsigned r = n; r < s.rank; r += LANES) sum += s.stepWeight[(size_t)r * s.numChannels + e] * dt[r];
    return over_lanes(sum) * inverse_rms_of(s, dt, s.rank);
  }

  /** h of the next step. `scale`: of B. */
  __device__ void advance(const Scan &s, size_t row, float delta, float scale) {
    const float *B = s.B[row];
    const float deltaU = delta * s.u[row * s.numChannels + e] * scale;
#pragma unroll
    for (int i = 0; i < STATES; i++) {
      if (number(i) < s.stateSize) h[i] = exp2f(delta * A[i]) * h[i] + deltaU * B[number(i)];
    }
  }

  /** What the step gives with the state after it. `scale`: of C. */
  __device__ void read_out(const Scan &s, size_t row, float scale) const {
    const unsigned E = s.numChannels, N = s.stateSize;
    const float *C = s.C[row];
    const size_t historyAt = history_offset(s, row, e);
    float y = 0; /* of this lane's numbers: all that is read out with C */
#pragma unroll
    for (int i = 0; i < STATES; i++) {
      if (number(i) >= N) continue;
      if (s.history != NULL && isReal) keep(s.history, historyAt + number(i) * PART, h[i], s.half);
      y += C[number(i)] * h[i];
    }
#pragma unroll 1
    for (unsigned link = 0; link < s.numLinks; link++) {
      const size_t first = s.linksAreStates ? at(s, 0) : historyAt, stride = s.linksAreStates ? E : PART;
      float readout = 0;
      for (unsigned i = n; i < N; i += LANES) readout += C[i] * linked_state(s, link, first + i * stride);
      y += s.gates[(row * s.numGates + (s.numGates == 1 ? 0 : link)) * E + e] * readout;
    }
    y = scale * over_lanes(y) + s.D[e] * s.u[row * E + e];
    if (isReal && n == 0) s.out[row * E + e] = y * dm_silu(s.z[row][e]);
  }

  /** The only step of its sequence, by one warp. */
  __device__ void step(const Scan &s, size_t row) {
    load(s);
    advance(s, row, dm_softplus(s.stepBias[e] + sum_of_step(s, row)), inverse_rms_of(s, s.B[row], s.stateSize));
    read_out(s, row, inverse_rms_of(s, s.C[row], s.stateSize));
    store(s);
  }
};

/** One step of each sequence. A block is lanes, warps and sequences. */
template <typename Share>
__global__ void __launch_bounds__(DM_WARP *STEP_WARPS *STEP_SEQUENCES, Share::STATES > 4 ? 1 : 3) scan_step(const Scan s) {
  const unsigned first = (blockIdx.x * STEP_WARPS + threadIdx.y) * Share::CHANNELS, b = blockIdx.y * STEP_SEQUENCES + threadIdx.z;
  if (first < s.numChannels && b < s.numSequences) Lane<Share>(s, b, first).step(s, b); /* otherwise nothing for the whole warp */
}

/** Any number of steps of each sequence: none, one, or several, a block of segments at a time. */
template <typename Share>
__global__ void __launch_bounds__(DM_WARP *WARPS, Share::STATES > 4 ? 1 : 2) scan_steps(const Scan s) {
  constexpr unsigned CHANNELS = Share::CHANNELS;
  constexpr int STATES = Share::STATES;
  __shared__ float ends[WARPS][STATES][DM_WARP]; /* of segments; then the states they begin with */
  __shared__ float deltas[WARPS][STEPS][CHANNELS], deltaSums[WARPS][CHANNELS];
  __shared__ float scales[WARPS][STEPS][2]; /* of B and C */
  const unsigned warp = threadIdx.x / DM_WARP, lane = threadIdx.x % DM_WARP;
  const unsigned b = blockIdx.y, firstChannel = blockIdx.x * CHANNELS, N = s.stateSize;
  const DmRows rows = dm_rows_of(b, s.lengths, s.numSequences, s.numRows);
  Lane<Share> own(s, b, firstChannel);
  if (rows.count <= 1) {
    if (warp > 0) return;
    if (rows.count == 1) return own.step(s, rows.start);
    own.load(s);
    return own.store(s);
  }

  /* A thread joins the ends of one number of the state, which is this warp's index among its lane's. */
  const unsigned number = own.number((int)warp);
  const bool joins = (int)warp < STATES && number < N;
  const float decay = joins ? own.decay_of(s, number) : 0.0f;
  float state = joins ? load_kept(s.past, own.at(s, number), s.stateIsHalf) : 0.0f;

  const size_t end = rows.start + rows.count;
  for (size_t row = rows.start; row < end; row += WARPS * STEPS) {
    const size_t rest = end - row < WARPS * STEPS ? end - row : WARPS * STEPS, length = (rest + WARPS - 1) / WARPS;
    const size_t first = row + warp * length, last = warp * length < rest ? row + rest : first;
    const unsigned count = (unsigned)(last - first < length ? last - first : length);

#pragma unroll 1
    for (unsigned i = lane; i < count * CHANNELS; i += DM_WARP) {
      /* CHANNELS divides the warp: a lane stays with its channel. */
      const size_t at = first + i / CHANNELS;
      const float *dt = s.dt[at];
      float sum = s.isSummed ? s.stepWeight[at * s.numChannels + own.e] : 0.0f, squares = 0;
#pragma unroll 1
      for (unsigned r = 0; r < s.rank && !s.isSummed; r++) {
        sum += s.stepWeight[(size_t)r * s.numChannels + own.e] * dt[r];
        squares += dt[r] * dt[r];
      }
      if (!s.isSummed) sum *= inverse_rms(s, squares, s.rank);
      deltas[warp][i / CHANNELS][i % CHANNELS] = dm_softplus(s.stepBias[own.e] + sum);
    }
#pragma unroll 1
    for (unsigned t = 0; t < count; t++) {
      const float ofB = inverse_rms_of(s, s.B[first + t], N), ofC = inverse_rms_of(s, s.C[first + t], N);
      if (lane == 0) scales[warp][t][0] = ofB, scales[warp][t][1] = ofC;
    }
    __syncwarp();

#pragma unroll
    for (int i = 0; i < STATES; i++) own.h[i] = 0;
    float deltaSum = 0;
#pragma unroll 1
    for (unsigned t = 0; t < count; t++) {
      const float delta = deltas[warp][t][lane % CHANNELS];
      own.advance(s, first + t, delta, scales[warp][t][0]);
      deltaSum += delta;
    }
#pragma unroll
    for (int i = 0; i < STATES; i++) ends[warp][i][lane] = own.h[i];
    if (lane < CHANNELS) deltaSums[warp][lane] = deltaSum;
    __syncthreads();

#pragma unroll 4
    for (unsigned w = 0; joins && w < WARPS; w++) {
      const float before = state;
      state = exp2f(decay * deltaSums[w][lane % CHANNELS]) * state + ends[w][warp][lane];
      ends[w][warp][lane] = before;
    }
    __syncthreads();

#pragma unroll
    for (int i = 0; i < STATES; i++) own.h[i] = ends[warp][i][lane];
#pragma unroll 1
    for (unsigned t = 0; t < count; t++) {
      own.advance(s, first + t, deltas[warp][t][lane % CHANNELS], scales[warp][t][0]);
      own.read_out(s, first + t, scales[warp][t][1]);
    }
    __syncwarp(); /* before its places are written for the next segment */
  }
  if (joins && own.isReal) keep(s.present, own.at(s, number), state, s.stateIsHalf);
}

void *create(DmAttributes *attributes) {
  Scan s = {};
  s.numLinks = (unsigned)dm_int_or(attributes, "links", 0);
  s.numGates = (unsigned)dm_int_or(attributes, "gates", 0);
  s.epsilon = dm_float_or(attributes, "epsilon", -1);
  s.half = dm_int_or(attributes, "half", 0) != 0;
  s.isSummed = dm_int_or(attributes, "summed", 0) != 0;
  if (attributes->failure.exists) return NULL;
  if (s.numLinks > DM_MAX_LINKS || (s.numLinks > 0 && s.numGates != 1 && s.numGates != s.numLinks)) {
    return dm_reject(attributes, "SelectiveScan: at most %d links, with one gate or one each, given %u and %u gates",
                     DM_MAX_LINKS, s.numLinks, s.numGates);
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

/**
 * Input `index`, if it has so many rows, of `*width` columns; of any number, which becomes
 * `*width`, if that is 0.
 */
Rows expect_rows(DmContext *context, size_t index, size_t numRows, unsigned *width, const char *name) {
  DmTensor tensor;
  if (!dm_input_rows(context, index, &tensor)) return dm_fail(context, "SelectiveScan: %s is missing", name), Rows{};
  if (*width == 0 && tensor.rank > 0) *width = (unsigned)tensor.dims[tensor.rank - 1];
  if (dm_num_elements(&tensor) != numRows * *width) {
    dm_fail(context, "SelectiveScan: %s must be %zu rows of %u, given %zu elements", name, numRows, *width, dm_num_elements(&tensor));
  }
  return {(const float *)tensor.data, tensor.stride};
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

template <typename Share>
bool launch(const Scan &s, DmContext *context) {
  return dm_on_stream(context, "SelectiveScan", [&](cudaStream_t stream) {
    const size_t numChannels = s.numChannels, numSequences = s.numSequences;
    if (s.lengths == NULL && s.numRows == numSequences) {
      const unsigned together = numSequences < STEP_SEQUENCES ? (unsigned)numSequences : STEP_SEQUENCES;
      const dim3 grid((unsigned)dm_ceil_div(numChannels, Share::CHANNELS * STEP_WARPS), (unsigned)dm_ceil_div(numSequences, STEP_SEQUENCES));
      DM_LAUNCH(scan_step<Share>, grid, dim3(DM_WARP, STEP_WARPS, together), stream, s);
    } else {
      const dim3 grid((unsigned)dm_ceil_div(numChannels, Share::CHANNELS), (unsigned)numSequences);
      DM_LAUNCH(scan_steps<Share>, grid, dim3(DM_WARP * WARPS), stream, s);
    }
  });
}

/**
 * Inputs: u [B,T,E], z [B,T,E], dt [B,T,R], B [B,T,N], C [B,T,N], past [B,N,E], W_dt [R,E], b_dt
 * [E], A [N,E], D [E], lengths int64 [B]?, gates [B,T,gates·E]?, then what the links read, the
 * nearest layer's first: its history, or of a single step its present. Outputs: out [B,T,E],
 * present [B,N,E], history f32 [parts,rows,N,64]?, of which one element holds two of f16. With
 * lengths, all that is [B,T,…] is [1,rows,…]. `present` may be the memory of `past`. With the
 * attribute `summed`, in place of W_dt comes what it gives: W_dt dt [B,T,E], dt being normalised.
 */
bool compute(const void *state, DmContext *context) {
  Scan s = *(const Scan *)state;
  DmTensor u, past, lengths = {};
  if (!dm_input(context, INPUT_U, &u) || !dm_input(context, PAST, &past)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (u.rank != 3 || past.rank != 3 || u.dims[0] != (hasLengths ? 1 : past.dims[0]) || u.dims[2] != past.dims[2]) {
    return dm_fail(context, "SelectiveScan: u must be [B,T,E] and past [B,N,E]");
  }
  const size_t B = s.numSequences = (size_t)past.dims[0], numRows = s.numRows = (size_t)(u.dims[0] * u.dims[1]);
  const size_t E = s.numChannels = (unsigned)u.dims[2], N = s.stateSize = (unsigned)past.dims[1];
  if (N > DM_MAX_CUDA_STATE_SIZE) {
    return dm_fail(context, "SelectiveScan: the state size must be at most %d, given %zu", DM_MAX_CUDA_STATE_SIZE, N);
  }
  if (!dm_expect_rows(context, hasLengths ? &lengths : NULL, B, numRows)) return false;
  s.lengths = (const int64_t *)lengths.data;
  s.u = (const float *)u.data;
  s.past = past.data;
  s.stateIsHalf = past.type == DM_HALF;
  if (s.stateIsHalf) s.half = true;
  s.z = expect_rows(context, INPUT_Z, numRows, &s.numChannels, "z");
  s.dt = expect_rows(context, INPUT_DT, numRows, &s.rank, "dt");
  s.B = expect_rows(context, INPUT_B, numRows, &s.stateSize, "B");
  s.C = expect_rows(context, INPUT_C, numRows, &s.stateSize, "C");
  s.stepWeight = expect(context, STEP_WEIGHT, (s.isSummed ? numRows : s.rank) * E, "W_dt");
  s.stepBias = expect(context, STEP_BIAS, E, "b_dt");
  s.A = expect(context, INPUT_A, N * E, "A");
  s.D = expect(context, INPUT_D, E, "D");
  if (s.numLinks > 0) s.gates = expect(context, GATES, numRows * s.numGates * E, "gates");
  if (context->failure.exists || !find_links(&s, context)) return false;
  const int64_t history[4] = {(int64_t)num_parts(E), (int64_t)numRows, past.dims[1], (int64_t)floats_per_row(s)};
  s.out = (float *)dm_output(context, 0, u.dims, 3);
  s.present = dm_output(context, 1, past.dims, 3);
  s.history = dm_output(context, 2, history, 4);
  if (context->failure.exists) return false;
  if (B * E == 0) return true;
  if (N <= UpTo16::LANES * UpTo16::STATES) return launch<UpTo16>(s, context);
  if (N <= UpTo64::LANES * UpTo64::STATES) return launch<UpTo64>(s, context);
  return launch<UpTo256>(s, context);
}

}  // namespace

extern "C" const DmOp DM_NAME(selective_scan) = {
    .name = "SelectiveScan",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_STATE}, {DM_FLOAT}, {DM_FLOAT},
               {DM_FLOAT}, {DM_FLOAT}, {DM_INT64, true}, {DM_FLOAT, true}, {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true},
               {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true}},
    .outputs = {{DM_FLOAT}, {DM_STATE}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
    .destroy = NULL,
};
