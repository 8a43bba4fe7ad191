/**
 * StateSpace: Mamba-2's recurrence, with a decay for each head and step, and its state:
 *
 *     Δ = clamp(softplus(dt + dt_bias))    S_t = e^(ΔA) S_{t-1} + B_t ⊗ Δ x_t    y_t = C_t S_t + D x_t    A = -e^(A_log)
 *
 * Twin: `recurrence` in model/reference/mamba2.ts. No form has control flow: several steps are one
 * chunk of matrix products, what its authors call state-space duality.
 */
import assert from "node:assert/strict";
import { float, type Graph, type Value } from "../../onnx/graph.ts";
import { f32Tensor, i64Tensor } from "../../onnx/tensor.ts";
import type { Lowering } from "../lowering.ts";
import { negatedExp, transposedTensor, vectorTensor } from "../matrix.ts";
import { cast, sizes, TO_THE_END } from "../onnx.ts";
import { pastState, presentState, stateType } from "../states.ts";
import { softplus } from "./activation.ts";
import { converted, kernelNode, type Operand, toValue } from "./operand.ts";
import { operator } from "./operator.ts";
import { keyLimit } from "./retention.ts";

export interface StateSpaceInputs {
  /** H · P wide. */
  readonly x: Operand;
  /** G · N wide: heads of a group share them. */
  readonly B: Operand;
  readonly C: Operand;
  /** H wide. */
  readonly dt: Operand;
  readonly groups: number;
  /** Bounds of Δ. */
  readonly timeStepLimit: readonly [min: number, max: number];
  /** Of the tensors `dt_bias`, `A_log` and `D`, [H] each. */
  readonly name: string;
  /** Name of the state [H,N,P]. */
  readonly state: string;
}

export const stateSpace = operator<StateSpaceInputs, Operand>({
  name: "StateSpace",
  looksAlongTime: true,
  limits: ({ B, groups }, kind) => [keyLimit("state_size", B.width / groups, kind)],
  width({ x, B, C, dt: { width: H }, groups, name }) {
    assert(x.width % H === 0 && H % groups === 0, `${name}: ${x.width} columns, ${H} heads, ${groups} groups`);
    assert(B.width === C.width && B.width % groups === 0, `${name}: B and C are ${B.width} and ${C.width} wide`);
    return x.width;
  },

  /** All in f32. */
  plain(lowering, inputs, width) {
    const { graph: g } = lowering;
    const { dt, name, state, timeStepLimit } = inputs;
    const H = dt.width;
    const shape = { ...shapeOf(inputs), width };
    const { bias, A, skip } = parametersOf(lowering, name, H);
    const steps = softplus(g, g.op("Add", [toValue(lowering, dt, "f32"), bias]));
    const delta = clamped(g, steps, timeStepLimit); // [B,T,H]
    const logDecay = g.op("Mul", [delta, A]);

    const x = toValue(lowering, inputs.x, "f32");
    const step = {
      logDecay,
      deltaX: inGroups(g, byHead(g, x, delta, shape), shape), // [B,G,H/G,T,P]
      B: groupRows(g, toValue(lowering, inputs.B, "f32"), shape), // [B,G,1,T,N]
      C: groupRows(g, toValue(lowering, inputs.C, "f32"), shape),
    };
    const past = pastState(lowering, state);
    const form = lowering.steps === "one" ? oneStep : oneChunk;
    const { y, present } = form(g, step, past, shape);
    presentState(lowering, state, present);
    const heads = g.op("Reshape", [x, sizes(g, 0, 0, H, shape.P)]);
    const skipped = g.op("Mul", [heads, g.op("Unsqueeze", [skip, sizes(g, 1)])]);
    const sum = g.op("Add", [y, skipped]); // [B,T,H,P]
    return converted(lowering, { value: sum, dtype: "f32", width, heads: H }, lowering.float);
  },

  kernels: kernel,
  cuda: kernel,
});

function kernel(lowering: Lowering, inputs: StateSpaceInputs, width: number): Operand {
  const { lengths } = lowering;
  const { x, B, C, dt, groups, name, state, timeStepLimit } = inputs;
  const { bias, A, skip } = parametersOf(lowering, name, dt.width);
  const [least, most] = timeStepLimit;
  const bounds = { ...(least > 0 && { least: float(least) }), ...(Number.isFinite(most) && { most: float(most) }) };
  const [delta, decay] = kernelNode(lowering, "Discretize", [dt, bias, A], 2, bounds);
  const kept = stateType(lowering, state);
  const past = pastState(lowering, state, kept);
  const operands = [C, B, x, past, decay, lengths, undefined, undefined, delta, skip];
  const [y, present] = kernelNode(lowering, "Recurrence", operands, 2, { groups });
  presentState(lowering, state, present!, kept);
  return { value: y!, dtype: "f32", width };
}

/** b and D [H], A [1,H]. */
function parametersOf({ graph: g, weight }: Lowering, name: string, H: number): Record<"bias" | "A" | "skip", Value> {
  const vector = (part: string) => g.initializer(`${name}.${part}`, vectorTensor(weight(`${name}.${part}`)));
  const A = g.initializer(`${name}.A`, transposedTensor(weight(`${name}.A_log`), [H, 1], { map: negatedExp }));
  return { bias: vector("dt_bias"), A, skip: vector("D") };
}

interface Shape {
  readonly H: number;
  readonly P: number;
  readonly N: number;
  readonly G: number;
  /** H · P */
  readonly width: number;
}

function shapeOf({ x, B, dt: { width: H }, groups: G }: StateSpaceInputs): Omit<Shape, "width"> {
  return { H, G, P: x.width / H, N: B.width / G };
}

interface Steps {
  /** ΔA [B,T,H] */
  readonly logDecay: Value;
  readonly deltaX: Value;
  readonly B: Value;
  readonly C: Value;
}

interface Result {
  /** [B,T,H,P] */
  readonly y: Value;
  /** [B,H,N,P] */
  readonly present: Value;
}

function oneStep(g: Graph, { logDecay, deltaX, B, C }: Steps, past: Value, { H, P, N, G }: Shape): Result {
  const decay = g.op("Reshape", [g.op("Exp", [logDecay]), sizes(g, -1, H, 1, 1)]);
  const column = g.op("Reshape", [B, sizes(g, 0, 0, 1, N, 1)]);
  const added = g.op("Reshape", [g.op("Mul", [column, deltaX]), sizes(g, -1, H, N, P)]);
  const present = g.op("Add", [g.op("Mul", [past, decay]), added]);
  const read = g.op("MatMul", [C, g.op("Reshape", [present, sizes(g, -1, G, H / G, N, P)])]); // [B,G,H/G,1,P]
  return { y: g.op("Reshape", [read, sizes(g, -1, 1, H, P)]), present };
}

/**
 * y_i = e^(c_i) C_i S + Σ_{j≤i} e^(c_i - c_j) (C_i B_j) Δ x_j and S ← e^(c_T) S + Σ_j e^(c_T - c_j)
 * B_j ⊗ Δ x_j, with c_i the sum of the logarithms of the decays up to step i.
 */
function oneChunk(g: Graph, { logDecay, deltaX, B, C }: Steps, past: Value, { H, P, N, G }: Shape): Result {
  // NOTE: in f64. After hundreds of steps they are in the thousands, and differences of f32 would
  // be off by what a step adds.
  const sums = g.op("CumSum", [cast(g, logDecay, "f64"), g.constant(i64Tensor([], [1]))]); // c: [B,T,H]
  const byHeads = g.op("Transpose", [sums], { perm: [0, 2, 1] });
  const row = g.op("Reshape", [byHeads, sizes(g, 0, G, H / G, 1, -1)]);
  const column = g.op("Reshape", [byHeads, sizes(g, 0, G, H / G, -1, 1)]);
  const [first, last] = [edge(g, column, 0, 1), edge(g, column, -1, TO_THE_END)]; // [B,G,H/G,1,1]
  const difference = (a: Value, b: Value) => cast(g, g.op("Sub", [a, b]), "f32");
  const zero = g.constant(f32Tensor([], [0]));
  // Above the diagonal, which is cut off, the difference is positive, and its power could be
  // infinite.
  const between = g.op("Exp", [g.op("Min", [difference(column, row), zero])]);
  const scores = g.op("com.microsoft.FusedMatMul", [C, B], { transB: 1 }); // [B,G,1,T,T]
  const weights = g.op("Trilu", [g.op("Mul", [scores, between])], { upper: 0 });
  const fromChunk = g.op("MatMul", [weights, deltaX]); // [B,G,H/G,T,P]

  // NOTE: all that reads the past reads it here, before the present may overwrite it.
  const toHeads = sizes(g, -1, H, 1, 1);
  const atFirst = g.op("Mul", [past, g.op("Exp", [cast(g, g.op("Reshape", [first, toHeads]), "f32")])]);
  const grouped = g.op("Reshape", [atFirst, sizes(g, -1, G, H / G, N, P)]);
  const sinceFirst = g.op("Exp", [difference(column, first)]);
  const fromPast = g.op("Mul", [g.op("MatMul", [C, grouped]), sinceFirst]);

  const untilEnd = g.op("Exp", [difference(last, column)]);
  const kept = g.op("Mul", [atFirst, g.op("Exp", [g.op("Reshape", [difference(last, first), toHeads])])]);
  // [B,G,H/G,N,P]
  const added = g.op("com.microsoft.FusedMatMul", [B, g.op("Mul", [deltaX, untilEnd])], { transA: 1 });
  const present = g.op("Add", [kept, g.op("Reshape", [added, sizes(g, -1, H, N, P)])]);

  const sum = g.op("Transpose", [g.op("Add", [fromPast, fromChunk])], { perm: [0, 3, 1, 2, 4] }); // [B,T,G,H/G,P]
  return { y: g.op("Reshape", [sum, sizes(g, 0, 0, H, P)]), present };
}

function edge(g: Graph, column: Value, from: number, to: number): Value {
  return g.op("Slice", [column, sizes(g, from), sizes(g, to), sizes(g, 3)]);
}

/** Δ ⊙ x of each head: [B,T,H,P]. */
function byHead(g: Graph, x: Value, delta: Value, { H, P }: Shape): Value {
  return g.op("Mul", [g.op("Reshape", [x, sizes(g, 0, 0, H, P)]), g.op("Unsqueeze", [delta, sizes(g, 3)])]);
}

/** [B,T,H,P] -> [B,G,H/G,T,P] */
function inGroups(g: Graph, x: Value, { H, P, G }: Shape): Value {
  return g.op("Transpose", [g.op("Reshape", [x, sizes(g, 0, 0, G, H / G, P)])], { perm: [0, 2, 3, 1, 4] });
}

/** [B,T,G·N] -> [B,G,1,T,N] */
function groupRows(g: Graph, x: Value, { G, N }: Shape): Value {
  return g.op("Transpose", [g.op("Reshape", [x, sizes(g, 0, 0, G, 1, N)])], { perm: [0, 2, 3, 1, 4] });
}

function clamped(g: Graph, x: Value, [min, max]: readonly [number, number]): Value {
  const bound = (value: number) => g.constant(f32Tensor([], [value]));
  const above = min > 0 ? g.op("Max", [x, bound(min)]) : x;
  return Number.isFinite(max) ? g.op("Min", [above, bound(max)]) : above;
}
