/**
 * Linear: y = activation(W x + b) in the precision of the artifact. Plain ONNX multiplies f32 with
 * `FusedMatMul` and fewer bits with `MatMulNBits`; our kernel has fewer bits alone. Callers say
 * what a matrix is for; `quantize.ts` says what that is worth.
 */
import assert from "node:assert/strict";
import type { Graph, Value } from "../../onnx/graph.ts";
import type { Lowering } from "../lowering.ts";
import { type FloatType, type Matrix, matrix, matrixTensor, vectorTensor } from "../matrix.ts";
import { sizes } from "../onnx.ts";
import { bitsOf, type Layout, type MatrixRole, type Quantized, quantize } from "../quantize.ts";
import { ACTIVATIONS, type Activation, activated } from "./activation.ts";
import { kernelNode, type Operand, toValue } from "./operand.ts";
import { operator } from "./operator.ts";

export interface LinearOptions {
  /** Adds `<name>.bias`. */
  readonly bias?: boolean;
  /** Default "projection". */
  readonly role?: MatrixRole;
  /** Of the result. */
  readonly activation?: Activation;
}

/** y = W x + b with the checkpoint's `<name>.weight`: x [..., columns] -> [..., rows]. */
export function linear(lowering: Lowering, x: Operand, name: string, options: LinearOptions = {}): Operand {
  const { bias = false, role = "projection", activation = "none" } = options;
  return emit(lowering, { x, name, W: matrix(lowering.weight(`${name}.weight`)), bias, role, activation });
}

interface LinearInputs extends Required<LinearOptions> {
  readonly x: Operand;
  /** Of the tensors, without `.weight`. */
  readonly name: string;
  readonly W: Matrix;
}

const emit = operator<LinearInputs, Operand>({
  name: "Linear",
  looksAlongTime: false,
  width({ x, name, W }) {
    assert(x.width === W.numColumns, `${name} has ${W.numColumns} columns, its input ${x.width}`);
    return W.numRows;
  },

  plain(lowering, inputs, width) {
    const { graph: g } = lowering;
    const dtype = floatOf(lowering, inputs.role);
    const x = toValue(lowering, inputs.x, dtype);
    const quantized = quantizedMatrix(lowering, inputs, "rows");
    const y = quantized
      ? matMulNBits(g, filledUp(g, x, inputs, quantized), inputs, quantized, biasOf(lowering, inputs, dtype))
      : matMul(g, x, inputs, dtype, biasOf(lowering, inputs, dtype));
    return { value: activated(lowering, y, inputs.activation), dtype, width };
  },

  kernels(lowering, inputs, width) {
    const quantized = quantizedMatrix(lowering, inputs, "tiles");
    if (quantized === undefined) return undefined;
    const { graph: g } = lowering;
    const isFull = quantized.numColumns === inputs.W.numColumns;
    const x = isFull ? inputs.x : filledUp(g, toValue(lowering, inputs.x), inputs, quantized);
    const [value] = kernelNode(
      lowering,
      "Linear",
      [x, ...weightsOf(g, inputs.name, quantized), biasOf(lowering, inputs, "f32")],
      1,
      {
        rows: width,
        columns: quantized.numColumns,
        bits: quantized.bits,
        block: quantized.blockSize,
        activation: ACTIVATIONS.indexOf(inputs.activation),
      },
    );
    return { value: value!, dtype: "f32", width };
  },
});

/** The step size is raised to a power: f16's rounding of a sum of -8 would be off by 0.4% in it. */
function floatOf({ float }: Lowering, role: MatrixRole): FloatType {
  return role === "step size" ? "f32" : float;
}

function quantizedMatrix(lowering: Lowering, { name, W, role }: LinearInputs, layout: Layout): Quantized | undefined {
  const bits = bitsOf(lowering, role, W);
  return bits && quantize(W, name, bits, layout);
}

function biasOf({ graph: g, weight }: Lowering, { name, bias }: LinearInputs, dtype: FloatType): Value | undefined {
  return bias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`), dtype)) : undefined;
}

/** With zeros for the columns of zeros that the matrix was filled up with. */
function filledUp(g: Graph, x: Value, { W }: LinearInputs, quantized: Quantized): Value {
  const missing = quantized.numColumns - W.numColumns;
  return missing === 0 ? x : g.op("Pad", [x, sizes(g, 0, missing), undefined, sizes(g, -1)]);
}

function matMulNBits(g: Graph, x: Value, { name, W }: LinearInputs, quantized: Quantized, bias?: Value): Value {
  return g.op("com.microsoft.MatMulNBits", [x, ...weightsOf(g, name, quantized), undefined, undefined, bias], {
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

function matMul(g: Graph, x: Value, { name, W }: LinearInputs, dtype: FloatType, bias?: Value): Value {
  // transB keeps the checkpoint's own order of bytes, so that the weight streams; the session packs
  // it once at load.
  const y = g.op("com.microsoft.FusedMatMul", [x, g.initializer(`${name}.weight`, matrixTensor(W, dtype))], {
    transB: 1,
  });
  return bias === undefined ? y : g.op("Add", [y, bias]);
}
