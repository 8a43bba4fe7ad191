/** The recurrence h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t u_t) ⊗ B_t over time. Twin: `selectiveScan` in model/reference/mamba.ts. */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import { float, type Graph, type Value } from "../../onnx/graph.ts";
import { type Lowering, sizes } from "../lowering.ts";
import { negatedExp, transposedTensor, vectorTensor } from "../matrix.ts";
import { pastState, presentState } from "../states.ts";
import { type SelectiveParameters, unweightedRmsNorm } from "./selective-parameters.ts";

export interface ScanResult {
  /** C_t · h_t: [B,T,E] */
  readonly y: Value;
  /** h_t of every step for deeper layers to read: [B,T,N,E], or [B,N,E] where there is one step. */
  readonly history: Value;
}

/**
 * All in f32. Reads `past_ssm.<layer>`, writes `present_ssm.<layer>`, both [B,N,E]: E innermost, so that every operation runs along
 * contiguous channels. The past's one reader is an operand of the sum that writes the present, so the two may be one
 * buffer; `Scan` reads the past in its first step and writes the present in its last.
 */
export function selectiveScan(
  lowering: Lowering,
  config: MambaConfig,
  layer: number,
  { u, delta, B, C }: SelectiveParameters & { readonly u: Value },
  isRead: boolean,
): ScanResult {
  const { graph: g, weight, steps } = lowering;
  const { dInner: E, stateSize: N } = config;
  const name = mixer(layer);
  const past = pastState(lowering, `ssm.${layer}`);
  const A = g.initializer(`${name}.A`, transposedTensor(weight(`${name}.A_log`), [E, N], { map: negatedExp }));
  const deltaU = g.op("Mul", [delta, u]);

  if (steps === "one") {
    const column = g.op("Reshape", [B, sizes(g, 0, N, 1)]);
    const present = step(g, past, { A, delta, deltaU, B: column });
    presentState(lowering, `ssm.${layer}`, present);
    return { y: g.op("MatMul", [C, present]), history: present };
  }

  // The slices that a Scan hands to its body lose the time axis, so each comes with the axes that the products need.
  const body = g.subgraph("step");
  const before = body.input(`h_before.${layer}`, "f32", ["B", N, E]);
  const deltaT = body.input(`delta_t.${layer}`, "f32", ["B", 1, E]);
  const deltaUT = body.input(`delta_u_t.${layer}`, "f32", ["B", 1, E]);
  const BT = body.input(`B_t.${layer}`, "f32", ["B", N, 1]);
  const CT = body.input(`C_t.${layer}`, "f32", ["B", 1, N]);
  const after = step(body, before, { A, delta: deltaT, deltaU: deltaUT, B: BT });
  body.output(`h.${layer}`, after, "f32", ["B", N, E]);
  body.output(`y_t.${layer}`, body.op("MatMul", [CT, after]), "f32", ["B", 1, E]);
  if (isRead) body.output(`h_t.${layer}`, body.op("Identity", [after]), "f32", ["B", N, E]);

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
  presentState(lowering, `ssm.${layer}`, present!);
  return { y: g.op("Squeeze", [y!, sizes(g, 2)]), history: history ?? present! };
}

/** What `ownSelectiveScan` reads beside the state and the weights. */
export interface OwnScanInputs {
  /** [B,T,2E], of which it reads z, the second half. */
  readonly xz: Value;
  /** [B,T,E] */
  readonly u: Value;
  /** W_x u: dt, B and C, [B,T,R+2N]. */
  readonly parameters: Value;
  /** [B,T,k·E], and the links' histories, the nearest layer's first; none without links. */
  readonly gates: Value | undefined;
  readonly linked: readonly Value[];
}

/**
 * Our own operator: the recurrence, and with it the step size, the dense readouts, the skip and the output gate, each state
 * read and written once. Its result is what `W_out` multiplies: [B,T,E].
 */
export function ownSelectiveScan(
  lowering: Lowering,
  config: MambaConfig,
  layer: number,
  { xz, u, parameters, gates, linked }: OwnScanInputs,
  isRead: boolean,
): { readonly y: Value; readonly history: Value } {
  const { graph: g, weight, steps, lengths } = lowering;
  const { dInner: E, stateSize: N, timeStepRank: R } = config;
  const name = mixer(layer);
  const past = pastState(lowering, `ssm.${layer}`);
  const stepWeight = g.initializer(
    `${name}.dt_proj.transposed`,
    transposedTensor(weight(`${name}.dt_proj.weight`), [E, R]),
  );
  const isSummed = lowering.kind === "cuda" && steps === "many";
  const weights = [
    isSummed ? stepSums(g, config, parameters, stepWeight) : stepWeight,
    g.initializer(`${name}.dt_proj.bias`, vectorTensor(weight(`${name}.dt_proj.bias`))),
    g.initializer(`${name}.A`, transposedTensor(weight(`${name}.A_log`), [E, N], { map: negatedExp })),
    g.initializer(`${name}.D`, vectorTensor(weight(`${name}.D`))),
  ];
  const keepsHistory = isRead && steps === "many";
  const [y, present, history] = g.ops(
    "densemamba.SelectiveScan",
    [u, xz, parameters, past, ...weights, lengths, ...(gates ? [gates, ...linked] : [])],
    keepsHistory ? 3 : 2,
    {
      rank: R,
      links: linked.length,
      gates: config.gates[layer]?.numGates ?? 0,
      ...(linksReadHalf(lowering) && { half: 1 }),
      ...(isSummed && { summed: 1 }),
      ...(config.parameterNormEpsilon === undefined ? {} : { epsilon: float(config.parameterNormEpsilon) }),
    },
  ) as [Value, Value, Value?];
  presentState(lowering, `ssm.${layer}`, present);
  return { y, history: history ?? present };
}

/** W_dt dt of all steps: one product, where the steps of a pass are read by different threads, which would each make it of theirs. */
function stepSums(g: Graph, config: MambaConfig, parameters: Value, stepWeight: Value): Value {
  const { timeStepRank: R, parameterNormEpsilon: epsilon } = config;
  // Not `Split`: with parts of unequal widths it copies their widths to the device in every pass.
  const dt = g.op("Slice", [parameters, sizes(g, 0), sizes(g, R), sizes(g, -1)]);
  return g.op("MatMul", [epsilon === undefined ? dt : unweightedRmsNorm(g, dt, R, epsilon), stepWeight]);
}

/**
 * Links read hidden states rounded to f16, in a step as in a pass: prefill waits for them, and half as many bytes take half as
 * long. Not in f32, which is exact, nor in bf16, where a state may be beyond f16.
 */
function linksReadHalf({ precision }: Lowering): boolean {
  return precision !== "f32" && precision !== "bf16";
}

/** One step: h [B,N,E]; Δ and Δu [B,1,E]; B [B,N,1]; A [N,E]. */
function step(g: Graph, h: Value, { A, delta, deltaU, B }: Record<"A" | "delta" | "deltaU" | "B", Value>): Value {
  const decayed = g.op("Mul", [g.op("Exp", [g.op("Mul", [delta, A])]), h]);
  return g.op("Add", [decayed, g.op("Mul", [B, deltaU])]);
}
