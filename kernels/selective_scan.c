/**
 * densemamba.SelectiveScan: the recurrence of a Mamba layer with everything that stands around it
 * elementwise: step size, readouts of the own and of the linked states, skip and output gate.
 * Symbols as in docs/compiler.md.
 *
 *     Δ = softplus(W_dt dt + b)    h_t = exp(Δ A) h_{t-1} + (Δ u) B    y = C h + Σ_i G_i (C h^{l-i}) + D u    out = y SiLU(z)
 *
 * A task is a range of channels of one sequence. It walks over time with its part of the state, of
 * A and of W_dt close together in the first-level cache (where they lie in memory, a row of
 * channels apart, they would push one another out), and so reads and writes the state in memory
 * once. A single step works where things are.
 */
#include <stdlib.h>

#include "limits.h"
#include "op.h"
#include "simd.h"

/** The inputs, in their order. */
enum { INPUT_U, INPUT_Z, INPUT_DT, INPUT_B, INPUT_C, PAST, STEP_WEIGHT, STEP_BIAS, INPUT_A, INPUT_D, LENGTHS, GATES, FIRST_HISTORY };

/** Rows `stride` apart. */
typedef struct {
  const float *data;
  size_t stride;
} Rows;

typedef struct {
  size_t numSequences, numRows, numChannels, stateSize, rank, numLinks, numGates;
  const size_t *starts;              /* [B+1]: the sequences' rows */
  float epsilon;                     /* of the norms of dt, B and C; negative: none */
  const float *u;                    /* [rows,E] */
  Rows z;                            /* [rows,E] */
  Rows dt, B, C;                     /* [rows,R], [rows,N], [rows,N] */
  bool stateIsHalf;                  /* past and present are f16 */
  const void *past;                  /* [B,N,E] */
  const float *stepWeight;           /* [R,E] */
  const float *stepBias;             /* [E] */
  const float *A;                    /* [N,E], negative */
  const float *D;                    /* [E] */
  const float *gates;                /* [rows,numGates·E] */
  const void *histories[DM_MAX_LINKS];  /* h^{l-1}, h^{l-2}, …, see `history_offset`; or states [B,N,E] */
  bool linksAreStates;
  bool half;                         /* histories are in f16, and links read f16 whatever they read */
  float *out;                        /* [rows,E] */
  void *present;                     /* the same, and maybe the same memory */
  void *history;                     /* or NULL */
  const size_t *firstTask;           /* [B+1]: the sequences' tasks */
} Scan;

/**
 * Channels of a task of several steps: what it keeps of state, A and W_dt should fill no more than
 * the first-level cache.
 */
enum { CHANNELS_PER_TASK = 64, CHANNELS_OF_SINGLE_STEP = 256 };

static inline const float *row_of(Rows rows, size_t row) { return rows.data + row * rows.stride; }

static size_t num_parts(size_t numChannels) { return (numChannels + CHANNELS_PER_TASK - 1) / CHANNELS_PER_TASK; }

/**
 * Histories [parts, rows, N, CHANNELS_PER_TASK], f16 or float: what a task writes and what its like
 * in a later layer reads is one stream.
 */
static inline size_t history_offset(const Scan *s, size_t row, size_t first) {
  return (first / CHANNELS_PER_TASK * s->numRows + row) * s->stateSize * CHANNELS_PER_TASK;
}

/**
 * Of channel `at` of a task's, seen from its first one's: a task of a single step has several parts
 * of a history.
 */
static inline size_t history_part(const Scan *s, size_t at) {
  return at / CHANNELS_PER_TASK * s->numRows * s->stateSize * CHANNELS_PER_TASK + at % CHANNELS_PER_TASK;
}

/** What a task works on: channels [first, first + count) of a sequence. */
typedef struct {
  size_t first, count;
  const float *stepWeight; /* [R] rows of its channels, `stride` apart; likewise the others */
  const float *A;          /* [N] rows */
  const void *from;        /* [N] rows */
  void *to;                /* [N] rows; may be `from` */
  const void *next;        /* of a single step: [N] rows that are read after these; NULL: several steps, and nothing to fetch ahead */
  size_t stride;
} Part;

/**
 * Calls `body(at, lanes)` for each vector of the part; with constant lanes for all but the last.
 */
#define EACH_VECTOR(part, body)                                                \
  do {                                                                         \
    size_t at = 0;                                                             \
    for (; at + DM_LANES <= (part)->count; at += DM_LANES) body(at, DM_LANES); \
    if (at < (part)->count) body(at, (part)->count - at);                      \
  } while (0)

/** So many vectors of channels stay in registers through all rows of a state. */
#define GROUP (DM_LANES == 16 ? 4 : 2)
/**
 * Applied to each vector of a group. Vectors have names, not indices: compilers keep arrays in
 * memory.
 */
#define EACH_OF_GROUP(X) X(0) X(1) X(2) X(3)

/** Calls `body(at, numVectors, lanes)` for each group, then for each vector that is left. */
#define EACH_GROUP(part, body)                                                                               \
  do {                                                                                                       \
    size_t at = 0;                                                                                           \
    for (; at + GROUP * DM_LANES <= (part)->count; at += GROUP * DM_LANES) body(at, GROUP, DM_LANES);        \
    for (; at + DM_LANES <= (part)->count; at += DM_LANES) body(at, 1, DM_LANES);                            \
    if (at < (part)->count) body(at, 1, (part)->count - at);                                                 \
  } while (0)

/** What a step works out of its channels on the way. */
typedef struct {
  float deltaLog2[CHANNELS_OF_SINGLE_STEP]; /* Δ log2 e: e^(Δ A) = 2^(Δ log2 e · A) */
  float deltaU[CHANNELS_OF_SINGLE_STEP];
  float y[CHANNELS_OF_SINGLE_STEP];
} Work;

/** `sums` = b + W_dt dt, four rows of W_dt at a time. */
DM_INLINE void sum_step_sizes(const Scan *s, const Part *part, const float *dt, float *sums) {
  const float *w = part->stepWeight, *bias = s->stepBias + part->first;
  const size_t stride = part->stride;
  memcpy(sums, bias, part->count * sizeof *sums);
  size_t r = 0;
  for (; r + 4 <= s->rank; r += 4, w += 4 * stride) {
    const float a = dt[r], b = dt[r + 1], c = dt[r + 2], d = dt[r + 3];
#define ADD_FOUR(at, lanes)                                                                           \
  vf_store_some(sums + at,                                                                            \
                vf_load_some(sums + at, lanes) +                                                      \
                    (a * vf_load_some(w + at, lanes) + b * vf_load_some(w + stride + at, lanes)) +    \
                    (c * vf_load_some(w + 2 * stride + at, lanes) + d * vf_load_some(w + 3 * stride + at, lanes)), \
                lanes)
    EACH_VECTOR(part, ADD_FOUR);
  }
  for (; r < s->rank; r++, w += stride) {
#define ADD_ONE(at, lanes) \
  vf_store_some(sums + at, vf_load_some(sums + at, lanes) + dt[r] * vf_load_some(w + at, lanes), lanes)
    EACH_VECTOR(part, ADD_ONE);
  }
}

/** Δ from its sums, and what the recurrence needs of it; y = D u. */
DM_INLINE void prepare(const Scan *s, const Part *part, const float *u, Work *work) {
  const float *D = s->D + part->first;
#define PREPARE(at, lanes)                                                          \
  do {                                                                              \
    const vf uHere = vf_load_some(u + at, lanes);                                   \
    const vf delta = vf_softplus(vf_load_some(work->deltaLog2 + at, lanes));        \
    vf_store_some(work->deltaLog2 + at, delta * 1.44269504088896341f, lanes);       \
    vf_store_some(work->deltaU + at, delta * uHere, lanes);                         \
    vf_store_some(work->y + at, vf_load_some(D + at, lanes) * uHere, lanes);        \
  } while (0)
  EACH_VECTOR(part, PREPARE);
}

DM_INLINE size_t bytes_of(size_t count, bool isHalf) { return count * (isHalf ? sizeof(half) : sizeof(float)); }

/** Of a state or a history. `isHalf`, a constant, says what it holds. */
DM_INLINE vf load_kept(const void *kept, size_t at, size_t lanes, bool isHalf) {
  return isHalf ? vf_of(vh_load_some((const half *)kept + at, lanes)) : vf_load_some((const float *)kept + at, lanes);
}

DM_INLINE void store_kept(void *kept, size_t at, vf h, size_t lanes, bool isHalf) {
  if (isHalf) vh_store_some((half *)kept + at, vh_of(h), lanes);
  else vf_store_some((float *)kept + at, h, lanes);
}

/**
 * Asks memory for row `n` of what the next step reads of the links. The processor's own prefetcher
 * stops at pages, and each step is one; in the meantime this step raises powers.
 */
DM_INLINE void prefetch_links(const Scan *s, size_t nextAt, size_t n, bool isHalf) {
  const size_t rowBytes = bytes_of(CHANNELS_PER_TASK, isHalf);
  if (s->linksAreStates) return;
  for (size_t link = 0; link < s->numLinks; link++) {
    const char *row = (const char *)s->histories[link] + (nextAt / CHANNELS_PER_TASK + n) * rowBytes;
    for (size_t line = 0; line < rowBytes; line += 64) __builtin_prefetch(row + line);
  }
}

/**
 * Likewise row `n` of the state of the channels that come after this group: a row is a page or half
 * of one away from the next.
 */
DM_INLINE void prefetch_state(const Part *part, size_t at, size_t n, bool isHalf) {
  if (part->next == NULL) return;
  const bool isLast = at + GROUP * DM_LANES >= part->count;
  const char *row = isLast ? part->next : (const char *)part->from + bytes_of(at + GROUP * DM_LANES, isHalf);
  row += bytes_of(n * part->stride, isHalf);
  for (size_t i = 0; i < bytes_of(GROUP * DM_LANES, isHalf); i += 64) __builtin_prefetch(row + i);
}

/**
 * h = exp(Δ A) h + (Δ u) B of all rows of the state, and y += C h, for `numVectors` (a constant)
 * vectors of channels from `at`; the only one may have fewer lanes. `kept`, where the history of
 * these begins, may be NULL. Constants say which of history and state are f16.
 */
DM_INLINE void advance(const Scan *s, const Part *part, size_t at, size_t numVectors, size_t lanes, const float *B, const float *C,
                       void *kept, size_t nextAt, bool isHalf, bool stateIsHalf, Work *work) {
  const size_t stride = part->stride;
#define DECLARE(i)                                                                                        \
  vf delta##i = {0}, deltaU##i = {0}, y##i = {0};                                                         \
  if (i < numVectors) {                                                                                   \
    delta##i = vf_load_some(work->deltaLog2 + at + i * DM_LANES, lanes);                                  \
    deltaU##i = vf_load_some(work->deltaU + at + i * DM_LANES, lanes);                                    \
    y##i = vf_load_some(work->y + at + i * DM_LANES, lanes);                                              \
  }
  EACH_OF_GROUP(DECLARE)
  for (size_t n = 0; n < s->stateSize; n++) {
    const float *A = part->A + n * stride + at, b = B[n], c = C[n];
    const size_t row = n * stride + at;
    if (at == 0 && part->next == NULL) prefetch_links(s, nextAt, n, isHalf);
    prefetch_state(part, at, n, stateIsHalf);
#define ADVANCE(i)                                                                                          \
  if (i < numVectors) {                                                                                     \
    const vf decay = vf_exp2_negative(delta##i * vf_load_some(A + i * DM_LANES, lanes));                    \
    const vf h = decay * load_kept(part->from, row + i * DM_LANES, lanes, stateIsHalf) + b * deltaU##i;     \
    store_kept(part->to, row + i * DM_LANES, h, lanes, stateIsHalf);                                        \
    if (kept) store_kept(kept, n * CHANNELS_PER_TASK + i * DM_LANES, h, lanes, isHalf);                     \
    y##i += c * h;                                                                                          \
  }
    EACH_OF_GROUP(ADVANCE)
  }
#define STORE(i) \
  if (i < numVectors) vf_store_some(work->y + at + i * DM_LANES, y##i, lanes);
  EACH_OF_GROUP(STORE)
}

/**
 * What a link reads: of a history, or of a state. `isRounded`: as f16 would hold it. The last two
 * are constants.
 */
DM_INLINE vf load_linked(const void *h, size_t at, size_t lanes, bool isHalf, bool isRounded) {
  const vf number = load_kept(h, at, lanes, isHalf);
  return isRounded && !isHalf ? vf_of(vh_of(number)) : number;
}

/**
 * y += G (C h), with `h` of a shallower layer and these channels, rows `stride` apart; otherwise as
 * `advance`.
 */
DM_INLINE void read_link(const void *h, size_t stride, const float *C, size_t N, const float *gate, size_t at, size_t numVectors,
                         size_t lanes, bool isHalf, bool isRounded, Work *work) {
#define NO_SUM(i) vf sum##i = {0};
  EACH_OF_GROUP(NO_SUM)
  for (size_t n = 0; n < N; n++) {
    const float c = C[n];
#define ADD_ROW(i) \
  if (i < numVectors) sum##i += c * load_linked(h, n * stride + i * DM_LANES, lanes, isHalf, isRounded);
    EACH_OF_GROUP(ADD_ROW)
  }
#define ADD_LINK(i)                                                                                  \
  if (i < numVectors) {                                                                              \
    float *y = work->y + at + i * DM_LANES;                                                          \
    vf_store_some(y, vf_load_some(y, lanes) + vf_load_some(gate + at + i * DM_LANES, lanes) * sum##i, lanes); \
  }
  EACH_OF_GROUP(ADD_LINK)
}

/**
 * One step: what is kept of a channel stays in registers through all rows of its state, and of a
 * group several are in flight.
 */
DM_INLINE void step(const Scan *s, size_t b, size_t row, const float *dt, const float *B, const float *C, const Part *part, bool isHalf,
                    bool stateIsHalf) {
  const size_t E = s->numChannels, N = s->stateSize, first = part->first, historyAt = history_offset(s, row, first);
  char *kept = s->history ? (char *)s->history + bytes_of(historyAt, isHalf) : NULL;
  Work work;

  sum_step_sizes(s, part, dt, work.deltaLog2);
  prepare(s, part, s->u + row * E + first, &work);
  const size_t nextAt = historyAt + N * CHANNELS_PER_TASK;
#define KEEP(at, numVectors, lanes) \
  advance(s, part, at, numVectors, lanes, B, C, kept + bytes_of(history_part(s, at), isHalf), nextAt, isHalf, stateIsHalf, &work)
#define FORGET(at, numVectors, lanes) advance(s, part, at, numVectors, lanes, B, C, NULL, nextAt, isHalf, stateIsHalf, &work)
  if (kept) EACH_GROUP(part, KEEP);
  else EACH_GROUP(part, FORGET);
  for (size_t link = 0; link < s->numLinks; link++) {
    const float *gate = s->gates + (row * s->numGates + (s->numGates == 1 ? 0 : link)) * E + first;
    const char *states = (const char *)s->histories[link] + bytes_of(b * N * E + first, stateIsHalf);
    const char *history = (const char *)s->histories[link] + bytes_of(historyAt, isHalf);
#define STATE(at, numVectors, lanes) \
  read_link(states + bytes_of(at, stateIsHalf), E, C, N, gate, at, numVectors, lanes, stateIsHalf, isHalf, &work)
#define HISTORY(at, numVectors, lanes)                                                                                         \
  read_link(history + bytes_of(history_part(s, at), isHalf), CHANNELS_PER_TASK, C, N, gate, at, numVectors, lanes, isHalf, isHalf, &work)
    if (s->linksAreStates) EACH_GROUP(part, STATE);
    else EACH_GROUP(part, HISTORY);
  }
  const float *z = row_of(s->z, row) + first;
  float *out = s->out + row * E + first;
#define GATE(at, lanes) \
  vf_store_some(out + at, vf_load_some(work.y + at, lanes) * vf_silu(vf_load_some(z + at, lanes)), lanes)
  EACH_VECTOR(part, GATE);
}

/** Steps ahead: memory answers while so many are made. */
enum { STEPS_AHEAD = 2 };

static void prefetch_floats(const float *p, size_t count) {
  for (size_t i = 0; i < count; i += 16) __builtin_prefetch(p + i);
}

/**
 * Asks for what a later step reads of this part's channels: a step's rows are pages apart, where
 * the processor sees no stream.
 */
static void prefetch_step(const Scan *s, size_t row, const Part *part) {
  const size_t E = s->numChannels, first = part->first;
  prefetch_floats(s->u + row * E + first, part->count);
  prefetch_floats(row_of(s->z, row) + first, part->count);
  for (size_t gate = 0; gate < s->numGates; gate++) prefetch_floats(s->gates + (row * s->numGates + gate) * E + first, part->count);
}

/** x divided by its root mean square. @returns `normalised` */
static const float *normalise(const float *x, size_t width, float epsilon, float *normalised) {
  float squares = 0;
  for (size_t i = 0; i < width; i++) squares += x[i] * x[i];
  const float factor = 1.0f / __builtin_sqrtf(squares / (float)width + epsilon);
  for (size_t i = 0; i < width; i++) normalised[i] = x[i] * factor;
  return normalised;
}

/** Of the task's channels between the state [N,E] and `local` [N,stride]. */
static void take_state(const void *state, float *local, size_t E, size_t N, size_t stride, size_t count, bool isHalf) {
  for (size_t n = 0; n < N; n++) {
    for (size_t i = 0; i < count; i += DM_LANES) {
      const size_t lanes = count - i < DM_LANES ? count - i : DM_LANES;
      vf_store_some(local + n * stride + i, load_kept(state, n * E + i, lanes, isHalf), lanes);
    }
  }
}

static void put_state(void *state, const float *local, size_t E, size_t N, size_t stride, size_t count, bool isHalf) {
  for (size_t n = 0; n < N; n++) {
    for (size_t i = 0; i < count; i += DM_LANES) {
      const size_t lanes = count - i < DM_LANES ? count - i : DM_LANES;
      store_kept(state, n * E + i, vf_load_some(local + n * stride + i, lanes), lanes, isHalf);
    }
  }
}

static void copy_rows(float *to, size_t toStride, const float *from, size_t fromStride, size_t numRows, size_t count) {
  for (size_t i = 0; i < numRows; i++) memcpy(to + i * toStride, from + i * fromStride, count * sizeof *to);
}

DM_INLINE void walk(const Scan *s, size_t b, const Part *part, bool stateIsHalf) {
  const size_t R = s->rank, N = s->stateSize, end = s->starts[b + 1];
  for (size_t row = s->starts[b]; row < end; row++) {
    const float *dt = row_of(s->dt, row), *B = row_of(s->B, row), *C = row_of(s->C, row);
    float normalised[s->epsilon < 0 ? 1 : R + 2 * N];
    if (row + STEPS_AHEAD < end) prefetch_step(s, row + STEPS_AHEAD, part);
    if (s->epsilon >= 0) {
      dt = normalise(dt, R, s->epsilon, normalised);
      B = normalise(B, N, s->epsilon, normalised + R);
      C = normalise(C, N, s->epsilon, normalised + R + N);
    }
    if (stateIsHalf || s->half) step(s, b, row, dt, B, C, part, true, stateIsHalf);
    else step(s, b, row, dt, B, C, part, false, stateIsHalf);
  }
}

/**
 * 16 rows are 4 KB: without it a load of A would look to the processor as if it had to wait for the
 * state's store before.
 */
enum { APART = CHANNELS_PER_TASK / 2 };

/**
 * The steps of channels [first, first + count), with their rows in a buffer of this thread's own:
 * DM_MAX_SCAN_ROWS bounds its stack.
 */
static void scan_steps(const Scan *s, size_t b, size_t first, size_t count, const void *past, void *present) {
  const size_t E = s->numChannels, N = s->stateSize, R = s->rank, stride = CHANNELS_PER_TASK;
  float local[(2 * N + R) * CHANNELS_PER_TASK + APART];
  float *state = local, *A = state + N * stride + APART, *stepWeight = A + N * stride;
  take_state(past, state, E, N, stride, count, s->stateIsHalf);
  copy_rows(A, stride, s->A + first, E, N, count);
  copy_rows(stepWeight, stride, s->stepWeight + first, E, R, count);
  walk(s, b, &(Part){first, count, stepWeight, A, state, state, NULL, stride}, false);
  put_state(present, state, E, N, stride, count, s->stateIsHalf);
}

/** A single step reads everything once, and should go on long enough to be fetched ahead. */
static size_t channels_per_task(const Scan *s, size_t b) {
  return s->starts[b + 1] - s->starts[b] > 1 ? CHANNELS_PER_TASK : CHANNELS_OF_SINGLE_STEP;
}

static void scan_channels(void *user, size_t task) {
  const Scan copy = *(const Scan *)user, *s = &copy; /* no store can change it: its fields stay in registers */
  const size_t E = s->numChannels, N = s->stateSize, b = dm_sequence_of(s->firstTask, s->numSequences, task), width = channels_per_task(s, b);
  const size_t first = (task - s->firstTask[b]) * width, count = E - first < width ? E - first : width;
  const char *past = (const char *)s->past + bytes_of(b * N * E + first, s->stateIsHalf);
  char *present = (char *)s->present + bytes_of(b * N * E + first, s->stateIsHalf);
  switch (s->starts[b + 1] - s->starts[b]) {
    case 0:
      for (size_t n = 0; present != past && n < N; n++) {
        const size_t at = bytes_of(n * E, s->stateIsHalf);
        memcpy(present + at, past + at, bytes_of(count, s->stateIsHalf));
      }
      break;
    case 1: {
      /* The next sequence's channels follow the last ones. */
      const char *next = past + bytes_of(first + count < E ? count : N * E - first, s->stateIsHalf);
      const Part part = {first, count, s->stepWeight + first, s->A + first, past, present, next, E};
      if (s->stateIsHalf) walk(s, b, &part, true);
      else walk(s, b, &part, false);
      break;
    }
    default:
      scan_steps(s, b, first, count, past, present);
  }
}

/** `@returns` NULL after a `dm_fail`. */
static const size_t *first_tasks(const Scan *s, DmContext *context) {
  size_t *firstTask = dm_scratch(context, (s->numSequences + 1) * sizeof *firstTask);
  if (firstTask == NULL) return NULL;
  firstTask[0] = 0;
  for (size_t b = 0; b < s->numSequences; b++) {
    const size_t width = channels_per_task(s, b);
    firstTask[b + 1] = firstTask[b] + (s->numChannels + width - 1) / width;
  }
  return firstTask;
}

static void *create(DmAttributes *attributes) {
  const Scan s = {
      .numLinks = (size_t)dm_int_or(attributes, "links", 0),
      .numGates = (size_t)dm_int_or(attributes, "gates", 0),
      .epsilon = dm_float_or(attributes, "epsilon", -1),
      .half = dm_int_or(attributes, "half", 0) != 0,
  };
  if (attributes->failure.exists) return NULL;
  if (s.numLinks > DM_MAX_LINKS || (s.numLinks > 0 && s.numGates != 1 && s.numGates != s.numLinks)) {
    return dm_reject(attributes, "SelectiveScan: at most %d links, with one gate or one each, given %zu and %zu gates",
                     DM_MAX_LINKS, s.numLinks, s.numGates);
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
 * Input `index`, if it has so many rows, of `*width` columns; of any number, which becomes
 * `*width`, if that is 0.
 */
static Rows expect_rows(DmContext *context, size_t index, size_t numRows, size_t *width, const char *name) {
  DmTensor tensor;
  if (!dm_input_rows(context, index, &tensor)) return dm_fail(context, "SelectiveScan: %s is missing", name), (Rows){0};
  if (*width == 0 && tensor.rank > 0) *width = (size_t)tensor.dims[tensor.rank - 1];
  if (dm_num_elements(&tensor) != numRows * *width) {
    dm_fail(context, "SelectiveScan: %s must be %zu rows of %zu, given %zu elements", name, numRows, *width, dm_num_elements(&tensor));
  }
  return (Rows){tensor.data, tensor.stride};
}

/**
 * Inputs: u [B,T,E], z [B,T,E], dt [B,T,R], B [B,T,N], C [B,T,N], past [B,N,E], W_dt [R,E], b_dt
 * [E], A [N,E], D [E], lengths int64 [B]?, gates [B,T,gates·E]?, then what the links read, the
 * nearest layer's first: its history, or of a single step its present. Outputs: out [B,T,E],
 * present [B,N,E], history f32 [parts,rows,N,64]?, of which one element holds two of f16. With
 * lengths, all that is [B,T,…] is [1,rows,…]. `present` may be the memory of `past`; states are f32
 * or f16, and then histories are f16 too.
 */
static bool compute(const void *state, DmContext *context) {
  Scan s = *(const Scan *)state;
  DmTensor u, past, lengths;
  if (!dm_input(context, INPUT_U, &u) || !dm_input(context, PAST, &past)) return false;
  const bool hasLengths = dm_input(context, LENGTHS, &lengths);
  if (u.rank != 3 || past.rank != 3 || u.dims[0] != (hasLengths ? 1 : past.dims[0]) || u.dims[2] != past.dims[2]) {
    return dm_fail(context, "SelectiveScan: u must be [B,T,E] and past [B,N,E]");
  }
  const size_t B = s.numSequences = (size_t)past.dims[0], numRows = s.numRows = (size_t)(u.dims[0] * u.dims[1]);
  size_t E = s.numChannels = (size_t)u.dims[2], N = s.stateSize = (size_t)past.dims[1];
  s.starts = dm_sequence_starts(context, LENGTHS, B, numRows);
  s.u = u.data;
  s.past = past.data;
  s.stateIsHalf = past.type == DM_HALF;
  if (s.stateIsHalf) s.half = true;
  s.z = expect_rows(context, INPUT_Z, numRows, &E, "z");
  s.dt = expect_rows(context, INPUT_DT, numRows, &s.rank, "dt");
  s.B = expect_rows(context, INPUT_B, numRows, &N, "B");
  s.C = expect_rows(context, INPUT_C, numRows, &N, "C");
  if (2 * N + s.rank > DM_MAX_SCAN_ROWS) {
    return dm_fail(context, "SelectiveScan: twice the state size and the rank must be at most %d together, given %zu",
                   DM_MAX_SCAN_ROWS, 2 * N + s.rank);
  }
  s.stepWeight = expect(context, STEP_WEIGHT, s.rank * E, "W_dt");
  s.stepBias = expect(context, STEP_BIAS, E, "b_dt");
  s.A = expect(context, INPUT_A, N * E, "A");
  s.D = expect(context, INPUT_D, E, "D");
  if (s.numLinks > 0) s.gates = expect(context, GATES, numRows * s.numGates * E, "gates");
  const int64_t floatsPerRow = s.half ? CHANNELS_PER_TASK / 2 : CHANNELS_PER_TASK;
  const size_t historySize = num_parts(E) * numRows * N * (size_t)floatsPerRow;
  for (size_t i = 0; i < s.numLinks; i++) {
    DmTensor link;
    if (!dm_input(context, FIRST_HISTORY + i, &link)) return dm_fail(context, "SelectiveScan: a link's states are missing");
    s.linksAreStates = link.rank == 3;
    s.histories[i] = link.data;
    if (dm_num_elements(&link) != (s.linksAreStates ? B * N * E : historySize) ||
        (s.linksAreStates && (hasLengths || u.dims[1] != 1))) {
      return dm_fail(context, "SelectiveScan: a link's states do not have the size of this layer's");
    }
  }
  if (context->failure.exists) return false;
  s.out = dm_output(context, 0, u.dims, 3);
  s.present = dm_output(context, 1, past.dims, 3);
  s.history = dm_output(context, 2, (const int64_t[]){(int64_t)num_parts(E), (int64_t)numRows, past.dims[1], floatsPerRow}, 4);
  if (context->failure.exists) return false;
  if (B == 0) return true;
  s.firstTask = first_tasks(&s, context);
  return s.firstTask != NULL && dm_parallel_for(context, scan_channels, s.firstTask[B], &s);
}

const DmOp DM_NAME(selective_scan) = {
    .name = "SelectiveScan",
    .inputs = {{DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_FLOAT}, {DM_STATE}, {DM_FLOAT}, {DM_FLOAT},
               {DM_FLOAT}, {DM_FLOAT}, {DM_INT64, true}, {DM_FLOAT, true}, {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true},
               {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true}, {DM_ANY, true}},
    .outputs = {{DM_FLOAT}, {DM_STATE}, {DM_FLOAT, true}},
    .create = create,
    .compute = compute,
};
