/**
 * Functions of each number by itself. Our kernels know them by their place in `ACTIVATIONS`
 * (kernels/activation.h).
 */
import type { Value } from "../../onnx/graph.ts";
import { f32Tensor } from "../../onnx/tensor.ts";
import type { Lowering } from "../lowering.ts";

export const ACTIVATIONS = ["none", "silu", "sigmoid", "tanh", "relu2", "gelu"] as const;
export type Activation = (typeof ACTIVATIONS)[number];

/** Of the lowering's own type. */
export function activated(lowering: Lowering, x: Value, activation: Activation): Value {
  const { graph: g } = lowering;
  switch (activation) {
    case "none":
      return x;
    case "silu":
      return silu(lowering, x);
    case "sigmoid":
      return sigmoid(lowering, x);
    case "tanh":
      return g.op("Tanh", [x]);
    case "relu2": {
      const positive = g.op("Relu", [x]);
      return g.op("Mul", [positive, positive]);
    }
    case "gelu":
      return g.op("com.microsoft.Gelu", [x]);
  }
}

/**
 * x / (1 + e^-x). `QuickGelu` only in f16: its sigmoid of f32 is a fraction of polynomials, off by
 * a fifth at -15 and 0 below -18, which adds up over thousands of steps.
 */
export function silu({ graph: g, float }: Lowering, x: Value): Value {
  if (float !== "f32") return g.op("com.microsoft.QuickGelu", [x], { alpha: { type: "float", value: 1 } });
  const one = g.constant(f32Tensor([], [1]));
  return g.op("Div", [x, g.op("Add", [g.op("Exp", [g.op("Neg", [x])]), one])]);
}

/** 1 / (1 + e^-x), in f32 for the same reason not `Sigmoid`. */
function sigmoid({ graph: g, float }: Lowering, x: Value): Value {
  if (float !== "f32") return g.op("Sigmoid", [x]);
  const one = g.constant(f32Tensor([], [1]));
  return g.op("Reciprocal", [g.op("Add", [g.op("Exp", [g.op("Neg", [x])]), one])]);
}
