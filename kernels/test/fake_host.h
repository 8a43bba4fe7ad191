/**
 * A host that runs one node: for tests of operators as plain programs under sanitizers. Every
 * tensor is an allocation of its exact size, and `dm_parallel_for` has real threads.
 *
 *   FakeNode node = {0};
 *   fake_int(&node, "rows", 5);
 *   fake_input(&node, 0, DM_FLOAT, (int64_t[]){2, 3}, 2, values);
 *   CHECK(fake_run(&node, &DM_NAME(embed_rows)) == NULL);
 *   const float *y = node.outputs[0].data;
 *   fake_free(&node);
 */
#ifndef DENSEMAMBA_FAKE_HOST_H
#define DENSEMAMBA_FAKE_HOST_H

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

enum { FAKE_MAX_ATTRIBUTES = 16, FAKE_THREADS = 3 };

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)

typedef struct {
  bool exists;
  int type;
  int64_t dims[DM_MAX_RANK];
  size_t rank;
  void *data;
  bool isBorrowed; /* an input's memory */
} FakeValue;

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
  FakeValue inputs[DM_MAX_INPUTS];
  DmColumns columns[DM_MAX_INPUTS]; /* of them */
  FakeValue outputs[DM_MAX_OUTPUTS];
  bool isWanted[DM_MAX_OUTPUTS];       /* optional outputs; the others always are */
  size_t inPlaceOf[DM_MAX_OUTPUTS];    /* 1 + the input whose memory the output shares; 0: its own */
  bool refusesOutputs;                 /* as if there were no memory for them */
  const DmOp *op;
  char error[DM_MESSAGE_BYTES];
} FakeNode;

static size_t fake_bytes(const FakeValue *value) {
  size_t bytes = dm_type_bytes(value->type);
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

static void fake_allocate(FakeValue *value, int type, const int64_t *dims, size_t rank) {
  CHECK(rank <= DM_MAX_RANK);
  *value = (FakeValue){.exists = true, .type = type, .rank = rank};
  memcpy(value->dims, dims, rank * sizeof *dims);
  const size_t bytes = fake_bytes(value);
  value->data = malloc(bytes > 0 ? bytes : 1);
  CHECK(value->data != NULL);
}

/** Copies `data`. */
static inline void fake_input(FakeNode *node, size_t index, DmType type, const int64_t *dims, size_t rank,
                              const void *data) {
  FakeValue *value = &node->inputs[index];
  fake_allocate(value, (int)type, dims, rank);
  memcpy(value->data, data, fake_bytes(value));
}

static const FakeAttribute *fake_find(const void *self, const char *name, bool isFloat) {
  const FakeNode *node = self;
  for (size_t i = 0; i < node->numAttributes; i++) {
    const FakeAttribute *attribute = &node->attributes[i];
    if (attribute->isFloat == isFloat && strcmp(attribute->name, name) == 0) return attribute;
  }
  return NULL;
}

static bool fake_get_integer(const void *self, const char *name, int64_t *value) {
  const FakeAttribute *attribute = fake_find(self, name, false);
  if (attribute != NULL) *value = attribute->whole;
  return attribute != NULL;
}

static bool fake_get_real(const void *self, const char *name, float *value) {
  const FakeAttribute *attribute = fake_find(self, name, true);
  if (attribute != NULL) *value = attribute->real;
  return attribute != NULL;
}

static char *fake_get_text(const void *self, const char *name) {
  const FakeAttribute *attribute = fake_find(self, name, false);
  return attribute == NULL || attribute->text == NULL ? NULL : strdup(attribute->text);
}

static const DmAttributeSource fake_source = {fake_get_integer, fake_get_real, fake_get_text};

static bool fake_get_input(DmContext *context, size_t index, DmTensor *tensor) {
  const FakeNode *node = context->self;
  CHECK(index < DM_MAX_INPUTS);
  const FakeValue *value = &node->inputs[index];
  if (!value->exists) return false;
  *tensor = (DmTensor){.data = value->data, .rank = value->rank, .type = value->type};
  memcpy(tensor->dims, value->dims, sizeof value->dims);
  tensor->stride = value->rank == 0 ? 1 : (size_t)value->dims[value->rank - 1];
  return dm_take_columns(context, tensor, node->columns[index]);
}

static void *fake_get_output(DmContext *context, size_t index, const int64_t *dims, size_t rank) {
  FakeNode *node = context->self;
  CHECK(index < DM_MAX_OUTPUTS && (node->op->isVariadic || node->op->outputs[index].type != 0));
  const int type = node->op->isVariadic ? DM_FLOAT : dm_output_type(context, node->op, index);
  FakeValue *value = &node->outputs[index];
  if (node->refusesOutputs) return dm_fail(context, "no memory for an output"), NULL;
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
  return value->data;
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
/** Whether the host says so. */
static bool fake_knows_threads = true;

static bool fake_parallel_for(DmContext *context, void (*fn)(void *user, size_t index), size_t total, void *user) {
  (void)context;
  FakeLoop loop = {.fn = fn, .user = user, .total = total};
  pthread_t threads[FAKE_THREADS];
  for (int i = 0; i < fake_num_threads; i++) CHECK(pthread_create(&threads[i], NULL, fake_work, &loop) == 0);
  for (int i = 0; i < fake_num_threads; i++) pthread_join(threads[i], NULL);
  return true;
}

static size_t fake_count_threads(const DmContext *context) { return (void)context, fake_knows_threads ? (size_t)fake_num_threads : 0; }

static void *fake_get_stream(DmContext *context) { return (void)context, NULL; }

static const DmHost fake_host = {fake_get_input, fake_get_output, fake_parallel_for, fake_count_threads, fake_get_stream};

static inline DmAttributes fake_attributes(const FakeNode *node) { return (DmAttributes){.source = &fake_source, .self = node}; }

/** Runs the node with that state. `@returns` NULL, or the message of what failed. */
static inline const char *fake_run_state(FakeNode *node, const DmOp *op, const void *state) {
  DmContext context = {.host = &fake_host, .self = node};
  node->op = op;
  if (dm_run(op, state, &context)) return NULL;
  return strcpy(node->error, context.failure.message);
}

static void fake_free_outputs(FakeNode *node) {
  for (size_t i = 0; i < DM_MAX_OUTPUTS; i++) {
    if (node->outputs[i].exists && !node->outputs[i].isBorrowed) free(node->outputs[i].data);
    node->outputs[i] = (FakeValue){0};
  }
}

/**
 * Creates the state, runs the node, destroys the state. `@returns` NULL, or the message of what
 * failed. May be called again.
 */
static inline const char *fake_run(FakeNode *node, const DmOp *op) {
  fake_free_outputs(node);
  DmAttributes attributes = fake_attributes(node);
  void *state = dm_create(op, &attributes);
  if (attributes.failure.exists) return strcpy(node->error, attributes.failure.message);
  const char *error = fake_run_state(node, op, state);
  dm_destroy(op, state);
  return error;
}

static inline void fake_free(FakeNode *node) {
  fake_free_outputs(node);
  for (size_t i = 0; i < DM_MAX_INPUTS; i++) {
    if (node->inputs[i].exists) free(node->inputs[i].data);
  }
  *node = (FakeNode){0};
}

/**
 * Where sequence `b` begins among the rows of all; of the number of sequences, how many rows there
 * are. NULL: `steps` each.
 */
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
