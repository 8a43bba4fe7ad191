/**
 * Matrices in four or eight bits, and which of them an artifact's precision holds in how many. w ≈
 * (code - zero) · scale, one scale for a block of a row. The codes lie in rows, as `MatMulNBits`
 * and `GatherBlockQuantized` take them, or in tiles for our own operators (tiles.ts).
 */
import type { Tensor } from "../onnx/tensor.ts";
import type { Lowering } from "./lowering.ts";
import { asBytes, type Matrix, rowChunks } from "./matrix.ts";
import { TILE_ROWS, tileCodes, tileScales } from "./tiles.ts";

/** What a matrix is for. docs/compiler.md has the measurements behind the choice. */
export type MatrixRole =
  | "projection" // in and out of a layer: most of the bytes
  | "table" // embedding and head, which may share their codes
  | "selection" // small ones that decide what is kept or fused
  | "step size"; // rows too short for the kernels' blocks

export type Bits = 4 | 8;

/**
 * With ONNX Runtime's operators a smaller selection is as fast in f32, and faster in a batch: it
 * stays in the cache.
 */
const LARGE_SELECTION = 50_000;

/** undefined stands for none: the matrix stays in floating point. */
export function bitsOf(
  { precision, kind }: Pick<Lowering, "precision" | "kind">,
  role: MatrixRole,
  { numRows, numColumns }: Matrix,
): Bits | undefined {
  if ((precision !== "int8" && precision !== "int4") || role === "step size") return undefined;
  if (role === "selection" && kind !== "kernels" && numRows * numColumns < LARGE_SELECTION) return undefined;
  return precision === "int4" && role === "projection" ? 4 : 8;
}

/** Rows: for ONNX Runtime's operators. Tiles: for ours. */
export type Layout = "rows" | "tiles";

export interface Quantized {
  readonly bits: Bits;
  /** Of the matrix, and of zeros after them: what it is multiplied with has to be as wide. */
  readonly numColumns: number;
  /**
   * u8. In rows [rows, columns / blockSize, blockSize · bits / 8]; of two codes in a byte the first
   * is the lower half. In tiles [tiles, 16 · columns · bits / 8].
   */
  readonly codes: Tensor;
  /** f32 [rows, columns / blockSize], or [tiles, columns / blockSize, 16]. */
  readonly scales: Tensor;
  readonly blockSize: number;
}

/** Best first: in eight bits large blocks are fastest and no worse, in four they cost quality. */
const SMALLEST_BLOCK = 16;
const BLOCK_SIZES = { 8: [128, 64, 32, SMALLEST_BLOCK], 4: [32, SMALLEST_BLOCK] } as const satisfies Record<
  Bits,
  readonly number[]
>;

/**
 * In the first of the block sizes that divides the row, which is filled up with zeros to a multiple
 * of 16. Both tensors stream. The scales that are found for the codes are kept until they are
 * written themselves.
 */
export function quantize(source: Matrix, name: string, bits: Bits, layout: Layout): Quantized {
  const weight = filledUp(source);
  const { numRows, numColumns } = weight;
  const blockSize = BLOCK_SIZES[bits].find((size) => numColumns % size === 0)!;
  const numBlocks = numColumns / blockSize;
  const numTiles = Math.ceil(numRows / TILE_ROWS);
  const inTiles = layout === "tiles";
  const chunks = () => rowChunks(weight, inTiles ? TILE_ROWS : 1);
  const scalesOf = bits === 8 ? largestScales : searchedScales;
  const pack = bits === 8 ? eightBitCodes : fourBitCodes;
  const layScales = (scales: Float32Array) => asBytes(inTiles ? tileScales(scales, numBlocks) : scales);
  let found: Float32Array[] = [];
  return {
    bits,
    numColumns,
    blockSize,
    codes: {
      dtype: "u8",
      storage: `${name}.codes`,
      shape: inTiles ? [numTiles, (TILE_ROWS * numColumns * bits) / 8] : [numRows, numBlocks, (blockSize * bits) / 8],
      *chunks() {
        found = [];
        for (const rows of chunks()) {
          const scales = scalesOf(rows, blockSize);
          found.push(scales);
          const codes = pack(rows, blockSize, scales);
          yield inTiles ? tileCodes(codes, numColumns, bits) : codes;
        }
      },
    },
    scales: {
      dtype: "f32",
      shape: inTiles ? [numTiles, numBlocks, TILE_ROWS] : [numRows, numBlocks],
      *chunks() {
        const isComplete = found.reduce((sum, { length }) => sum + length, 0) === numRows * numBlocks;
        if (isComplete) for (const scales of found) yield layScales(scales);
        else for (const rows of chunks()) yield layScales(scalesOf(rows, blockSize));
        found = [];
      },
    },
  };
}

/** Rows as long as the next multiple of the smallest block. */
function filledUp(weight: Matrix): Matrix {
  const { numColumns, readRows } = weight;
  const width = Math.ceil(numColumns / SMALLEST_BLOCK) * SMALLEST_BLOCK;
  if (width === numColumns) return weight;
  return {
    ...weight,
    numColumns: width,
    readRows(start, count) {
      const rows = readRows(start, count);
      const filled = new Float32Array(count * width);
      for (let row = 0; row < count; row++) {
        filled.set(rows.subarray(row * numColumns, (row + 1) * numColumns), row * width);
      }
      return filled;
    },
  };
}

/** Codes from -127 to 127 about 128. */
const MAX_CODE = 127;

/** scale = max|w| / 127 */
function largestScales(values: Float32Array, blockSize: number): Float32Array {
  const scales = new Float32Array(values.length / blockSize);
  for (let block = 0; block < scales.length; block++) {
    scales[block] = Math.abs(extreme(values, block * blockSize, blockSize)) / MAX_CODE;
  }
  return scales;
}

function eightBitCodes(values: Float32Array, blockSize: number, scales: Float32Array): Uint8Array {
  const codes = new Uint8Array(values.length);
  for (let block = 0; block < scales.length; block++) {
    const inverse = inverseOf(scales[block]!);
    for (let i = block * blockSize; i < (block + 1) * blockSize; i++) {
      codes[i] = clamp(Math.round(values[i]! * inverse), MAX_CODE, MAX_CODE) + MAX_CODE + 1;
    }
  }
  return codes;
}

/** Codes from -8 to 7 about 8. */
const LOWEST = 8;
const HIGHEST = 7;
/**
 * Where the search puts the block's extreme, in codes: outside -8 it is clipped, which may pay for
 * the others.
 */
const EXTREMES = [-6.5, -6.75, -7, -7.25, -7.5, -7.75, -8, -8.25, -8.5, -8.75, -9];

/**
 * Added to a small f64 and taken away again, it leaves the nearest whole number: several times as
 * fast as Math.round.
 */
const ROUNDER = 1.5 * 2 ** 52;

/**
 * The scale with the least squared error that the search finds. For given codes c the best one is
 * Σwc / Σc², which takes (Σwc)² / Σc² off Σw²; the codes are those that put the block's extreme at
 * each of `EXTREMES`. Scales have either sign: the extreme gets the code -8, which the other side
 * lacks.
 */
function searchedScales(values: Float32Array, blockSize: number): Float32Array {
  const scales = new Float32Array(values.length / blockSize);
  for (let block = 0; block < scales.length; block++) {
    const start = block * blockSize;
    const end = start + blockSize;
    const largest = extreme(values, start, blockSize);
    if (largest === 0) continue;
    let mostGained = 0;
    for (let k = 0; k < EXTREMES.length; k++) {
      const inverse = EXTREMES[k]! / largest;
      let wc = 0;
      let cc = 0;
      for (let i = start; i < end; i++) {
        const weight = values[i]!;
        const code = fourBitCode(weight * inverse);
        wc += weight * code;
        cc += code * code;
      }
      const gained = (wc * wc) / cc;
      if (gained > mostGained) {
        mostGained = gained;
        scales[block] = wc / cc;
      }
    }
  }
  return scales;
}

function fourBitCodes(values: Float32Array, blockSize: number, scales: Float32Array): Uint8Array {
  const codes = new Uint8Array(values.length / 2);
  for (let block = 0; block < scales.length; block++) {
    const inverse = inverseOf(scales[block]!);
    for (let i = block * blockSize; i < (block + 1) * blockSize; i += 2) {
      const low = fourBitCode(values[i]! * inverse) + LOWEST;
      const high = fourBitCode(values[i + 1]! * inverse) + LOWEST;
      codes[i / 2] = low | (high << 4);
    }
  }
  return codes;
}

function fourBitCode(x: number): number {
  return clamp(x + ROUNDER - ROUNDER, LOWEST, HIGHEST);
}

/** The value of largest size, with its sign. */
function extreme(values: Float32Array, start: number, count: number): number {
  let largest = 0;
  for (let i = start; i < start + count; i++) {
    if (Math.abs(values[i]!) > Math.abs(largest)) largest = values[i]!;
  }
  return largest;
}

/** A block of zeros has the scale 0, and codes of zero. */
function inverseOf(scale: number): number {
  return scale === 0 ? 0 : 1 / scale;
}

function clamp(code: number, lowest: number, highest: number): number {
  return code < -lowest ? -lowest : code > highest ? highest : code;
}
