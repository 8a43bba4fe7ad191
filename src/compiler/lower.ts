/**
 * From a checkpoint to a graph with the contract of `model/artifact.ts`. The one place that picks
 * an architecture's own lowering.
 */
import { type LoweringKind, type Precision, stateIn, type Target } from "../model/artifact.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import type { StatePrecision } from "../model/state.ts";
import { Graph } from "../onnx/graph.ts";
import type { Lowering, Steps } from "./lowering.ts";
import { lowerMamba } from "./mamba.ts";
import { lowerMamba2 } from "./mamba2.ts";
import { lowerRetNet } from "./retnet.ts";
import { lowerRwkv7 } from "./rwkv7.ts";

/** What is asked for. By default plain ONNX, and states in what suits it. */
export interface Wanted {
  readonly precision: Precision;
  readonly lowering?: LoweringKind;
  readonly statePrecision?: StatePrecision;
}

/** What that is compiled to. One artifact has one target, however it was asked for. */
export function targetOf({ precision, lowering: wanted = "plain", statePrecision: states = "auto" }: Wanted): Target {
  // Our own operators of a CPU take f32.
  const lowering = isHalf(precision) && wanted === "kernels" ? "plain" : wanted;
  const isAuto = states === "f32" && (precision !== "f16" || lowering !== "plain");
  return { precision, lowering, statePrecision: isAuto ? "auto" : states };
}

function isHalf(precision: Precision): precision is "f16" | "bf16" {
  return precision === "f16" || precision === "bf16";
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
  const target = targetOf({ precision: "f32", lowering: kind });
  const { used } = build(checkpoint, target, "many", { beyond, isRagged: true });
  for (const { name, beyond: limit } of used) {
    if (limit === undefined) continue;
    beyond.set(name, `it takes ${limit.name} up to ${limit.most}, this model has ${limit.value}`);
  }
  const isRagged = used.every(
    ({ name, looksAlongTime, isKernel }) => !looksAlongTime || (isKernel && !beyond.has(name)),
  );
  return { beyond, isRagged };
}

export function lower(checkpoint: Source, wanted: Wanted, steps: Steps): Graph {
  const target = targetOf(wanted);
  return build(checkpoint, target, steps, surveyOperators(checkpoint, target.lowering)).graph;
}

function build(
  { name, architecture, state, tensor }: Source,
  target: Target,
  steps: Steps,
  { beyond, isRagged }: OperatorSurvey,
): Lowering {
  const { precision, lowering: kind } = target;
  const graph = new Graph(name);
  const hasLengths = isRagged && steps === "many";
  const lowering: Lowering = {
    graph,
    precision,
    float: isHalf(precision) ? precision : "f32",
    steps,
    kind,
    plainOperators: new Set(beyond.keys()),
    state: stateIn(target, state),
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
