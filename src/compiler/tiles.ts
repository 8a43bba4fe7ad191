/**
 * The order in which our own operators want a matrix's codes: 16 rows lie together, a few columns of each at a time, so that a
 * vector register holds the same columns of several rows. Layout: docs/kernels.md. Twin: kernels/integer_dot.h.
 */

export const TILE_ROWS = 16;
/** Columns of a row that lie together. */
const COLUMNS = 4;
/** Codes of four bits share a word of 16, four columns apart: so many columns to a step. */
const WIDE_COLUMNS = 16;
const ROWS_OF_HALF = 8;

/**
 * From rows, as `quantize` makes them, to tiles; the last tile is filled up with rows of zeros.
 *
 * @param codes eight bits: one a byte, about 128; four bits: two a byte, the first in the lower half, about 8
 */
export function tileCodes(codes: Uint8Array, numColumns: number, bits: 4 | 8): Uint8Array {
  return bits === 8 ? tileBytes(codes, numColumns) : tileNibbles(codes, numColumns);
}

/** i8 [tiles, columns / 4, 16 rows, 4 columns], about 0. */
function tileBytes(codes: Uint8Array, numColumns: number): Uint8Array {
  const numRows = codes.length / numColumns;
  const tiled = new Uint8Array(Math.ceil(numRows / TILE_ROWS) * TILE_ROWS * numColumns);
  for (let row = 0; row < numRows; row++) {
    const lane = row % TILE_ROWS;
    let to = (row - lane) * numColumns + lane * COLUMNS;
    const end = (row + 1) * numColumns;
    for (let from = row * numColumns; from < end; from += COLUMNS, to += TILE_ROWS * COLUMNS) {
      tiled[to] = codes[from]! ^ 0x80;
      tiled[to + 1] = codes[from + 1]! ^ 0x80;
      tiled[to + 2] = codes[from + 2]! ^ 0x80;
      tiled[to + 3] = codes[from + 3]! ^ 0x80;
    }
  }
  return tiled;
}

/** u16 [tiles, columns / 16, 2 halves, 8 rows, 4 columns]: bits 4s to 4s + 3 are column 4s further on. */
function tileNibbles(codes: Uint8Array, numColumns: number): Uint8Array {
  const bytesPerRow = numColumns / 2;
  const numRows = codes.length / bytesPerRow;
  const words = new Uint16Array((Math.ceil(numRows / TILE_ROWS) * TILE_ROWS * numColumns) / 4).fill(0x8888);
  const wordsPerStep = TILE_ROWS * COLUMNS;
  for (let row = 0; row < numRows; row++) {
    const lane = row % TILE_ROWS;
    const half = Math.floor(lane / ROWS_OF_HALF);
    let to = ((row - lane) * numColumns) / 4 + (half * ROWS_OF_HALF + (lane % ROWS_OF_HALF)) * COLUMNS;
    for (let step = 0; step < numColumns; step += WIDE_COLUMNS, to += wordsPerStep) {
      const from = row * bytesPerRow + step / 2;
      for (let column = 0; column < COLUMNS; column++) {
        let word = 0;
        for (let part = 0; part < 4; part++) {
          const pair = codes[from + part * 2 + (column >> 1)]!;
          word |= ((column & 1 ? pair >> 4 : pair) & 15) << (4 * part);
        }
        words[to + column] = word;
      }
    }
  }
  return new Uint8Array(words.buffer);
}

/** f32 [rows, blocks] to [tiles, blocks, 16 rows]. */
export function tileScales(scales: Float32Array, numBlocks: number): Float32Array {
  const numRows = scales.length / numBlocks;
  const tiled = new Float32Array(Math.ceil(numRows / TILE_ROWS) * TILE_ROWS * numBlocks);
  for (let row = 0; row < numRows; row++) {
    const lane = row % TILE_ROWS;
    for (let block = 0; block < numBlocks; block++) {
      tiled[(row - lane) * numBlocks + block * TILE_ROWS + lane] = scales[row * numBlocks + block]!;
    }
  }
  return tiled;
}
