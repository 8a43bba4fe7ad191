/**
 * ONNX Runtime as a host of our operators: the interface of op.h on its functions, the callbacks
 * through which it asks about an operator, and the library's entry points. Nothing here belongs to
 * a session but a node's `Kernel`.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "op.h"
#include "ort.h"
#include "thread_count.h"
#ifdef DM_CUDA
#include "cuda/ops.h"
#else
#include "isa.h"
#include "ops.h"
#endif

#define DM_EXPORT __attribute__((visibility("default")))
#define DM_DOMAIN "densemamba"
#ifndef DM_PROVIDER
#define DM_PROVIDER "CPUExecutionProvider"
#endif

/** ONNX Runtime hands its callbacks a pointer to the first field. */
typedef struct {
  OrtCustomOp base;
  const DmOp *op;
  int stateType; /* what DM_STATE stands for: an operator that has it is registered once for each type */
} RegisteredOp;

/** A node. */
typedef struct {
  const DmOp *op;
  const OrtApi *api;
  void *state;
  DmColumns columns[DM_MAX_INPUTS];
  ThreadCount threads;
} Kernel;

/* --- the host --- */

/** A run of a node: `self` of its context. */
typedef struct {
  Kernel *kernel;
  OrtKernelContext *context;
} Run;

static bool check(DmContext *context, OrtStatus *status) {
  if (__builtin_expect(status == NULL, 1)) return true;
  const OrtApi *api = ((const Run *)context->self)->kernel->api;
  dm_fail(context, "%s", api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  return false;
}

static bool get_input(DmContext *context, size_t index, DmTensor *tensor) {
  const Run *run = context->self;
  const OrtApi *api = run->kernel->api;
  const OrtValue *value = NULL;
  const int64_t *dims;
  if (!check(context, api->KernelContext_GetInput(run->context, index, &value)) || value == NULL) return false;
  if (!check(context, api->GetTensorMutableData((OrtValue *)value, &tensor->data)) ||
      !check(context, api->GetTensorElementTypeAndShapeDataReference(value, &tensor->type, &dims, &tensor->rank))) {
    return false;
  }
  if (tensor->rank > DM_MAX_RANK) return dm_fail(context, "a tensor of %zu dimensions", tensor->rank);
  if (tensor->rank > 0) memcpy(tensor->dims, dims, tensor->rank * sizeof *dims);
  tensor->stride = tensor->rank > 0 ? (size_t)dims[tensor->rank - 1] : 1;
  return index >= DM_MAX_INPUTS || dm_take_columns(context, tensor, run->kernel->columns[index]);
}

static void *get_output(DmContext *context, size_t index, const int64_t *dims, size_t rank) {
  const Run *run = context->self;
  const OrtApi *api = run->kernel->api;
  OrtValue *value = NULL;
  void *data = NULL;
  if (!check(context, api->KernelContext_GetOutput(run->context, index, dims, rank, &value)) || value == NULL) return NULL;
  check(context, api->GetTensorMutableData(value, &data));
  return data;
}

static bool parallel_for(DmContext *context, void (*fn)(void *user, size_t index), size_t total, void *user) {
  const Run *run = context->self;
  const OrtApi *api = run->kernel->api;
  ThreadCount *threads = &run->kernel->threads;
  if (!is_loop_counted(threads)) return check(context, api->KernelContext_ParallelFor(run->context, fn, total, 0, user));
  CountedLoop loop = counted_loop(fn, user);
  const bool isDone = check(context, api->KernelContext_ParallelFor(run->context, counted_call, total, 0, &loop));
  count_threads(threads, &loop);
  return isDone;
}

static size_t num_threads(const DmContext *context) { return thread_count(&((const Run *)context->self)->kernel->threads); }

static void *get_stream(DmContext *context) {
  const Run *run = context->self;
  void *stream = NULL;
  check(context, run->kernel->api->KernelContext_GetGPUComputeStream(run->context, &stream));
  return stream;
}

static const DmHost host = {get_input, get_output, parallel_for, num_threads, get_stream};

/** A node that is being created: `self` of its attributes. */
typedef struct {
  const OrtApi *api;
  const OrtKernelInfo *info;
} Creation;

static bool is_there(const Creation *creation, OrtStatus *status) {
  if (status != NULL) creation->api->ReleaseStatus(status);
  return status == NULL;
}

static bool get_integer(const void *self, const char *name, int64_t *value) {
  const Creation *creation = self;
  return is_there(creation, creation->api->KernelInfoGetAttribute_int64(creation->info, name, value));
}

static bool get_real(const void *self, const char *name, float *value) {
  const Creation *creation = self;
  return is_there(creation, creation->api->KernelInfoGetAttribute_float(creation->info, name, value));
}

static char *get_text(const void *self, const char *name) {
  const Creation *creation = self;
  size_t bytes = 0;
  if (!is_there(creation, creation->api->KernelInfoGetAttribute_string(creation->info, name, NULL, &bytes))) return NULL;
  char *text = calloc(bytes + 1, 1);
  if (text == NULL || is_there(creation, creation->api->KernelInfoGetAttribute_string(creation->info, name, text, &bytes))) return text;
  free(text);
  return NULL;
}

static const DmAttributeSource source = {get_integer, get_real, get_text};

/** The attribute `views`: `index[first:end]` of each input that is columns of a wider value. */
static void read_columns(DmAttributes *attributes, DmColumns columns[DM_MAX_INPUTS]) {
  char *text = source.text(attributes->self, "views"), *rest = NULL;
  for (char *word = text == NULL ? NULL : strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
    char *end;
    const size_t index = strtoul(word, &end, 10);
    if (end == word || index >= DM_MAX_INPUTS || !dm_parse_columns(end, &columns[index])) {
      dm_reject(attributes, "views must be index[first:end], given %s", word);
    }
  }
  free(text);
}

/* --- what ONNX Runtime asks --- */

static const DmOp *op_of(const OrtCustomOp *custom) {
  return ((const RegisteredOp *)custom)->op;
}

static bool has_states(const DmOp *op) {
  for (size_t i = 0; i < DM_MAX_INPUTS; i++) {
    if (op->inputs[i].type == DM_STATE) return true;
  }
  return false;
}

/** As ONNX Runtime numbers them; 0 is any. */
static int type_of(const OrtCustomOp *custom, DmType type) {
  return type == DM_STATE ? ((const RegisteredOp *)custom)->stateType : type == DM_ANY ? 0 : (int)type;
}

static size_t count(const DmArgument *arguments, size_t max) {
  size_t n = 0;
  while (n < max && arguments[n].type != 0) n++;
  return n;
}

static const char *get_name(const OrtCustomOp *custom) {
  return op_of(custom)->name;
}

static const char *get_provider(const OrtCustomOp *custom) {
  (void)custom;
  return DM_PROVIDER;
}

static int get_input_type(const OrtCustomOp *custom, size_t index) {
  return type_of(custom, op_of(custom)->inputs[index].type);
}

static size_t get_num_inputs(const OrtCustomOp *custom) {
  return op_of(custom)->isVariadic ? 1 : count(op_of(custom)->inputs, DM_MAX_INPUTS);
}

static int get_output_type(const OrtCustomOp *custom, size_t index) {
  return type_of(custom, op_of(custom)->outputs[index].type);
}

static size_t get_num_outputs(const OrtCustomOp *custom) {
  return op_of(custom)->isVariadic ? 1 : count(op_of(custom)->outputs, DM_MAX_OUTPUTS);
}

static int get_input_characteristic(const OrtCustomOp *custom, size_t index) {
  if (op_of(custom)->isVariadic) return ORT_ARGUMENT_VARIADIC;
  return op_of(custom)->inputs[index].optional ? ORT_ARGUMENT_OPTIONAL : ORT_ARGUMENT_REQUIRED;
}

static int get_output_characteristic(const OrtCustomOp *custom, size_t index) {
  if (op_of(custom)->isVariadic) return ORT_ARGUMENT_VARIADIC;
  return op_of(custom)->outputs[index].optional ? ORT_ARGUMENT_OPTIONAL : ORT_ARGUMENT_REQUIRED;
}

static int get_input_memory(const OrtCustomOp *custom, size_t index) {
  (void)custom, (void)index;
  return ORT_MEMORY_DEFAULT;
}

static int get_min_arity(const OrtCustomOp *custom) {
  (void)custom;
  return 1;
}

static int get_homogeneity(const OrtCustomOp *custom) {
  (void)custom;
  return 0;
}

static int get_version(const OrtCustomOp *custom) {
  (void)custom;
  return 1; /* of the operator set; `DM_KERNELS_VERSION` is checked before a graph is loaded */
}

static OrtStatus *create_kernel(const OrtCustomOp *custom, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  const DmOp *op = op_of(custom);
  const Creation creation = {api, info};
  DmAttributes attributes = {.source = &source, .self = &creation};
  Kernel *kernel = calloc(1, sizeof *kernel);
  if (kernel == NULL) return api->CreateStatus(ORT_FAIL, "no memory for a kernel");
  *kernel = (Kernel){.op = op, .api = api, .state = dm_create(op, &attributes)};
  read_columns(&attributes, kernel->columns);
  *out = kernel;
  if (!attributes.failure.exists) return NULL;
  dm_destroy(op, kernel->state);
  free(kernel);
  return api->CreateStatus(ORT_INVALID_ARGUMENT, attributes.failure.message);
}

static OrtStatus *compute(void *data, OrtKernelContext *context) {
  Kernel *kernel = data;
  Run run = {kernel, context};
  DmContext own = {.host = &host, .self = &run};
  if (dm_run(kernel->op, kernel->state, &own)) return NULL;
  return kernel->api->CreateStatus(ORT_INVALID_ARGUMENT, own.failure.message);
}

static void destroy_kernel(void *data) {
  Kernel *kernel = data;
  dm_destroy(kernel->op, kernel->state);
  free(kernel);
}

#define CALLBACKS                                        \
  {                                                      \
      .version = DM_ORT_API_VERSION,                     \
      .GetName = get_name,                               \
      .GetExecutionProviderType = get_provider,          \
      .GetInputType = get_input_type,                    \
      .GetInputTypeCount = get_num_inputs,               \
      .GetOutputType = get_output_type,                  \
      .GetOutputTypeCount = get_num_outputs,             \
      .KernelDestroy = destroy_kernel,                   \
      .GetInputCharacteristic = get_input_characteristic, \
      .GetOutputCharacteristic = get_output_characteristic, \
      .GetInputMemoryType = get_input_memory,            \
      .GetVariadicInputMinArity = get_min_arity,         \
      .GetVariadicInputHomogeneity = get_homogeneity,    \
      .GetVariadicOutputMinArity = get_min_arity,        \
      .GetVariadicOutputHomogeneity = get_homogeneity,   \
      .CreateKernelV2 = create_kernel,                   \
      .KernelComputeV2 = compute,                        \
      .GetStartVersion = get_version,                    \
      .GetEndVersion = get_version,                      \
  }

/* One table of operators per instruction set. */
#define DECLARE(name, isa) extern const DmOp name##_##isa;
#define ENTRY(name, isa)                                               \
  {.base = CALLBACKS, .op = &name##_##isa, .stateType = DM_FLOAT},     \
  {.base = CALLBACKS, .op = &name##_##isa, .stateType = DM_HALF},
#define TWO(name) +2
enum { NUM_ENTRIES = 0 DM_OPS(TWO) };

#define DECLARE_baseline(name) DECLARE(name, baseline)
#define DECLARE_avx2(name) DECLARE(name, avx2)
#define DECLARE_avx512(name) DECLARE(name, avx512)
#define DECLARE_amx(name) DECLARE(name, amx)
#define ENTRY_baseline(name) ENTRY(name, baseline)
#define ENTRY_avx2(name) ENTRY(name, avx2)
#define ENTRY_avx512(name) ENTRY(name, avx512)
#define ENTRY_amx(name) ENTRY(name, amx)
#define DECLARE_cuda(name) DECLARE(name, cuda)
#define DECLARE_emulated(name) DECLARE(name, emulated)
#define ENTRY_cuda(name) ENTRY(name, cuda)
#define ENTRY_emulated(name) ENTRY(name, emulated)
#define TABLE(isa) DM_OPS(DECLARE_##isa) static const RegisteredOp table_##isa[] = {DM_OPS(ENTRY_##isa)};
DM_ISAS(TABLE)

typedef struct {
  const char *name;
  int (*is_supported)(void);
  const RegisteredOp *ops;
} Isa;

#define ISA(name) {#name, dm_supports_##name, table_##name},
static const Isa isas[] = {DM_ISAS(ISA)};
enum { NUM_ISAS = sizeof isas / sizeof *isas };

/**
 * Sessions refer to a domain for as long as they live, so there is one in the process, never
 * released.
 */
static _Atomic(OrtCustomOpDomain *) domains[NUM_ISAS];

static const Isa *find_isa(const char *name) {
  for (size_t i = NUM_ISAS; i-- > 0;) {
    if (isas[i].is_supported() && (name == NULL || strcmp(name, isas[i].name) == 0)) return &isas[i];
  }
  return NULL;
}

static OrtStatus *create_domain(const OrtApi *api, const Isa *isa, OrtCustomOpDomain **out) {
  OrtStatus *status = api->CreateCustomOpDomain(DM_DOMAIN, out);
  if (status != NULL) return status;
  for (size_t i = 0; i < NUM_ENTRIES && status == NULL; i++) {
    const RegisteredOp *entry = &isa->ops[i];
    if (entry->stateType == DM_FLOAT || has_states(entry->op)) status = api->CustomOpDomain_Add(*out, &entry->base);
  }
  if (status != NULL) api->ReleaseCustomOpDomain(*out);
  return status;
}

/** `DM_KERNELS_VERSION` of this library. */
DM_EXPORT int densemamba_kernels_version(void) {
  return DM_KERNELS_VERSION;
}

/**
 * The instruction set that `RegisterCustomOps` takes: the best of this library that this CPU has;
 * NULL if there is none.
 */
DM_EXPORT const char *densemamba_kernels_isa(void) {
  const Isa *isa = find_isa(NULL);
  return isa == NULL ? NULL : isa->name;
}

/**
 * As `RegisterCustomOps`, with the instruction set named, NULL for the best. Fails if this CPU does
 * not have it.
 */
DM_EXPORT OrtStatus *densemamba_kernels_register(OrtSessionOptions *options, const OrtApiBase *base, const char *name) {
  const OrtApi *api = base->GetApi(DM_ORT_API_VERSION);
  if (api == NULL) {
    api = base->GetApi(DM_ORT_OLDEST_API_VERSION);
    return api->CreateStatus(ORT_FAIL, "the kernels need ONNX Runtime 1.24 or later");
  }
  const Isa *isa = find_isa(name);
  if (isa == NULL) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT, "the kernels were not built for, or this CPU lacks, the instruction set");
  }
  _Atomic(OrtCustomOpDomain *) *shared = &domains[isa - isas];
  OrtCustomOpDomain *domain = atomic_load(shared);
  if (domain == NULL) {
    OrtCustomOpDomain *created = NULL;
    OrtStatus *status = create_domain(api, isa, &created);
    if (status != NULL) return status;
    if (atomic_compare_exchange_strong(shared, &domain, created)) domain = created;
    else api->ReleaseCustomOpDomain(created); /* another thread was first */
  }
  return api->AddCustomOpDomain(options, domain);
}

/** The entry point that ONNX Runtime looks for in a library of operators. */
DM_EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
  return densemamba_kernels_register(options, base, NULL);
}
