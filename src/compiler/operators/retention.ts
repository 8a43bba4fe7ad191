/**
 * Retention: S_t = γ S_{t-1} + k_t ⊗ v_t and y_t = q_t S_t of each head, with its state. Twin:
 * `retention` in model/reference/retnet.ts, which also rotates and normalises. No form has control
 * flow.
 */
import assert from "node:assert/strict";
import { float, type Graph, type Value } from "../../onnx/graph.ts";
import { f32Tensor, i64Tensor } from "../../onnx/tensor.ts";
import { type Limit, type Lowering, once } from "../lowering.ts";
import { type FloatType, floatTensor } from "../matrix.ts";
import { cast, sizes } from "../onnx.ts";
import { countWithin, lastOf, onesOf } from "../positions.ts";
import { pastState, presentState, stateType } from "../states.ts";
import { kernelNode, type Operand, perHead, toValue } from "./operand.ts";
import { type KernelKind, operator } from "./operator.ts";

export interface RetentionInputs {
  /** H · dk wide. */
  readonly q: Operand;
  readonly k: Operand;
  /** H · dv wide. */
  readonly v: Operand;
  /** Name of the state [H,dk,dv]. */
  readonly state: string;
  /** γ of each head, the same in all layers. */
  readonly decays: readonly number[];
}

/** As DM_MAX_KEY_WIDTH and DM_MAX_CUDA_KEY_WIDTH in kernels/limits.h. */
export const MAX_KEY_WIDTH = 4096;
export const MAX_CUDA_KEY_WIDTH = 512;

/** Of the kernel `Recurrence`, which other operators have too: how wide a head's key may be. */
export function keyLimit(name: string, value: number, kind: KernelKind): Limit {
  return { name, value, most: kind === "kernels" ? MAX_KEY_WIDTH : MAX_CUDA_KEY_WIDTH };
}

export const retention = operator<RetentionInputs, Operand>({
  name: "Retention",
  looksAlongTime: true,
  width({ q, k, v, state, decays: { length: H } }) {
    assert(
      q.width === k.width && k.width % H === 0 && v.width % H === 0,
      `${state}: ${q.width}, ${k.width}, ${v.width}`,
    );
    return v.width;
  },
  limits: ({ k, decays }, kind) => [keyLimit("a head's key", k.width / decays.length, kind)],

  plain(lowering, inputs, width) {
    // Of what works on the state: f16 only if all is.
    const dtype = stateType(lowering, inputs.state) === lowering.float ? lowering.float : "f32";
    const past = pastState(lowering, inputs.state, dtype);
    const form = lowering.steps === "one" ? oneStep : oneChunk;
    const { y, present } = form(lowering, inputs, past, dtype);
    presentState(lowering, inputs.state, present, dtype);
    const value = dtype === lowering.float ? y : cast(lowering.graph, y, lowering.float);
    return { value, dtype: lowering.float, width, heads: inputs.decays.length };
  },

  /** A step is one pass over the state instead of four, and several are taken in blocks. */
  kernels: kernel,
  /** There several are better as a chunk of products. */
  cuda: (lowering, inputs, width) => (lowering.steps === "one" ? kernel(lowering, inputs, width) : undefined),
});

function kernel(lowering: Lowering, { q, k, v, state, decays }: RetentionInputs, width: number): Operand {
  const { graph: g, lengths } = lowering;
  const decay = g.constant(f32Tensor([decays.length], decays));
  const kept = stateType(lowering, state);
  const operands = [q, k, v, pastState(lowering, state, kept), decay, ...(lengths ? [lengths] : [])];
  const [y, present] = kernelNode(lowering, "Recurrence", operands, 2);
  presentState(lowering, state, present!, kept);
  return { value: y!, dtype: "f32", width };
}

/** y [B,T,H,dv]. */
interface Retained {
  readonly y: Value;
  readonly present: Value;
}

/**
 * One step of `LinearAttention`, which works inside the present's buffer: 1.8 times as fast for one
 * sequence and 3.7 times for eight (docs/compiler.md).
 */
function oneStep(lowering: Lowering, { q, k, v, decays }: RetentionInputs, past: Value, dtype: FloatType): Retained {
  const { graph: g } = lowering;
  const H = decays.length;
  const logDecay = once(lowering, "decay", () => {
    const logs = g.constant(floatTensor(dtype, [H], decays.map(Math.log)));
    const column = g.op("Unsqueeze", [cast(g, onesOf(g, lowering.tokenIds), dtype), sizes(g, 2)]);
    return g.op("Mul", [column, logs]); // [B,1,H]
  });
  const inputs = [...[q, k, v].map((x) => toValue(lowering, x, dtype)), past, logDecay];
  const attributes = { q_num_heads: H, kv_num_heads: H, update_rule: "gated", scale: float(1) };
  const [y, present] = g.ops("com.microsoft.LinearAttention", inputs, 2, attributes) as [Value, Value];
  return { y: g.op("Reshape", [y, sizes(g, 0, 0, H, v.width / H)]), present };
}

/**
 * One chunk of the chunk-wise form: its own steps see each other in parallel, the past is read and
 * advanced once. `LinearAttention` would walk over the state at every step.
 */
function oneChunk(lowering: Lowering, { q, k, v, decays }: RetentionInputs, past: Value, dtype: FloatType): Retained {
  const { graph: g } = lowering;
  const { between, sinceFirst, untilEnd, ofAll, ofOne } = once(lowering, "decay", () =>
    chunkPowers(g, decays, lowering.tokenIds, dtype),
  );
  const swap = (x: Value) => g.op("Transpose", [x], { perm: [0, 2, 1, 3] });
  const [Q, K, V] = [q, k, v].map((x) => swap(perHead(lowering, x, decays.length, dtype))) as [Value, Value, Value];
  // NOTE: all that reads the past reads it here, before the present may overwrite it.
  const atFirst = g.op("Mul", [past, ofOne]);
  const fromPast = g.op("MatMul", [g.op("Mul", [Q, sinceFirst]), atFirst]);
  const scores = g.op("com.microsoft.FusedMatMul", [Q, K], { transB: 1 });
  const fromChunk = g.op("MatMul", [g.op("Mul", [scores, between]), V]);

  const kept = g.op("Mul", [atFirst, ofAll]);
  const added = g.op("com.microsoft.FusedMatMul", [g.op("Mul", [K, untilEnd]), V], { transA: 1 });
  return { y: swap(g.op("Add", [fromPast, fromChunk])), present: g.op("Add", [kept, added]) };
}

/** Of a chunk of T steps, i and j from 0. */
function chunkPowers(g: Graph, decays: readonly number[], tokenIds: Value, dtype: FloatType) {
  const one = g.constant(f32Tensor([], [1]));
  const row = cast(g, g.op("Gather", [countWithin(g, tokenIds), g.constant(i64Tensor([], [0]))]), "f32"); // j: [T]
  const column = g.op("Unsqueeze", [row, sizes(g, 1)]); // i: [T,1]
  const age = g.op("Relu", [g.op("Sub", [column, row])]);
  const last = lastOf(g, row); // T - 1
  return {
    between: g.op("Trilu", [powers(g, decays, age, dtype)], { upper: 0 }), // [H,T,T]: γ^(i-j) where i ≥ j, else 0
    sinceFirst: powers(g, decays, column, dtype), // [H,T,1]: γ^i
    untilEnd: powers(g, decays, g.op("Sub", [last, column]), dtype), // [H,T,1]: γ^(T-1-i)
    ofAll: powers(g, decays, last, dtype), // [H,1,1]: γ^(T-1)
    ofOne: powers(g, decays, one, dtype), // [H,1,1]: γ
  };
}

/**
 * γ^n of each head: n, f32 [...] of at most two axes -> [H, ...]. Computed in f32: the larger the
 * exponent, the less of γ^n is left for its rounding to matter.
 */
function powers(g: Graph, decays: readonly number[], n: Value, dtype: FloatType): Value {
  const logs = g.constant(f32Tensor([decays.length, 1, 1], decays.map(Math.log)));
  const result = g.op("Exp", [g.op("Mul", [n, logs])]);
  return dtype === "f32" ? result : cast(g, result, dtype);
}
