/**
 * Norm: x · rsqrt(mean(x²) + ε) · weight, or with the mean taken away first and a bias; of each
 * row, or of each group of its columns; of a sum of two rows, which it gives too; gated before or
 * after. ONNX Runtime sums squares in f32 whatever the type.
 */
import assert from "node:assert/strict";
import type { WeightTensor } from "../../model/weights.ts";
import { type AttributeValue, float, type Graph, type Value } from "../../onnx/graph.ts";
import type { Lowering } from "../lowering.ts";
import { type FloatType, floatTensor, vectorTensor } from "../matrix.ts";
import { silu } from "./activation.ts";
import { kernelNode, type Operand, perHead, toValue } from "./operand.ts";
import { operator } from "./operator.ts";

export interface NormWeights {
  /** [width], or [width / groups], the same for all groups. */
  readonly weight: WeightTensor;
  /** Likewise, of a LayerNorm: the mean is taken away first. Without it an RMSNorm. */
  readonly bias?: WeightTensor | undefined;
  readonly epsilon: number;
  /** Of columns, each with a norm of its own. Default: 1. */
  readonly groups?: number;
}

export interface NormInputs extends NormWeights {
  readonly x: Operand;
  /** The norm is of x + added. Of one group, and without a gate. */
  readonly added?: Operand | undefined;
  /** After: norm(x) ⊙ by. Before: norm(x ⊙ SiLU(by)). */
  readonly gate?: { readonly by: Operand; readonly place: "before" | "after" } | undefined;
  /** Of inputs and results. */
  readonly dtype: FloatType;
}

export interface Normed {
  readonly normed: Operand;
  /** x + added; x without. */
  readonly sum: Operand;
}

/** [..., width] each. */
export const norm = operator<NormInputs, Normed>({
  name: "Norm",
  looksAlongTime: false,
  width({ x: { width }, added, gate, weight, bias, groups = 1 }) {
    const { name } = weight;
    for (const other of [added, gate?.by]) assert(!other || other.width === width, `${name}: ${other?.width} columns`);
    for (const { shape } of [weight, bias ?? weight]) assert(shape[0] === width || shape[0] === width / groups, name);
    assert(added === undefined || (groups === 1 && gate === undefined), `${name}: a sum in groups, or with a gate`);
    return width;
  },

  plain(lowering, inputs, width) {
    const { graph: g } = lowering;
    const { x, added, gate, dtype } = inputs;
    if (added !== undefined) return plainSkipNorm(lowering, inputs, added);
    const gated = gate?.place === "before" ? gatedBefore(lowering, x, gate.by, dtype) : x;
    const normed = plainNorm(lowering, gated, inputs);
    if (gate?.place !== "after") return { normed, sum: x };
    const value = g.op("Mul", [toValue(lowering, normed), toValue(lowering, gate.by, dtype)]);
    return { normed: { value, dtype, width }, sum: x };
  },

  kernels(lowering, { x, weight, bias, added, gate, epsilon, groups = 1 }, width) {
    const { graph: g } = lowering;
    const [gamma, beta] = [weight, bias].map((tensor) => tensor && g.initializer(tensor.name, vectorTensor(tensor)));
    const attributes: Record<string, AttributeValue> = {
      epsilon: float(epsilon),
      ...(groups > 1 && { groups }),
      ...(gate && { gate: gate.place === "after" ? 1 : 2 }),
    };
    const optional = added || gate ? [beta, added, gate?.by] : [beta];
    const inputs = [x, gamma, ...optional];
    while (inputs.at(-1) === undefined) inputs.pop();
    const [normed, sum] = kernelNode(lowering, "Norm", inputs, added ? 2 : 1, attributes);
    return {
      normed: { value: normed!, dtype: "f32", width },
      sum: sum === undefined ? x : { value: sum, dtype: "f32", width },
    };
  },
});

function plainSkipNorm(lowering: Lowering, { x, weight, bias, epsilon, dtype }: NormInputs, added: Operand): Normed {
  const { graph: g } = lowering;
  const { width } = x;
  const vectors = [weight, ...(bias ? [bias] : [])].map((tensor) =>
    g.initializer(tensor.name, vectorTensor(tensor, dtype)),
  );
  const opType = `com.microsoft.Skip${bias ? "" : "Simplified"}LayerNormalization`;
  const operands = [toValue(lowering, added, dtype), toValue(lowering, x, dtype), ...vectors];
  const outputs = g.ops(opType, operands, 4, { epsilon: float(epsilon) });
  return { normed: { value: outputs[0]!, dtype, width }, sum: { value: outputs[3]!, dtype, width } };
}

/** Of each group; the weights by group in the norm, those by channel after it. */
function plainNorm(lowering: Lowering, x: Operand, { weight, bias, epsilon, groups = 1, dtype }: NormInputs): Operand {
  const { graph: g } = lowering;
  const { width } = x;
  const isByChannel = groups > 1 && weight.shape[0] === width;
  const vector = (tensor: WeightTensor) => g.initializer(tensor.name, vectorTensor(tensor, dtype));
  const value = groups === 1 ? toValue(lowering, x, dtype) : perHead(lowering, x, groups, dtype);
  const gamma = isByChannel ? ones(g, width / groups, dtype) : vector(weight);
  if (!isByChannel) {
    const normed = bias ? layerNorm(g, value, gamma, epsilon, vector(bias)) : rmsNorm(g, value, gamma, epsilon);
    return { value: normed, dtype, width, ...(groups > 1 && { heads: groups }) };
  }
  const normed = bias ? layerNorm(g, value, gamma, epsilon) : rmsNorm(g, value, gamma, epsilon);
  const scaled = g.op("Mul", [toValue(lowering, { value: normed, dtype, width, heads: groups }), vector(weight)]);
  return { value: bias ? g.op("Add", [scaled, vector(bias)]) : scaled, dtype, width };
}

/** x · rsqrt(mean(x²) + ε) · gamma over the last axis. */
export function rmsNorm(g: Graph, x: Value, gamma: Value, epsilon: number): Value {
  return g.op("SimplifiedLayerNormalization", [x, gamma], { axis: -1, epsilon: float(epsilon) });
}

function layerNorm(g: Graph, x: Value, gamma: Value, epsilon: number, beta?: Value): Value {
  return g.op("LayerNormalization", beta ? [x, gamma, beta] : [x, gamma], { axis: -1, epsilon: float(epsilon) });
}

/** The weight of a norm without one. */
export function ones(g: Graph, width: number, dtype: FloatType = "f32"): Value {
  return g.initializer(`ones.${width}`, floatTensor(dtype, [width], new Float32Array(width).fill(1)));
}

function gatedBefore(lowering: Lowering, x: Operand, by: Operand, dtype: FloatType): Operand {
  const { graph: g, float } = lowering;
  const { width } = x;
  const gate = { value: silu(lowering, toValue(lowering, by, float)), dtype: float, width };
  return { value: g.op("Mul", [toValue(lowering, x, dtype), toValue(lowering, gate, dtype)]), dtype, width };
}
