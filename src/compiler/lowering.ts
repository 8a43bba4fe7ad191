/**
 * From a checkpoint to a graph with the contract of `model/artifact.ts`: what every architecture shares, and the one
 * place that picks an architecture's own lowering.
 */
import type { LoweringKind, Precision } from "../model/artifact.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import { type StateLayout, type StateSpec, stateIn } from "../model/state.ts";
import type { WeightTensor } from "../model/weights.ts";
import { Graph, type Value } from "../onnx/graph.ts";
import { DATA_TYPE_CODES, type DataType, f32Tensor, i64Tensor } from "../onnx/tensor.ts";
import { lowerMamba } from "./mamba.ts";
import type { FloatType } from "./matrix.ts";
import { lowerRetNet } from "./retnet.ts";

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

/** What a precision is lowered to where `wanted` may be had: our own operators of a CPU take f32. */
export function loweringKind(precision: Precision, wanted: LoweringKind = "plain"): LoweringKind {
  return precision === "f16" && wanted === "kernels" ? "plain" : wanted;
}

/** Whether the graph for many steps takes sequences of unequal lengths: where all that looks along time is an operator of ours. */
export function takesLengths({ architecture }: Pick<Checkpoint, "architecture">, kind: LoweringKind): boolean {
  return kind === "kernels" || (kind === "cuda" && architecture.kind === "mamba");
}

/** The state that an artifact keeps: our own operators work on f32. */
export function loweredState(precision: Precision, kind: LoweringKind, layouts: readonly StateLayout[]): StateSpec {
  return stateIn(kind === "cuda" ? "f32" : precision, layouts);
}

export function lower(checkpoint: Checkpoint, precision: Precision, steps: Steps, wanted?: LoweringKind): Graph {
  const { architecture } = checkpoint;
  const graph = new Graph(checkpoint.name);
  const kind = loweringKind(precision, wanted);
  const isRagged = steps === "many" && takesLengths(checkpoint, kind);
  const lowering: Lowering = {
    graph,
    precision,
    float: precision === "f16" ? "f16" : "f32",
    steps,
    kind,
    state: loweredState(precision, kind, checkpoint.state),
    lengths: isRagged ? graph.input("lengths", "i64", ["B"]) : undefined,
    weight: checkpoint.tensor,
  };
  switch (architecture.kind) {
    case "mamba":
      lowerMamba(lowering, architecture);
      break;
    case "retnet":
      lowerRetNet(lowering, architecture);
      break;
    default:
      architecture satisfies never;
  }
  return graph;
}

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
  if (float === "f16") return g.op("com.microsoft.QuickGelu", [x], { alpha: { type: "float", value: 1 } });
  const one = g.constant(f32Tensor([], [1]));
  return g.op("Div", [x, g.op("Add", [g.op("Exp", [g.op("Neg", [x])]), one])]);
}

/** Cuts the last axis. */
export function split(g: Graph, x: Value, lengths: readonly number[]): Value[] {
  return g.ops("Split", [x, sizes(g, ...lengths)], lengths.length, { axis: -1 });
}
