/**
 * Linear layers y = W x + b in the precision of the artifact: f32 through `FusedMatMul`, fewer bits through
 * `MatMulNBits` or our own `Linear`. Callers say what a matrix is for; `quantize.ts` says what that is worth.
 */
import type { Graph, Value } from "../onnx/graph.ts";
import { type Lowering, silu, sizes } from "./lowering.ts";
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
  const layer = { g, x: quantized ? widenedTo(lowering, x, W, quantized) : x, name, W, bias };
  if (quantized !== undefined && kind === "kernels") return ownLinear(layer, quantized, activation);
  const y = quantized ? matMulNBits(layer, quantized) : matMul(layer, float);
  return activation === "silu" ? silu(lowering, y) : y;
}

interface Layer {
  readonly g: Graph;
  readonly x: Value;
  readonly name: string;
  readonly W: Matrix;
  readonly bias: Value | undefined;
}

/** With zeros for the columns of zeros that the matrix was filled up with. */
function widenedTo({ graph: g }: Lowering, x: Value, { numColumns }: Matrix, quantized: Quantized): Value {
  const missing = quantized.numColumns - numColumns;
  return missing === 0 ? x : g.op("Pad", [x, sizes(g, 0, missing), undefined, sizes(g, -1)]);
}

/** The step size is raised to a power: f16's rounding of a sum of -8 would be off by 0.4% in it. */
function floatOf({ float }: Lowering, role: MatrixRole): FloatType {
  return role === "step size" ? "f32" : float;
}

function ownLinear({ g, x, name, W, bias }: Layer, quantized: Quantized, activation: "silu" | undefined): Value {
  const weights = weightsOf(g, name, quantized);
  return g.op("densemamba.Linear", bias ? [x, ...weights, bias] : [x, ...weights], {
    rows: W.numRows,
    columns: quantized.numColumns,
    bits: quantized.bits,
    block: quantized.blockSize,
    silu: activation === "silu" ? 1 : 0,
  });
}

function matMulNBits({ g, x, name, W, bias }: Layer, quantized: Quantized): Value {
  const weights = weightsOf(g, name, quantized);
  return g.op("com.microsoft.MatMulNBits", [x, ...weights, undefined, undefined, bias], {
    K: quantized.numColumns,
    N: W.numRows,
    bits: quantized.bits,
    block_size: quantized.blockSize,
    accuracy_level: 4,
  });
}

function weightsOf(g: Graph, name: string, { codes, scales }: Quantized): [codes: Value, scales: Value] {
  return [g.initializer(`${name}.codes`, codes), g.initializer(`${name}.scales`, scales)];
}

function matMul({ g, x, name, W, bias }: Layer, float: FloatType): Value {
  // transB keeps the checkpoint's own order of bytes, so that the weight streams; the session packs it once at load.
  const y = g.op("com.microsoft.FusedMatMul", [x, g.initializer(`${name}.weight`, matrixTensor(W, float))], {
    transB: 1,
  });
  return bias === undefined ? y : g.op("Add", [y, bias]);
}
