// Eight floats at a time, through GCC's vector extensions: what scan.cpp and pointwise.cpp share.
// Needs AVX2, FMA and F16C (build.py compiles with -march=native).
#pragma once
#include <immintrin.h>
#include <cstdint>
#include <cstring>

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
constexpr int LANES = 8;

static inline v8 load(const float* p) { return (v8)_mm256_loadu_ps(p); }
static inline void store(float* p, v8 x) { _mm256_storeu_ps(p, (__m256)x); }
static inline v8 all(float x) { return (v8)_mm256_set1_ps(x); }
static inline float sum(v8 x) { return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])); }

// Stored states are float for checks and half for training: 11 bits of mantissa at half the memory traffic.
static inline v8 load(const uint16_t* p) { return (v8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
static inline void store(uint16_t* p, v8 x) { _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)x, 0)); }

// 2^x for |x| <= 126 (clamped), relative error below 3e-6.
static inline v8 exp2v(v8 x) {
  x = (v8)_mm256_max_ps(_mm256_min_ps((__m256)x, _mm256_set1_ps(126.f)), _mm256_set1_ps(-126.f));
  v8 whole = (v8)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  v8 f = x - whole;
  v8 p = 1.3333558e-3f * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  v8i bits = (v8i)_mm256_cvtps_epi32((__m256)whole) << 23;
  return (v8)((v8i)p + bits);
}
constexpr float LOG2E = 1.44269504089f;
static inline v8 expv(v8 x) { return exp2v(x * LOG2E); }
static inline v8 sigmoid(v8 x) { return 1.0f / (1.0f + expv(-x)); }

// Natural logarithm of x > 0 (Cephes' polynomial), used by softplus.
static inline v8 logv(v8 x) {
  v8i bits = (v8i)x;
  v8i exponent = ((bits >> 23) & 0xff) - 126;
  v8 mantissa = (v8)((bits & 0x007fffff) | 0x3f000000);  // [0.5, 1)
  v8i small = mantissa < 0.70710678f;
  v8 e = __builtin_convertvector(exponent + small, v8);  // `small` is -1 where true
  v8 f = mantissa + (v8)((v8i)mantissa & small) - 1.0f;
  v8 p = 7.0376836292e-2f * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  v8 f2 = f * f;
  return f + (p * f * f2 - 0.5f * f2) + e * 0.69314718056f;
}
static inline v8 softplus(v8 x) {  // max(x, 0) + log(1 + exp(-|x|))
  v8 positive = (v8)_mm256_max_ps((__m256)x, _mm256_setzero_ps());
  return positive + logv(1.0f + expv(x - 2.0f * positive));
}
