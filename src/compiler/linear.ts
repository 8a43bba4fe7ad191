/**
 * Linear layers y = W x + b in the precision of the artifact: f32 through `FusedMatMul`, int8 through `MatMulNBits`,
 * whose weights are quantised here. Which layers are worth eight bits is the callers' choice; docs/compiler.md has the
 * measurements.
 */
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import type { WeightTensor } from "../model/weights.ts";
import type { Graph, Value } from "../onnx/graph.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { asBytes, type Matrix, matrixTensor, rowChunks, vectorTensor } from "./matrix.ts";

/** x [..., columns] -> [..., rows]. */
export function linear(
  g: Graph,
  x: Value,
  name: string,
  weight: Matrix,
  precision: Precision,
  bias?: WeightTensor,
): Value {
  const b = bias && g.initializer(bias.name, vectorTensor(bias));
  if (precision === "int8") {
    const { codes, scales, blockSize } = quantize(weight, name);
    return g.op(
      "com.microsoft.MatMulNBits",
      [x, g.initializer(`${name}.codes`, codes), g.initializer(`${name}.scales`, scales), undefined, undefined, b],
      { K: weight.numColumns, N: weight.numRows, bits: 8, block_size: blockSize, accuracy_level: 4 },
    );
  }
  // transB keeps the checkpoint's own order of bytes, so that the weight streams; the session packs it once at load.
  const y = g.op("com.microsoft.FusedMatMul", [x, g.initializer(name, matrixTensor(weight))], { transB: 1 });
  return b === undefined ? y : g.op("Add", [y, b]);
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

/** The largest block that divides a row: fewer scales to read, and the kernels are fastest there. */
export function blockSizeFor(numColumns: number): number | undefined {
  return BLOCK_SIZES.find((size) => numColumns % size === 0);
}

/**
 * Symmetric eight-bit codes: w ≈ (code - 128) · scale, scale = max|w| / 127 over blocks of a row. Both tensors stream;
 * the weight is read once for each.
 * @throws `unsupported_value` if no block size divides the row.
 */
export function quantize(weight: Matrix, name: string): Quantized {
  const { numRows, numColumns } = weight;
  const blockSize = blockSizeFor(numColumns);
  if (blockSize === undefined) {
    const smallest = BLOCK_SIZES.at(-1);
    throw new DenseMambaError(
      "unsupported_value",
      `int8 needs rows divisible by ${smallest}, but ${name} has ${numColumns} columns; use precision f32`,
    );
  }
  const numBlocks = numColumns / blockSize;
  return {
    blockSize,
    codes: {
      dtype: "u8",
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
