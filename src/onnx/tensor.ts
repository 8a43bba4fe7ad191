/**
 * The element types and tensors of an ONNX file. A tensor is small and held in memory, or large and
 * a stream of bytes that is read once, when the external-data file is written. Knows nothing of
 * graphs.
 */

export type DataType = "f32" | "f16" | "bf16" | "f64" | "u8" | "i8" | "i32" | "i64" | "bool";

/** TensorProto.DataType of ONNX. */
export const DATA_TYPE_CODES: Readonly<Record<DataType, number>> = {
  f32: 1,
  u8: 2,
  i8: 3,
  i32: 6,
  i64: 7,
  bool: 9,
  f16: 10,
  f64: 11,
  bf16: 16,
};

const DATA_TYPE_BYTES: Readonly<Record<DataType, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  f64: 8,
  u8: 1,
  i8: 1,
  i32: 4,
  i64: 8,
  bool: 1,
};

export interface Tensor {
  readonly dtype: DataType;
  readonly shape: readonly number[];
  /**
   * The elements in row-major, little-endian order; may be read again. The chunks' lengths sum to
   * `tensorByteLength`.
   */
  readonly chunks: () => Iterable<Uint8Array>;
  /**
   * Tensors of one storage are the same bytes, perhaps of another shape, and stand in the external
   * file once.
   */
  readonly storage?: string;
}

export function tensorByteLength(tensor: Pick<Tensor, "dtype" | "shape">): number {
  return tensor.shape.reduce((product, size) => product * size, 1) * DATA_TYPE_BYTES[tensor.dtype];
}

export function f32Tensor(shape: readonly number[], values: ArrayLike<number>): Tensor {
  return fromArray("f32", shape, Float32Array.from(values));
}

export function f64Tensor(shape: readonly number[], values: readonly number[]): Tensor {
  return fromArray("f64", shape, Float64Array.from(values));
}

export function i64Tensor(shape: readonly number[], values: readonly (number | bigint)[]): Tensor {
  return fromArray("i64", shape, BigInt64Array.from(values, BigInt));
}

function fromArray(dtype: DataType, shape: readonly number[], values: ArrayBufferView): Tensor {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const expected = tensorByteLength({ dtype, shape });
  if (bytes.length !== expected) {
    throw new RangeError(`a tensor of shape [${shape}] holds ${expected} bytes, got ${bytes.length}`);
  }
  return { dtype, shape, chunks: () => [bytes] };
}
