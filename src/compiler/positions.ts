/**
 * Where in its sequence each token stands, and what follows from that alone, once for all layers:
 * the rotation of keys and queries and the normaliser of the readout. Twins: `takePosition`,
 * `rotate` in model/reference/retnet.ts.
 *
 * The position is part of the state, so that a pass needs nothing but tokens and states, and a
 * snapshot is whole. From it to sine and cosine everything is f64: in f32 the fast angles are noise
 * after a million tokens.
 */
import { POSITION_BASE } from "../model/families/retnet.ts";
import type { Graph, Value } from "../onnx/graph.ts";
import { f64Tensor, i64Tensor } from "../onnx/tensor.ts";
import { type Lowering, once } from "./lowering.ts";
import { cast, sizes } from "./onnx.ts";
import { type Operand, toValue } from "./operators/operand.ts";
import { pastState, presentState } from "./states.ts";

export interface Positions {
  /** [rows, dk/2], by `rows`. All but `rows` are of the lowering's type. */
  readonly cos: Value;
  readonly sin: Value;
  /** i64 [B,T]: 0, 1, 2, … */
  readonly rows: Value;
  /** [B,T,H,1]: 1 / √(1 + γ + … + γ^position) */
  readonly normalizer: Value;
}

/** Radians a step of each pair of a key, and γ of each head. */
export interface Rates {
  readonly angles: readonly number[];
  readonly decays: readonly number[];
}

/**
 * Reads `past_position` and writes `present_position`, [B,2]: two digits, low and high, of how many
 * tokens were read.
 */
export function positions(lowering: Lowering, rates: Rates): Positions {
  return once(lowering, "position", () => lowerPositions(lowering, rates));
}

function lowerPositions(lowering: Lowering, { angles, decays }: Rates): Positions {
  const { graph: g, steps, lengths, tokenIds } = lowering;
  const f64 = (...values: number[]) => g.constant(f64Tensor([values.length], values));

  const past = pastState(lowering, "position");
  const within = steps === "one" ? undefined : countWithin(g, tokenIds);
  const position = () => {
    if (within === undefined) return first;
    if (lengths) return positionsOfRows(g, first, lengths, g.op("Reshape", [within, sizes(g, -1)]));
    return g.op("Add", [first, cast(g, within, "f64")]);
  };
  const column = g.constant(f64Tensor([2, 1], [1, POSITION_BASE]));
  const first = g.op("MatMul", [cast(g, past, "f64"), column]); // [B,1]
  const numSteps = within // [B,1], all the same
    ? g.op("Add", [lastOf(g, within), g.constant(i64Tensor([], [1]))])
    : onesOf(g, tokenIds);
  const next = g.op("Add", [first, cast(g, lengths ? columnOf(g, lengths) : numSteps, "f64")]);
  const high = g.op("Floor", [g.op("Div", [next, f64(POSITION_BASE)])]);
  const low = g.op("Sub", [next, g.op("Mul", [high, f64(POSITION_BASE)])]);
  presentState(lowering, "position", cast(g, g.op("Concat", [low, high], { axis: 1 }), "f32"));

  const rowsBefore = countBefore(g, numSteps, 0); // [B,1]
  const perStep = g.op("Unsqueeze", [position(), sizes(g, 2)]); // [B,T,1]
  const phase = g.op("Mul", [perStep, g.initializer("angles", f64Tensor([angles.length], angles))]);
  const table = (op: "Cos" | "Sin") =>
    g.op("Reshape", [cast(g, g.op(op, [phase]), lowering.float), sizes(g, -1, angles.length)]);

  const exponent = g.op("Mul", [g.op("Add", [perStep, f64(1)]), f64(...decays.map(Math.log))]);
  const remaining = g.op("Sub", [f64(1), g.op("Exp", [exponent])]); // 1 - γ^(position + 1)
  const normalizer = g.op("Sqrt", [g.op("Div", [f64(...decays.map((decay) => 1 - decay)), remaining])]);
  return {
    cos: table("Cos"),
    sin: table("Sin"),
    rows: within ? g.op("Add", [rowsBefore, within]) : rowsBefore,
    normalizer: g.op("Unsqueeze", [cast(g, normalizer, lowering.float), sizes(g, 3)]),
  };
}

/**
 * Of sequences that stand one after another: f64 [1,S], from where each begins, [B,1], their
 * lengths, i64 [B], and 0 … S - 1.
 */
function positionsOfRows(g: Graph, first: Value, lengths: Value, rows: Value): Value {
  const ends = g.op("CumSum", [lengths, g.constant(i64Tensor([], [0]))]); // [B]
  const isBehind = g.op("GreaterOrEqual", [columnOf(g, rows), ends]); // [S,B]
  const sequence = g.op("ReduceSum", [cast(g, isBehind, "i64"), sizes(g, 1)], { keepdims: 0 }); // [S]
  const start = cast(g, columnOf(g, g.op("Sub", [ends, lengths])), "f64"); // [B,1]: of its rows
  const offset = g.op("Gather", [g.op("Sub", [first, start]), sequence]); // [S,1]
  return g.op("Transpose", [g.op("Add", [offset, cast(g, columnOf(g, rows), "f64")])], { perm: [1, 0] });
}

/** [n] as [n,1]. */
function columnOf(g: Graph, x: Value): Value {
  return g.op("Unsqueeze", [x, sizes(g, 1)]);
}

/** Turns pairs of neighbours of each head by θ · position: H·dk wide. */
export function rotate(lowering: Lowering, x: Operand, { cos, sin, rows }: Positions): Operand {
  const inputs = [toValue(lowering, x), rows, cos, sin];
  const value = lowering.graph.op("com.microsoft.RotaryEmbedding", inputs, { interleaved: 1 });
  return { value, dtype: x.dtype, width: x.width };
}

/**
 * i64 [B,T]: 0 … T - 1, for each sequence.
 *
 * Counted, not made of the shape: what is computed from a shape ONNX Runtime puts on the CPU, where
 * a device that captures a step cannot wait for it.
 */
export function countWithin(g: Graph, tokenIds: Value): Value {
  return countBefore(g, onesOf(g, tokenIds), 1);
}

/** i64, as the token ids. */
export function onesOf(g: Graph, tokenIds: Value): Value {
  return cast(g, g.op("GreaterOrEqual", [tokenIds, g.constant(i64Tensor([], [0]))]), "i64");
}

/** The sum of those before it along the axis. */
function countBefore(g: Graph, x: Value, axis: number): Value {
  return g.op("CumSum", [x, g.constant(i64Tensor([], [axis]))], { exclusive: 1 });
}

/** [...,n] -> [...,1] */
export function lastOf(g: Graph, x: Value): Value {
  return g.op("Gather", [x, sizes(g, -1)], { axis: -1 });
}
