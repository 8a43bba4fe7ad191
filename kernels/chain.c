/**
 * densemamba.Chain: several operators of ours, one after another, as one. ONNX Runtime's threads come together once for all of
 * them instead of once for each, and what passes between them is nobody else's. The operators do not know: to them the chain is
 * ONNX Runtime, behind the same table of functions.
 *
 * The attribute `program` has a line for every operator: its name, what it reads, what it writes, its attributes.
 *
 *     Linear i0 i1 i2 > r0 rows=512 columns=256 bits=8 block=128 silu=0
 *
 * `i`, `o`: the chain's inputs and outputs; `r`: a register, memory of the chain's own; `-`: an optional one left out.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op.h"
#include "ops.h"
#include "team.h"

#define DECLARE(name) extern const DmOp DM_NAME(name);
DM_OPS(DECLARE)
#define ENTRY(name) &DM_NAME(name),
static const DmOp *const ops[] = {DM_OPS(ENTRY)};
enum { NUM_OPS = sizeof ops / sizeof *ops };

enum { MAX_RANK = 8, MAX_ATTRIBUTES = 16, NAME_BYTES = 32, ALIGNMENT = 64, PAGE = 4096 };

typedef struct {
  char kind; /* 'i', 'o', 'r', or 0 if there is none */
  size_t index;
} Operand;

typedef struct {
  char name[NAME_BYTES];
  double value;
} Attribute;

typedef struct {
  const DmOp *op;
  void *state;
  Operand inputs[DM_MAX_INPUTS], outputs[DM_MAX_OUTPUTS];
  Attribute attributes[MAX_ATTRIBUTES];
  size_t numAttributes;
} Link;

/** What the operators know as an OrtValue. */
typedef struct {
  void *data;
  int64_t dims[MAX_RANK];
  size_t rank;
  int type;
  void *memory; /* a register's own */
  size_t capacity; /* its bytes */
} Value;

/** One run's registers and views of the outside; kept for the next. */
typedef struct {
  Value *inputs, *outputs, *registers;
} Values;

typedef struct {
  OrtApi api; /* ours, behind which the operators find the chain */
  Link *links;
  size_t numLinks, numInputs, numOutputs, numRegisters;
  _Atomic(Values *) spare;
} Chain;

/** What the operators know as an OrtKernelContext. */
typedef struct {
  const Chain *chain;
  const Link *link;
  DmContext *outer;
  Values *values;
  Team team;
} Run;

/* --- what the operators take for ONNX Runtime --- */

static OrtStatus *attribute_of(const OrtKernelInfo *info, const char *name, double *out) {
  static const char missing;
  const Link *link = (const Link *)info;
  for (size_t i = 0; i < link->numAttributes; i++) {
    if (strcmp(link->attributes[i].name, name) != 0) continue;
    *out = link->attributes[i].value;
    return NULL;
  }
  return (OrtStatus *)&missing; /* op.c only asks whether there is a status, and releases it */
}

static OrtStatus *get_int(const OrtKernelInfo *info, const char *name, int64_t *out) {
  double value;
  OrtStatus *status = attribute_of(info, name, &value);
  if (status == NULL) *out = (int64_t)value;
  return status;
}

static OrtStatus *get_float(const OrtKernelInfo *info, const char *name, float *out) {
  double value;
  OrtStatus *status = attribute_of(info, name, &value);
  if (status == NULL) *out = (float)value;
  return status;
}

static void release_nothing(OrtStatus *status) { (void)status; }

static OrtStatus *get_input(const OrtKernelContext *context, size_t index, const OrtValue **out) {
  const Run *run = (const Run *)context;
  const Operand operand = index < DM_MAX_INPUTS ? run->link->inputs[index] : (Operand){0};
  Value *value = NULL;
  *out = NULL;
  if (operand.kind == 'r') value = &run->values->registers[operand.index];
  if (operand.kind == 'o') value = &run->values->outputs[operand.index];
  if (operand.kind == 'i') {
    DmContext outer = *run->outer;
    DmTensor tensor;
    value = &run->values->inputs[operand.index];
    if (!dm_input(&outer, operand.index, &tensor)) return outer.status;
    if (tensor.rank > MAX_RANK) return outer.api->CreateStatus(ORT_INVALID_ARGUMENT, "Chain: a tensor of too many dimensions");
    value->data = tensor.data;
    value->rank = tensor.rank;
    memcpy(value->dims, tensor.dims, tensor.rank * sizeof *tensor.dims);
  }
  *out = (const OrtValue *)value;
  return NULL;
}

/**
 * Registers begin at different places of their pages: an operator goes through several at once, and addresses that are equal in
 * their last twelve bits push each other out of the first-level cache.
 */
static bool reserve(Value *value, size_t index, size_t bytes) {
  const size_t start = index * 9 % (PAGE / ALIGNMENT) * ALIGNMENT;
  if (bytes <= value->capacity) return true;
  free(value->memory);
  value->memory = aligned_alloc(PAGE, (start + bytes + PAGE - 1) / PAGE * PAGE);
  value->capacity = value->memory == NULL ? 0 : bytes;
  value->data = value->memory == NULL ? NULL : (char *)value->memory + start;
  return value->memory != NULL;
}

static size_t bytes_of(int type) { return type == DM_INT64 ? 8 : type == DM_UINT8 ? 1 : 4; }

static OrtStatus *get_output(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank, OrtValue **out) {
  Run *run = (Run *)context;
  const Operand operand = index < DM_MAX_OUTPUTS ? run->link->outputs[index] : (Operand){0};
  const OrtApi *api = run->outer->api;
  *out = NULL;
  if (operand.kind == 0) return NULL;
  if (rank > MAX_RANK) return api->CreateStatus(ORT_INVALID_ARGUMENT, "Chain: a tensor of too many dimensions");
  Value *value = operand.kind == 'r' ? &run->values->registers[operand.index] : &run->values->outputs[operand.index];
  value->rank = rank;
  memcpy(value->dims, dims, rank * sizeof *dims);
  if (operand.kind == 'o') {
    DmContext outer = *run->outer;
    value->data = dm_output(&outer, operand.index, dims, rank);
    if (outer.status != NULL) return outer.status;
  } else {
    size_t bytes = bytes_of(run->link->op->outputs[index].type);
    for (size_t i = 0; i < rank; i++) bytes *= (size_t)dims[i];
    if (!reserve(value, operand.index, bytes)) return api->CreateStatus(ORT_FAIL, "Chain: no memory");
  }
  *out = (OrtValue *)value;
  return NULL;
}

static OrtStatus *get_data(OrtValue *value, void **out) {
  *out = ((Value *)value)->data;
  return NULL;
}

static OrtStatus *get_shape(const OrtValue *value, int *type, const int64_t **dims, size_t *rank) {
  const Value *v = (const Value *)value;
  *type = v->type;
  *dims = v->dims;
  *rank = v->rank;
  return NULL;
}

static OrtStatus *parallel_for(const OrtKernelContext *context, void (*fn)(void *, size_t), size_t total, size_t batches, void *user) {
  (void)batches;
  team_run(&((Run *)context)->team, fn, total, user);
  return NULL;
}

/* --- a run --- */

static void free_values(Values *values, size_t numRegisters) {
  for (size_t i = 0; i < numRegisters; i++) free(values->registers[i].memory);
  free(values);
}

static Values *take_values(Chain *chain) {
  Values *values = atomic_exchange(&chain->spare, NULL);
  if (values != NULL) return values;
  values = calloc(1, sizeof *values + (chain->numInputs + chain->numOutputs + chain->numRegisters) * sizeof(Value));
  if (values == NULL) return NULL;
  values->inputs = (Value *)(values + 1);
  values->outputs = values->inputs + chain->numInputs;
  values->registers = values->outputs + chain->numOutputs;
  return values;
}

static void run_links(void *user) {
  Run *run = user;
  const Chain *chain = run->chain;
  for (size_t i = 0; i < chain->numLinks && run->outer->status == NULL; i++) {
    run->link = &chain->links[i];
    dm_check(run->outer, dm_run(run->link->op, run->link->state, &chain->api, (OrtKernelContext *)run));
  }
}

static void join_in(void *user, size_t index) {
  (void)index;
  team_join(&((Run *)user)->team, run_links, user);
}

/** As many as ONNX Runtime may have threads: each takes the first that comes to it, and whoever comes late finds it over. */
enum { MEMBERS = 256 };

static bool compute(const void *state, DmContext *context) {
  Chain *chain = (Chain *)state;
  Run run = {.chain = chain, .outer = context, .values = take_values(chain)};
  if (run.values == NULL) return dm_fail(context, "Chain: no memory");
  dm_parallel_for(context, join_in, MEMBERS, &run);
  Values *before = atomic_exchange(&chain->spare, run.values);
  if (before != NULL) free_values(before, chain->numRegisters);
  return context->status == NULL;
}

/* --- the program --- */

static void destroy(void *state) {
  Chain *chain = state;
  for (size_t i = 0; i < chain->numLinks; i++) {
    const Link *link = &chain->links[i];
    if (link->state == NULL) continue;
    if (link->op->destroy != NULL) link->op->destroy(link->state);
    else free(link->state);
  }
  Values *spare = atomic_load(&chain->spare);
  if (spare != NULL) free_values(spare, chain->numRegisters);
  free(chain->links);
  free(chain);
}

static const DmOp *find_op(const char *name) {
  for (size_t i = 0; i < NUM_OPS; i++) {
    if (strcmp(ops[i]->name, name) == 0 && ops[i] != &DM_NAME(chain)) return ops[i];
  }
  return NULL;
}

static void count_operand(Chain *chain, Operand operand) {
  size_t *count = operand.kind == 'i' ? &chain->numInputs : operand.kind == 'o' ? &chain->numOutputs : &chain->numRegisters;
  if (operand.kind != 0 && operand.index >= *count) *count = operand.index + 1;
}

/** `@returns` false if `word` is none. */
static bool parse_operand(const char *word, Operand *operand) {
  char *end;
  *operand = (Operand){0};
  if (strcmp(word, "-") == 0) return true;
  if (strchr("ior", word[0]) == NULL) return false;
  *operand = (Operand){word[0], strtoul(word + 1, &end, 10)};
  return end != word + 1 && *end == 0;
}

static bool parse_attribute(char *word, Attribute *attribute) {
  char *equals = strchr(word, '='), *end;
  if (equals == NULL || equals - word >= NAME_BYTES) return false;
  *equals = 0;
  strcpy(attribute->name, word);
  attribute->value = strtod(equals + 1, &end);
  return end != equals + 1 && *end == 0;
}

/** Cuts `line` up. @returns what is wrong with it, NULL if nothing. */
static const char *parse_link(Chain *chain, char *line, Link *link) {
  char *rest = NULL, *word = strtok_r(line, " ", &rest);
  size_t numInputs = 0, numOutputs = 0;
  bool isOutput = false;
  if (word == NULL || (link->op = find_op(word)) == NULL) return "no such operator";
  while ((word = strtok_r(NULL, " ", &rest)) != NULL) {
    Operand operand;
    if (strcmp(word, ">") == 0) {
      isOutput = true;
    } else if (strchr(word, '=') != NULL) {
      if (link->numAttributes == MAX_ATTRIBUTES) return "too many attributes";
      if (!parse_attribute(word, &link->attributes[link->numAttributes++])) return "a bad attribute";
    } else {
      if (!parse_operand(word, &operand)) return "a bad operand";
      if (isOutput ? numOutputs == DM_MAX_OUTPUTS : numInputs == DM_MAX_INPUTS) return "too many operands";
      if (isOutput && operand.kind == 'i') return "an input that is written";
      if (isOutput) link->outputs[numOutputs++] = operand;
      else link->inputs[numInputs++] = operand;
      count_operand(chain, operand);
    }
  }
  return NULL;
}

static void *fail(DmAttributes *attributes, Chain *chain, char *program, const char *problem) {
  if (attributes->status == NULL) dm_reject(attributes, "Chain: operator %zu: %s", chain->numLinks, problem);
  destroy(chain);
  free(program);
  return NULL;
}

static void *create(DmAttributes *attributes) {
  char *program = dm_string(attributes, "program"), *rest = NULL;
  if (program == NULL) return NULL;
  size_t numLines = 1;
  for (const char *c = program; *c != 0; c++) numLines += *c == '\n';
  Chain *chain = calloc(1, sizeof *chain);
  if (chain == NULL || (chain->links = calloc(numLines, sizeof *chain->links)) == NULL) {
    free(chain);
    free(program);
    return dm_reject(attributes, "Chain: no memory");
  }
  chain->api = (OrtApi){
      .CreateStatus = attributes->api->CreateStatus,
      .ReleaseStatus = attributes->api->ReleaseStatus,
      .GetTensorMutableData = get_data,
      .KernelInfoGetAttribute_float = get_float,
      .KernelInfoGetAttribute_int64 = get_int,
      .KernelContext_GetInput = get_input,
      .KernelContext_GetOutput = get_output,
      .KernelContext_ParallelFor = parallel_for,
      .GetTensorElementTypeAndShapeDataReference = get_shape,
  };
  OrtApi creating = chain->api;
  creating.ReleaseStatus = release_nothing; /* of attributes that are missing */
  for (char *line = strtok_r(program, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    Link *link = &chain->links[chain->numLinks];
    const char *problem = parse_link(chain, line, link);
    if (problem != NULL) return fail(attributes, chain, program, problem);
    DmAttributes own = {.api = &creating, .info = (const OrtKernelInfo *)link};
    link->state = link->op->create == NULL ? NULL : link->op->create(&own);
    chain->numLinks++;
    attributes->status = own.status;
    if (own.status != NULL) return fail(attributes, chain, program, "");
  }
  free(program);
  return chain;
}

const DmOp DM_NAME(chain) = {
    .name = "Chain",
    .isVariadic = true,
    .create = create,
    .compute = compute,
    .destroy = destroy,
};
