/**
 * What a model remembers: a fixed list of tensors per sequence, however long the sequence. The
 * runtime allocates them, snapshots copy them; nobody else looks inside. Knows nothing of ONNX.
 */

export const STATE_DTYPES = ["f32", "f16"] as const;
export type StateDtype = (typeof STATE_DTYPES)[number];

export interface StateTensor {
  /**
   * `<kind>.<layer>`, e.g. `ssm.3`, or `<kind>` alone for what all layers have in common. The
   * graph's input is `past_ssm.3`, its output `present_ssm.3`.
   */
  readonly name: string;
  /** Shape of one sequence's tensor, without the batch axis, e.g. [N, E]. */
  readonly shape: readonly number[];
  /** Default f32. */
  readonly dtype?: StateDtype | undefined;
}

/** In the order of a snapshot's bytes. All tensors are little-endian and row-major. */
export type StateSpec = readonly StateTensor[];

/** As a family describes it, before a precision is chosen. */
export interface StateLayout {
  readonly name: string;
  readonly shape: readonly number[];
  /**
   * Sums over the past, most of a state's bytes; the last inputs as they came; a count, which is
   * exact.
   */
  readonly holds: "sums" | "inputs" | "count";
  /**
   * Of sums: whether a model in f16 keeps them in f16 without being asked. docs/compiler.md, "f16",
   * has what that was decided by.
   */
  readonly mayNarrow?: boolean;
}

/** What sums are kept in. `auto` is f32, but for a model in f16. */
const STATE_PRECISIONS = ["auto", ...STATE_DTYPES] as const;
export type StatePrecision = (typeof STATE_PRECISIONS)[number];

const DTYPE_BYTES: Readonly<Record<StateDtype, number>> = { f32: 4, f16: 2 };

export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function tensorBytes({ shape, dtype = "f32" }: StateTensor): number {
  return numElements(shape) * DTYPE_BYTES[dtype];
}

/** Bytes of one sequence's whole state. Constant for a model. */
export function stateBytes(spec: StateSpec): number {
  return spec.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
}
