/**
 * Linear layers y = W x + b in the precision of the artifact: f32 through `FusedMatMul`, int8 through `MatMulNBits`,
 * whose weights are quantised here. Which layers are worth eight bits is the callers' choice; docs/compiler.md has the
 * measurements.
 */
import type { Value } from "../onnx/graph.ts";
import type { Tensor } from "../onnx/tensor.ts";
import type { Lowering } from "./lowering.ts";
import { asBytes, type Matrix, matrix, matrixTensor, rowChunks, vectorTensor } from "./matrix.ts";

export interface LinearOptions {
  /** Adds `<name>.bias`. */
  readonly bias?: boolean;
  /** Whether an int8 artifact holds the matrix in eight bits; "if large" from `LARGE_MATRIX` weights on. Default "always". */
  readonly int8?: "always" | "if large" | "never";
}

/** A smaller matrix stays in the processor's cache, where f32 is as fast and faster in a batch. Measured. */
const LARGE_MATRIX = 50_000;

/** y = W x + b with the checkpoint's `<name>.weight`: x [..., columns] -> [..., rows]. */
export function linear(lowering: Lowering, x: Value, name: string, options: LinearOptions = {}): Value {
  const { graph: g, weight, precision } = lowering;
  const { bias: hasBias = false, int8 = "always" } = options;
  const W = matrix(weight(`${name}.weight`));
  const bias = hasBias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`))) : undefined;

  const isWorthIt = int8 === "always" || (int8 === "if large" && W.numRows * W.numColumns >= LARGE_MATRIX);
  const quantized = precision === "int8" && isWorthIt ? quantize(W, name) : undefined;
  if (quantized !== undefined) {
    const codes = g.initializer(`${name}.codes`, quantized.codes);
    const scales = g.initializer(`${name}.scales`, quantized.scales);
    return g.op("com.microsoft.MatMulNBits", [x, codes, scales, undefined, undefined, bias], {
      K: W.numColumns,
      N: W.numRows,
      bits: 8,
      block_size: quantized.blockSize,
      accuracy_level: 4,
    });
  }
  // transB keeps the checkpoint's own order of bytes, so that the weight streams; the session packs it once at load.
  const y = g.op("com.microsoft.FusedMatMul", [x, g.initializer(`${name}.weight`, matrixTensor(W))], { transB: 1 });
  return bias === undefined ? y : g.op("Add", [y, bias]);
}

export interface Quantized {
  /** u8 [rows, columns / blockSize, blockSize]; 128 stands for zero. */
  readonly codes: Tensor;
  /** f32 [rows, columns / blockSize] */
  readonly scales: Tensor;
  readonly blockSize: number;
}

const BLOCK_SIZES = [128, 64, 32, 16] as const;
const ZERO_POINT = 128;
const MAX_CODE = 127;

/**
 * Symmetric eight-bit codes: w ≈ (code - 128) · scale, scale = max|w| / 127 over blocks of a row. The largest block that
 * divides the row: fewer scales to read, and the kernels are fastest there. undefined if none does: such a matrix stays
 * f32. Both tensors stream; the weight is read once for each.
 */
export function quantize(weight: Matrix, name: string): Quantized | undefined {
  const { numRows, numColumns } = weight;
  const blockSize = BLOCK_SIZES.find((size) => numColumns % size === 0);
  if (blockSize === undefined) return undefined;
  const numBlocks = numColumns / blockSize;
  return {
    blockSize,
    codes: {
      dtype: "u8",
      storage: `${name}.codes`,
      shape: [numRows, numBlocks, blockSize],
      *chunks() {
        for (const rows of rowChunks(weight)) yield quantizeBlocks(rows, blockSize, blockScales(rows, blockSize));
      },
    },
    scales: {
      dtype: "f32",
      shape: [numRows, numBlocks],
      *chunks() {
        for (const rows of rowChunks(weight)) yield asBytes(blockScales(rows, blockSize));
      },
    },
  };
}

function blockScales(values: Float32Array, blockSize: number): Float32Array {
  const scales = new Float32Array(values.length / blockSize);
  for (let block = 0; block < scales.length; block++) {
    let max = 0;
    for (let i = block * blockSize; i < (block + 1) * blockSize; i++) max = Math.max(max, Math.abs(values[i]!));
    scales[block] = max / MAX_CODE;
  }
  return scales;
}

function quantizeBlocks(values: Float32Array, blockSize: number, scales: Float32Array): Uint8Array {
  const codes = new Uint8Array(values.length);
  for (let block = 0; block < scales.length; block++) {
    const scale = scales[block]!;
    const inverse = scale === 0 ? 0 : 1 / scale;
    for (let i = block * blockSize; i < (block + 1) * blockSize; i++) {
      const code = Math.round(values[i]! * inverse);
      codes[i] = Math.max(-MAX_CODE, Math.min(MAX_CODE, code)) + ZERO_POINT;
    }
  }
  return codes;
}
