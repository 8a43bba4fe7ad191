/**
 * densemamba.Chain: several operators of ours, one after another, as one. ONNX Runtime's threads
 * come together once for all of them instead of once for each, and what passes between them is
 * nobody else's: the chain is its operators' host. Many rows with few weights are taken apart: a
 * thread leads some of them through all operators by itself.
 *
 * The attribute `program` has a line for every operator: its name, what it reads, what it writes,
 * its attributes.
 *
 *     CausalConv r3[0:512] x4 i5 i6 > r0 o1
 *     Linear r0 i1 i2 > r1 rows=512 columns=512 bits=8 block=128 activation=0
 *
 * `i`, `o`: the chain's inputs and outputs; `x`: an input that has a row for each sequence, as
 * everything has that is computed; `r`: a register, memory of the chain's own; `-`: an optional one
 * left out; `[first:end]`: columns of it alone.
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

enum { MAX_ATTRIBUTES = 16, NAME_BYTES = 32, ALIGNMENT = 64, PAGE = 4096 };

typedef struct {
  char kind; /* 'i', 'o', 'r', or 0 if there is none */
  bool isByRow; /* of an input */
  size_t index;
  DmColumns columns;
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

typedef struct {
  DmTensor tensor; /* whole */
  bool isMade;     /* an output: the chain's host has been asked for it */
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
  Link *links;
  bool *isByRow; /* [numInputs]: a sequence's part is one piece, of the first dimension; the others are every sequence's */
  size_t numLinks, numInputs, numOutputs, numRegisters;
  _Atomic(Values *) spare[MAX_SPARE];
} Chain;

/** The chain's node as its own host runs it. */
typedef struct {
  Chain *chain;
  DmContext *outer;
  Values *values; /* without registers */
  size_t numRows, rowsPerSlice, sharedBytes;
  _Atomic size_t firstUntaken; /* row */
  atomic_flag isBusy; /* somebody asks `outer` for an output */
} Node;

/** The chain's operators over rows [first, first + numRows): what their contexts have as `self`. */
typedef struct {
  Node *node;
  const Link *link;
  Values *values;
  size_t first, numRows;
  Team *team; /* or NULL: one thread does everything */
} Run;

/* --- the operators' host --- */

static size_t bytes_per_row(const DmTensor *tensor) {
  size_t bytes = dm_type_bytes(tensor->type);
  for (size_t i = 1; i < tensor->rank; i++) bytes *= (size_t)tensor->dims[i];
  return bytes;
}

static bool is_part(const Run *run) { return run->numRows != run->node->numRows; }

/** Where this run's rows of `whole` begin. */
static void *own_rows(const Run *run, const DmTensor *whole) {
  return whole->data == NULL ? NULL : (char *)whole->data + run->first * bytes_per_row(whole);
}

static bool get_input(DmContext *context, size_t index, DmTensor *tensor) {
  const Run *run = context->self;
  const Node *node = run->node;
  const Operand operand = index < DM_MAX_INPUTS ? run->link->inputs[index] : (Operand){0};
  switch (operand.kind) {
    case 'r':
      *tensor = run->values->registers[operand.index].tensor;
      break;
    case 'o':
      *tensor = run->values->outputs[operand.index].tensor;
      break;
    case 'i':
      *tensor = node->values->inputs[operand.index].tensor;
      if (is_part(run) && node->chain->isByRow[operand.index]) {
        tensor->data = own_rows(run, tensor);
        tensor->dims[0] = (int64_t)run->numRows;
        if (tensor->rank == 1) tensor->stride = run->numRows;
      }
      break;
    default:
      return false;
  }
  return dm_take_columns(context, tensor, operand.columns);
}

/**
 * Registers begin at different places of their pages: an operator goes through several at once, and
 * addresses that are equal in their last twelve bits push each other out of the first-level cache.
 */
static bool reserve(Value *value, size_t index, size_t bytes) {
  const size_t start = index * 9 % (PAGE / ALIGNMENT) * ALIGNMENT;
  if (bytes > value->capacity) {
    free(value->memory);
    value->memory = aligned_alloc(PAGE, (start + bytes + PAGE - 1) / PAGE * PAGE);
    value->capacity = value->memory == NULL ? 0 : bytes;
  }
  value->tensor.data = value->memory == NULL ? NULL : (char *)value->memory + start;
  return bytes <= value->capacity;
}

static void lock(Node *node) {
  while (atomic_flag_test_and_set_explicit(&node->isBusy, memory_order_acquire)) continue;
}

static void unlock(Node *node) { atomic_flag_clear_explicit(&node->isBusy, memory_order_release); }

/** The memory for all rows of an output, asked for by whichever slice comes first. */
static bool make_output(DmContext *context, Node *node, size_t index, const DmTensor *part, size_t numRows) {
  Value *whole = &node->values->outputs[index];
  DmContext outer = {.host = node->outer->host, .self = node->outer->self};
  lock(node);
  if (!whole->isMade) {
    whole->tensor = *part;
    whole->tensor.dims[0] = (int64_t)numRows;
    whole->tensor.data = dm_output(&outer, index, whole->tensor.dims, whole->tensor.rank);
    whole->isMade = !outer.failure.exists; /* or else every slice asks, and is told */
  }
  unlock(node);
  return !outer.failure.exists || dm_fail(context, "%s", outer.failure.message);
}

static void *get_output(DmContext *context, size_t index, const int64_t *dims, size_t rank) {
  const Run *run = context->self;
  Node *node = run->node;
  const Operand operand = index < DM_MAX_OUTPUTS ? run->link->outputs[index] : (Operand){0};
  if (operand.kind == 0) return NULL;
  if (rank == 0 || rank > DM_MAX_RANK) return dm_fail(context, "Chain: a tensor of too many dimensions, or of none"), NULL;
  if (is_part(run) && (size_t)dims[0] != run->numRows) return dm_fail(context, "Chain: a result without a row for each of its inputs'"), NULL;
  Value *value = operand.kind == 'r' ? &run->values->registers[operand.index] : &run->values->outputs[operand.index];
  DmTensor *tensor = &value->tensor;
  tensor->type = dm_output_type(context, run->link->op, index);
  tensor->rank = rank;
  tensor->stride = (size_t)dims[rank - 1];
  memcpy(tensor->dims, dims, rank * sizeof *dims);
  if (operand.kind == 'r') {
    if (!reserve(value, operand.index, (size_t)dims[0] * bytes_per_row(tensor))) return dm_fail(context, "Chain: no memory"), NULL;
  } else {
    if (!make_output(context, node, operand.index, tensor, is_part(run) ? node->numRows : (size_t)dims[0])) return NULL;
    tensor->data = own_rows(run, &node->values->outputs[operand.index].tensor);
  }
  return tensor->data;
}

static bool parallel_for(DmContext *context, void (*fn)(void *user, size_t index), size_t total, void *user) {
  Team *team = ((const Run *)context->self)->team;
  if (team != NULL) team_run(team, fn, total, user);
  else for (size_t i = 0; i < total; i++) fn(user, i);
  return true;
}

static size_t num_threads(const DmContext *context) {
  const Run *run = context->self;
  return run->team == NULL ? 1 : dm_num_threads(run->node->outer);
}

static const DmHost host = {.input = get_input, .output = get_output, .parallel_for = parallel_for, .num_threads = num_threads};

static bool find_attribute(const Link *link, const char *name, double *value) {
  for (size_t i = 0; i < link->numAttributes; i++) {
    if (strcmp(link->attributes[i].name, name) != 0) continue;
    *value = link->attributes[i].value;
    return true;
  }
  return false;
}

static bool get_integer(const void *link, const char *name, int64_t *value) {
  double number;
  const bool isThere = find_attribute(link, name, &number);
  if (isThere) *value = (int64_t)number;
  return isThere;
}

static bool get_real(const void *link, const char *name, float *value) {
  double number;
  const bool isThere = find_attribute(link, name, &number);
  if (isThere) *value = (float)number;
  return isThere;
}

static char *get_text(const void *link, const char *name) { return (void)link, (void)name, NULL; }

static const DmAttributeSource source = {get_integer, get_real, get_text};

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

static void fail_node(Node *node, const char *message) {
  lock(node);
  dm_fail(node->outer, "%s", message);
  unlock(node);
}

static void run_links(void *user) {
  Run *run = user;
  const Chain *chain = run->node->chain;
  for (size_t i = 0; i < chain->numLinks; i++) {
    DmContext context = {.host = &host, .self = run};
    run->link = &chain->links[i];
    if (!dm_run(run->link->op, run->link->state, &context)) return fail_node(run->node, context.failure.message);
  }
}

/**
 * As many as ONNX Runtime may have threads: each takes the first that comes to it, and whoever
 * comes late finds it over.
 */
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

static bool run_together(Node *node) {
  TeamRun all = {.run = {.node = node, .values = take_values(node->chain), .numRows = node->numRows}};
  if (all.run.values == NULL) return dm_fail(node->outer, "Chain: no memory");
  all.run.team = &all.team;
  dm_parallel_for(node->outer, join_team, MEMBERS, &all);
  give_back(node->chain, all.run.values);
  return !node->outer->failure.exists;
}

/* Or in slices: a thread takes some rows through all operators, and waits for nobody. */

static void run_slice(Node *node, size_t first) {
  const size_t rest = node->numRows - first;
  Run run = {.node = node, .values = take_values(node->chain), .first = first};
  run.numRows = rest < node->rowsPerSlice ? rest : node->rowsPerSlice;
  if (run.values == NULL) return fail_node(node, "Chain: no memory");
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
  return !node->outer->failure.exists;
}

/** Looks at all inputs, once for all slices. @returns false after a failure. */
static bool read_inputs(Node *node) {
  const Chain *chain = node->chain;
  bool hasRows = false;
  for (size_t i = 0; i < chain->numOutputs; i++) node->values->outputs[i].isMade = false;
  for (size_t i = 0; i < chain->numInputs; i++) {
    DmTensor *tensor = &node->values->inputs[i].tensor;
    if (!dm_input(node->outer, i, tensor)) return dm_fail(node->outer, "Chain: input %zu is missing", i);
    if (!chain->isByRow[i]) {
      node->sharedBytes += dm_num_elements(tensor) * dm_type_bytes(tensor->type);
      continue;
    }
    const size_t numRows = tensor->rank == 0 ? 0 : (size_t)tensor->dims[0];
    if (hasRows && numRows != node->numRows) return dm_fail(node->outer, "Chain: inputs of %zu and of %zu rows", node->numRows, numRows);
    node->numRows = numRows;
    hasRows = true;
  }
  return true;
}

/**
 * Fewer, and the weights are read too often; more, and what layers read of each other leaves the
 * second-level cache.
 */
enum { MOST_ROWS_PER_SLICE = 16 };
/** Weights that every slice may read again: what the third-level cache has. */
enum { MOST_SHARED_BYTES = 16 << 20 };
/** As equal as can be, and as many slices for each thread. 0: the rows are to be taken together. */
static size_t rows_per_slice(const Node *node) {
  const size_t numThreads = dm_num_threads(node->outer), numRows = node->numRows;
  if (numThreads == 0 || node->sharedBytes > MOST_SHARED_BYTES || numRows < 2 || numRows < numThreads) return 0;
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
  for (size_t i = 0; i < chain->numLinks; i++) dm_destroy(chain->links[i].op, chain->links[i].state);
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
  *operand = (Operand){isByRow ? 'i' : word[0], isByRow, strtoul(word + 1, &end, 10), {0}};
  return end != word + 1 && dm_parse_columns(end, &operand->columns);
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
      if (isOutput && operand.columns.end > 0) return "columns that are written";
      if (isOutput) link->outputs[numOutputs++] = operand;
      else link->inputs[numInputs++] = operand;
      count_operand(chain, operand);
    }
  }
  return NULL;
}

static void *fail(DmAttributes *attributes, Chain *chain, char *program, const char *problem) {
  dm_reject(attributes, "Chain: operator %zu: %s", chain->numLinks, problem);
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
  for (char *line = strtok_r(program, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    Link *link = &chain->links[chain->numLinks];
    const char *problem = parse_link(chain, line, link);
    if (problem != NULL) return fail(attributes, chain, program, problem);
    DmAttributes own = {.source = &source, .self = link};
    link->state = dm_create(link->op, &own);
    if (own.failure.exists) return fail(attributes, chain, program, own.failure.message);
    chain->numLinks++;
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
