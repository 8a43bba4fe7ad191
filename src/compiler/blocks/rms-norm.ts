/**
 * x · rsqrt(mean(x²) + ε) · weight. Twin: `rmsNorm` in model/reference/math.ts. `dtype` is that of inputs and results;
 * ONNX Runtime sums squares in f32 in either.
 */
import type { LoweringKind } from "../../model/artifact.ts";
import type { WeightTensor } from "../../model/weights.ts";
import { float, type Value } from "../../onnx/graph.ts";
import type { Lowering } from "../lowering.ts";
import { type FloatType, vectorTensor } from "../matrix.ts";

/** [..., D] -> [..., D]. */
export function rmsNorm(
  { graph: g, kind }: Lowering,
  x: Value,
  weight: WeightTensor,
  epsilon: number,
  dtype: FloatType,
): Value {
  const gamma = g.initializer(weight.name, vectorTensor(weight, dtype));
  if (isOwn(kind, dtype)) return g.op("densemamba.RmsNorm", [x, gamma], { epsilon: float(epsilon) });
  return g.op("SimplifiedLayerNormalization", [x, gamma], { axis: -1, epsilon: float(epsilon) });
}

/** The norm of `sum + pending`, and that sum, in one pass: [..., D] each. */
export function addRmsNorm(
  { graph: g, kind }: Lowering,
  sum: Value,
  pending: Value,
  weight: WeightTensor,
  epsilon: number,
  dtype: FloatType,
): [normed: Value, sum: Value] {
  const gamma = g.initializer(weight.name, vectorTensor(weight, dtype));
  if (isOwn(kind, dtype)) {
    const [normed, added] = g.ops("densemamba.RmsNorm", [sum, gamma, pending], 2, { epsilon: float(epsilon) });
    return [normed!, added!];
  }
  const outputs = g.ops("com.microsoft.SkipSimplifiedLayerNormalization", [pending, sum, gamma], 4, {
    epsilon: float(epsilon),
  });
  return [outputs[0]!, outputs[3]!];
}

function isOwn(kind: LoweringKind, dtype: FloatType): boolean {
  return kind === "kernels" && dtype === "f32";
}
