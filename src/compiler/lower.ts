/**
 * From a checkpoint to a graph with the contract of `model/artifact.ts`. The one place that picks an architecture's own
 * lowering.
 */
import { DenseMambaError } from "../errors.ts";
import { type LoweringKind, type Precision, stateIn } from "../model/artifact.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import type { StateLayout, StateSpec } from "../model/state.ts";
import { Graph } from "../onnx/graph.ts";
import type { Lowering, Steps } from "./lowering.ts";
import { lowerMamba } from "./mamba.ts";
import { lowerRetNet } from "./retnet.ts";

/** What a precision is lowered to where `wanted` may be had: our own operators of a CPU take f32. */
export function loweringKind(precision: Precision, wanted: LoweringKind = "plain"): LoweringKind {
  return isHalf(precision) && wanted === "kernels" ? "plain" : wanted;
}

function isHalf(precision: Precision): precision is "f16" | "bf16" {
  return precision === "f16" || precision === "bf16";
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
    float: isHalf(precision) ? precision : "f32",
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
    case "mamba2":
    case "rwkv7":
      throw new DenseMambaError("unsupported_value", `${checkpoint.family.name} cannot be compiled yet`);
    default:
      architecture satisfies never;
  }
  return graph;
}
