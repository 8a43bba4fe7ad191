/**
 * From a checkpoint to a graph with the contract of `model/artifact.ts`. The one place that picks
 * an architecture's own lowering.
 */
import { type LoweringKind, type Precision, stateIn } from "../model/artifact.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import type { StateLayout, StateSpec } from "../model/state.ts";
import { Graph } from "../onnx/graph.ts";
import type { Lowering, Steps } from "./lowering.ts";
import { lowerMamba } from "./mamba.ts";
import { lowerMamba2 } from "./mamba2.ts";
import { lowerRetNet } from "./retnet.ts";
import { lowerRwkv7 } from "./rwkv7.ts";

/**
 * What a precision is lowered to where `wanted` may be had: our own operators of a CPU take f32.
 */
export function loweringKind(precision: Precision, wanted: LoweringKind = "plain"): LoweringKind {
  return isHalf(precision) && wanted === "kernels" ? "plain" : wanted;
}

function isHalf(precision: Precision): precision is "f16" | "bf16" {
  return precision === "f16" || precision === "bf16";
}

/** The state that an artifact keeps: our own operators work on f32. */
export function loweredState(precision: Precision, kind: LoweringKind, layouts: readonly StateLayout[]): StateSpec {
  return stateIn(kind === "plain" ? precision : "f32", layouts);
}

/** How a model's operators are emitted. */
export interface OperatorSurvey {
  /**
   * The kernels whose limits the model is beyond, and what each takes; plain ONNX is in their
   * place.
   */
  readonly beyond: ReadonlyMap<string, string>;
  /**
   * Whether a pass may have sequences of unequal lengths: whether every operator that looks along
   * time is a kernel.
   */
  readonly isRagged: boolean;
}

type Source = Pick<Checkpoint, "architecture" | "name" | "state" | "tensor">;

/** Lowers the model for trial. Reads no weights. */
export function surveyOperators(checkpoint: Source, kind: LoweringKind): OperatorSurvey {
  const beyond = new Map<string, string>();
  if (kind === "plain") return { beyond, isRagged: false };
  const { used } = build(checkpoint, { precision: "f32", steps: "many", kind }, { beyond, isRagged: true });
  for (const { name, beyond: limit } of used) {
    if (limit === undefined) continue;
    beyond.set(name, `it takes ${limit.name} up to ${limit.most}, this model has ${limit.value}`);
  }
  const isRagged = used.every(
    ({ name, looksAlongTime, isKernel }) => !looksAlongTime || (isKernel && !beyond.has(name)),
  );
  return { beyond, isRagged };
}

export function lower(checkpoint: Source, precision: Precision, steps: Steps, wanted?: LoweringKind): Graph {
  const kind = loweringKind(precision, wanted);
  return build(checkpoint, { precision, steps, kind }, surveyOperators(checkpoint, kind)).graph;
}

function build(
  { name, architecture, state, tensor }: Source,
  { precision, steps, kind }: Pick<Lowering, "precision" | "steps" | "kind">,
  { beyond, isRagged }: OperatorSurvey,
): Lowering {
  const graph = new Graph(name);
  const hasLengths = isRagged && steps === "many";
  const lowering: Lowering = {
    graph,
    precision,
    float: isHalf(precision) ? precision : "f32",
    steps,
    kind,
    plainOperators: new Set(beyond.keys()),
    state: loweredState(precision, kind, state),
    lengths: hasLengths ? graph.input("lengths", "i64", ["B"]) : undefined,
    tokenIds: graph.input("input_ids", "i64", hasLengths ? [1, "S"] : ["B", steps === "one" ? 1 : "T"]),
    weight: tensor,
    used: [],
    conversions: { parts: new Map(), casts: new Map() },
    shared: new Map(),
  };
  switch (architecture.kind) {
    case "mamba":
      lowerMamba(lowering, architecture);
      break;
    case "mamba2":
      lowerMamba2(lowering, architecture);
      break;
    case "retnet":
      lowerRetNet(lowering, architecture);
      break;
    case "rwkv7":
      lowerRwkv7(lowering, architecture);
      break;
    default:
      architecture satisfies never;
  }
  return lowering;
}
