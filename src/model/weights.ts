/**
 * A checkpoint's tensors, read when asked for: opening one costs its header, and a tensor is
 * delivered in slices, so that a model of any size can be compiled in little memory. The seam for
 * file formats; knows no family.
 */
import { DenseMambaError } from "../errors.ts";
import { numElements } from "./state.ts";

export interface WeightTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** As stored, by safetensors' names (`dtypes.ts`); `read` widens to f32. */
  readonly dtype: string;
  /**
   * Elements [start, start + count) in row-major order, as a new array. Reads the file
   * synchronously: callers stream.
   * @throws `invalid_checkpoint` if the file has become shorter than its header says, or if `dtype`
   * is none of `FLOAT_DTYPES`.
   */
  read(start: number, count: number): Float32Array;
}

/** One file, or several that make up one list. */
export interface Weights {
  readonly tensors: readonly WeightTensor[];
  /** Tensors can no longer be read. */
  close(): void;
}

/** What describes the tensors is parsed at once. */
export interface HeaderBounds {
  /** Default: as much as the largest models have. */
  readonly maxHeaderBytes?: number;
}

export function readAll(tensor: WeightTensor): Float32Array {
  return tensor.read(0, numElements(tensor.shape));
}

/** A caller's bug, not the file's. @throws RangeError */
export function checkRange({ name, shape }: Pick<WeightTensor, "name" | "shape">, start: number, count: number): void {
  const total = numElements(shape);
  if (start >= 0 && count >= 0 && start + count <= total) return;
  throw new RangeError(`${name} has ${total} elements, asked for [${start}, ${start + count})`);
}

export function invalidCheckpoint(message: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_checkpoint", message, cause === undefined ? {} : { cause });
}
