/**
 * densemamba.Chain: several operators of ours, one after another, as one. ONNX Runtime's threads come together once for all of
 * them instead of once for each, and what passes between them is nobody else's. The operators do not know: to them the chain is
 * ONNX Runtime, behind the same table of functions. Many rows with few weights are taken apart: a thread leads some of them through all
 * operators by itself.
 *
 * The attribute `program` has a line for every operator: its name, what it reads, what it writes, its attributes.
 *
 *     Linear x0 i1 i2 > r0 rows=512 columns=256 bits=8 block=128 silu=0
 *
 * `i`, `o`: the chain's inputs and outputs; `x`: an input that has a row for each sequence, as everything has that is computed; `r`: a
 * register, memory of the chain's own; `-`: an optional one left out.
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
  bool isByRow; /* of an input */
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
  bool isMade;     /* an output: ONNX Runtime has been asked for it */
  void *memory;    /* a register's own */
  size_t capacity; /* its bytes */
} Value;

/** What a run needs of memory, kept for later ones. */
typedef struct {
  Value *inputs, *outputs, *registers;
} Values;

/** As many are kept as threads may be in a chain at once; more are freed. */
enum { MAX_SPARE = 64 };

typedef struct {
  OrtApi api; /* ours, behind which the operators find the chain */
  Link *links;
  bool *isByRow; /* [numInputs]: a sequence's part is one piece, of the first dimension; the others are every sequence's */
  size_t numLinks, numInputs, numOutputs, numRegisters;
  _Atomic(Values *) spare[MAX_SPARE];
  _Atomic size_t numThreads; /* the most that have come together so far; ONNX Runtime does not say how many it has */
  _Atomic size_t numRunsTogether, numRunsApart;
} Chain;

/** The chain's node as ONNX Runtime runs it. */
typedef struct {
  Chain *chain;
  DmContext *outer;
  Values *values; /* without registers */
  size_t numRows, rowsPerSlice, sharedBytes;
  _Atomic size_t firstUntaken; /* row */
  atomic_flag isBusy; /* somebody asks `outer` for an output */
} Node;

/** The chain's operators over rows [first, first + numRows), and what they know as an OrtKernelContext. */
typedef struct {
  Node *node;
  const Link *link;
  Values *values;
  size_t first, numRows;
  Team *team; /* or NULL: one thread does everything */
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

static size_t bytes_of(int type) { return type == DM_INT64 ? 8 : type == DM_UINT8 ? 1 : 4; }

static size_t bytes_per_row(const Value *value) {
  size_t bytes = bytes_of(value->type);
  for (size_t i = 1; i < value->rank; i++) bytes *= (size_t)value->dims[i];
  return bytes;
}

static bool is_part(const Run *run) { return run->numRows != run->node->numRows; }

static void set_shape(Value *value, int type, const int64_t *dims, size_t rank) {
  value->type = type;
  value->rank = rank;
  memcpy(value->dims, dims, rank * sizeof *dims);
}

/** Where this run's rows of `whole` begin. */
static void *own_rows(const Run *run, const Value *whole) {
  return whole->data == NULL ? NULL : (char *)whole->data + run->first * bytes_per_row(whole);
}

static OrtStatus *get_input(const OrtKernelContext *context, size_t index, const OrtValue **out) {
  const Run *run = (const Run *)context;
  const Node *node = run->node;
  const Operand operand = index < DM_MAX_INPUTS ? run->link->inputs[index] : (Operand){0};
  Value *value = NULL;
  if (operand.kind == 'r') value = &run->values->registers[operand.index];
  if (operand.kind == 'o') value = &run->values->outputs[operand.index];
  if (operand.kind == 'i') {
    value = &node->values->inputs[operand.index];
    if (is_part(run) && node->chain->isByRow[operand.index]) {
      Value *part = &run->values->inputs[operand.index];
      set_shape(part, value->type, value->dims, value->rank);
      part->dims[0] = (int64_t)run->numRows;
      part->data = own_rows(run, value);
      value = part;
    }
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

static void lock(Node *node) {
  while (atomic_flag_test_and_set_explicit(&node->isBusy, memory_order_acquire)) continue;
}

static void unlock(Node *node) { atomic_flag_clear_explicit(&node->isBusy, memory_order_release); }

/** ONNX Runtime's memory for all rows of an output, asked for by whichever slice comes first. */
static OrtStatus *make_output(Node *node, size_t index, const Value *part, size_t numRows) {
  Value *whole = &node->values->outputs[index];
  OrtStatus *status = NULL;
  lock(node);
  if (!whole->isMade) {
    DmContext outer = {.api = node->outer->api, .context = node->outer->context};
    set_shape(whole, part->type, part->dims, part->rank);
    whole->dims[0] = (int64_t)numRows;
    whole->data = dm_output(&outer, index, whole->dims, whole->rank);
    status = outer.status;
    whole->isMade = status == NULL; /* or else every slice asks, and is told */
  }
  unlock(node);
  return status;
}

static OrtStatus *get_output(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank, OrtValue **out) {
  const Run *run = (const Run *)context;
  Node *node = run->node;
  const Operand operand = index < DM_MAX_OUTPUTS ? run->link->outputs[index] : (Operand){0};
  const OrtApi *api = node->outer->api;
  *out = NULL;
  if (operand.kind == 0) return NULL;
  if (rank == 0 || rank > MAX_RANK) return api->CreateStatus(ORT_INVALID_ARGUMENT, "Chain: a tensor of too many dimensions, or of none");
  if (is_part(run) && (size_t)dims[0] != run->numRows) return api->CreateStatus(ORT_FAIL, "Chain: a result without a row for each of its inputs'");
  Value *value = operand.kind == 'r' ? &run->values->registers[operand.index] : &run->values->outputs[operand.index];
  set_shape(value, (int)run->link->op->outputs[index].type, dims, rank);
  if (operand.kind == 'o') {
    OrtStatus *status = make_output(node, operand.index, value, is_part(run) ? node->numRows : (size_t)dims[0]);
    if (status != NULL) return status;
    value->data = own_rows(run, &node->values->outputs[operand.index]);
  } else if (!reserve(value, operand.index, (size_t)dims[0] * bytes_per_row(value))) {
    return api->CreateStatus(ORT_FAIL, "Chain: no memory");
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
  Team *team = ((const Run *)context)->team;
  (void)batches;
  if (team != NULL) team_run(team, fn, total, user);
  else for (size_t i = 0; i < total; i++) fn(user, i);
  return NULL;
}

/* --- a run --- */

static void free_values(Values *values, size_t numRegisters) {
  for (size_t i = 0; i < numRegisters; i++) free(values->registers[i].memory);
  free(values);
}

static Values *take_values(Chain *chain) {
  for (size_t i = 0; i < MAX_SPARE; i++) {
    Values *spare = atomic_exchange(&chain->spare[i], NULL);
    if (spare != NULL) return spare;
  }
  Values *values = calloc(1, sizeof *values + (chain->numInputs + chain->numOutputs + chain->numRegisters) * sizeof(Value));
  if (values == NULL) return NULL;
  values->inputs = (Value *)(values + 1);
  values->outputs = values->inputs + chain->numInputs;
  values->registers = values->outputs + chain->numOutputs;
  return values;
}

static void give_back(Chain *chain, Values *values) {
  for (size_t i = 0; i < MAX_SPARE; i++) {
    Values *none = NULL;
    if (atomic_compare_exchange_strong(&chain->spare[i], &none, values)) return;
  }
  free_values(values, chain->numRegisters);
}

static void fail_node(Node *node, OrtStatus *status) {
  lock(node);
  dm_check(node->outer, status);
  unlock(node);
}

static void run_links(void *user) {
  Run *run = user;
  const Chain *chain = run->node->chain;
  OrtStatus *status = NULL;
  for (size_t i = 0; i < chain->numLinks && status == NULL; i++) {
    run->link = &chain->links[i];
    status = dm_run(run->link->op, run->link->state, &chain->api, (OrtKernelContext *)run);
  }
  if (status != NULL) fail_node(run->node, status);
}

/** As many as ONNX Runtime may have threads: each takes the first that comes to it, and whoever comes late finds it over. */
enum { MEMBERS = 256 };

/* All rows together: the threads share out every operator's work, and meet after each. */

typedef struct {
  Run run;
  Team team;
} TeamRun;

static void join_team(void *user, size_t index) {
  TeamRun *joined = user;
  (void)index;
  team_join(&joined->team, run_links, &joined->run);
}

static void learn_threads(Chain *chain, size_t numThreads) {
  size_t known = atomic_load(&chain->numThreads);
  atomic_fetch_add(&chain->numRunsTogether, 1);
  while (known < numThreads && !atomic_compare_exchange_weak(&chain->numThreads, &known, numThreads)) continue;
}

static bool run_together(Node *node) {
  TeamRun all = {.run = {.node = node, .values = take_values(node->chain), .numRows = node->numRows}};
  if (all.run.values == NULL) return dm_fail(node->outer, "Chain: no memory");
  all.run.team = &all.team;
  dm_parallel_for(node->outer, join_team, MEMBERS, &all);
  learn_threads(node->chain, atomic_load(&all.team.numMembers));
  give_back(node->chain, all.run.values);
  return node->outer->status == NULL;
}

/* Or in slices: a thread takes some rows through all operators, and waits for nobody. */

static void run_slice(Node *node, size_t first) {
  const size_t rest = node->numRows - first;
  Run run = {.node = node, .values = take_values(node->chain), .first = first};
  run.numRows = rest < node->rowsPerSlice ? rest : node->rowsPerSlice;
  if (run.values == NULL) {
    fail_node(node, node->outer->api->CreateStatus(ORT_FAIL, "Chain: no memory"));
    return;
  }
  run_links(&run);
  give_back(node->chain, run.values);
}

static void take_slices(void *user, size_t index) {
  Node *node = user;
  (void)index;
  for (;;) {
    const size_t first = atomic_fetch_add_explicit(&node->firstUntaken, node->rowsPerSlice, memory_order_relaxed);
    if (first >= node->numRows) return;
    run_slice(node, first);
  }
}

static bool run_apart(Node *node) {
  dm_parallel_for(node->outer, take_slices, MEMBERS, node);
  return node->outer->status == NULL;
}

/** Looks at all inputs, once for all slices. @returns false after a failure. */
static bool read_inputs(Node *node) {
  const Chain *chain = node->chain;
  bool hasRows = false;
  for (size_t i = 0; i < chain->numOutputs; i++) node->values->outputs[i].isMade = false;
  for (size_t i = 0; i < chain->numInputs; i++) {
    DmTensor tensor;
    Value *value = &node->values->inputs[i];
    if (!dm_input(node->outer, i, &tensor)) return dm_fail(node->outer, "Chain: input %zu is missing", i);
    if (tensor.rank > MAX_RANK) return dm_fail(node->outer, "Chain: a tensor of too many dimensions");
    set_shape(value, tensor.type, tensor.dims, tensor.rank);
    value->data = tensor.data;
    if (!chain->isByRow[i]) {
      node->sharedBytes += dm_num_elements(&tensor) * bytes_of(tensor.type);
      continue;
    }
    const size_t numRows = tensor.rank == 0 ? 0 : (size_t)tensor.dims[0];
    if (hasRows && numRows != node->numRows) return dm_fail(node->outer, "Chain: inputs of %zu and of %zu rows", node->numRows, numRows);
    node->numRows = numRows;
    hasRows = true;
  }
  return true;
}

/** Fewer, and the weights are read too often; more, and what layers read of each other leaves the second-level cache. */
enum { MOST_ROWS_PER_SLICE = 16 };
/** Weights that every slice may read again: what the third-level cache has. */
enum { MOST_SHARED_BYTES = 16 << 20 };
/** The first runs are made together, to see how many threads come. */
enum { LEARNING_RUNS = 8 };
/** And one in so many later: threads that were late at first, all of them, would otherwise never be counted. */
enum { RUNS_BETWEEN_LOOKS = 128 };

/** As equal as can be, and as many slices for each thread. 0: the rows are to be taken together. */
static size_t rows_per_slice(const Node *node) {
  const size_t numThreads = atomic_load(&node->chain->numThreads), numRows = node->numRows;
  if (atomic_load(&node->chain->numRunsTogether) < LEARNING_RUNS || node->sharedBytes > MOST_SHARED_BYTES) return 0;
  if (numRows < 2 || numRows < numThreads) return 0;
  if (atomic_fetch_add(&node->chain->numRunsApart, 1) % RUNS_BETWEEN_LOOKS == RUNS_BETWEEN_LOOKS - 1) return 0;
  const size_t most = MOST_ROWS_PER_SLICE * numThreads, numRounds = (numRows + most - 1) / most;
  return (numRows + numRounds * numThreads - 1) / (numRounds * numThreads);
}

static bool compute(const void *state, DmContext *context) {
  Chain *chain = (Chain *)state;
  Node node = {.chain = chain, .outer = context, .values = take_values(chain), .isBusy = ATOMIC_FLAG_INIT};
  if (node.values == NULL) return dm_fail(context, "Chain: no memory");
  bool isDone = read_inputs(&node);
  if (isDone) {
    node.rowsPerSlice = rows_per_slice(&node);
    isDone = node.rowsPerSlice > 0 ? run_apart(&node) : run_together(&node);
  }
  give_back(chain, node.values);
  return isDone;
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
  for (size_t i = 0; i < MAX_SPARE; i++) {
    Values *spare = atomic_load(&chain->spare[i]);
    if (spare != NULL) free_values(spare, chain->numRegisters);
  }
  free(chain->links);
  free(chain->isByRow);
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
  if (strchr("ixor", word[0]) == NULL) return false;
  const bool isByRow = word[0] == 'x';
  *operand = (Operand){isByRow ? 'i' : word[0], isByRow, strtoul(word + 1, &end, 10)};
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
  chain->isByRow = calloc(chain->numInputs + 1, sizeof *chain->isByRow);
  if (chain->isByRow == NULL) return destroy(chain), dm_reject(attributes, "Chain: no memory");
  for (size_t i = 0; i < chain->numLinks; i++) {
    for (size_t j = 0; j < DM_MAX_INPUTS; j++) {
      const Operand operand = chain->links[i].inputs[j];
      if (operand.isByRow) chain->isByRow[operand.index] = true;
    }
  }
  return chain;
}

const DmOp DM_NAME(chain) = {
    .name = "Chain",
    .isVariadic = true,
    .create = create,
    .compute = compute,
    .destroy = destroy,
};
