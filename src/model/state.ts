/**
 * What a model remembers: a fixed list of f32 tensors per sequence, however long the sequence. The runtime allocates
 * them, snapshots copy them; nobody else looks inside. Knows nothing of ONNX.
 */

export interface StateTensor {
  /**
   * `<kind>.<layer>`, e.g. `ssm.3`, or `<kind>` alone for what all layers have in common. The graph's input is
   * `past_ssm.3`, its output `present_ssm.3`.
   */
  readonly name: string;
  /** Shape of one sequence's tensor, without the batch axis, e.g. [N, E]. */
  readonly shape: readonly number[];
}

/** In the order of a snapshot's bytes. All tensors are float32, little-endian, row-major. */
export type StateSpec = readonly StateTensor[];

export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function tensorBytes(tensor: StateTensor): number {
  return numElements(tensor.shape) * Float32Array.BYTES_PER_ELEMENT;
}

/** Bytes of one sequence's whole state. Constant for a model. */
export function stateBytes(spec: StateSpec): number {
  return spec.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
}
