/** What the blocks of every architecture share: the context of a lowering, and small operators. Knows no architecture. */
import type { LoweringKind, Precision } from "../model/artifact.ts";
import type { StateSpec } from "../model/state.ts";
import type { WeightTensor } from "../model/weights.ts";
import type { Graph, Value } from "../onnx/graph.ts";
import { DATA_TYPE_CODES, type DataType, f32Tensor, i64Tensor } from "../onnx/tensor.ts";
import type { FloatType } from "./matrix.ts";

/** What the blocks work with. */
export interface Lowering {
  readonly graph: Graph;
  /** Of the large matrices; blocks keep what is small in f32. */
  readonly precision: Precision;
  /** Of matrices that are not quantised, and of what is multiplied with them. */
  readonly float: FloatType;
  readonly steps: Steps;
  /** Whether our own operators, of the domain `densemamba`, may be used. */
  readonly kind: LoweringKind;
  readonly state: StateSpec;
  /** i64 [B]: sequences are of unequal lengths, and stand one after another in a batch of one. Otherwise none: all have T steps. */
  readonly lengths: Value | undefined;
  readonly weight: (name: string) => WeightTensor;
}

/** Passes of one time step (decode) have a graph of their own, without a loop: T is 1 there, and dynamic in the other. */
export type Steps = "one" | "many";

/** i64 [n]: the shapes, axes and sizes that ONNX takes as inputs. */
export function sizes(g: Graph, ...values: number[]): Value {
  return g.constant(i64Tensor([values.length], values));
}

export function cast(g: Graph, x: Value, to: DataType): Value {
  return g.op("Cast", [x], { to: DATA_TYPE_CODES[to] });
}

/** `x`, of the lowering's own type, as f32. */
export function widened({ graph, float }: Lowering, x: Value): Value {
  return float === "f32" ? x : cast(graph, x, "f32");
}

/** f32 as the lowering's own type. */
export function narrowed({ graph, float }: Lowering, x: Value): Value {
  return float === "f32" ? x : cast(graph, x, float);
}

/**
 * x / (1 + e^-x), of the lowering's own type. `QuickGelu` only in f16: its sigmoid of f32 is a fraction of polynomials, off by a
 * fifth at -15 and 0 below -18, which adds up over thousands of steps.
 */
export function silu({ graph: g, float }: Lowering, x: Value): Value {
  if (float !== "f32") return g.op("com.microsoft.QuickGelu", [x], { alpha: { type: "float", value: 1 } });
  const one = g.constant(f32Tensor([], [1]));
  return g.op("Div", [x, g.op("Add", [g.op("Exp", [g.op("Neg", [x])]), one])]);
}

/** Cuts the last axis. */
export function split(g: Graph, x: Value, lengths: readonly number[]): Value[] {
  return g.ops("Split", [x, sizes(g, ...lengths)], lengths.length, { axis: -1 });
}
