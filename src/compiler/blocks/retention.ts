/**
 * Retention, S_t = γ S_{t-1} + k_t ⊗ v_t and y_t = q_t S_t, with its state. Twin: `retention` in
 * model/reference/retnet.ts.
 */
import { headDecays, type RetNetConfig } from "../../model/families/retnet.ts";
import type { Graph, Value } from "../../onnx/graph.ts";
import { f32Tensor } from "../../onnx/tensor.ts";
import { type Lowering, sizes } from "../lowering.ts";
import { cast, rangeTo, sizeOf } from "./position.ts";

export interface RetentionInputs {
  /** [B,T,H,dk], rotated, and scaled by whatever scales the readout. */
  readonly q: Value;
  /** [B,T,H·dk], rotated. */
  readonly k: Value;
  /** [B,T,H·dv] */
  readonly v: Value;
}

/** Powers of each head's γ over a pass of T steps, the same for all layers. */
export interface PassDecays {
  /** [H,T,T]: γ^(i-j) where i ≥ j, else 0: what step i keeps of step j. */
  readonly between: Value;
  /** [H,T,1]: γ^(i+1), what step i keeps of the past. */
  readonly sinceStart: Value;
  /** [H,T,1]: γ^(T-1-j), what the end keeps of step j. */
  readonly untilEnd: Value;
}

export function passDecays({ graph: g }: Lowering, config: RetNetConfig, tokenIds: Value): PassDecays {
  const numSteps = sizeOf(g, tokenIds, 1);
  const step = cast(g, rangeTo(g, numSteps), "f32");
  const column = g.op("Unsqueeze", [step, sizes(g, 1)]); // [T,1]
  const age = g.op("Relu", [g.op("Sub", [column, step])]);
  const last = g.op("Sub", [cast(g, numSteps, "f32"), scalar(g, 1)]);
  return {
    between: g.op("Trilu", [power(g, config, age)], { upper: 0 }),
    sinceStart: power(g, config, g.op("Add", [column, scalar(g, 1)])),
    untilEnd: power(g, config, g.op("Sub", [last, column])),
  };
}

/**
 * y [B,T,H,dv]. Reads `past_kv.<layer>`, writes `present_kv.<layer>`, both [B,H,dk,dv]. One step is the recurrence
 * itself. Several are one chunk of the chunk-wise form: the chunk's own steps see each other in parallel, the past is
 * read and advanced once. Either is plain matrix products, without control flow.
 */
export function retention(
  lowering: Lowering,
  config: RetNetConfig,
  layer: number,
  inputs: RetentionInputs,
  decays: PassDecays | undefined,
): Value {
  const { graph: g } = lowering;
  const { numHeads: H, keyDim, valueDim } = config;
  const shape = [H, keyDim / H, valueDim / H];
  const past = g.input(`past_kv.${layer}`, "f32", ["B", ...shape]);
  const { y, present } =
    decays === undefined ? oneStep(g, config, past, inputs) : chunk(g, config, past, inputs, decays);
  g.output(`present_kv.${layer}`, present, "f32", ["B", ...shape]);
  return y;
}

interface Retained {
  readonly y: Value;
  readonly present: Value;
}

function oneStep(g: Graph, config: RetNetConfig, past: Value, { q, k, v }: RetentionInputs): Retained {
  const { numHeads: H, keyDim, valueDim } = config;
  const decay = g.constant(f32Tensor([H, 1, 1], headDecays(config)));
  const kColumn = g.op("Reshape", [k, sizes(g, 0, H, keyDim / H, 1)]);
  const vRow = g.op("Reshape", [v, sizes(g, 0, H, 1, valueDim / H)]);
  const qRow = g.op("Reshape", [q, sizes(g, 0, H, 1, keyDim / H)]);
  const present = g.op("Add", [g.op("Mul", [past, decay]), g.op("Mul", [kColumn, vRow])]);
  const y = g.op("Reshape", [g.op("MatMul", [qRow, present]), sizes(g, 0, 1, H, valueDim / H)]);
  return { y, present };
}

function chunk(
  g: Graph,
  config: RetNetConfig,
  past: Value,
  inputs: RetentionInputs,
  { between, sinceStart, untilEnd }: PassDecays,
): Retained {
  const { numHeads: H } = config;
  const byHead = (x: Value) => g.op("Transpose", [x], { perm: [0, 2, 1, 3] });
  const q = byHead(inputs.q);
  const [k, v] = [inputs.k, inputs.v].map((x) => byHead(g.op("Reshape", [x, sizes(g, 0, 0, H, -1)]))) as [Value, Value];

  const fromPast = g.op("MatMul", [g.op("Mul", [q, sinceStart]), past]);
  const scores = g.op("com.microsoft.FusedMatMul", [q, k], { transB: 1 });
  const fromChunk = g.op("MatMul", [g.op("Mul", [scores, between]), v]);

  // NOTE: T is taken from `fromPast`, so that the past is read out before it may be overwritten by the present.
  const numSteps = cast(g, sizeOf(g, fromPast, 2), "f32");
  const kept = g.op("Mul", [past, power(g, config, numSteps)]);
  const added = g.op("com.microsoft.FusedMatMul", [g.op("Mul", [k, untilEnd]), v], { transA: 1 });
  return { y: byHead(g.op("Add", [fromPast, fromChunk])), present: g.op("Add", [kept, added]) };
}

/** γ^n of each head: n [...] of at most two axes -> [H, ...]. An error of n · log γ's last bit is far below what is kept. */
function power(g: Graph, config: RetNetConfig, n: Value): Value {
  const logs = g.constant(f32Tensor([config.numHeads, 1, 1], headDecays(config).map(Math.log)));
  return g.op("Exp", [g.op("Mul", [n, logs])]);
}

function scalar(g: Graph, value: number): Value {
  return g.constant(f32Tensor([], [value]));
}
