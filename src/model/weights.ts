/**
 * A checkpoint's tensors, read when asked for: opening one costs its header, and a tensor is delivered in slices, so
 * that a model of any size can be compiled in little memory. The seam for file formats; knows no family.
 */
import { DenseMambaError } from "../errors.ts";
import { numElements } from "./state.ts";

export interface WeightTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** As stored, in the format's own spelling; `read` widens to f32. */
  readonly dtype: string;
  /**
   * Elements [start, start + count) in row-major order, as a new array. Reads the file synchronously: callers stream.
   * @throws `invalid_checkpoint` if the file has become shorter than its header says.
   */
  read(start: number, count: number): Float32Array;
}

export interface Weights {
  readonly tensors: ReadonlyMap<string, WeightTensor>;
  /** Path, size and modification time of every file, for cheap change detection. */
  readonly files: readonly string[];
  close(): void;
}

export function readAll(tensor: WeightTensor): Float32Array {
  return tensor.read(0, numElements(tensor.shape));
}

/** A float in half the bits, widened: f16 is 1-5-10, bf16 the upper half of an f32. `bits` is not changed. */
export function widenF16(bits: Uint16Array): Float32Array {
  return Float32Array.from(bits, f16ToNumber);
}

export function widenBf16(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

function f16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function invalidCheckpoint(message: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_checkpoint", message, cause === undefined ? {} : { cause });
}
