/**
 * The matrix products of cuBLAS, computed on the host when their stream comes to them: so that results of matrices are real.
 * Matrices are column by column, as in BLAS.
 */
#include "device.h"

#include <cmath>
#include <cstring>

namespace {

enum { OK = 0, NOT_INITIALISED = 1, NO_MEMORY = 3, WRONG_VALUE = 7 };
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
enum Compute { COMPUTE_16F = 64, COMPUTE_16F_PEDANTIC = 65, COMPUTE_64F = 70, COMPUTE_64F_PEDANTIC = 71 };

struct Blas {
  void *stream;
  unsigned mathMode;
};

float float_of(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float size = exponent == 0 ? std::ldexp((float)fraction, -24)
                     : exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                                      : std::ldexp((float)(fraction + 1024), exponent - 25);
  return half & 0x8000 ? -size : size;
}

/** To the nearest, ties to even. */
uint16_t half_of(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (std::isnan(x)) return 0x7e00;
  if (size >= 65520.0f) return sign | 0x7c00;
  int exponent;
  std::frexp(size, &exponent);
  const int scale = exponent - 11 < -24 ? -24 : exponent - 11; /* of the last bit */
  const int units = (int)std::nearbyint(std::ldexp(size, -scale));
  return scale == -24 ? sign | units : sign | (uint16_t)(((scale + 24) << 10) + units);
}

double get(const void *data, int type, size_t i) {
  switch (type) {
    case F64: return ((const double *)data)[i];
    case F16: return float_of(((const uint16_t *)data)[i]);
    case BF16: {
      const uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
      float x;
      memcpy(&x, &bits, sizeof x);
      return x;
    }
    default: return ((const float *)data)[i];
  }
}

void put(void *data, int type, size_t i, double x) {
  switch (type) {
    case F64: ((double *)data)[i] = x; return;
    case F16: ((uint16_t *)data)[i] = half_of((float)x); return;
    case BF16: {
      const float single = (float)x;
      uint32_t bits;
      memcpy(&bits, &single, sizeof bits);
      ((uint16_t *)data)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
      return;
    }
    default: ((float *)data)[i] = (float)x;
  }
}

size_t size_of(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

struct Matrix {
  const void *data;
  int type, leading;
  bool isTransposed;
};

struct Product {
  int m, n, k;
  double alpha, beta;
  Matrix a, b, c;
};

double element(const Matrix &x, int row, int column) {
  return get(x.data, x.type, x.isTransposed ? (size_t)row * x.leading + column : (size_t)column * x.leading + row);
}

void multiply(const Product &p) {
  std::vector<double> row(p.k), columns((size_t)p.k * p.n);
  for (int j = 0; j < p.n; j++) {
    for (int l = 0; l < p.k; l++) columns[(size_t)j * p.k + l] = element(p.b, l, j);
  }
  for (int i = 0; i < p.m; i++) {
    for (int l = 0; l < p.k; l++) row[l] = element(p.a, i, l);
    for (int j = 0; j < p.n; j++) {
      double sum = 0;
      const double *column = &columns[(size_t)j * p.k];
      for (int l = 0; l < p.k; l++) sum += row[l] * column[l];
      const size_t at = (size_t)j * p.c.leading + i;
      const double before = p.beta == 0 ? 0 : p.beta * get(p.c.data, p.c.type, at);
      put((void *)p.c.data, p.c.type, at, p.alpha * sum + before);
    }
  }
}

double scalar(const void *value, int compute) {
  if (compute == COMPUTE_16F || compute == COMPUTE_16F_PEDANTIC) return get(value, F16, 0);
  return get(value, compute == COMPUTE_64F || compute == COMPUTE_64F_PEDANTIC ? F64 : F32, 0);
}

/**
 * In a capture cuBLAS takes its workspace from the device by a node of the graph, and gives it back by another, unless it has been given
 * one (`cublasSetWorkspace`, which ONNX Runtime does not call).
 */
int launch(const char *name, void *handle, std::function<void()> compute) {
  void *stream = ((Blas *)handle)->stream;
  const bool isCaptured = device::stream_of(stream)->capture != nullptr;
  const auto add = [&](const char *what, std::function<void()> run) { return device::submit(name, stream, {what, std::move(run)}) == 0; };
  if (isCaptured && !add("take", [] {})) return WRONG_VALUE;
  if (!add("gemm", std::move(compute))) return WRONG_VALUE;
  return !isCaptured || add("give back", [] {}) ? OK : WRONG_VALUE;
}

/** `strides` in elements, of a, b and c, between the `count` products. */
int submit(const char *name, void *handle, const Product &first, const long long (&strides)[3], int count) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  if (device::enter(name) != 0) return NOT_INITIALISED;
  const auto compute = [=] {
    for (int i = 0; i < count; i++) {
      Product p = first;
      p.a.data = (const char *)p.a.data + (size_t)i * strides[0] * size_of(p.a.type);
      p.b.data = (const char *)p.b.data + (size_t)i * strides[1] * size_of(p.b.type);
      p.c.data = (const char *)p.c.data + (size_t)i * strides[2] * size_of(p.c.type);
      multiply(p);
    }
  };
  return launch(name, handle, compute);
}

/** C = alpha op(A) + beta op(B): so ONNX Runtime turns a matrix. */
template <typename Value>
int submit_sum(const char *name, void *handle, int m, int n, const Value *alpha, const Matrix &a, const Value *beta, const Matrix &b,
               Value *c, int ldc) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  if (device::enter(name) != 0) return NOT_INITIALISED;
  const double scaleA = *alpha, scaleB = *beta;
  return launch(name, handle, [=] {
    std::vector<double> sums((size_t)m * n); /* C may be A */
    for (int j = 0; j < n; j++) {
      for (int i = 0; i < m; i++) {
        double &sum = sums[(size_t)j * m + i];
        if (scaleA != 0) sum += scaleA * element(a, i, j);
        if (scaleB != 0) sum += scaleB * element(b, i, j);
      }
    }
    for (int j = 0; j < n; j++) {
      for (int i = 0; i < m; i++) c[(size_t)j * ldc + i] = (Value)sums[(size_t)j * m + i];
    }
  });
}

/** Each product has addresses of its own, which are on the device. */
template <typename Value>
int submit_batched(const char *name, void *handle, const Product &first, const Value *const *a, const Value *const *b,
                   Value *const *c, int count) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  if (device::enter(name) != 0) return NOT_INITIALISED;
  const auto compute = [=] {
    for (int i = 0; i < count; i++) {
      Product p = first;
      p.a.data = a[i];
      p.b.data = b[i];
      p.c.data = c[i];
      multiply(p);
    }
  };
  return launch(name, handle, compute);
}

}  // namespace

EXPORT int cublasCreate_v2(void **handle) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  if (const int fault = device::enter("cublasCreate_v2")) return fault == OUT_OF_MEMORY ? NO_MEMORY : NOT_INITIALISED;
  *handle = new Blas{};
  device::hold("cublas", *handle);
  return OK;
}
EXPORT int cublasDestroy_v2(void *handle) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  if (device::drop("cublasDestroy_v2", "cublas", handle) != 0) return WRONG_VALUE;
  delete (Blas *)handle;
  return OK;
}
EXPORT int cublasSetStream_v2(void *handle, void *stream) {
  ((Blas *)handle)->stream = stream;
  return OK;
}
EXPORT int cublasSetMathMode(void *handle, unsigned mode) {
  ((Blas *)handle)->mathMode = mode;
  return OK;
}
EXPORT int cublasGetMathMode(void *handle, unsigned *mode) {
  *mode = ((Blas *)handle)->mathMode;
  return OK;
}
EXPORT const char *cublasGetStatusName(int status) {
  return status == OK ? "CUBLAS_STATUS_SUCCESS" : status == NO_MEMORY ? "CUBLAS_STATUS_ALLOC_FAILED" : "CUBLAS_STATUS_FAILED";
}
EXPORT const char *cublasGetStatusString(int status) { return cublasGetStatusName(status); }
EXPORT int cublasSgemm_v2(void *handle, int opA, int opB, int m, int n, int k, const float *alpha, const float *a, int lda,
                          const float *b, int ldb, const float *beta, float *c, int ldc) {
  const Product p = {m, n, k, *alpha, *beta, {a, F32, lda, opA != 0}, {b, F32, ldb, opB != 0}, {c, F32, ldc, false}};
  return submit("cublasSgemm_v2", handle, p, {0, 0, 0}, 1);
}

EXPORT int cublasDgemm_v2(void *handle, int opA, int opB, int m, int n, int k, const double *alpha, const double *a, int lda,
                          const double *b, int ldb, const double *beta, double *c, int ldc) {
  const Product p = {m, n, k, *alpha, *beta, {a, F64, lda, opA != 0}, {b, F64, ldb, opB != 0}, {c, F64, ldc, false}};
  return submit("cublasDgemm_v2", handle, p, {0, 0, 0}, 1);
}

EXPORT int cublasGemmEx(void *handle, int opA, int opB, int m, int n, int k, const void *alpha, const void *a, int typeA, int lda,
                        const void *b, int typeB, int ldb, const void *beta, void *c, int typeC, int ldc, int compute, int) {
  const Product p = {m, n, k, scalar(alpha, compute), scalar(beta, compute),
                     {a, typeA, lda, opA != 0}, {b, typeB, ldb, opB != 0}, {c, typeC, ldc, false}};
  return submit("cublasGemmEx", handle, p, {0, 0, 0}, 1);
}

EXPORT int cublasSgemmStridedBatched(void *handle, int opA, int opB, int m, int n, int k, const float *alpha, const float *a, int lda,
                                     long long strideA, const float *b, int ldb, long long strideB, const float *beta, float *c,
                                     int ldc, long long strideC, int count) {
  const Product p = {m, n, k, *alpha, *beta, {a, F32, lda, opA != 0}, {b, F32, ldb, opB != 0}, {c, F32, ldc, false}};
  return submit("cublasSgemmStridedBatched", handle, p, {strideA, strideB, strideC}, count);
}

EXPORT int cublasGemmStridedBatchedEx(void *handle, int opA, int opB, int m, int n, int k, const void *alpha, const void *a, int typeA,
                                      int lda, long long strideA, const void *b, int typeB, int ldb, long long strideB,
                                      const void *beta, void *c, int typeC, int ldc, long long strideC, int count, int compute, int) {
  const Product p = {m, n, k, scalar(alpha, compute), scalar(beta, compute),
                     {a, typeA, lda, opA != 0}, {b, typeB, ldb, opB != 0}, {c, typeC, ldc, false}};
  return submit("cublasGemmStridedBatchedEx", handle, p, {strideA, strideB, strideC}, count);
}

EXPORT int cublasSgemmBatched(void *handle, int opA, int opB, int m, int n, int k, const float *alpha, const float *const a[], int lda,
                              const float *const b[], int ldb, const float *beta, float *const c[], int ldc, int count) {
  const Product p = {m, n, k, *alpha, *beta, {nullptr, F32, lda, opA != 0}, {nullptr, F32, ldb, opB != 0}, {nullptr, F32, ldc, false}};
  return submit_batched("cublasSgemmBatched", handle, p, a, b, c, count);
}

EXPORT int cublasGemmBatchedEx(void *handle, int opA, int opB, int m, int n, int k, const void *alpha, const void *const a[], int typeA,
                               int lda, const void *const b[], int typeB, int ldb, const void *beta, void *const c[], int typeC, int ldc,
                               int count, int compute, int) {
  const Product p = {m, n, k, scalar(alpha, compute), scalar(beta, compute),
                     {nullptr, typeA, lda, opA != 0}, {nullptr, typeB, ldb, opB != 0}, {nullptr, typeC, ldc, false}};
  return submit_batched("cublasGemmBatchedEx", handle, p, a, b, c, count);
}

EXPORT int cublasSgeam(void *handle, int opA, int opB, int m, int n, const float *alpha, const float *a, int lda, const float *beta,
                       const float *b, int ldb, float *c, int ldc) {
  return submit_sum("cublasSgeam", handle, m, n, alpha, {a, F32, lda, opA != 0}, beta, {b, F32, ldb, opB != 0}, c, ldc);
}

EXPORT int cublasDgeam(void *handle, int opA, int opB, int m, int n, const double *alpha, const double *a, int lda, const double *beta,
                       const double *b, int ldb, double *c, int ldc) {
  return submit_sum("cublasDgeam", handle, m, n, alpha, {a, F64, lda, opA != 0}, beta, {b, F64, ldb, opB != 0}, c, ldc);
}
