/**
 * Products of eight packed rows of int8 weights with int16 inputs, four columns at a time: the one place with intrinsics.
 *
 *     dot_weights   eight rows by four columns of weights, widened: from 32 bytes of 8-bit codes, or from the `part`th four
 *                  bits of the 32 words of 16 columns
 *     dot_sums      their running sums within a block of columns: exact in int32 for up to 1,024 columns
 *     dot_scales    the eight scales of a block
 *     dot_partial   the running f32 sums over blocks; where a row has several lanes, they are added up at the very end
 */
#ifndef DENSEMAMBA_INTEGER_DOT_H
#define DENSEMAMBA_INTEGER_DOT_H

#include <stdint.h>
#include <string.h>

#include "simd.h"

#define DOT_ROWS 8

typedef float dot_floats __attribute__((vector_size(DOT_ROWS * 4)));
#if defined(__AVX512VNNI__)
#define DOT_INPUTS 12 /* inputs whose sums stay in registers together; `DOT_EACH(X)` is X(i) for each of them */
#define DOT_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

typedef __m512i dot_weights;
typedef __m512i dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, int part) {
  const __m512i shifted = _mm512_srli_epi16(_mm512_loadu_si512(p), 4 * part);
  return _mm512_sub_epi16(_mm512_and_si512(shifted, _mm512_set1_epi16(15)), _mm512_set1_epi16(8));
}
DM_INLINE dot_sums dot_zero(void) { return _mm512_setzero_si512(); }
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const int16_t *inputs) {
  long long four;
  memcpy(&four, inputs, sizeof four);
  return _mm512_dpwssd_epi32(sums, w, _mm512_set1_epi64(four));
}
typedef __m512 dot_scales; /* each twice, since a row has two lanes */
typedef __m512 dot_partial;

DM_INLINE dot_scales dot_load_scales(const float *p) {
  const __m512i twice = _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)p));
  return (dot_scales)_mm512_or_epi64(twice, _mm512_slli_epi64(twice, 32));
}
DM_INLINE dot_partial dot_none(void) { return _mm512_setzero_ps(); }
DM_INLINE dot_partial dot_add_block(dot_partial y, dot_sums sums, dot_scales scales) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scales, y);
}
DM_INLINE dot_floats dot_total(dot_partial y) {
  const __m512 both = _mm512_add_ps(y, _mm512_shuffle_ps(y, y, _MM_SHUFFLE(2, 3, 0, 1)));
  return (dot_floats)_mm512_cvtepi64_epi32((__m512i)both);
}

#elif defined(__AVX2__)
#define DOT_INPUTS 6
#define DOT_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5)

typedef struct { __m256i low, high; } dot_weights;
typedef struct { __m256i low, high; } dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  /* Straight from memory: of a register's upper half the same takes three operations on two of the busiest ports. */
  return (dot_weights){_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)),
                       _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
}
DM_INLINE __m256i dot_part4(const uint8_t *p, int part) {
  const __m256i shifted = _mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)p), 4 * part);
  return _mm256_sub_epi16(_mm256_and_si256(shifted, _mm256_set1_epi16(15)), _mm256_set1_epi16(8));
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, int part) {
  return (dot_weights){dot_part4(p, part), dot_part4(p + 32, part)};
}
DM_INLINE dot_sums dot_zero(void) { return (dot_sums){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const int16_t *inputs) {
  long long four;
  memcpy(&four, inputs, sizeof four);
  const __m256i a = _mm256_set1_epi64x(four);
  const __m256i low = _mm256_madd_epi16(w.low, a), high = _mm256_madd_epi16(w.high, a);
  /* Additions in C would let GCC multiply everything first, and then keep the sums in memory: half the speed. */
  __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sums.low) : "x"(low));
  __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sums.high) : "x"(high));
  return sums;
}
typedef struct { __m256 low, high; } dot_scales; /* each twice, since a row has two lanes */
typedef struct { __m256 low, high; } dot_partial;

DM_INLINE dot_scales dot_load_scales(const float *p) {
  const __m256 scales = _mm256_loadu_ps(p);
  const __m256 a = _mm256_unpacklo_ps(scales, scales), b = _mm256_unpackhi_ps(scales, scales); /* 0 0 1 1 4 4 5 5, … */
  return (dot_scales){_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)};
}
DM_INLINE dot_partial dot_none(void) { return (dot_partial){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
DM_INLINE dot_partial dot_add_block(dot_partial y, dot_sums sums, dot_scales scales) {
  return (dot_partial){_mm256_fmadd_ps(_mm256_cvtepi32_ps(sums.low), scales.low, y.low),
                       _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums.high), scales.high, y.high)};
}
DM_INLINE dot_floats dot_total(dot_partial y) {
  const __m256d paired = (__m256d)_mm256_hadd_ps(y.low, y.high); /* rows 0 1 4 5 2 3 6 7 */
  return (dot_floats)_mm256_permute4x64_pd(paired, _MM_SHUFFLE(3, 1, 2, 0));
}

#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define DOT_INPUTS 2
#define DOT_EACH(X) X(0) X(1)

typedef struct { int16x4_t row[DOT_ROWS]; } dot_weights;
typedef struct { int32x4_t row[DOT_ROWS]; } dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  dot_weights w;
  for (int i = 0; i < DOT_ROWS; i += 2) {
    const int16x8_t both = vmovl_s8(vld1_s8((const int8_t *)p + i * 4));
    w.row[i] = vget_low_s16(both);
    w.row[i + 1] = vget_high_s16(both);
  }
  return w;
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, int part) {
  dot_weights w;
  for (int i = 0; i < DOT_ROWS; i++) {
    uint16x4_t words;
    memcpy(&words, p + i * 8, sizeof words);
    const uint16x4_t codes = vand_u16(vshl_u16(words, vdup_n_s16(-4 * part)), vdup_n_u16(15));
    w.row[i] = vsub_s16(vreinterpret_s16_u16(codes), vdup_n_s16(8));
  }
  return w;
}
DM_INLINE dot_sums dot_zero(void) {
  dot_sums sums;
  for (int i = 0; i < DOT_ROWS; i++) sums.row[i] = vdupq_n_s32(0);
  return sums;
}
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const int16_t *inputs) {
  const int16x4_t a = vld1_s16(inputs);
  for (int i = 0; i < DOT_ROWS; i++) sums.row[i] = vmlal_s16(sums.row[i], w.row[i], a);
  return sums;
}
typedef dot_floats dot_scales;
typedef dot_floats dot_partial;

DM_INLINE dot_partial dot_add_block(dot_partial y, dot_sums sums, dot_scales scales) {
  dot_floats total;
  for (int i = 0; i < DOT_ROWS; i++) total[i] = (float)vaddvq_s32(sums.row[i]);
  return y + total * scales;
}

#else
#define DOT_INPUTS 2
#define DOT_EACH(X) X(0) X(1)

typedef struct { int16_t code[DOT_ROWS * 4]; } dot_weights;
typedef struct { int32_t sum[DOT_ROWS]; } dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  dot_weights w;
  for (int i = 0; i < DOT_ROWS * 4; i++) w.code[i] = (int8_t)p[i];
  return w;
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, int part) {
  dot_weights w;
  for (int i = 0; i < DOT_ROWS * 4; i++) {
    const int word = p[2 * i] | p[2 * i + 1] << 8; /* little-endian, as the file */
    w.code[i] = (int16_t)(((word >> (4 * part)) & 15) - 8);
  }
  return w;
}
DM_INLINE dot_sums dot_zero(void) { return (dot_sums){{0}}; }
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const int16_t *inputs) {
  for (int i = 0; i < DOT_ROWS; i++) {
    for (int j = 0; j < 4; j++) sums.sum[i] += w.code[i * 4 + j] * inputs[j];
  }
  return sums;
}
typedef dot_floats dot_scales;
typedef dot_floats dot_partial;

DM_INLINE dot_partial dot_add_block(dot_partial y, dot_sums sums, dot_scales scales) {
  dot_floats total;
  for (int i = 0; i < DOT_ROWS; i++) total[i] = (float)sums.sum[i];
  return y + total * scales;
}
#endif

#if !defined(__AVX2__)
DM_INLINE dot_scales dot_load_scales(const float *p) {
  dot_scales scales;
  memcpy(&scales, p, sizeof scales);
  return scales;
}
DM_INLINE dot_partial dot_none(void) { return (dot_partial){0}; }
DM_INLINE dot_floats dot_total(dot_partial y) { return y; }
#endif

#endif
