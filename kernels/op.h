/**
 * What an operator's author needs. An operator is one `DmOp` in a file of its own, compiled once
 * per instruction set (`DM_NAME`) and listed in ops.h. It is written against the interface below,
 * whose other side is its host: ONNX Runtime (register.c), a chain (chain.c) or a test
 * (test/fake_host.h). docs/kernels.md says how to write one.
 */
#ifndef DENSEMAMBA_OP_H
#define DENSEMAMBA_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Of the operators' interface: raised when a graph made for the last one would no longer be
 * computed rightly.
 */
#define DM_KERNELS_VERSION 8

/** `DM_NAME(f)` is `f_<instruction set>`: everything an operator's file exports is named so. */
#define DM_JOIN_(a, b) a##_##b
#define DM_JOIN(a, b) DM_JOIN_(a, b)
#define DM_NAME(name) DM_JOIN(name, DM_ISA)

/** As ONNX numbers them; the last two are in lists of arguments alone. */
typedef enum {
  DM_FLOAT = 1,
  DM_UINT8 = 2,
  DM_INT64 = 7,
  DM_HALF = 10, /* f16 */
  DM_STATE = 100, /* DM_FLOAT or DM_HALF, the same for all of a node's that are so */
  DM_ANY, /* of inputs */
} DmType;

enum { DM_MAX_INPUTS = 24, DM_MAX_OUTPUTS = 8, DM_MAX_RANK = 8, DM_MESSAGE_BYTES = 256 };

typedef struct {
  DmType type;
  bool optional; /* only after the last required one, unless the graph names an absent one "" */
} DmArgument;

/** The first failure, which is what is reported. */
typedef struct {
  bool exists;
  char message[DM_MESSAGE_BYTES];
} DmFailure;

typedef struct {
  void *data; /* NULL if there are no elements */
  int64_t dims[DM_MAX_RANK];
  size_t rank;
  int type;      /* a DmType */
  size_t stride; /* elements from one row to the next: the last dimension, or of columns of a wider value that one's */
} DmTensor;

/** Columns [first, end) of an input; all of them if `end` is 0. */
typedef struct {
  int64_t first, end;
} DmColumns;

/** One run of one node. On the stack of the thread that runs it. */
typedef struct DmContext {
  const struct DmHost *host;
  void *self; /* the host's */
  struct DmArena *arena;
  DmFailure failure;
} DmContext;

/** A node's attributes, while its state is created. */
typedef struct DmAttributes {
  const struct DmAttributeSource *source;
  const void *self; /* the source's */
  DmFailure failure;
} DmAttributes;

/** Everything about an operator. Constant: one for all nodes, sessions and threads. */
typedef struct {
  const char *name;
  DmArgument inputs[DM_MAX_INPUTS]; /* `type` 0 ends the list */
  DmArgument outputs[DM_MAX_OUTPUTS];
  bool isVariadic; /* any number of inputs and outputs, of any types; both lists are empty */
  /**
   * A node's own constants, read from its attributes. Called once per node and session; may be
   * NULL, and then the state is. On failure returns NULL after `dm_reject`, having freed what it
   * took.
   */
  void *(*create)(DmAttributes *attributes);
  /**
   * Several threads may be in it at once with one `state`. @returns false after `dm_fail`, true
   * otherwise.
   */
  bool (*compute)(const void *state, DmContext *context);
  /** NULL: `free`. */
  void (*destroy)(void *state);
} DmOp;

/* --- what a host implements --- */

typedef struct DmHost {
  /** @returns false if the node does not have this input, or after a failure. */
  bool (*input)(DmContext *context, size_t index, DmTensor *tensor);
  /** @returns NULL if the node does not have this output, or after a failure. */
  void *(*output)(DmContext *context, size_t index, const int64_t *dims, size_t rank);
  /** `total` is at least 2. @returns false after a failure. */
  bool (*parallel_for)(DmContext *context, void (*fn)(void *user, size_t index), size_t total, void *user);
  /** How many threads take part in that; 0 if that is not known yet. */
  size_t (*num_threads)(const DmContext *context);
  /** The `cudaStream_t` of an operator that runs on CUDA. */
  void *(*stream)(DmContext *context);
} DmHost;

typedef struct DmAttributeSource {
  /** @returns false if there is none of that name. */
  bool (*integer)(const void *self, const char *name, int64_t *value);
  bool (*real)(const void *self, const char *name, float *value);
  /** @returns what the caller frees; NULL if there is none. */
  char *(*text)(const void *self, const char *name);
} DmAttributeSource;

/**
 * Runs `compute`, and takes its scratch memory back. Of `context` host and self are set. @returns
 * false after a failure.
 */
bool dm_run(const DmOp *op, const void *state, DmContext *context);
/**
 * `@returns` the state of a node, which may be NULL; after a failure `attributes->failure` exists.
 */
void *dm_create(const DmOp *op, DmAttributes *attributes);
void dm_destroy(const DmOp *op, void *state);

/**
 * For hosts: the tensor of `columns` alone. @returns false after a `dm_fail` if it has no such
 * columns.
 */
bool dm_take_columns(DmContext *context, DmTensor *tensor, DmColumns columns);
/**
 * For hosts: `[first:end]` at the end of `text`, or nothing. @returns false if it is something
 * else.
 */
bool dm_parse_columns(const char *text, DmColumns *columns);

/** For hosts: the type of output `index`. One that is a DM_STATE has that of the state that is read. */
int dm_output_type(DmContext *context, const DmOp *op, size_t index);

/* --- what an operator calls --- */

/** `@returns` the attribute's value; 0 if the node lacks it, and then the kernel is not created. */
int64_t dm_int(DmAttributes *attributes, const char *name);
/** `@returns` the attribute's value, `fallback` if the node lacks it. */
int64_t dm_int_or(const DmAttributes *attributes, const char *name, int64_t fallback);
float dm_float_or(const DmAttributes *attributes, const char *name, float fallback);
/**
 * `@returns` the attribute's value, to be freed; NULL if the node lacks it, and then the kernel is
 * not created.
 */
char *dm_string(DmAttributes *attributes, const char *name);

/** `printf`'s arguments. `@returns` NULL, to be returned from `create`. */
__attribute__((format(printf, 2, 3))) void *dm_reject(DmAttributes *attributes, const char *format, ...);
/**
 * `printf`'s arguments. `@returns` false, to be returned from `compute`. The first failure of a run
 * is what it reports.
 */
__attribute__((format(printf, 2, 3))) bool dm_fail(DmContext *context, const char *format, ...);

/**
 * Memory for this run of this node, aligned to 64 bytes, not zeroed; gone when `compute` returns.
 * Not to be called from within `dm_parallel_for`: take all threads' share before it. `@returns`
 * NULL after a `dm_fail` if there is no memory.
 */
void *dm_scratch(DmContext *context, size_t bytes);

/**
 * Where each of `numSequences` sequences begins among `numRows` rows, one after another:
 * [numSequences + 1] rows, the last one the end. From their lengths, int64 [numSequences], of which
 * input `index` has them and some may be 0; without such an input all are equally long. Valid until
 * `compute` returns. `@returns` NULL after a `dm_fail` if the rows are not theirs, or if there are
 * none.
 */
const size_t *dm_sequence_starts(DmContext *context, size_t index, size_t numSequences, size_t numRows);

/**
 * The sequence that has item `index`, if `first` says which item is each sequence's first:
 * [numSequences + 1], ascending.
 */
static inline size_t dm_sequence_of(const size_t *first, size_t numSequences, size_t index) {
  size_t least = 0, end = numSequences;
  while (end - least > 1) {
    const size_t middle = (least + end) / 2;
    if (first[middle] <= index) least = middle;
    else end = middle;
  }
  return least;
}

/**
 * An input whose rows may be columns of a wider value, `stride` elements apart. `@returns` false if
 * the node does not have it, or after a failure.
 */
static inline bool dm_input_rows(DmContext *context, size_t index, DmTensor *tensor) {
  if (context->host->input(context, index, tensor)) return true;
  *tensor = (DmTensor){0};
  return false;
}

/** An input in one piece, in row-major order; otherwise likewise. */
bool dm_input(DmContext *context, size_t index, DmTensor *tensor);

/**
 * `@returns` where to write the output; NULL if the node does not have it, or after a failure,
 * which is reported. It may be the memory of an input: see `in place` in docs/kernels.md.
 */
static inline void *dm_output(DmContext *context, size_t index, const int64_t *dims, size_t rank) {
  return context->host->output(context, index, dims, rank);
}

/**
 * Calls `fn(user, index)` for every index below `total`, each once, on the session's threads and
 * this one; returns when all have. Which thread takes which index is not known.
 */
static inline bool dm_parallel_for(DmContext *context, void (*fn)(void *user, size_t index), size_t total, void *user) {
  if (total > 1) return context->host->parallel_for(context, fn, total, user);
  if (total == 1) fn(user, 0);
  return true;
}

/**
 * How many threads share the work of `dm_parallel_for`; 0 if that is not known yet. No result may
 * depend on it.
 */
static inline size_t dm_num_threads(const DmContext *context) { return context->host->num_threads(context); }

static inline size_t dm_num_elements(const DmTensor *tensor) {
  size_t product = 1;
  for (size_t i = 0; i < tensor->rank; i++) product *= (size_t)tensor->dims[i];
  return product;
}

static inline size_t dm_type_bytes(int type) {
  return type == DM_INT64 ? 8 : type == DM_HALF ? 2 : type == DM_UINT8 ? 1 : 4;
}

#ifdef __cplusplus
}
#endif

#endif
