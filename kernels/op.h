/**
 * What an operator's author needs. An operator is one `DmOp` in a file of its own, compiled once per instruction set
 * (`DM_NAME`), listed in ops.h and registered by register.c. docs/kernels.md says how to write one.
 */
#ifndef DENSEMAMBA_OP_H
#define DENSEMAMBA_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ort.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Of the operators' interface: raised when a graph made for the last one would no longer be computed rightly. */
#define DM_KERNELS_VERSION 6

/** `DM_NAME(f)` is `f_<instruction set>`: everything an operator's file exports is named so. */
#define DM_JOIN_(a, b) a##_##b
#define DM_JOIN(a, b) DM_JOIN_(a, b)
#define DM_NAME(name) DM_JOIN(name, DM_ISA)

typedef enum { DM_FLOAT = ORT_TYPE_FLOAT, DM_UINT8 = ORT_TYPE_UINT8, DM_INT64 = ORT_TYPE_INT64 } DmType;

enum { DM_MAX_INPUTS = 24, DM_MAX_OUTPUTS = 8 };

typedef struct {
  DmType type;
  bool optional; /* only after the last required one, unless the graph names an absent one "" */
} DmArgument;

/** One run of one node. On the stack of the thread that runs it. */
typedef struct {
  const OrtApi *api;
  OrtKernelContext *context;
  OrtStatus *status; /* the first failure */
  struct DmArena *arena;
} DmContext;

/** A node's attributes, while its kernel is created. */
typedef struct {
  const OrtApi *api;
  const OrtKernelInfo *info;
  OrtStatus *status; /* the first failure */
} DmAttributes;

/** Everything about an operator. Constant: one for all nodes, sessions and threads. */
typedef struct {
  const char *name;
  DmArgument inputs[DM_MAX_INPUTS]; /* `type` 0 ends the list */
  DmArgument outputs[DM_MAX_OUTPUTS];
  bool isVariadic; /* any number of inputs and outputs, of any types; both lists are empty */
  /**
   * A node's own constants, read from its attributes. Called once per node and session; may be NULL, and then the state
   * is. On failure returns NULL after `dm_reject`, having freed what it took.
   */
  void *(*create)(DmAttributes *attributes);
  /** Several threads may be in it at once with one `state`. @returns false after `dm_fail`, true otherwise. */
  bool (*compute)(const void *state, DmContext *context);
  /** NULL: `free`. */
  void (*destroy)(void *state);
} DmOp;

typedef struct {
  void *data; /* NULL if there are no elements */
  const int64_t *dims;
  size_t rank;
  int type; /* a DmType */
} DmTensor;

/** `@returns` the attribute's value; 0 if the node lacks it, and then the kernel is not created. */
int64_t dm_int(DmAttributes *attributes, const char *name);
/** `@returns` the attribute's value, `fallback` if the node lacks it. */
int64_t dm_int_or(const DmAttributes *attributes, const char *name, int64_t fallback);
float dm_float_or(const DmAttributes *attributes, const char *name, float fallback);
/** `@returns` the attribute's value, to be freed; NULL if the node lacks it, and then the kernel is not created. */
char *dm_string(DmAttributes *attributes, const char *name);

/** `printf`'s arguments. `@returns` NULL, to be returned from `create`. */
__attribute__((format(printf, 2, 3))) void *dm_reject(DmAttributes *attributes, const char *format, ...);
/** `printf`'s arguments. `@returns` false, to be returned from `compute`. The first failure of a run is what it reports. */
__attribute__((format(printf, 2, 3))) bool dm_fail(DmContext *context, const char *format, ...);

/**
 * Memory for this run of this node, aligned to 64 bytes, not zeroed; gone when `compute` returns. Not to be called from
 * within `dm_parallel_for`: take all threads' share before it. `@returns` NULL after a `dm_fail` if there is no memory.
 */
void *dm_scratch(DmContext *context, size_t bytes);

/**
 * Where each of `numSequences` sequences begins among `numRows` rows, one after another: [numSequences + 1] rows, the last one the
 * end. From their lengths, int64 [numSequences], of which input `index` has them and some may be 0; without such an input all are
 * equally long. Valid until `compute` returns. `@returns` NULL after a `dm_fail` if the rows are not theirs, or if there are none.
 */
const size_t *dm_sequence_starts(DmContext *context, size_t index, size_t numSequences, size_t numRows);

/** The sequence that has item `index`, if `first` says which item is each sequence's first: [numSequences + 1], ascending. */
static inline size_t dm_sequence_of(const size_t *first, size_t numSequences, size_t index) {
  size_t least = 0, end = numSequences;
  while (end - least > 1) {
    const size_t middle = (least + end) / 2;
    if (first[middle] <= index) least = middle;
    else end = middle;
  }
  return least;
}

static inline bool dm_check(DmContext *context, OrtStatus *status) {
  if (__builtin_expect(status == NULL, 1)) return true;
  if (context->status == NULL) context->status = status;
  else context->api->ReleaseStatus(status);
  return false;
}

/** `@returns` false if the node does not have this input, or after a failure, which ONNX Runtime reports. */
static inline bool dm_input(DmContext *context, size_t index, DmTensor *tensor) {
  const OrtApi *api = context->api;
  const OrtValue *value = NULL;
  *tensor = (DmTensor){0};
  if (!dm_check(context, api->KernelContext_GetInput(context->context, index, &value)) || value == NULL) return false;
  return dm_check(context, api->GetTensorMutableData((OrtValue *)value, &tensor->data)) &&
         dm_check(context, api->GetTensorElementTypeAndShapeDataReference(value, &tensor->type, &tensor->dims, &tensor->rank));
}

/**
 * `@returns` where to write the output; NULL if the node does not have it, or after a failure, which ONNX Runtime reports.
 * It may be the memory of an input: see `in place` in docs/kernels.md.
 */
static inline void *dm_output(DmContext *context, size_t index, const int64_t *dims, size_t rank) {
  OrtValue *value = NULL;
  void *data = NULL;
  if (!dm_check(context, context->api->KernelContext_GetOutput(context->context, index, dims, rank, &value)) ||
      value == NULL) {
    return NULL;
  }
  dm_check(context, context->api->GetTensorMutableData(value, &data));
  return data;
}

/**
 * Calls `fn(user, index)` for every index below `total`, each once, on the session's threads and this one; returns when
 * all have. Which thread takes which index is not known.
 */
static inline bool dm_parallel_for(DmContext *context, void (*fn)(void *user, size_t index), size_t total, void *user) {
  if (total <= 1) {
    if (total == 1) fn(user, 0);
    return true;
  }
  return dm_check(context, context->api->KernelContext_ParallelFor(context->context, fn, total, 0, user));
}

/** Calls `compute`, for register.c and the tests. @returns the first failure, owned by the caller; NULL if there is none. */
OrtStatus *dm_run(const DmOp *op, const void *state, const OrtApi *api, OrtKernelContext *context);

static inline size_t dm_num_elements(const DmTensor *tensor) {
  size_t product = 1;
  for (size_t i = 0; i < tensor->rank; i++) product *= (size_t)tensor->dims[i];
  return product;
}

#ifdef __cplusplus
}
#endif

#endif
