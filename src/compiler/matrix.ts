/**
 * Weights on their way from the checkpoint into the graph: matrices read by rows and turned into tensors that stream,
 * so that no weight is in memory longer than it takes to write it. Knows no block.
 */
import { readAll, type WeightTensor } from "../model/weights.ts";
import type { Tensor } from "../onnx/tensor.ts";

/** Rows are outputs, columns inputs, as checkpoints store linear layers: y = W x. */
export interface Matrix {
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
    numRows,
    numColumns,
    readRows: (start, count) => tensor.read(start * numColumns, count * numColumns),
  };
}

/** The matrix in slices of whole rows, in order; of a multiple of `step` rows each, but for the last. */
export function* rowChunks(source: Matrix, step = 1): Generator<Float32Array> {
  const rowsAtOnce = step * Math.max(1, Math.floor(CHUNK_BYTES / 4 / source.numColumns / step));
  for (let row = 0; row < source.numRows; row += rowsAtOnce) {
    yield source.readRows(row, Math.min(rowsAtOnce, source.numRows - row));
  }
}

/** f32 [numRows, numColumns]. */
export function matrixTensor(source: Matrix): Tensor {
  return {
    dtype: "f32",
    shape: [source.numRows, source.numColumns],
    *chunks() {
      for (const rows of rowChunks(source)) yield asBytes(rows);
    },
  };
}

/** A small weight as it is. */
export function vectorTensor(weight: WeightTensor): Tensor {
  return { dtype: "f32", shape: weight.shape, chunks: () => [asBytes(readAll(weight))] };
}

/** The transpose of a small weight, read as [rows, columns] whatever axes of one it has, mapped element by element. */
export function transposedTensor(
  weight: WeightTensor,
  [rows, columns]: readonly [number, number],
  map: (x: number) => number = (x) => x,
): Tensor {
  return {
    dtype: "f32",
    shape: [columns, rows],
    chunks() {
      const source = readAll(weight);
      const transposed = new Float32Array(source.length);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          transposed[column * rows + row] = map(source[row * columns + column]!);
        }
      }
      return [asBytes(transposed)];
    },
  };
}

/** A = -exp(A_log) */
export function negatedExp(x: number): number {
  return -Math.exp(x);
}

export function asBytes(array: Float32Array | Uint16Array | Uint8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
