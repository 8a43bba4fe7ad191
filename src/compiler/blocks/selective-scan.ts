/** The recurrence h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t u_t) ⊗ B_t over time. Twin: `selectiveScan` in model/reference.ts. */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import { type Lowering, sizes } from "../lowering.ts";
import { transposedTensor } from "../matrix.ts";
import type { SelectiveParameters } from "./selective-parameters.ts";

export interface ScanResult {
  /** C_t · h_t: [B,T,E] */
  readonly y: Value;
  /** h_t of every step, [B,T,N,E], if asked for. */
  readonly history: Value | undefined;
}

/**
 * Reads `past_ssm.<layer>`, writes `present_ssm.<layer>`, both [B,N,E]: E innermost, so that every operation runs along
 * contiguous channels. A [E,N] -> [N,E] and its sign and exponent are folded at compile time.
 */
export function selectiveScan(
  { graph: g, weight }: Lowering,
  config: MambaConfig,
  layer: number,
  { u, delta, B, C }: SelectiveParameters & { readonly u: Value },
  withHistory: boolean,
): ScanResult {
  const { dInner: E, stateSize: N } = config;
  const name = mixer(layer);
  const past = g.input(`past_ssm.${layer}`, "f32", ["B", N, E]);
  const A = g.initializer(
    `${name}.A`,
    transposedTensor(weight(`${name}.A_log`), (a) => -Math.exp(a)),
  );
  const deltaU = g.op("Mul", [delta, u]);

  // One step. The slices of a Scan lose the time axis, so each comes with the axes that the products need.
  const body = g.subgraph("step");
  const h = body.input(`h_before.${layer}`, "f32", ["B", N, E]);
  const deltaT = body.input(`delta_t.${layer}`, "f32", ["B", 1, E]);
  const deltaUT = body.input(`delta_u_t.${layer}`, "f32", ["B", 1, E]);
  const BT = body.input(`B_t.${layer}`, "f32", ["B", N, 1]);
  const CT = body.input(`C_t.${layer}`, "f32", ["B", 1, N]);
  const decayed = body.op("Mul", [body.op("Exp", [body.op("Mul", [deltaT, A])]), h]);
  const next = body.op("Add", [decayed, body.op("Mul", [BT, deltaUT])]);
  body.output(`h.${layer}`, next, "f32", ["B", N, E]);
  body.output(`y_t.${layer}`, body.op("MatMul", [CT, next]), "f32", ["B", 1, E]);
  if (withHistory) body.output(`h_t.${layer}`, body.op("Identity", [next]), "f32", ["B", N, E]);

  const numScanOutputs = withHistory ? 2 : 1;
  const [present, y, history] = g.ops(
    "Scan",
    [
      past,
      g.op("Unsqueeze", [delta, sizes(g, 2)]),
      g.op("Unsqueeze", [deltaU, sizes(g, 2)]),
      g.op("Unsqueeze", [B, sizes(g, 3)]),
      g.op("Unsqueeze", [C, sizes(g, 2)]),
    ],
    1 + numScanOutputs,
    {
      body,
      num_scan_inputs: 4,
      scan_input_axes: [1, 1, 1, 1],
      scan_output_axes: Array<number>(numScanOutputs).fill(1),
    },
  );
  g.output(`present_ssm.${layer}`, present!, "f32", ["B", N, E]);
  return { y: g.op("Squeeze", [y!, sizes(g, 2)]), history };
}
