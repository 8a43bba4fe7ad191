/** Step size and the write and read vectors of each step. Twin: `selectiveParameters` in model/reference.ts. */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import { linear } from "../linear.ts";
import { type Lowering, split } from "../lowering.ts";
import { matrix } from "../matrix.ts";

export interface SelectiveParameters {
  /** Δ [B,T,E], > 0 */
  readonly delta: Value;
  /** [B,T,N] */
  readonly B: Value;
  /** [B,T,N] */
  readonly C: Value;
}

/** [dt, B, C] = W_x u; Δ = softplus(W_dt dt + b). u is [B,T,E]. */
export function selectiveParameters(
  { graph: g, weight }: Lowering,
  config: MambaConfig,
  layer: number,
  u: Value,
): SelectiveParameters {
  const { timeStepRank: R, stateSize: N } = config;
  const name = mixer(layer);
  const projected = linear(g, u, `${name}.x_proj`, matrix(weight(`${name}.x_proj.weight`)), "f32");
  const [dt, B, C] = split(g, projected, [R, N, N]) as [Value, Value, Value];
  const dtBias = weight(`${name}.dt_proj.bias`);
  const delta = g.op("Softplus", [
    linear(g, dt, `${name}.dt_proj`, matrix(weight(`${name}.dt_proj.weight`)), "f32", dtBias),
  ]);
  return { delta, B, C };
}
