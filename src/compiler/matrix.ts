/**
 * Weights on their way from the checkpoint into the graph: matrices read by rows and turned into
 * tensors that stream, so that no weight is in memory longer than it takes to write it. Knows no
 * block.
 */
import { DenseMambaError } from "../errors.ts";
import { MAX_F16, narrowBf16, narrowF16 } from "../model/dtypes.ts";
import { readAll, type WeightTensor } from "../model/weights.ts";
import type { Tensor } from "../onnx/tensor.ts";

/** What a graph computes with. */
export type FloatType = "f32" | "f16" | "bf16";

/** Rows are outputs, columns inputs, as checkpoints store linear layers: y = W x. */
export interface Matrix {
  /** Of its tensor. */
  readonly name: string;
  readonly numRows: number;
  readonly numColumns: number;
  /** [count, numColumns], a new array. */
  readRows(start: number, count: number): Float32Array;
}

/** Rows read at once: about this many bytes of f32. */
const CHUNK_BYTES = 4 << 20;

export function matrix(tensor: WeightTensor): Matrix {
  const [numRows, numColumns] = tensor.shape as [number, number];
  return {
    name: tensor.name,
    numRows,
    numColumns,
    readRows: (start, count) => tensor.read(start * numColumns, count * numColumns),
  };
}

/**
 * The matrix in slices of whole rows, in order; of a multiple of `step` rows each, but for the
 * last.
 */
export function* rowChunks(source: Matrix, step = 1): Generator<Float32Array> {
  const rowsAtOnce = step * Math.max(1, Math.floor(CHUNK_BYTES / 4 / source.numColumns / step));
  for (let row = 0; row < source.numRows; row += rowsAtOnce) {
    yield source.readRows(row, Math.min(rowsAtOnce, source.numRows - row));
  }
}

/**
 * [numRows, numColumns]. Writing it @throws `unsupported_value` for a weight that f16 cannot hold.
 */
export function matrixTensor(source: Matrix, float: FloatType = "f32"): Tensor {
  return {
    dtype: float,
    shape: [source.numRows, source.numColumns],
    *chunks() {
      for (const rows of rowChunks(source)) yield floatBytes(source, rows, float);
    },
  };
}

/** A small weight as it is. Writing it throws as above. */
export function vectorTensor(weight: WeightTensor, float: FloatType = "f32"): Tensor {
  return { dtype: float, shape: weight.shape, chunks: () => [floatBytes(weight, readAll(weight), float)] };
}

/** A few numbers of the compiler's own. */
export function floatTensor(float: FloatType, shape: readonly number[], values: ArrayLike<number>): Tensor {
  const floats = Float32Array.from(values);
  return { dtype: float, shape, chunks: () => [asBytes(converted(floats, float))] };
}

/**
 * The transpose of a small weight, read as [rows, columns] whatever axes of one it has, mapped
 * element by element.
 */
export function transposedTensor(
  weight: WeightTensor,
  [rows, columns]: readonly [number, number],
  { map = (x) => x, float = "f32" }: { readonly map?: (x: number) => number; readonly float?: FloatType } = {},
): Tensor {
  return {
    dtype: float,
    shape: [columns, rows],
    chunks() {
      const source = readAll(weight);
      const transposed = new Float32Array(source.length);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          transposed[column * rows + row] = map(source[row * columns + column]!);
        }
      }
      return [floatBytes(weight, transposed, float)];
    },
  };
}

/** A = -exp(A_log) */
export function negatedExp(x: number): number {
  return -Math.exp(x);
}

function floatBytes({ name }: { readonly name: string }, values: Float32Array, float: FloatType): Uint8Array {
  for (const value of float === "f16" ? values : []) {
    if (Number.isFinite(value) && Math.abs(value) > MAX_F16) {
      throw new DenseMambaError("unsupported_value", `tensor ${name} holds ${value}; f16 ends at ${MAX_F16}`);
    }
  }
  return asBytes(converted(values, float));
}

function converted(values: Float32Array, float: FloatType): Float32Array | Uint16Array {
  switch (float) {
    case "f32":
      return values;
    case "f16":
      return narrowF16(values);
    case "bf16":
      return narrowBf16(values);
  }
}

export function asBytes(array: Float32Array | Uint16Array | Uint8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
