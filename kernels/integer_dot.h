/**
 * Products of packed rows of weights with inputs of 8 bits, four columns at a time, with the
 * intrinsics that each instruction set needs. A vector has DOT_ROWS rows; DOT_INPUTS inputs have
 * their sums in registers together, or DOT_FEW, if each has two sets of them.
 *
 *     dot_load8    the rows' weights of four columns, from 8-bit codes
 *     dot_load4    the same from 4-bit codes: the lower (quad 0) or the higher (quad 1) bits of each byte
 *     dot_start    the sums before the first product: some instruction sets take weights as unsigned, that is, too large by a
 *                  constant, and begin with what this adds up to, which the sum of the inputs' codes tells
 *     dot_add      sums + weights times four inputs: exact in int32 for a block of up to 1,024 columns
 *     dot_rows     the sums, one lane a row
 *     dot_store    inputs, from the low bits of integers
 */
#ifndef DENSEMAMBA_INTEGER_DOT_H
#define DENSEMAMBA_INTEGER_DOT_H

#include <stdint.h>
#include <string.h>

#include "simd.h"

#if defined(__AVX512VNNI__)
#define DOT_ROWS 16
#else
#define DOT_ROWS 8
#endif

typedef int32_t dot_integers __attribute__((vector_size(DOT_ROWS * 4)));
typedef float dot_floats __attribute__((vector_size(DOT_ROWS * 4)));

#if defined(__AVX512VNNI__)
#define DOT_INPUTS 12
#define DOT_FEW 8
typedef int8_t dot_input;
typedef __m512i dot_weights; /* unsigned: codes + 128, or 4-bit codes as they are, + 8 */
typedef __m512i dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)0x80));
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, size_t quad) {
  return _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4 * (unsigned)quad), _mm512_set1_epi8(15));
}
DM_INLINE dot_sums dot_start(size_t bits, int32_t sumOfInputs) {
  return _mm512_set1_epi32(-(1 << (bits - 1)) * sumOfInputs);
}
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const dot_input *inputs) {
  int32_t four;
  memcpy(&four, inputs, sizeof four);
  return _mm512_dpbusd_epi32(sums, w, _mm512_set1_epi32(four));
}
DM_INLINE dot_integers dot_rows(dot_sums sums) { return (dot_integers)sums; }

#elif defined(__AVX2__)
#define DOT_INPUTS 6
#define DOT_FEW 2
typedef int16_t dot_input; /* of 8 bits as well: the multiplication of int8 by int8 takes this CPU more operations */
typedef struct { __m256i low, high; } dot_weights, dot_sums; /* of a row two lanes side by side */

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  /*
   * Straight from memory: of a register's upper half the same takes three operations on two of the
   * busiest ports.
   */
  return (dot_weights){_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)),
                       _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
}
DM_INLINE __m256i dot_widen4(const uint8_t *p, size_t quad) {
  const __m128i shifted = _mm_srli_epi16(_mm_loadu_si128((const __m128i *)p), 4 * (int)quad);
  return _mm256_cvtepi8_epi16(_mm_sub_epi8(_mm_and_si128(shifted, _mm_set1_epi8(15)), _mm_set1_epi8(8)));
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, size_t quad) {
  return (dot_weights){dot_widen4(p, quad), dot_widen4(p + 16, quad)};
}
DM_INLINE dot_sums dot_start(size_t bits, int32_t sumOfInputs) {
  (void)bits, (void)sumOfInputs;
  return (dot_sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const dot_input *inputs) {
  long long four;
  memcpy(&four, inputs, sizeof four);
  const __m256i x = _mm256_set1_epi64x(four);
  const __m256i low = _mm256_madd_epi16(w.low, x), high = _mm256_madd_epi16(w.high, x);
  /*
   * Additions in C would let GCC multiply everything first, and then keep the sums in memory: half
   * the speed.
   */
  __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sums.low) : "x"(low));
  __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sums.high) : "x"(high));
  return sums;
}
DM_INLINE dot_integers dot_rows(dot_sums sums) {
  const __m256i paired = _mm256_hadd_epi32(sums.low, sums.high); /* rows 0 1 4 5 2 3 6 7 */
  return (dot_integers)_mm256_permute4x64_epi64(paired, _MM_SHUFFLE(3, 1, 2, 0));
}

#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define DOT_INPUTS 8
#define DOT_FEW 4
typedef int8_t dot_input;
typedef struct { int8x16_t low, high; } dot_weights;
typedef struct { int32x4_t low, high; } dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  return (dot_weights){vld1q_s8((const int8_t *)p), vld1q_s8((const int8_t *)p + 16)};
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, size_t quad) {
  uint8x16_t low = vld1q_u8(p), high = vld1q_u8(p + 16);
  low = quad == 0 ? vandq_u8(low, vdupq_n_u8(15)) : vshrq_n_u8(low, 4);
  high = quad == 0 ? vandq_u8(high, vdupq_n_u8(15)) : vshrq_n_u8(high, 4);
  return (dot_weights){vsubq_s8(vreinterpretq_s8_u8(low), vdupq_n_s8(8)), vsubq_s8(vreinterpretq_s8_u8(high), vdupq_n_s8(8))};
}
DM_INLINE dot_sums dot_start(size_t bits, int32_t sumOfInputs) {
  (void)bits, (void)sumOfInputs;
  return (dot_sums){vdupq_n_s32(0), vdupq_n_s32(0)};
}
DM_INLINE int32x4_t dot_add_rows(int32x4_t sums, int8x16_t w, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sums, w, x);
#else
  const int16x8_t two = vmull_s8(vget_low_s8(w), vget_low_s8(x)), others = vmull_s8(vget_high_s8(w), vget_high_s8(x));
  return vpadalq_s16(sums, vpaddq_s16(two, others)); /* two products of 7 bits by 7 fit 16 */
#endif
}
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const dot_input *inputs) {
  int32_t four;
  memcpy(&four, inputs, sizeof four);
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
  return (dot_sums){dot_add_rows(sums.low, w.low, x), dot_add_rows(sums.high, w.high, x)};
}
DM_INLINE dot_integers dot_rows(dot_sums sums) {
  dot_integers whole;
  memcpy(&whole, &sums, sizeof whole);
  return whole;
}

#else
#define DOT_INPUTS 2
#define DOT_FEW 2
typedef int8_t dot_input;
typedef struct { int8_t code[DOT_ROWS * 4]; } dot_weights;
typedef dot_integers dot_sums;

DM_INLINE dot_weights dot_load8(const uint8_t *p) {
  dot_weights w;
  memcpy(&w, p, sizeof w);
  return w;
}
DM_INLINE dot_weights dot_load4(const uint8_t *p, size_t quad) {
  dot_weights w;
  for (int i = 0; i < DOT_ROWS * 4; i++) w.code[i] = (int8_t)(((p[i] >> (4 * quad)) & 15) - 8);
  return w;
}
DM_INLINE dot_sums dot_start(size_t bits, int32_t sumOfInputs) {
  (void)bits, (void)sumOfInputs;
  return (dot_sums){0};
}
DM_INLINE dot_sums dot_add(dot_sums sums, dot_weights w, const dot_input *inputs) {
  for (int i = 0; i < DOT_ROWS; i++) {
    for (int j = 0; j < 4; j++) sums[i] += w.code[i * 4 + j] * inputs[j];
  }
  return sums;
}
DM_INLINE dot_integers dot_rows(dot_sums sums) { return sums; }
#endif

DM_INLINE void dot_store(dot_input *inputs, vi integers) {
#if defined(__AVX512VNNI__)
  _mm_storeu_si128((__m128i *)inputs, _mm512_cvtepi32_epi8((__m512i)integers)); /* GCC would take the lanes apart, one by one */
#else
  typedef dot_input narrow __attribute__((vector_size(DM_LANES * sizeof(dot_input))));
  const narrow low = __builtin_convertvector(integers, narrow);
  memcpy(inputs, &low, sizeof low);
#endif
}

/** y + scales · factor · sums */
DM_INLINE dot_floats dot_add_block(dot_floats y, dot_integers sums, dot_floats scales, float factor) {
  return y + scales * factor * __builtin_convertvector(sums, dot_floats);
}

#endif
