/**
 * The helpers of op.h that are not worth inlining: attributes, messages, scratch memory, columns,
 * and the frame around a run.
 */
#include "op.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCRATCH_ALIGNMENT = 64, MIN_BLOCK_BYTES = 64 * 1024 };

int64_t dm_int(DmAttributes *attributes, const char *name) {
  int64_t value = 0;
  if (!attributes->source->integer(attributes->self, name, &value)) dm_reject(attributes, "the attribute %s is missing", name);
  return value;
}

int64_t dm_int_or(const DmAttributes *attributes, const char *name, int64_t fallback) {
  int64_t value;
  return attributes->source->integer(attributes->self, name, &value) ? value : fallback;
}

float dm_float_or(const DmAttributes *attributes, const char *name, float fallback) {
  float value;
  return attributes->source->real(attributes->self, name, &value) ? value : fallback;
}

char *dm_string(DmAttributes *attributes, const char *name) {
  char *value = attributes->source->text(attributes->self, name);
  return value != NULL ? value : dm_reject(attributes, "the attribute %s is missing", name);
}

/** The first failure is the one to report. */
static void keep_failure(DmFailure *failure, const char *format, va_list values) {
  if (failure->exists) return;
  failure->exists = true;
  vsnprintf(failure->message, sizeof failure->message, format, values);
}

void *dm_reject(DmAttributes *attributes, const char *format, ...) {
  va_list values;
  va_start(values, format);
  keep_failure(&attributes->failure, format, values);
  va_end(values);
  return NULL;
}

bool dm_fail(DmContext *context, const char *format, ...) {
  va_list values;
  va_start(values, format);
  keep_failure(&context->failure, format, values);
  va_end(values);
  return false;
}

bool dm_parse_columns(const char *text, DmColumns *columns) {
  long long first, end;
  int length = 0;
  *columns = (DmColumns){0};
  if (*text == 0) return true;
  if (sscanf(text, "[%lld:%lld]%n", &first, &end, &length) != 2 || text[length] != 0 || length == 0) return false;
  *columns = (DmColumns){first, end};
  return first >= 0 && first < end;
}

bool dm_take_columns(DmContext *context, DmTensor *tensor, DmColumns columns) {
  if (columns.end == 0) return true;
  const int64_t width = tensor->rank == 0 ? 0 : tensor->dims[tensor->rank - 1];
  if (columns.end > width) {
    return dm_fail(context, "columns %lld to %lld of %lld", (long long)columns.first, (long long)columns.end, (long long)width);
  }
  if (tensor->data != NULL) tensor->data = (char *)tensor->data + (size_t)columns.first * dm_type_bytes(tensor->type);
  tensor->dims[tensor->rank - 1] = columns.end - columns.first;
  return true;
}

int dm_output_type(DmContext *context, const DmOp *op, size_t index) {
  DmTensor state;
  if (op->outputs[index].type != DM_STATE) return (int)op->outputs[index].type;
  for (size_t i = 0; i < DM_MAX_INPUTS; i++) {
    if (op->inputs[i].type == DM_STATE && dm_input_rows(context, i, &state)) return state.type;
  }
  return DM_FLOAT;
}

bool dm_input(DmContext *context, size_t index, DmTensor *tensor) {
  if (!dm_input_rows(context, index, tensor)) return false;
  if (tensor->rank == 0 || tensor->stride == (size_t)tensor->dims[tensor->rank - 1]) return true;
  return dm_fail(context, "input %zu has to be in one piece, given columns of %zu", index, tensor->stride);
}

/**
 * Scratch memory is a thread's own and kept from run to run: no lock, and no page faults after the
 * first runs. Blocks are chained while a run asks for more than there is; the next run finds one
 * block of the size that this one took in all.
 */
typedef struct Block {
  struct Block *next; /* older */
  size_t bytes;       /* after the header */
  _Alignas(SCRATCH_ALIGNMENT) char data[];
} Block;

struct DmArena {
  Block *newest;
  size_t used;  /* of the newest block */
  size_t total; /* by this run, all blocks */
};

static pthread_key_t arena_key;
static pthread_once_t arena_key_once = PTHREAD_ONCE_INIT;
static bool has_arena_key;

static void free_blocks(Block *block) {
  while (block != NULL) {
    Block *next = block->next;
    free(block);
    block = next;
  }
}

static void free_arena(void *arena) {
  free_blocks(((struct DmArena *)arena)->newest);
  free(arena);
}

static void create_arena_key(void) {
  has_arena_key = pthread_key_create(&arena_key, free_arena) == 0;
}

static struct DmArena *thread_arena(void) {
  pthread_once(&arena_key_once, create_arena_key);
  if (!has_arena_key) return NULL;
  struct DmArena *arena = pthread_getspecific(arena_key);
  if (arena != NULL) return arena;
  arena = calloc(1, sizeof *arena);
  if (arena != NULL && pthread_setspecific(arena_key, arena) != 0) {
    free(arena);
    return NULL;
  }
  return arena;
}

static Block *new_block(size_t bytes, Block *next) {
  const size_t size = (sizeof(Block) + bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
  Block *block = size < bytes ? NULL : aligned_alloc(SCRATCH_ALIGNMENT, size);
  if (block == NULL) return NULL;
  block->next = next;
  block->bytes = size - sizeof(Block);
  return block;
}

void *dm_scratch(DmContext *context, size_t bytes) {
  if (context->arena == NULL) context->arena = thread_arena();
  struct DmArena *arena = context->arena;
  const size_t needed = (bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
  if (arena == NULL || needed < bytes) goto no_memory;
  if (arena->newest == NULL || arena->newest->bytes - arena->used < needed) {
    Block *block = new_block(needed < MIN_BLOCK_BYTES ? MIN_BLOCK_BYTES : needed, arena->newest);
    if (block == NULL) goto no_memory;
    arena->newest = block;
    arena->used = 0;
  }
  void *memory = arena->newest->data + arena->used;
  arena->used += needed;
  arena->total += needed;
  return memory;
no_memory:
  dm_fail(context, "no memory for %zu bytes", bytes);
  return NULL;
}

const size_t *dm_sequence_starts(DmContext *context, size_t index, size_t numSequences, size_t numRows) {
  DmTensor lengths;
  const bool hasLengths = dm_input(context, index, &lengths);
  size_t *starts = dm_scratch(context, (numSequences + 1) * sizeof *starts);
  if (starts == NULL || context->failure.exists) return NULL;
  if (hasLengths && dm_num_elements(&lengths) != numSequences) {
    dm_fail(context, "there must be a length for each of %zu sequences, given %zu", numSequences, dm_num_elements(&lengths));
    return NULL;
  }
  starts[0] = 0;
  for (size_t b = 0; b < numSequences; b++) {
    const int64_t length = hasLengths ? ((const int64_t *)lengths.data)[b] : (int64_t)(numRows / numSequences);
    if (length < 0 || (size_t)length > numRows - starts[b]) {
      dm_fail(context, "sequence %zu cannot have %lld of the %zu rows left", b, (long long)length, numRows - starts[b]);
      return NULL;
    }
    starts[b + 1] = starts[b] + (size_t)length;
  }
  if (starts[numSequences] != numRows) {
    dm_fail(context, "%zu rows, but sequences of %zu in all", numRows, starts[numSequences]);
    return NULL;
  }
  if (numSequences > 0 && numRows == 0) {
    dm_fail(context, "there must be at least one step");
    return NULL;
  }
  return starts;
}

static void reset_arena(struct DmArena *arena) {
  if (arena->newest != NULL && arena->newest->next != NULL) {
    free_blocks(arena->newest);
    arena->newest = new_block(arena->total, NULL); /* NULL: the next run asks again */
  }
  arena->used = 0;
  arena->total = 0;
}

bool dm_run(const DmOp *op, const void *state, DmContext *context) {
  if (!op->compute(state, context)) dm_fail(context, "%s failed", op->name); /* unless it has said why */
  if (context->arena != NULL) reset_arena(context->arena);
  return !context->failure.exists;
}

void *dm_create(const DmOp *op, DmAttributes *attributes) {
  return op->create == NULL ? NULL : op->create(attributes);
}

void dm_destroy(const DmOp *op, void *state) {
  if (state == NULL) return;
  if (op->destroy != NULL) op->destroy(state);
  else free(state);
}
