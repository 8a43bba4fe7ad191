/** Step size and the write and read vectors of each step. Twin: `selectiveParameters` in model/reference/mamba.ts. */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import { float, type Graph, type Value } from "../../onnx/graph.ts";
import { f32Tensor } from "../../onnx/tensor.ts";
import { linear } from "../linear.ts";
import { type Lowering, split, widened } from "../lowering.ts";

export interface SelectiveParameters {
  /** Δ [B,T,E], > 0 */
  readonly delta: Value;
  /** [B,T,N] */
  readonly B: Value;
  /** [B,T,N] */
  readonly C: Value;
}

/** [dt, B, C] = W_x u, each normalised in a Falcon-Mamba; Δ = softplus(W_dt dt + b). u is [B,T,E]; what it gives is f32. */
export function selectiveParameters(
  lowering: Lowering,
  config: MambaConfig,
  layer: number,
  u: Value,
): SelectiveParameters {
  const { graph: g } = lowering;
  const { timeStepRank: R, stateSize: N, parameterNormEpsilon: epsilon } = config;
  const name = mixer(layer);
  const widths = [R, N, N];
  const parts = split(g, widened(lowering, linear(lowering, u, `${name}.x_proj`, { role: "selection" })), widths);
  const [dt, B, C] = parts.map((part, i) =>
    epsilon === undefined ? part : unweightedRmsNorm(g, part, widths[i]!, epsilon),
  ) as [Value, Value, Value];
  const delta = softplus(g, linear(lowering, dt, `${name}.dt_proj`, { bias: true, role: "step size" }));
  return { delta, B, C };
}

/** x · rsqrt(mean(x²) + ε) over the last axis: the operator's weight is 1. */
export function unweightedRmsNorm(g: Graph, x: Value, width: number, epsilon: number): Value {
  const ones = g.initializer(`ones.${width}`, f32Tensor([width], new Float32Array(width).fill(1)));
  return g.op("SimplifiedLayerNormalization", [x, ones], { axis: -1, epsilon: float(epsilon) });
}

/**
 * softplus(x) = log(1 + e^x), to f32's precision for every x: with w = 1 + e^x rounded, and what the rounding has taken, e^x - (w - 1),
 * added again to first order, log(w) + (e^x - (w - 1)) / w. Where e^x is too small to change 1 that is e^x itself. The bound keeps
 * e^x finite; beyond it softplus is x to the last bit.
 *
 * Nine operators, yet three times as fast as `Softplus` at batch 32, whose kernel is scalar (docs/compiler.md).
 */
function softplus(g: Graph, x: Value): Value {
  const scalar = (value: number) => g.constant(f32Tensor([], [value]));
  const e = g.op("Exp", [g.op("Min", [x, scalar(80)])]);
  const w = g.op("Add", [e, scalar(1)]);
  const lost = g.op("Sub", [e, g.op("Sub", [w, scalar(1)])]);
  return g.op("Max", [g.op("Add", [g.op("Log", [w]), g.op("Div", [lost, w])]), x]);
}
