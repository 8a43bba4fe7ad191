/**
 * Linear layers y = W x + b in the precision of the artifact: f32 through `FusedMatMul`, fewer bits through
 * `MatMulNBits`. Callers say what a matrix is for; `quantize.ts` says what that is worth.
 */
import type { Value } from "../onnx/graph.ts";
import type { Lowering } from "./lowering.ts";
import { matrix, matrixTensor, vectorTensor } from "./matrix.ts";
import { bitsOf, type MatrixRole, quantize } from "./quantize.ts";

export interface LinearOptions {
  /** Adds `<name>.bias`. */
  readonly bias?: boolean;
  /** Default "projection". */
  readonly role?: MatrixRole;
}

/** y = W x + b with the checkpoint's `<name>.weight`: x [..., columns] -> [..., rows]. */
export function linear(lowering: Lowering, x: Value, name: string, options: LinearOptions = {}): Value {
  const { graph: g, weight, precision } = lowering;
  const { bias: hasBias = false, role = "projection" } = options;
  const W = matrix(weight(`${name}.weight`));
  const bias = hasBias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`))) : undefined;

  const bits = bitsOf(precision, role, W);
  const quantized = bits && quantize(W, name, bits);
  if (quantized !== undefined) {
    const codes = g.initializer(`${name}.codes`, quantized.codes);
    const scales = g.initializer(`${name}.scales`, quantized.scales);
    return g.op("com.microsoft.MatMulNBits", [x, codes, scales, undefined, undefined, bias], {
      K: W.numColumns,
      N: W.numRows,
      bits: quantized.bits,
      block_size: quantized.blockSize,
      accuracy_level: 4,
    });
  }
  // transB keeps the checkpoint's own order of bytes, so that the weight streams; the session packs it once at load.
  const y = g.op("com.microsoft.FusedMatMul", [x, g.initializer(`${name}.weight`, matrixTensor(W))], { transB: 1 });
  return bias === undefined ? y : g.op("Add", [y, bias]);
}
