/**
 * SelectiveScan: Mamba's recurrence with what stands around it elementwise: step size, readouts of
 * its own states and of those that dense links read, skip and output gate. Twins:
 * `selectiveParameters`, `selectiveScan`, `denseReadout` in model/reference/mamba.ts.
 *
 *     Δ = softplus(W_dt dt + b)    h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t u_t) ⊗ B_t    y = C h + Σ_i G_i ⊙ (C h^{l-i}) + D ⊙ u
 *     out = y ⊙ SiLU(z)
 *
 * Since a gate has one value a channel, C·(G ⊙ h) = G ⊙ (C·h): only readouts cross layers, and no
 * fused state is ever built.
 */
import assert from "node:assert/strict";
import { type AttributeValue, float, type Graph, type Value } from "../../onnx/graph.ts";
import type { Limit, Lowering } from "../lowering.ts";
import { negatedExp, transposedTensor, vectorTensor } from "../matrix.ts";
import { sizes } from "../onnx.ts";
import { pastState, presentState, stateType } from "../states.ts";
import { silu, softplus } from "./activation.ts";
import { linear } from "./linear.ts";
import { ones, rmsNorm } from "./norm.ts";
import { kernelNode, type Operand, parts, toValue } from "./operand.ts";
import { type KernelKind, operator } from "./operator.ts";

export interface SelectiveScanInputs {
  /** Convolved input and output gate, E wide each. */
  readonly u: Operand;
  readonly z: Operand;
  /** What the step size is made of, R wide, and the write and read vectors, N wide. */
  readonly dt: Operand;
  readonly B: Operand;
  readonly C: Operand;
  /** ε of the RMS norms without weights that a Falcon-Mamba puts on dt, B and C. */
  readonly epsilon: number | undefined;
  /**
   * Gates, k · E wide, and the histories of the links, the nearest layer's first; none without
   * links.
   */
  readonly gates: Operand | undefined;
  readonly linked: readonly Value[];
  /** Of the tensors `A_log`, `D`, `dt_proj.weight` and `dt_proj.bias`. */
  readonly name: string;
  /**
   * Name of the state [N,E]: E innermost, so that every operation runs along contiguous channels.
   */
  readonly state: string;
  /** Whether a deeper layer reads the hidden states of every step. */
  readonly keepsHistory: boolean;
}

export interface SelectiveScanResult {
  readonly y: Operand;
  /**
   * The hidden states that deeper layers may read: one or all of the pass's steps, in a layout of
   * the emitter's own.
   */
  readonly history: Value;
}

/** As DM_MAX_LINKS, DM_MAX_SCAN_ROWS and DM_MAX_CUDA_STATE_SIZE in kernels/limits.h. */
export const MAX_LINKS = 8;
export const MAX_SCAN_ROWS = 4096;
export const MAX_CUDA_STATE_SIZE = 256;

export const selectiveScan = operator<SelectiveScanInputs, SelectiveScanResult>({
  name: "SelectiveScan",
  looksAlongTime: true,
  width({ u, z, B, C, gates, name }) {
    assert(z.width === u.width && C.width === B.width, `${name}: z is ${z.width} wide, u ${u.width}`);
    assert(gates === undefined || gates.width % u.width === 0, `${name}: gates are ${gates?.width} wide`);
    return u.width;
  },
  limits,
  plain,
  kernels: (lowering, inputs, width) => kernel(lowering, inputs, width, { isSummed: false }),
  cuda: (lowering, inputs, width) => kernel(lowering, inputs, width, { isSummed: lowering.steps === "many" }),
});

function limits({ dt, B, linked }: SelectiveScanInputs, kind: KernelKind): Limit[] {
  return [
    { name: "dense_layers", value: linked.length, most: MAX_LINKS },
    kind === "kernels"
      ? { name: "2 state_size + time_step_rank", value: 2 * B.width + dt.width, most: MAX_SCAN_ROWS }
      : { name: "state_size", value: B.width, most: MAX_CUDA_STATE_SIZE },
  ];
}

/**
 * Links read hidden states rounded to f16, in a step as in a pass: prefill waits for them, and half
 * as many bytes take half as long. With states in f16 the kernel does so by itself.
 */
function linksReadHalf({ precision }: Lowering): boolean {
  // Not in f32, which is exact, nor in bf16, where a state may be beyond f16.
  return precision !== "f32" && precision !== "bf16";
}

/**
 * `isSummed`: W_dt dt of all steps is one product, where the steps of a pass are read by different
 * threads, which would each make it.
 */
function kernel(
  lowering: Lowering,
  inputs: SelectiveScanInputs,
  width: number,
  { isSummed }: { readonly isSummed: boolean },
): SelectiveScanResult {
  const { graph: g, weight, steps, lengths } = lowering;
  const { u, z, dt, B, C, epsilon, gates, linked, name, state, keepsHistory } = inputs;
  const kept = stateType(lowering, state);
  const past = pastState(lowering, state, kept);
  const stepWeight = g.initializer(
    `${name}.dt_proj.transposed`,
    transposedTensor(weight(`${name}.dt_proj.weight`), [width, dt.width]),
  );
  const weights = [
    isSummed ? stepSums(lowering, dt, epsilon, stepWeight) : stepWeight,
    g.initializer(`${name}.dt_proj.bias`, vectorTensor(weight(`${name}.dt_proj.bias`))),
    g.initializer(`${name}.A`, transposedTensor(weight(`${name}.A_log`), [width, B.width], { map: negatedExp })),
    g.initializer(`${name}.D`, vectorTensor(weight(`${name}.D`))),
  ];
  const attributes: Record<string, AttributeValue> = {
    links: linked.length,
    gates: gates === undefined ? 0 : gates.width / width,
    ...(linksReadHalf(lowering) && { half: 1 }),
    ...(isSummed && { summed: 1 }),
    ...(epsilon !== undefined && { epsilon: float(epsilon) }),
  };
  const operands = [u, z, dt, B, C, past, ...weights, lengths, ...(gates ? [gates, ...linked] : [])];
  const numOutputs = keepsHistory && steps === "many" ? 3 : 2;
  const [y, present, history] = kernelNode(lowering, "SelectiveScan", operands, numOutputs, attributes);
  presentState(lowering, state, present!, kept);
  return { y: { value: y!, dtype: "f32", width }, history: history ?? present! };
}

function stepSums(lowering: Lowering, dt: Operand, epsilon: number | undefined, stepWeight: Value): Value {
  const { graph: g } = lowering;
  const own = toValue(lowering, dt, "f32");
  return g.op("MatMul", [epsilon === undefined ? own : unweightedRmsNorm(g, own, dt.width, epsilon), stepWeight]);
}

function unweightedRmsNorm(g: Graph, x: Value, width: number, epsilon: number): Value {
  return rmsNorm(g, x, ones(g, width), epsilon);
}

/** All in f32, but for the output gate. */
function plain(lowering: Lowering, inputs: SelectiveScanInputs, width: number): SelectiveScanResult {
  const { graph: g, weight, float: dtype } = lowering;
  const { z, epsilon, gates, name } = inputs;
  const [dt, B, C] = [inputs.dt, inputs.B, inputs.C].map((x) => {
    const value = toValue(lowering, x, "f32");
    return epsilon === undefined ? value : unweightedRmsNorm(g, value, x.width, epsilon);
  }) as [Value, Value, Value];
  const step = { value: dt, dtype: "f32", width: inputs.dt.width } as const;
  const sums = linear(lowering, step, `${name}.dt_proj`, { bias: true, role: "step size" });
  const delta = softplus(g, sums.value);
  const u = toValue(lowering, inputs.u, "f32");
  const { y: own, history } = recurrence(lowering, inputs, { u, delta, B, C }, width);
  const fused = gates ? denseReadouts(lowering, inputs, gates, own, C) : own;
  const skip = g.op("Mul", [u, g.initializer(`${name}.D`, vectorTensor(weight(`${name}.D`)))]);
  const sum = { value: g.op("Add", [fused, skip]), dtype: "f32", width } as const;
  const y = g.op("Mul", [toValue(lowering, sum, dtype), silu(lowering, toValue(lowering, z, dtype))]);
  return { y: { value: y, dtype, width }, history };
}

type Step = Record<"u" | "delta" | "B" | "C", Value>;

/**
 * y = C h, and h of every step [B,T,N,E], or [B,N,E] where there is one step. The past's one reader
 * is an operand of the sum that writes the present, so the two may be one buffer; `Scan` reads the
 * past in its first step and writes the present in its last.
 */
function recurrence(
  lowering: Lowering,
  { name, state, B: { width: N }, keepsHistory }: SelectiveScanInputs,
  { u, delta, B, C }: Step,
  E: number,
): { readonly y: Value; readonly history: Value } {
  const { graph: g, weight, steps } = lowering;
  const past = pastState(lowering, state);
  const A = g.initializer(`${name}.A`, transposedTensor(weight(`${name}.A_log`), [E, N], { map: negatedExp }));
  const deltaU = g.op("Mul", [delta, u]);

  if (steps === "one") {
    const column = g.op("Reshape", [B, sizes(g, 0, N, 1)]);
    const present = advance(g, past, { A, delta, deltaU, B: column });
    presentState(lowering, state, present);
    return { y: g.op("MatMul", [C, present]), history: present };
  }

  // The slices that a Scan hands to its body lose the time axis, so each comes with the axes that
  // the products need.
  const body = g.subgraph("step");
  const before = body.input(`h_before.${state}`, "f32", ["B", N, E]);
  const deltaT = body.input(`delta_t.${state}`, "f32", ["B", 1, E]);
  const deltaUT = body.input(`delta_u_t.${state}`, "f32", ["B", 1, E]);
  const BT = body.input(`B_t.${state}`, "f32", ["B", N, 1]);
  const CT = body.input(`C_t.${state}`, "f32", ["B", 1, N]);
  const after = advance(body, before, { A, delta: deltaT, deltaU: deltaUT, B: BT });
  body.output(`h.${state}`, after, "f32", ["B", N, E]);
  body.output(`y_t.${state}`, body.op("MatMul", [CT, after]), "f32", ["B", 1, E]);
  if (keepsHistory) body.output(`h_t.${state}`, body.op("Identity", [after]), "f32", ["B", N, E]);

  const scanned = [
    g.op("Unsqueeze", [delta, sizes(g, 2)]),
    g.op("Unsqueeze", [deltaU, sizes(g, 2)]),
    g.op("Unsqueeze", [B, sizes(g, 3)]),
    g.op("Unsqueeze", [C, sizes(g, 2)]),
  ];
  const numScanOutputs = body.outputs.length - 1;
  const [present, y, history] = g.ops("Scan", [past, ...scanned], body.outputs.length, {
    body,
    num_scan_inputs: scanned.length,
    scan_input_axes: scanned.map(() => 1),
    scan_output_axes: Array<number>(numScanOutputs).fill(1),
  });
  presentState(lowering, state, present!);
  return { y: g.op("Squeeze", [y!, sizes(g, 2)]), history: history ?? present! };
}

/** One step: h [B,N,E]; Δ and Δu [B,1,E]; B [B,N,1]; A [N,E]. */
function advance(g: Graph, h: Value, { A, delta, deltaU, B }: Record<"A" | "delta" | "deltaU" | "B", Value>): Value {
  const decayed = g.op("Mul", [g.op("Exp", [g.op("Mul", [delta, A])]), h]);
  return g.op("Add", [decayed, g.op("Mul", [B, deltaU])]);
}

/** y + Σ_i G_i ⊙ (C h^{l-i}): [B,T,E]. */
function denseReadouts(
  lowering: Lowering,
  { u: { width }, linked }: SelectiveScanInputs,
  gates: Operand,
  y: Value,
  C: Value,
): Value {
  const { graph: g, steps } = lowering;
  const numGates = gates.width / width;
  const each = numGates === 1 ? [gates] : parts(gates, Array<number>(numGates).fill(width));
  const values = each.map((gate) => toValue(lowering, gate, "f32"));
  const row = steps === "one" ? C : g.op("Unsqueeze", [C, sizes(g, 2)]);
  return linked.reduce((sum, history, link) => {
    const product = g.op("MatMul", [row, history]);
    const readout = steps === "one" ? product : g.op("Reshape", [product, sizes(g, 0, 0, width)]);
    return g.op("Add", [sum, g.op("Mul", [values[numGates === 1 ? 0 : link]!, readout])]);
  }, y);
}
