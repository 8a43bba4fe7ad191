/**
 * The part of ONNX Runtime's binary interface that the kernels use, declared by ourselves: opaque
 * types, the table of functions at its fixed positions, and the description of a custom operator.
 * Version 24 of the C API (ONNX Runtime 1.24); both structs only ever grow at their ends, so that
 * every later library serves it.
 */
#ifndef DENSEMAMBA_ORT_H
#define DENSEMAMBA_ORT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define DM_ORT_API_VERSION 24
/** Old enough that any library with custom operators has it: to say that 24 is missing. */
#define DM_ORT_OLDEST_API_VERSION 17

typedef struct OrtStatus OrtStatus; /* NULL: success */
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtValue OrtValue;
typedef struct OrtApi OrtApi;
typedef struct OrtCustomOp OrtCustomOp;

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };
enum { ORT_MEMORY_DEFAULT = 0 };
enum { ORT_ARGUMENT_REQUIRED = 0, ORT_ARGUMENT_OPTIONAL = 1, ORT_ARGUMENT_VARIADIC = 2 };

typedef struct OrtApiBase {
  const OrtApi *(*GetApi)(uint32_t version); /* NULL if the library is older */
  const char *(*GetVersionString)(void);
} OrtApiBase;

/** `unusedN` are the functions from position N on that we do not call. */
struct OrtApi {
  OrtStatus *(*CreateStatus)(int code, const char *message);
  void *unused1[1];
  const char *(*GetErrorMessage)(const OrtStatus *status);
  void *unused3[23];
  OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **out);
  OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
  OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
  void *unused29[22];
  OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);
  void *unused52[33];
  OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *info, const char *name, float *out);
  OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name, int64_t *out);
  /* `out` NULL: only the size, its final 0 included. */
  OrtStatus *(*KernelInfoGetAttribute_string)(const OrtKernelInfo *info, const char *name, char *out, size_t *size);
  void *unused88[2];
  /* An optional input that the node does not have is a NULL value; likewise an output. */
  OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **out);
  OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank,
                                        OrtValue **out);
  void *unused92[1];
  void (*ReleaseStatus)(OrtStatus *status);
  void *unused94[7];
  void (*ReleaseCustomOpDomain)(OrtCustomOpDomain *domain);
  void *unused102[91];
  /* A `cudaStream_t` where the kernel runs on CUDA; NULL on a CPU. */
  OrtStatus *(*KernelContext_GetGPUComputeStream)(const OrtKernelContext *context, void **out);
  void *unused194[80];
  OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context, void (*fn)(void *user, size_t index),
                                          size_t total, size_t num_batches, void *user);
  void *unused275[139];
  /* `dims` stays the value's own; NULL for a scalar. Nothing is allocated. */
  OrtStatus *(*GetTensorElementTypeAndShapeDataReference)(const OrtValue *value, int *type, const int64_t **dims,
                                                          size_t *rank);
};

#define DM_ASSERT_POSITION(name, position) \
  static_assert(offsetof(OrtApi, name) == (position) * sizeof(void *), #name " is at another position")
DM_ASSERT_POSITION(CreateStatus, 0);
DM_ASSERT_POSITION(GetErrorMessage, 2);
DM_ASSERT_POSITION(CreateCustomOpDomain, 26);
DM_ASSERT_POSITION(AddCustomOpDomain, 28);
DM_ASSERT_POSITION(GetTensorMutableData, 51);
DM_ASSERT_POSITION(KernelInfoGetAttribute_float, 85);
DM_ASSERT_POSITION(KernelInfoGetAttribute_string, 87);
DM_ASSERT_POSITION(KernelContext_GetInput, 90);
DM_ASSERT_POSITION(KernelContext_GetOutput, 91);
DM_ASSERT_POSITION(ReleaseStatus, 93);
DM_ASSERT_POSITION(ReleaseCustomOpDomain, 101);
DM_ASSERT_POSITION(KernelContext_GetGPUComputeStream, 193);
DM_ASSERT_POSITION(KernelContext_ParallelFor, 274);
DM_ASSERT_POSITION(GetTensorElementTypeAndShapeDataReference, 414);

/** NULL where the comment says that the library asks first. */
struct OrtCustomOp {
  uint32_t version; /* of the C API whose fields are filled in */
  void *(*CreateKernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info); /* V2 is used */
  const char *(*GetName)(const OrtCustomOp *op);
  const char *(*GetExecutionProviderType)(const OrtCustomOp *op);
  int (*GetInputType)(const OrtCustomOp *op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp *op);
  int (*GetOutputType)(const OrtCustomOp *op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
  void (*KernelCompute)(void *kernel, OrtKernelContext *context); /* V2 is used */
  void (*KernelDestroy)(void *kernel);
  int (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
  int (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
  /* Asked of variadic operators only. */
  int (*GetVariadicInputMinArity)(const OrtCustomOp *op);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp *op); /* 0: of different types */
  int (*GetVariadicOutputMinArity)(const OrtCustomOp *op);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
  OrtStatus *(*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
  OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
  void *InferOutputShape; /* may be NULL, as all that follow */
  int (*GetStartVersion)(const OrtCustomOp *op);
  int (*GetEndVersion)(const OrtCustomOp *op);
  void *in_place[4];
};

#endif
