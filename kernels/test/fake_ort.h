/**
 * A stand-in for ONNX Runtime that runs one node: for tests of operators as plain programs under sanitizers. Every tensor is
 * an allocation of its exact size, and `dm_parallel_for` has real threads.
 *
 *   FakeNode node = {0};
 *   fake_int(&node, "rows", 5);
 *   fake_input(&node, 0, DM_FLOAT, (int64_t[]){2, 3}, 2, values);
 *   CHECK(fake_run(&node, &DM_NAME(embed_rows)) == NULL);
 *   const float *y = node.outputs[0].data;
 *   fake_free(&node);
 */
#ifndef DENSEMAMBA_FAKE_ORT_H
#define DENSEMAMBA_FAKE_ORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../op.h"
#if defined(__AMX_INT8__)
#include "../isa.h"

/** As register.c does: without having asked, a process is killed for its first tile. */
__attribute__((constructor)) static void fake_ask_for_tiles(void) { dm_supports_amx(); }
#endif

enum { FAKE_MAX_ATTRIBUTES = 16, FAKE_MAX_RANK = 6, FAKE_THREADS = 3, MESSAGE_BYTES = 256 };

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)

struct OrtStatus {
  char message[MESSAGE_BYTES];
};

struct OrtValue {
  bool exists;
  int type;
  int64_t dims[FAKE_MAX_RANK];
  size_t rank;
  void *data;
  bool isBorrowed; /* an input's memory */
};

typedef struct {
  const char *name;
  bool isFloat;
  int64_t whole;
  float real;
  const char *text; /* of a string, else NULL */
} FakeAttribute;

/** All zero: a node without inputs that leaves every optional output out. */
typedef struct {
  FakeAttribute attributes[FAKE_MAX_ATTRIBUTES];
  size_t numAttributes;
  OrtValue inputs[DM_MAX_INPUTS];
  OrtValue outputs[DM_MAX_OUTPUTS];
  bool isWanted[DM_MAX_OUTPUTS];       /* optional outputs; the others always are */
  size_t inPlaceOf[DM_MAX_OUTPUTS];    /* 1 + the input whose memory the output shares; 0: its own */
  bool refusesOutputs;                 /* as if there were no memory for them */
  const DmOp *op;
  char error[MESSAGE_BYTES];
} FakeNode;

static size_t fake_type_bytes(int type) {
  return type == DM_FLOAT ? sizeof(float) : type == DM_INT64 ? sizeof(int64_t) : 1;
}

static size_t fake_bytes(const OrtValue *value) {
  size_t bytes = fake_type_bytes(value->type);
  for (size_t i = 0; i < value->rank; i++) bytes *= (size_t)value->dims[i];
  return bytes;
}

static inline void fake_int(FakeNode *node, const char *name, int64_t value) {
  node->attributes[node->numAttributes++] = (FakeAttribute){.name = name, .whole = value};
}

static inline void fake_float(FakeNode *node, const char *name, float value) {
  node->attributes[node->numAttributes++] = (FakeAttribute){.name = name, .isFloat = true, .real = value};
}

static inline void fake_string(FakeNode *node, const char *name, const char *value) {
  node->attributes[node->numAttributes++] = (FakeAttribute){.name = name, .text = value};
}

static void fake_allocate(OrtValue *value, int type, const int64_t *dims, size_t rank) {
  CHECK(rank <= FAKE_MAX_RANK);
  *value = (OrtValue){.exists = true, .type = type, .rank = rank};
  memcpy(value->dims, dims, rank * sizeof *dims);
  const size_t bytes = fake_bytes(value);
  value->data = malloc(bytes > 0 ? bytes : 1);
  CHECK(value->data != NULL);
}

/** Copies `data`. */
static inline void fake_input(FakeNode *node, size_t index, DmType type, const int64_t *dims, size_t rank,
                              const void *data) {
  OrtValue *value = &node->inputs[index];
  fake_allocate(value, (int)type, dims, rank);
  memcpy(value->data, data, fake_bytes(value));
}

static OrtStatus *fake_create_status(int code, const char *message) {
  (void)code;
  OrtStatus *status = calloc(1, sizeof *status);
  snprintf(status->message, sizeof status->message, "%s", message);
  return status;
}

static void fake_release_status(OrtStatus *status) {
  free(status);
}

static const FakeAttribute *fake_find(const OrtKernelInfo *info, const char *name, bool isFloat) {
  const FakeNode *node = (const FakeNode *)info;
  for (size_t i = 0; i < node->numAttributes; i++) {
    const FakeAttribute *attribute = &node->attributes[i];
    if (attribute->isFloat == isFloat && strcmp(attribute->name, name) == 0) return attribute;
  }
  return NULL;
}

static OrtStatus *fake_get_float(const OrtKernelInfo *info, const char *name, float *out) {
  const FakeAttribute *attribute = fake_find(info, name, true);
  if (attribute == NULL) return fake_create_status(ORT_FAIL, "no such attribute");
  *out = attribute->real;
  return NULL;
}

static OrtStatus *fake_get_int(const OrtKernelInfo *info, const char *name, int64_t *out) {
  const FakeAttribute *attribute = fake_find(info, name, false);
  if (attribute == NULL) return fake_create_status(ORT_FAIL, "no such attribute");
  *out = attribute->whole;
  return NULL;
}

/** `size` counts the final 0. */
static OrtStatus *fake_get_string(const OrtKernelInfo *info, const char *name, char *out, size_t *size) {
  const FakeAttribute *attribute = fake_find(info, name, false);
  if (attribute == NULL || attribute->text == NULL) return fake_create_status(ORT_FAIL, "no such attribute");
  const size_t needed = strlen(attribute->text) + 1, given = *size;
  *size = needed;
  if (out == NULL) return NULL;
  if (given < needed) return fake_create_status(ORT_INVALID_ARGUMENT, "too small");
  memcpy(out, attribute->text, needed);
  return NULL;
}

static OrtStatus *fake_get_input(const OrtKernelContext *context, size_t index, const OrtValue **out) {
  const OrtValue *value = &((const FakeNode *)context)->inputs[index];
  CHECK(index < DM_MAX_INPUTS);
  *out = value->exists ? value : NULL;
  return NULL;
}

static OrtStatus *fake_get_output(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank,
                                  OrtValue **out) {
  FakeNode *node = (FakeNode *)context;
  CHECK(index < DM_MAX_OUTPUTS && (node->op->isVariadic || node->op->outputs[index].type != 0));
  const int type = node->op->isVariadic ? DM_FLOAT : (int)node->op->outputs[index].type;
  OrtValue *value = &node->outputs[index];
  *out = NULL;
  if (node->refusesOutputs) return fake_create_status(ORT_FAIL, "no memory for an output");
  if (node->op->outputs[index].optional && !node->isWanted[index]) return NULL;
  CHECK(!value->exists); /* asked for once */
  if (node->inPlaceOf[index] > 0) {
    *value = node->inputs[node->inPlaceOf[index] - 1];
    value->isBorrowed = true;
    CHECK(value->rank == rank && memcmp(value->dims, dims, rank * sizeof *dims) == 0);
  } else {
    fake_allocate(value, type, dims, rank);
    memset(value->data, 0xa5, fake_bytes(value)); /* what nobody writes is seen */
  }
  *out = value;
  return NULL;
}

static OrtStatus *fake_get_data(OrtValue *value, void **out) {
  *out = value->data;
  return NULL;
}

static OrtStatus *fake_get_shape(const OrtValue *value, int *type, const int64_t **dims, size_t *rank) {
  *type = value->type;
  *dims = value->rank > 0 ? value->dims : NULL;
  *rank = value->rank;
  return NULL;
}

static OrtStatus *fake_get_stream(const OrtKernelContext *context, void **out) {
  (void)context;
  *out = NULL;
  return NULL;
}

typedef struct {
  void (*fn)(void *user, size_t index);
  void *user;
  size_t total;
  atomic_size_t next;
} FakeLoop;

static void *fake_work(void *data) {
  FakeLoop *loop = data;
  for (size_t i = atomic_fetch_add(&loop->next, 1); i < loop->total; i = atomic_fetch_add(&loop->next, 1)) {
    loop->fn(loop->user, i);
  }
  return NULL;
}

/** How many come. */
static int fake_num_threads = FAKE_THREADS;

static OrtStatus *fake_parallel_for(const OrtKernelContext *context, void (*fn)(void *user, size_t index), size_t total,
                                    size_t numBatches, void *user) {
  (void)context, (void)numBatches;
  FakeLoop loop = {.fn = fn, .user = user, .total = total};
  pthread_t threads[FAKE_THREADS];
  for (int i = 0; i < fake_num_threads; i++) CHECK(pthread_create(&threads[i], NULL, fake_work, &loop) == 0);
  for (int i = 0; i < fake_num_threads; i++) pthread_join(threads[i], NULL);
  return NULL;
}

static const OrtApi fake_api = {
    .CreateStatus = fake_create_status,
    .ReleaseStatus = fake_release_status,
    .KernelInfoGetAttribute_float = fake_get_float,
    .KernelInfoGetAttribute_int64 = fake_get_int,
    .KernelInfoGetAttribute_string = fake_get_string,
    .KernelContext_GetInput = fake_get_input,
    .KernelContext_GetOutput = fake_get_output,
    .GetTensorMutableData = fake_get_data,
    .GetTensorElementTypeAndShapeDataReference = fake_get_shape,
    .KernelContext_ParallelFor = fake_parallel_for,
    .KernelContext_GetGPUComputeStream = fake_get_stream,
};

static const char *fake_keep_error(FakeNode *node, OrtStatus *status) {
  snprintf(node->error, sizeof node->error, "%s", status->message);
  free(status);
  return node->error;
}

static void fake_free_outputs(FakeNode *node) {
  for (size_t i = 0; i < DM_MAX_OUTPUTS; i++) {
    if (node->outputs[i].exists && !node->outputs[i].isBorrowed) free(node->outputs[i].data);
    node->outputs[i] = (OrtValue){0};
  }
}

/** Creates the kernel, runs it, destroys it. `@returns` NULL, or the message of what failed. May be called again. */
static inline const char *fake_run(FakeNode *node, const DmOp *op) {
  fake_free_outputs(node);
  node->op = op;
  DmAttributes attributes = {.api = &fake_api, .info = (const OrtKernelInfo *)node};
  void *state = op->create == NULL ? NULL : op->create(&attributes);
  if (attributes.status != NULL) return fake_keep_error(node, attributes.status);
  OrtStatus *status = dm_run(op, state, &fake_api, (OrtKernelContext *)node);
  if (op->destroy != NULL) op->destroy(state);
  else free(state);
  return status == NULL ? NULL : fake_keep_error(node, status);
}

static inline void fake_free(FakeNode *node) {
  fake_free_outputs(node);
  for (size_t i = 0; i < DM_MAX_INPUTS; i++) {
    if (node->inputs[i].exists) free(node->inputs[i].data);
  }
  *node = (FakeNode){0};
}

/** Where sequence `b` begins among the rows of all; of the number of sequences, how many rows there are. NULL: `steps` each. */
static inline int64_t fake_start(const int64_t *lengths, int64_t steps, int64_t b) {
  if (lengths == NULL) return b * steps;
  int64_t start = 0;
  for (int64_t i = 0; i < b; i++) start += lengths[i];
  return start;
}

/** The same numbers in every run, in [-1, 1). */
static inline float fake_random(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return (float)(*seed >> 8) / (float)(1u << 23) - 1.0f;
}

#endif
