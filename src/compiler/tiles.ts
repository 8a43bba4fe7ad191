/**
 * The order in which our own operators want a matrix's codes: 16 rows lie together, a few columns
 * of each at a time, so that a vector register holds the same columns of several rows. Layout:
 * docs/kernels.md. Twin: kernels/integer_dot.h.
 */

export const TILE_ROWS = 16;
/** Columns of a row that lie together. */
const COLUMNS = 4;

/**
 * From rows, as `quantize` makes them, to tiles; the last tile is filled up with rows of zeros.
 *
 * @param codes eight bits: one a byte, about 128; four bits: two a byte, the first in the lower
 * half, about 8
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

/**
 * u8 [tiles, columns / 8, 16 rows, 4 columns]: the lower bits are a column, the higher ones that
 * four further on; about 8.
 */
function tileNibbles(codes: Uint8Array, numColumns: number): Uint8Array {
  const bytesPerRow = numColumns / 2;
  const numRows = codes.length / bytesPerRow;
  const tiled = new Uint8Array(Math.ceil(numRows / TILE_ROWS) * TILE_ROWS * bytesPerRow).fill(0x88);
  for (let row = 0; row < numRows; row++) {
    const lane = row % TILE_ROWS;
    let to = (row - lane) * bytesPerRow + lane * COLUMNS;
    const end = (row + 1) * bytesPerRow;
    for (let from = row * bytesPerRow; from < end; from += COLUMNS, to += TILE_ROWS * COLUMNS) {
      const [ab, cd, ef, gh] = [codes[from]!, codes[from + 1]!, codes[from + 2]!, codes[from + 3]!];
      tiled[to] = (ab & 15) | ((ef & 15) << 4);
      tiled[to + 1] = (ab >> 4) | (ef & 0xf0);
      tiled[to + 2] = (cd & 15) | ((gh & 15) << 4);
      tiled[to + 3] = (cd >> 4) | (gh & 0xf0);
    }
  }
  return tiled;
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
