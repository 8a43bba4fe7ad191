/**
 * Chain with operators of the test's own in the place of ours: what they are given, what they give,
 * and what a bad program says.
 */
#include "fake_host.h"
#include "../ops.h"

extern const DmOp DM_NAME(chain);

static atomic_int numStates;
static atomic_int mostElements; /* that an operator was given at once */

typedef struct {
  const float *x, *y;
  size_t width, xStride, yStride;
  float *sum;
  float factor;
} Add;

static void add_one(void *user, size_t i) {
  const Add *add = user;
  const size_t row = i / add->width, column = i % add->width;
  add->sum[i] = add->x[row * add->xStride + column] + add->factor * (add->y ? add->y[row * add->yStride + column] : 0);
}

static void *create_add(DmAttributes *attributes) {
  float *factor = malloc(sizeof *factor);
  *factor = dm_float_or(attributes, "factor", 1);
  if (dm_int_or(attributes, "refuse", 0) == 7) {
    free(factor);
    return dm_reject(attributes, "Add: refused");
  }
  atomic_fetch_add(&numStates, 1);
  return factor;
}

static void destroy_add(void *factor) {
  atomic_fetch_sub(&numStates, 1);
  free(factor);
}

/** x + factor · y?, and as a second, optional result x itself. */
static bool compute_add(const void *state, DmContext *context) {
  DmTensor x, y = {0};
  if (!dm_input_rows(context, 0, &x)) return false;
  const bool hasY = dm_input_rows(context, 1, &y);
  if (hasY && dm_num_elements(&x) != dm_num_elements(&y)) return dm_fail(context, "Add: %zu and %zu", dm_num_elements(&x), dm_num_elements(&y));
  char *scratch = dm_scratch(context, 100);
  if (scratch == NULL) return false;
  memset(scratch, 1, 100);
  const size_t width = (size_t)x.dims[x.rank - 1];
  Add add = {.x = x.data, .y = y.data, .width = width, .xStride = x.stride, .yStride = y.stride, .factor = *(const float *)state};
  add.sum = dm_output(context, 0, x.dims, x.rank);
  float *copy = dm_output(context, 1, x.dims, x.rank);
  if (context->failure.exists) return false;
  CHECK((uintptr_t)add.sum % 4 == 0);
  int most = atomic_load(&mostElements);
  while (most < (int)dm_num_elements(&x) && !atomic_compare_exchange_weak(&mostElements, &most, (int)dm_num_elements(&x))) continue;
  if (copy && x.stride == width) memcpy(copy, x.data, dm_num_elements(&x) * sizeof(float));
  return dm_parallel_for(context, add_one, dm_num_elements(&x), &add);
}

const DmOp DM_NAME(linear) = {
    .name = "Add",
    .inputs = {{DM_FLOAT}, {DM_FLOAT, true}},
    .outputs = {{DM_FLOAT}, {DM_FLOAT, true}},
    .create = create_add,
    .compute = compute_add,
    .destroy = destroy_add,
};

static bool compute_nothing(const void *state, DmContext *context) {
  (void)state;
  return dm_fail(context, "Broken: broken");
}

const DmOp DM_NAME(embed_rows) = {.name = "Broken", .compute = compute_nothing};

/** The sum of all of x: one number, not one a row. */
static bool compute_total(const void *state, DmContext *context) {
  DmTensor x;
  (void)state;
  if (!dm_input(context, 0, &x)) return false;
  float *sum = dm_output(context, 0, (const int64_t[]){1}, 1);
  if (sum == NULL) return false;
  *sum = 0;
  for (size_t i = 0; i < dm_num_elements(&x); i++) *sum += ((const float *)x.data)[i];
  return true;
}

/** Twice x, which has to be in one piece. */
static bool compute_double(const void *state, DmContext *context) {
  DmTensor x;
  (void)state;
  if (!dm_input(context, 0, &x)) return false;
  float *y = dm_output(context, 0, x.dims, x.rank);
  for (size_t i = 0; y != NULL && i < dm_num_elements(&x); i++) y[i] = 2 * ((const float *)x.data)[i];
  return y != NULL || dm_num_elements(&x) == 0;
}

/** -x of a state, in its own type. */
static bool compute_negated(const void *state, DmContext *context) {
  DmTensor x;
  (void)state;
  if (!dm_input(context, 0, &x)) return false;
  void *y = dm_output(context, 0, x.dims, x.rank);
  for (size_t i = 0; y != NULL && i < dm_num_elements(&x); i++) {
    if (x.type == DM_HALF) ((uint16_t *)y)[i] = ((const uint16_t *)x.data)[i] ^ 0x8000;
    else ((float *)y)[i] = -((const float *)x.data)[i];
  }
  return y != NULL || dm_num_elements(&x) == 0;
}

const DmOp DM_NAME(recurrence) = {.name = "Negate", .inputs = {{DM_STATE}}, .outputs = {{DM_STATE}}, .compute = compute_negated};
const DmOp DM_NAME(causal_conv) = {.name = "Double", .inputs = {{DM_FLOAT}}, .outputs = {{DM_FLOAT}}, .compute = compute_double};
const DmOp DM_NAME(norm) = {.name = "Total", .inputs = {{DM_FLOAT}}, .outputs = {{DM_FLOAT}}, .compute = compute_total};
#define UNUSED(file) const DmOp DM_NAME(file) = {.name = "Unused", .compute = compute_nothing};
UNUSED(selective_scan)
UNUSED(sample_statistics)
UNUSED(token_shift)
UNUSED(discretize)
UNUSED(delta_rule_inputs)
UNUSED(delta_rule_output)

static void set_up(FakeNode *node, const char *program, int64_t width) {
  *node = (FakeNode){0};
  float values[2][500];
  for (int64_t i = 0; i < width; i++) {
    values[0][i] = (float)i;
    values[1][i] = 1000;
  }
  fake_input(node, 0, DM_FLOAT, (int64_t[]){width}, 1, values[0]);
  fake_input(node, 1, DM_FLOAT, (int64_t[]){width}, 1, values[1]);
  fake_string(node, "program", program);
}

static void check_values(int64_t width) {
  static const char program[] =
      "Add i0 i1 > r0 factor=2\n"         /* i + 2000 */
      "Add r0 > r1\n"                     /* the same: the second input is left out */
      "Add i0 - > r2 o0 factor=-0.5\n"    /* i, twice */
      "Add r1 r2 > o1 - factor=-1\n"      /* 2000 */
      "Add o1 o0 > o2 r0 factor=1e-1\n"   /* 2000 + i / 10: outputs are read again */
      "Add r0 o2 > r1\n";                 /* nobody reads it */
  FakeNode node;
  set_up(&node, program, width);
  for (int run = 0; run < 3; run++) {
    CHECK(fake_run(&node, &DM_NAME(chain)) == NULL);
    const float *o[] = {node.outputs[0].data, node.outputs[1].data, node.outputs[2].data};
    CHECK(node.outputs[2].rank == 1 && node.outputs[2].dims[0] == width);
    for (int64_t i = 0; i < width; i++) {
      CHECK(o[0][i] == (float)i && o[1][i] == 2000 && o[2][i] == 2000 + 0.1f * (float)i);
    }
    CHECK(atomic_load(&numStates) == 0);
  }
  fake_free(&node);
}

/**
 * One kernel, runs of different lengths: registers grow, and what a longer one left does not
 * matter.
 */
static void check_kept(void) {
  FakeNode node;
  set_up(&node, "Add i0 i1 > r0\nAdd r0 r0 > o0", 1);
  DmAttributes attributes = fake_attributes(&node);
  void *state = dm_create(&DM_NAME(chain), &attributes);
  CHECK(!attributes.failure.exists && state != NULL);
  static const int64_t widths[] = {1, 3, 499, 2, 0, 500};
  for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
    FakeNode other;
    set_up(&other, "", widths[k]);
    CHECK(fake_run_state(&other, &DM_NAME(chain), state) == NULL);
    for (int64_t i = 0; i < widths[k]; i++) CHECK(((const float *)other.outputs[0].data)[i] == 2 * (1000 + (float)i));
    fake_free(&other);
  }
  DM_NAME(chain).destroy(state);
  CHECK(atomic_load(&numStates) == 0);
  fake_free(&node);
}

enum { COLUMNS = 5, MOST_ROWS = 70, MOST_ROWS_PER_SLICE = 16 };

/** Two inputs with rows of COLUMNS numbers, and one that is the same for all rows. */
static void set_up_rows(FakeNode *node, const char *program, int64_t numRows) {
  static float values[MOST_ROWS * COLUMNS];
  for (int64_t i = 0; i < numRows * COLUMNS; i++) values[i] = (float)i;
  *node = (FakeNode){.op = &DM_NAME(chain)};
  fake_input(node, 0, DM_FLOAT, (int64_t[]){numRows, COLUMNS}, 2, values);
  fake_input(node, 1, DM_FLOAT, (int64_t[]){numRows, COLUMNS}, 2, values);
  fake_input(node, 2, DM_FLOAT, (int64_t[]){2}, 1, (float[]){1, 2});
  fake_string(node, "program", program);
}

static void *create_chain(const char *program) {
  FakeNode node;
  set_up_rows(&node, program, 1);
  DmAttributes attributes = fake_attributes(&node);
  void *state = dm_create(&DM_NAME(chain), &attributes);
  CHECK(!attributes.failure.exists && state != NULL);
  fake_free(&node);
  return state;
}

static const char *run_chain(void *state, FakeNode *node) { return fake_run_state(node, &DM_NAME(chain), state); }

/** Rows taken in slices give what they gave together, columns of them too. */
static void check_rows(void) {
  static const char program[] =
      "Add x0 x1 > r0 r1 factor=3\n"
      "Add r0 r1 > o0\n"               /* 5 x */
      "Add o0 x1 > o1 - factor=-1\n"   /* 4 x */
      "Add r0[1:3] x1[3:5] > o2 - factor=0.5\n";
  void *state = create_chain(program);
  for (int knowsThreads = 0; knowsThreads <= 1; knowsThreads++) {
    static const int64_t numRows[] = {1, 2, MOST_ROWS, 0, 33};
    fake_knows_threads = knowsThreads;
    for (size_t k = 0; k < sizeof numRows / sizeof *numRows; k++) {
      const int64_t rows = numRows[k];
      FakeNode node;
      set_up_rows(&node, "", rows);
      atomic_store(&mostElements, 0);
      CHECK(run_chain(state, &node) == NULL);
      for (int o = 0; o < 2; o++) CHECK(node.outputs[o].dims[0] == rows && node.outputs[o].dims[1] == COLUMNS);
      for (int64_t i = 0; i < rows * COLUMNS; i++) {
        CHECK(((const float *)node.outputs[0].data)[i] == 5 * (float)i);
        CHECK(((const float *)node.outputs[1].data)[i] == 4 * (float)i);
      }
      CHECK(node.outputs[2].dims[0] == rows && node.outputs[2].dims[1] == 2);
      for (int64_t i = 0; i < rows * 2; i++) {
        const int64_t first = i / 2 * COLUMNS + i % 2;
        CHECK(((const float *)node.outputs[2].data)[i] == 4 * (float)(first + 1) + 0.5f * (float)(first + 3));
      }
      const int most = atomic_load(&mostElements);
      CHECK(knowsThreads && rows > 16 ? most <= MOST_ROWS_PER_SLICE * COLUMNS : most == rows * COLUMNS);
      fake_free(&node);
    }
  }
  DM_NAME(chain).destroy(state);
  CHECK(atomic_load(&numStates) == 0);
}

/** A number for each row, of one dimension. */
static void check_numbers(void) {
  enum { ROWS = 40 };
  void *state = create_chain("Double x0 > r0\nDouble r0 > o0");
  float numbers[ROWS];
  for (int i = 0; i < ROWS; i++) numbers[i] = (float)i;
  FakeNode node = {0};
  fake_input(&node, 0, DM_FLOAT, (int64_t[]){ROWS}, 1, numbers);
  CHECK(run_chain(state, &node) == NULL);
  for (int i = 0; i < ROWS; i++) CHECK(((const float *)node.outputs[0].data)[i] == 4 * (float)i);
  fake_free(&node);
  DM_NAME(chain).destroy(state);
}

/** A state's result has its type, in a register and in slices of an output too. */
static void check_states(void) {
  enum { ROWS = 40, WIDTH = 3 };
  void *state = create_chain("Negate x0 > o0\nNegate o0 > r0\nNegate r0 > o1");
  for (int isHalf = 0; isHalf <= 1; isHalf++) {
    uint16_t halves[ROWS * WIDTH];
    float floats[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) halves[i] = (uint16_t)i, floats[i] = (float)(i + 1);
    FakeNode node = {0};
    fake_input(&node, 0, isHalf ? DM_HALF : DM_FLOAT, (int64_t[]){ROWS, WIDTH}, 2, isHalf ? (void *)halves : (void *)floats);
    CHECK(run_chain(state, &node) == NULL);
    for (int i = 0; i < ROWS * WIDTH; i++) {
      for (int o = 0; o < 2; o++) {
        const void *given = node.outputs[o].data;
        if (isHalf) CHECK(((const uint16_t *)given)[i] == (halves[i] | 0x8000));
        else CHECK(((const float *)given)[i] == -floats[i]);
      }
    }
    fake_free(&node);
  }
  DM_NAME(chain).destroy(state);
}

/** In whatever slice something fails, and if in all, it is told once. */
static void check_rows_refused(const char *program, bool refusesOutputs, const char *reason) {
  void *state = create_chain(program);
  FakeNode node;
  set_up_rows(&node, "", 40);
  node.refusesOutputs = refusesOutputs;
  const char *error = run_chain(state, &node);
  CHECK(error != NULL && strstr(error, reason) != NULL);
  fake_free(&node);
  DM_NAME(chain).destroy(state);
}

static void check_refused(const char *program, const char *reason) {
  FakeNode node;
  set_up(&node, program, 4);
  const char *error = fake_run(&node, &DM_NAME(chain));
  CHECK(error != NULL && strstr(error, reason) != NULL);
  CHECK(atomic_load(&numStates) == 0);
  fake_free(&node);
}

int main(void) {
  check_values(1);
  check_values(257);
  check_kept();
  check_rows();
  check_numbers();
  check_states();
  check_rows_refused("Add x0 x1 > r0\nBroken > o0", false, "Broken: broken");
  check_rows_refused("Add x0 x1 > r0\nTotal r0 > o0", false, "a result without a row for each");
  check_rows_refused("Add x0 x2 > o0", false, "inputs of 40 and of 2 rows");
  /* Whatever slice comes first is told; the others must not write to where nothing is. */
  check_rows_refused("Add x0 x1 > o0", true, "no memory for an output");
  FakeNode none = {0};
  CHECK(strstr(fake_run(&none, &DM_NAME(chain)), "program is missing") != NULL);
  check_refused("Add i0 i1 > o0\nMul i0 > o1", "operator 1: no such operator");
  check_refused("Chain i0 > o0", "operator 0: no such operator");
  check_refused("Add i0 y1 > o0", "a bad operand");
  check_refused("Add i0 i > o0", "a bad operand");
  check_refused("Add i0 > i1", "an input that is written");
  check_refused("Add i0 > x1", "an input that is written");
  check_refused("Add i0 > o0 o1 o2 o3 o4 o5 o6 o7 o8", "too many operands");
  check_refused("Add i0[1] > o0", "a bad operand");
  check_refused("Add i0[2:2] > o0", "a bad operand");
  check_refused("Add i0[0:1]x > o0", "a bad operand");
  check_refused("Add i0 > o0[0:1]", "columns that are written");
  check_refused("Add i0[0:5] > o0", "columns 0 to 5 of 4");
  check_refused("Double i0[1:3] > o0", "input 0 has to be in one piece, given columns of 4");
  check_refused("Add i0 > o0 factor=", "a bad attribute");
  check_refused("Add i0 > o0 factor=1x", "a bad attribute");
  check_refused("Add i0 > o0\nAdd i0 > o1 refuse=7", "Add: refused");
  check_refused("Add i0 > o0\nBroken\nAdd i0 > o1", "Broken: broken");
  return 0;
}
