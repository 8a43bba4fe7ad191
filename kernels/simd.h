/**
 * Vectors of floats as wide as the instruction set has them, and the functions on them that the
 * kernels share. Written with the vector extensions that GCC and Clang have for every target; only
 * the integer dot product needs intrinsics.
 */
#ifndef DENSEMAMBA_SIMD_H
#define DENSEMAMBA_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define DM_LANES 16
#elif defined(__AVX2__)
#define DM_LANES 8
#else
#define DM_LANES 4
#endif

#define DM_INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(DM_LANES * 4)));
typedef int32_t vi __attribute__((vector_size(DM_LANES * 4)));

DM_INLINE vf vf_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}

DM_INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

/**
 * The first `count` lanes; the others read as zero and are not written. With a constant DM_LANES it
 * is a plain load.
 */
DM_INLINE vf vf_load_some(const float *p, size_t count) {
  if (count == DM_LANES) return vf_load(p);
  vf v = {0};
  memcpy(&v, p, count * sizeof(float));
  return v;
}

DM_INLINE void vf_store_some(float *p, vf v, size_t count) {
  if (count == DM_LANES) vf_store(p, v);
  else memcpy(p, &v, count * sizeof(float));
}

/** f16, of which only loads and stores know. */
typedef uint16_t half;
typedef uint16_t vh __attribute__((vector_size(DM_LANES * 2)));

/**
 * To the nearest f16, the even one of two; what is beyond the largest, 65,504, becomes it. NaN
 * stays NaN.
 */
DM_INLINE vh vh_of(vf v);
DM_INLINE vf vf_of(vh h);

/** The first `count` lanes. With a constant DM_LANES it is a plain store. */
DM_INLINE void vh_store_some(half *p, vh v, size_t count) { memcpy(p, &v, count * sizeof(half)); }
DM_INLINE vh vh_load_some(const half *p, size_t count) {
  vh v = {0};
  memcpy(&v, p, count * sizeof(half));
  return v;
}

DM_INLINE vf vf_all(float x) { return x - (vf){0}; }

DM_INLINE vf vf_select(vi condition, vf yes, vf no) { return (vf)(((vi)yes & condition) | ((vi)no & ~condition)); }

/** NaN stays NaN: of two operands that do not compare, these instructions give the second. */
DM_INLINE vf vf_at_least(vf x, float bound) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)vf_all(bound), (__m512)x);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)vf_all(bound), (__m256)x);
#else
  return vf_select(x < vf_all(bound), vf_all(bound), x);
#endif
}
DM_INLINE vf vf_at_most(vf x, float bound) {
#if defined(__AVX512F__)
  return (vf)_mm512_min_ps((__m512)vf_all(bound), (__m512)x);
#elif defined(__AVX2__)
  return (vf)_mm256_min_ps((__m256)vf_all(bound), (__m256)x);
#else
  return vf_select(x > vf_all(bound), vf_all(bound), x);
#endif
}

DM_INLINE vf vf_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }

DM_INLINE vh vh_of(vf v) {
  v = vf_at_most(vf_at_least(v, -65504.0f), 65504.0f);
#if defined(__AVX512F__)
  return (vh)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
  return (vh)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
  const vi sign = ((vi)v >> 16) & 0x8000, isNumber = v == v;
  vi bits = (vi)(vf_abs(v) * 0x1p-112f); /* the exponents of f16, ten more bits of each fraction: too small ones denormal */
  bits = (bits + 0xfff + ((bits >> 13) & 1)) >> 13;
  return __builtin_convertvector(sign | (bits & isNumber) | (0x7e00 & ~isNumber), vh);
#endif
}

DM_INLINE vf vf_of(vh h) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__)
  return (vf)_mm256_cvtph_ps((__m128i)h);
#else
  const vi bits = __builtin_convertvector(h, vi), size = bits & 0x7fff, isNumber = size < 0x7c00;
  const vf value = (vf)(size << 13) * 0x1p112f;
  return (vf)(((vi)value & isNumber) | (0x7fc00000 & ~isNumber) | ((bits & 0x8000) << 16));
#endif
}

/** The sum of all lanes, in halves: an order of its own for each number of lanes. */
DM_INLINE float vf_sum(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#elif defined(__AVX2__)
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
#else
  return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

/** The largest lane; no lane may be NaN. */
DM_INLINE float vf_largest(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#elif defined(__AVX2__)
  __m128 most = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
#else
  float most = v[0];
  for (int i = 1; i < DM_LANES; i++) most = v[i] > most ? v[i] : most;
  return most;
#endif
}

/** 1.5 · 2^23: adding it to a small float leaves the nearest whole number in the low bits. */
#define VF_ROUNDER 12582912.0f

/**
 * 2^(n + r) for |r| <= 1/2 to 2.4e-7 relative: a polynomial fitted to the relative error, and n,
 * added to `VF_ROUNDER`, into the exponent.
 */
DM_INLINE vf vf_power_of_two(vf rounded, vf r) {
  vf p = r * 1.327647129073739e-3f + 9.675540961325169e-3f;
  p = p * r + 5.550713092088699e-2f;
  p = p * r + 2.4022120237350464e-1f;
  p = p * r + 6.931469440460205e-1f;
  p = p * r + 1.0f;
  return (vf)((vi)p + ((vi)rounded << 23));
}

/** 2^x for x <= 0; 2^-126 for all x below -126. NaN stays NaN. */
DM_INLINE vf vf_exp2_negative(vf x) {
  x = vf_at_least(x, -126.0f);
  const vf rounded = x + VF_ROUNDER;
  return vf_power_of_two(rounded, x - (rounded - VF_ROUNDER));
}

/**
 * e^x to 4e-7 relative, between e^-87 and e^88, which stand for what is below and above. NaN stays
 * NaN.
 */
DM_INLINE vf vf_exp(vf x) {
  x = vf_at_most(vf_at_least(x, -87.0f), 88.0f);
  const vf rounded = x * 1.44269504088896341f + VF_ROUNDER;
  const vf n = rounded - VF_ROUNDER;
  const vf rest = (x - n * 0.693145751953125f) - n * 1.42860682030941723212e-6f; /* ln 2 in two parts: the first is exact */
  return vf_power_of_two(rounded, rest * 1.44269504088896341f);
}

/** x / (1 + e^-x) */
DM_INLINE vf vf_silu(vf x) { return x / (1.0f + vf_exp(-x)); }

/** 1 / (1 + e^-x) */
DM_INLINE vf vf_sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }

/** To 4e-7 relative: a series near 0, where e^2x - 1 would lose digits. */
DM_INLINE vf vf_tanh(vf x) {
  const vf q = x * x;
  vf p = q * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * q - 5.37397155531e-2f;
  p = p * q + 1.33314422036e-1f;
  p = p * q - 3.33332819422e-1f;
  const vf far = 1.0f - 2.0f / (vf_exp(2.0f * x) + 1.0f);
  return vf_select(vf_abs(x) < vf_all(0.625f), x + x * q * p, far);
}

/** To 2e-7: Abramowitz and Stegun, 7.1.26. */
DM_INLINE vf vf_erf(vf x) {
  const vf size = vf_abs(x), t = 1.0f / (1.0f + 0.3275911f * size);
  vf p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const vf y = 1.0f - p * t * vf_exp(-size * size);
  return vf_select(x < vf_all(0), -y, y);
}

/**
 * log(1 + e^x) = max(x, 0) + log(1 + w), w = e^-|x|, and log(1 + w) = 2 artanh(w / (2 + w)): a
 * series in at most 1/3, to 2e-7 relative for every x.
 */
DM_INLINE vf vf_softplus(vf x) {
  vf w = vf_exp(-vf_abs(x));
  vf s = w / (2.0f + w);
  vf q = s * s;
  vf p = q * 0.0769230769f + 0.0909090909f;
  p = p * q + 0.1111111111f;
  p = p * q + 0.1428571429f;
  p = p * q + 0.2f;
  p = p * q + 0.3333333333f;
  p = p * q + 1.0f;
  return vf_at_least(x, 0.0f) + 2.0f * s * p;
}

#endif
