/**
 * Retention, S_t = γ S_{t-1} + k_t ⊗ v_t and y_t = q_t S_t, with its state. Twin: `retention` in
 * model/reference/retnet.ts, which also rotates and normalises.
 */
import { headDecays, type RetNetConfig } from "../../model/families/retnet.ts";
import { float, type Graph, type Value } from "../../onnx/graph.ts";
import { f32Tensor, i64Tensor } from "../../onnx/tensor.ts";
import { cast, type Lowering, sizes } from "../lowering.ts";
import { type FloatType, floatTensor } from "../matrix.ts";
import { pastState, presentState, stateType } from "../states.ts";
import { countWithin, lastOf, ones } from "./position.ts";

export interface RetentionInputs {
  /** [B,T,H·dk] each, rotated. */
  readonly q: Value;
  readonly k: Value;
  /** [B,T,H·dv] */
  readonly v: Value;
}

/** y [B,T,H,dv] of a layer. Reads `past_kv.<layer>` and writes `present_kv.<layer>`, both [B,H,dk,dv]. */
export type Retention = (layer: number, inputs: RetentionInputs) => Value;

/** Lowers what all layers share, the powers of γ, and gives the layers' own part. No form has control flow. */
export function retention(lowering: Lowering, config: RetNetConfig, tokenIds: Value): Retention {
  const { graph: g, steps } = lowering;
  // Of all layers, and of what works on it: a state that has to be f32 is read and written as it is.
  const dtype = stateType(lowering, "kv.0");
  const retain = retainWith();
  const converted = (x: Value, to: FloatType) => (dtype === lowering.float ? x : cast(g, x, to));
  function retainWith(): Retain {
    if (lowering.kind === "kernels") return ownRetention(lowering, config);
    if (steps === "many") return oneChunk(g, config, tokenIds, dtype);
    return lowering.kind === "cuda" ? ownRetention(lowering, config) : onePlainStep(g, config, tokenIds, dtype);
  }
  return (layer, { q, k, v }) => {
    const [ownQ, ownK, ownV] = [q, k, v].map((x) => converted(x, dtype)) as [Value, Value, Value];
    const { y, present } = retain(pastState(lowering, `kv.${layer}`, dtype), { q: ownQ, k: ownK, v: ownV });
    presentState(lowering, `kv.${layer}`, present, dtype);
    return converted(y, lowering.float);
  };
}

type Retain = (past: Value, inputs: RetentionInputs) => { readonly y: Value; readonly present: Value };

/**
 * The recurrence itself. `LinearAttention` copies the past to the present and then works there, so the two may be one
 * buffer. It walks over the state fewer times than plain operators do: a step is 1.7 times as fast for one sequence and
 * 3.7 times for eight (docs/compiler.md).
 */
function onePlainStep(g: Graph, config: RetNetConfig, tokenIds: Value, dtype: FloatType): Retain {
  const { numHeads: H, valueDim } = config;
  const logs = g.constant(floatTensor(dtype, [H], headDecays(config).map(Math.log)));
  const logDecay = g.op("Mul", [g.op("Unsqueeze", [cast(g, ones(g, tokenIds), dtype), sizes(g, 2)]), logs]); // [B,1,H]
  return (past, { q, k, v }) => {
    const [y, present] = g.ops("com.microsoft.LinearAttention", [q, k, v, past, logDecay], 2, {
      q_num_heads: H,
      kv_num_heads: H,
      update_rule: "gated",
      scale: float(1),
    }) as [Value, Value];
    return { y: g.op("Reshape", [y, sizes(g, 0, 0, H, valueDim / H)]), present };
  };
}

/** Our own operator: a step is one pass over the state instead of four, and several are taken in blocks. In CUDA one step alone. */
function ownRetention({ graph: g, lengths }: Lowering, config: RetNetConfig): Retain {
  const decay = g.constant(f32Tensor([config.numHeads], headDecays(config)));
  return (past, { q, k, v }) => {
    const [y, present] = g.ops("densemamba.Retention", [q, k, v, past, decay, ...(lengths ? [lengths] : [])], 2) as [
      Value,
      Value,
    ];
    return { y, present };
  };
}

/**
 * One chunk of the chunk-wise form: its own steps see each other in parallel, the past is read and advanced once.
 * `LinearAttention` would walk over the state at every step.
 */
function oneChunk(g: Graph, config: RetNetConfig, tokenIds: Value, dtype: FloatType): Retain {
  const one = g.constant(f32Tensor([], [1]));
  const row = cast(g, g.op("Gather", [countWithin(g, tokenIds), g.constant(i64Tensor([], [0]))]), "f32"); // j: [T]
  const column = g.op("Unsqueeze", [row, sizes(g, 1)]); // i: [T,1]
  const age = g.op("Relu", [g.op("Sub", [column, row])]);
  const between = g.op("Trilu", [powers(g, config, age, dtype)], { upper: 0 }); // [H,T,T]: γ^(i-j) where i ≥ j, else 0
  const sinceFirst = powers(g, config, column, dtype); // [H,T,1]: γ^i
  const last = lastOf(g, row); // T - 1
  const untilEnd = powers(g, config, g.op("Sub", [last, column]), dtype); // [H,T,1]: γ^(T-1-i)
  const ofAll = powers(g, config, last, dtype); // [H,1,1]: γ^(T-1)
  const ofOne = powers(g, config, one, dtype); // [H,1,1]: γ

  const toHeads = (x: Value) => g.op("Reshape", [x, sizes(g, 0, 0, config.numHeads, -1)]);
  const swap = (x: Value) => g.op("Transpose", [x], { perm: [0, 2, 1, 3] });
  return (past, inputs) => {
    const q = swap(toHeads(inputs.q));
    const k = swap(toHeads(inputs.k));
    const v = swap(toHeads(inputs.v)); // [B,H,T,dv]
    // NOTE: all that reads the past reads it here, before the present may overwrite it.
    const atFirst = g.op("Mul", [past, ofOne]);
    const fromPast = g.op("MatMul", [g.op("Mul", [q, sinceFirst]), atFirst]);
    const scores = g.op("com.microsoft.FusedMatMul", [q, k], { transB: 1 });
    const fromChunk = g.op("MatMul", [g.op("Mul", [scores, between]), v]);

    const kept = g.op("Mul", [atFirst, ofAll]);
    const added = g.op("com.microsoft.FusedMatMul", [g.op("Mul", [k, untilEnd]), v], { transA: 1 });
    return { y: swap(g.op("Add", [fromPast, fromChunk])), present: g.op("Add", [kept, added]) };
  };
}

/**
 * γ^n of each head: n, f32 [...] of at most two axes -> [H, ...]. Computed in f32: the larger the exponent, the less of γ^n is left
 * for its rounding to matter.
 */
function powers(g: Graph, config: RetNetConfig, n: Value, dtype: FloatType): Value {
  const logs = g.constant(f32Tensor([config.numHeads, 1, 1], headDecays(config).map(Math.log)));
  const result = g.op("Exp", [g.op("Mul", [n, logs])]);
  return dtype === "f32" ? result : cast(g, result, dtype);
}
