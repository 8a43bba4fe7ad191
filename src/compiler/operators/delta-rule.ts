/**
 * DeltaRule: RWKV-7's recurrence, from projections to the gated readout, with its state. For each
 * head, σ the sigmoid:
 *
 *     w = exp(-e^-½ σ(w0 + w̃))    a = σ(a0 + ã)    κ = k ⊙ k_k, of length 1    k ← k ⊙ (1 + (a - 1) ⊙ k_a)
 *     v ← v + (v_first - v) ⊙ σ(v0 + ṽ)    but in the first layer
 *     S_t = w ⊙ S_{t-1} - (κ ⊙ a) ⊗ (κ S_{t-1}) + k ⊗ v    y_t = r S_t
 *     out = (GroupNorm(y) + (r · (k ⊙ r_k)) v) ⊙ g
 *
 * Twins: `#stepInputs`, `recurrence` and `gatedHeadNorm` in model/reference/rwkv7.ts.
 */
import assert from "node:assert/strict";
import { float, type Graph, type Value } from "../../onnx/graph.ts";
import { f32Tensor } from "../../onnx/tensor.ts";
import type { Lowering } from "../lowering.ts";
import { vectorTensor } from "../matrix.ts";
import { sizes } from "../onnx.ts";
import { pastState, presentState, stateType } from "../states.ts";
import { sigmoidOfF32 } from "./activation.ts";
import { norm } from "./norm.ts";
import { converted, kernelNode, type Operand, perHead, toValue } from "./operand.ts";
import { operator } from "./operator.ts";
import { keyLimit } from "./retention.ts";

export interface DeltaRuleInputs {
  /** All H · N wide. */
  readonly r: Operand;
  readonly k: Operand;
  readonly v: Operand;
  /** Before their biases and what bounds them: decay, how much is removed. */
  readonly w: Operand;
  readonly a: Operand;
  readonly g: Operand;
  /**
   * None in the first layer: the share of the first layer's value, before its bias; and that value.
   */
  readonly mixed?: { readonly share: Operand; readonly firstValue: Operand } | undefined;
  readonly heads: number;
  /** Of the norm of each head. */
  readonly epsilon: number;
  /**
   * Of the tensors `k_k`, `k_a`, `r_k`, `g_norm` and the biases of `w_lora`, `a_lora` and `v_lora`.
   */
  readonly name: string;
  /** Name of the state [H,N,N]: keys by values. */
  readonly state: string;
}

export interface DeltaRuleResult {
  readonly out: Operand;
  /** As it came in: of the first layer, what the others take a share of. */
  readonly value: Operand;
}

export const deltaRule = operator<DeltaRuleInputs, DeltaRuleResult>({
  name: "DeltaRule",
  looksAlongTime: true,
  limits: ({ k, heads }, kind) => [keyLimit("a head", k.width / heads, kind)],
  width({ r, k, v, w, a, g, mixed, heads, name }) {
    for (const { width } of [k, v, w, a, g, mixed?.share ?? r, mixed?.firstValue ?? r]) {
      assert(width === r.width && width % heads === 0, `${name}: ${width} columns, ${r.width} and ${heads} heads`);
    }
    return r.width;
  },

  /** All in f32: the decay is raised to a power. */
  plain(lowering, inputs, width) {
    const { graph: g, weight, float: dtype } = lowering;
    const { heads: H, name, state, epsilon, mixed } = inputs;
    const rows = (x: Operand) => toValue(lowering, x, "f32");
    const vector = (suffix: string) => {
      const tensor = weight(`${name}.${suffix}`);
      return g.initializer(tensor.name, { ...vectorTensor(tensor), shape: [width] });
    };
    const one = g.constant(f32Tensor([], [1]));
    const biased = (x: Operand, which: string) => g.op("Add", [rows(x), vector(`${which}_lora.lora.2.bias`)]);

    const strongest = g.constant(f32Tensor([], [-Math.exp(-0.5)]));
    const decay = g.op("Exp", [g.op("Mul", [sigmoidOfF32(g, biased(inputs.w, "w")), strongest])]);
    const rate = sigmoidOfF32(g, biased(inputs.a, "a"));
    const key = rows(inputs.k);
    const kappa = unitHeads(g, g.op("Mul", [key, vector("k_k")]), H);
    const share = g.op("Mul", [g.op("Sub", [rate, one]), vector("k_a")]);
    const k = g.op("Mul", [key, g.op("Add", [one, share])]);
    const own = rows(inputs.v);
    const v =
      mixed === undefined ? own : mixedValue(own, rows(mixed.firstValue), sigmoidOfF32(g, biased(mixed.share, "v")));
    const r = rows(inputs.r);

    const toHeads = (x: Value) => g.op("Reshape", [x, sizes(g, 0, 0, H, width / H)]);
    const step = {
      r: toHeads(r),
      decay: toHeads(decay),
      removed: g.op("Neg", [kappa]),
      replaced: g.op("Mul", [kappa, toHeads(rate)]),
      k: toHeads(k),
      v: toHeads(v),
    };
    const past = pastState(lowering, state);
    const { y, present } = (lowering.steps === "one" ? oneStep : scanned)(g, step, past, { H, N: width / H, state });
    presentState(lowering, state, present);

    const normed = norm(lowering, {
      ...{ x: { value: y, dtype: "f32", width, heads: H }, groups: H, epsilon, dtype: "f32" },
      weight: weight(`${name}.g_norm.weight`),
      bias: weight(`${name}.g_norm.bias`),
    }).normed;
    const products = toHeads(g.op("Mul", [g.op("Mul", [r, k]), vector("r_k")]));
    const bonus = g.op("ReduceSum", [products, sizes(g, -1)], { keepdims: 1 }); // [B,T,H,1]
    const sum = g.op("Add", [perHead(lowering, normed, H, "f32"), g.op("Mul", [bonus, step.v])]);
    const flat = g.op("Reshape", [sum, sizes(g, 0, 0, width)]);
    const gated = { value: g.op("Mul", [flat, rows(inputs.g)]), dtype: "f32", width } as const;
    return { out: converted(lowering, gated, dtype), value: inputs.v };

    /** own + (first - own) ⊙ taken */
    function mixedValue(ownValue: Value, first: Value, taken: Value): Value {
      return g.op("Add", [ownValue, g.op("Mul", [g.op("Sub", [first, ownValue]), taken])]);
    }
  },

  kernels: kernel,
  cuda: kernel,
});

function kernel(lowering: Lowering, inputs: DeltaRuleInputs, width: number): DeltaRuleResult {
  const { graph: g, weight, lengths } = lowering;
  const { r, k, v, w, a, mixed, heads, epsilon, name, state } = inputs;
  const vector = (suffix: string) => g.initializer(`${name}.${suffix}`, vectorTensor(weight(`${name}.${suffix}`)));
  const bias = (which: string) => vector(`${which}_lora.lora.2.bias`);
  const given = [k, w, a, vector("k_k"), vector("k_a"), bias("w"), bias("a")];
  const values = mixed ? [v, mixed.firstValue, mixed.share, bias("v")] : [];
  const prepared = kernelNode(lowering, "DeltaRuleInputs", [...given, ...values], mixed ? 5 : 4, { heads });
  const [decay, removed, replaced, key, value = v] = prepared;
  const kept = stateType(lowering, state);
  const operands = [r, key, value, pastState(lowering, state, kept), decay, lengths, removed, replaced];
  const [y, present] = kernelNode(lowering, "Recurrence", operands, 2);
  presentState(lowering, state, present!, kept);
  const weights = [vector("g_norm.weight"), vector("g_norm.bias"), vector("r_k")];
  const read = [y, r, key, value, inputs.g, ...weights];
  const [out] = kernelNode(lowering, "DeltaRuleOutput", read, 1, { heads, epsilon: float(epsilon) });
  return { out: { value: out!, dtype: "f32", width }, value: inputs.v };
}

/** [B,T,H,N] each. */
type Steps = Record<"r" | "decay" | "removed" | "replaced" | "k" | "v", Value>;

interface Shape {
  readonly H: number;
  readonly N: number;
  readonly state: string;
}

interface Result {
  /** [B,T,H,N] */
  readonly y: Value;
  /** [B,H,N,N] */
  readonly present: Value;
}

/**
 * What is read as a row [.., 1, N], what is written as a column [.., N, 1]; both pairs of outer
 * products are one matrix product.
 */
function operandsOf(g: Graph, { r, decay, removed, replaced, k, v }: Steps): Value[] {
  const row = (x: Value) => g.op("Unsqueeze", [x, sizes(g, 3)]);
  const column = (x: Value) => g.op("Unsqueeze", [x, sizes(g, 4)]);
  const written = g.op("Concat", [column(replaced), column(k)], { axis: 4 }); // [B,T,H,N,2]
  return [row(r), column(decay), row(removed), written, row(v)];
}

/**
 * S [B,H,N,N]; the others as `operandsOf` gives them, without the axis of time. The last to read S
 * is what writes it.
 */
function advance(g: Graph, S: Value, [, decay, removed, written, v]: readonly Value[]): Value {
  const read = g.op("Concat", [g.op("MatMul", [removed!, S]), v!], { axis: 2 }); // [B,H,2,N]
  return g.op("Add", [g.op("Mul", [S, decay!]), g.op("MatMul", [written!, read])]);
}

function oneStep(g: Graph, step: Steps, past: Value): Result {
  const operands = operandsOf(g, step).map((x) => g.op("Squeeze", [x, sizes(g, 1)]));
  const present = advance(g, past, operands);
  return { y: g.op("Transpose", [g.op("MatMul", [operands[0]!, present])], { perm: [0, 2, 1, 3] }), present };
}

/**
 * `Scan` reads the past in its first step and writes the present in its last, so the two may be one
 * buffer.
 */
function scanned(g: Graph, step: Steps, past: Value, { H, N, state }: Shape): Result {
  const operands = operandsOf(g, step);
  const body = g.subgraph("step");
  const before = body.input(`S_before.${state}`, "f32", ["B", H, N, N]);
  const shapes = [
    ["r", 1, N],
    ["decay", N, 1],
    ["removed", 1, N],
    ["written", N, 2],
    ["v", 1, N],
  ] as const;
  const slices = shapes.map(([name, rows, columns]) =>
    body.input(`${name}_t.${state}`, "f32", ["B", H, rows, columns]),
  );
  const after = advance(body, before, slices);
  body.output(`S.${state}`, after, "f32", ["B", H, N, N]);
  body.output(`y_t.${state}`, body.op("MatMul", [slices[0]!, after]), "f32", ["B", H, 1, N]);
  const [present, y] = g.ops("Scan", [past, ...operands], 2, {
    body,
    num_scan_inputs: operands.length,
    scan_input_axes: operands.map(() => 1),
    scan_output_axes: [1],
  });
  return { y: g.op("Squeeze", [y!, sizes(g, 3)]), present: present! };
}

/** Each head of x [B,T,H·N] divided by its length: [B,T,H,N]. */
function unitHeads(g: Graph, x: Value, H: number): Value {
  const heads = g.op("Reshape", [x, sizes(g, 0, 0, H, -1)]);
  // Not `ReduceL2`, for which CUDA needs cuDNN.
  const length = g.op("Sqrt", [g.op("ReduceSum", [g.op("Mul", [heads, heads]), sizes(g, -1)], { keepdims: 1 })]);
  return g.op("Div", [heads, g.op("Max", [length, g.constant(f32Tensor([], [1e-12]))])]);
}
