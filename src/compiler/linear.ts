/**
 * Linear layers y = W x + b in the precision of the artifact: f32 through `FusedMatMul`, fewer bits through
 * `MatMulNBits` or our own `Linear`. Callers say what a matrix is for; `quantize.ts` says what that is worth.
 */
import type { Value } from "../onnx/graph.ts";
import { type Lowering, silu } from "./lowering.ts";
import { type FloatType, type Matrix, matrix, matrixTensor, vectorTensor } from "./matrix.ts";
import { bitsOf, type MatrixRole, type Quantized, quantize } from "./quantize.ts";

export interface LinearOptions {
  /** Adds `<name>.bias`. */
  readonly bias?: boolean;
  /** Default "projection". */
  readonly role?: MatrixRole;
  /** Of the result. */
  readonly activation?: "silu";
}

/** y = W x + b with the checkpoint's `<name>.weight`: x [..., columns] -> [..., rows], both of `floatOf` the role. */
export function linear(lowering: Lowering, x: Value, name: string, options: LinearOptions = {}): Value {
  const { graph: g, weight, kind } = lowering;
  const { bias: hasBias = false, role = "projection", activation } = options;
  const W = matrix(weight(`${name}.weight`));
  const float = floatOf(lowering, role);
  const bias = hasBias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`), float)) : undefined;

  const bits = bitsOf(lowering, role, W);
  const quantized = bits && quantize(W, name, bits, kind === "kernels" ? "tiles" : "rows");
  if (quantized !== undefined && kind === "kernels") {
    return ownLinear(lowering, x, name, W, quantized, bias, activation);
  }
  const y = quantized ? matMulNBits(lowering, x, name, W, quantized, bias) : matMul(lowering, x, name, W, bias, float);
  return activation === "silu" ? silu(g, y) : y;
}

/** The step size is raised to a power: f16's rounding of a sum of -8 would be off by 0.4% in it. */
function floatOf({ float }: Lowering, role: MatrixRole): FloatType {
  return role === "step size" ? "f32" : float;
}

function ownLinear(
  { graph: g }: Lowering,
  x: Value,
  name: string,
  { numRows, numColumns }: Matrix,
  { codes, scales, bits, blockSize }: Quantized,
  bias: Value | undefined,
  activation: "silu" | undefined,
): Value {
  const inputs = [x, g.initializer(`${name}.codes`, codes), g.initializer(`${name}.scales`, scales)];
  return g.op("densemamba.Linear", bias ? [...inputs, bias] : inputs, {
    rows: numRows,
    columns: numColumns,
    bits,
    block: blockSize,
    silu: activation === "silu" ? 1 : 0,
  });
}

function matMulNBits(
  { graph: g }: Lowering,
  x: Value,
  name: string,
  { numRows, numColumns }: Matrix,
  { codes, scales, bits, blockSize }: Quantized,
  bias: Value | undefined,
): Value {
  const weights = [g.initializer(`${name}.codes`, codes), g.initializer(`${name}.scales`, scales)];
  return g.op("com.microsoft.MatMulNBits", [x, ...weights, undefined, undefined, bias], {
    K: numColumns,
    N: numRows,
    bits,
    block_size: blockSize,
    accuracy_level: 4,
  });
}

function matMul(
  { graph: g }: Lowering,
  x: Value,
  name: string,
  W: Matrix,
  bias: Value | undefined,
  float: FloatType,
): Value {
  // transB keeps the checkpoint's own order of bytes, so that the weight streams; the session packs it once at load.
  const y = g.op("com.microsoft.FusedMatMul", [x, g.initializer(`${name}.weight`, matrixTensor(W, float))], {
    transB: 1,
  });
  return bias === undefined ? y : g.op("Add", [y, bias]);
}
