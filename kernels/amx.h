/**
 * Products by AMX's tiles: 16 inputs times 16 packed rows of weights, a block of columns at a time.
 * The packed rows are what the instruction takes: 16 rows side by side, four columns of each. Sums
 * are exact in int32, as integer_dot.h's are.
 */
#ifndef DENSEMAMBA_AMX_H
#define DENSEMAMBA_AMX_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "simd.h"

enum { AMX_INPUTS = 16, AMX_ROWS = 16, AMX_LINE = 64 };

/** Of a block: [input][row]. */
typedef struct {
  _Alignas(AMX_LINE) int32_t of[AMX_INPUTS][AMX_ROWS];
} AmxSums;

/** Columns of one instruction: a power of two of which there is a whole number in every block. */
DM_INLINE size_t amx_columns(size_t blockSize) {
  return blockSize % 64 == 0 ? 64 : blockSize % 32 == 0 ? 32 : 16;
}

/**
 * Sets this thread's tiles up: sums in 0, inputs in 1, weights in 2. To be undone, or the system
 * saves 8 KiB at every switch.
 */
DM_INLINE void amx_begin(size_t columns) {
  struct {
    uint8_t palette, startRow, reserved[14];
    uint16_t bytesPerRow[16];
    uint8_t numRows[16];
  } config = {
      .palette = 1,
      .bytesPerRow = {AMX_ROWS * 4, (uint16_t)columns, AMX_ROWS * 4},
      .numRows = {AMX_INPUTS, AMX_INPUTS, (uint8_t)(columns / 4)},
  };
  _Static_assert(sizeof config == 64, "the instruction reads so many bytes");
  _tile_loadconfig(&config);
}

DM_INLINE void amx_end(void) { _tile_release(); }

/**
 * `inputs` lie `stride` bytes apart; fast where they and `weights` are aligned to a line: a load of
 * a tile takes six times as long otherwise.
 */
DM_INLINE void amx_multiply(AmxSums *sums, const int8_t *inputs, size_t stride, const int8_t *weights, size_t blockSize,
                            size_t columns) {
  _tile_zero(0);
  for (size_t k = 0; k < blockSize; k += columns) {
    _tile_loadd(1, inputs + k, stride);
    _tile_loadd(2, weights + k * AMX_ROWS, AMX_ROWS * 4);
    _tile_dpbssd(0, 1, 2);
  }
  _tile_stored(0, sums, AMX_LINE);
}

#endif
