/**
 * Weights on their way from the checkpoint into the graph: matrices read by rows and turned into tensors that stream,
 * so that no weight is in memory longer than it takes to write it. Knows no block.
 */
import { numElements } from "../model/state.ts";
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

/** One matrix of all rows of `top`, then all rows of `bottom`: two projections of the same input in one product. */
export function stackRows(top: Matrix, bottom: Matrix): Matrix {
  return {
    numRows: top.numRows + bottom.numRows,
    numColumns: top.numColumns,
    readRows(start, count) {
      const split = Math.min(Math.max(top.numRows - start, 0), count);
      const upper = split > 0 ? top.readRows(start, split) : new Float32Array();
      const lower = split < count ? bottom.readRows(start + split - top.numRows, count - split) : new Float32Array();
      const rows = new Float32Array(count * top.numColumns);
      rows.set(upper);
      rows.set(lower, upper.length);
      return rows;
    },
  };
}

/** The matrix in slices of whole rows, in order. */
export function* rowChunks(source: Matrix): Generator<Float32Array> {
  const rowsAtOnce = Math.max(1, Math.floor(CHUNK_BYTES / 4 / source.numColumns));
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

/** A small weight, unchanged or mapped element by element; `shape` may regroup the elements. */
export function vectorTensor(
  weight: WeightTensor,
  options: { readonly shape?: readonly number[]; readonly map?: (x: number) => number } = {},
): Tensor {
  const { shape = weight.shape, map } = options;
  return { dtype: "f32", shape, chunks: () => [asBytes(map ? readAll(weight).map(map) : readAll(weight))] };
}

/** The transpose of a small [rows, columns] weight, mapped element by element. */
export function transposedTensor(weight: WeightTensor, map: (x: number) => number): Tensor {
  const [rows, columns] = weight.shape as [number, number];
  return {
    dtype: "f32",
    shape: [columns, rows],
    chunks() {
      const source = readAll(weight);
      const transposed = new Float32Array(numElements(weight.shape));
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          transposed[column * rows + row] = map(source[row * columns + column]!);
        }
      }
      return [asBytes(transposed)];
    },
  };
}

export function asBytes(array: Float32Array | Uint8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
