/**
 * Dense links of a RetNet: a layer also reads the keys and values of the m layers above it in the stack, through gates
 * of its own input. Twins: `denseKeyValues` and `denseGate` in model/reference/retnet.ts.
 */
import { attention, type RetNetConfig } from "../../model/families/retnet.ts";
import type { Value } from "../../onnx/graph.ts";
import { linear } from "../linear.ts";
import type { Lowering } from "../lowering.ts";
import { addRmsNorm } from "./rms-norm.ts";

/** A layer's own keys [B,T,H·dk] and values [B,T,H·dv], before anything is fused into them or rotated. */
export interface KeyValue {
  readonly k: Value;
  readonly v: Value;
}

/** RMSNorm(k + G ⊙ Σ_i k^{l-i}), i = 1..min(m, l), and v likewise; as they are without links. */
export function denseKeyValues(
  lowering: Lowering,
  config: RetNetConfig,
  layer: number,
  x: Value,
  { k, v }: KeyValue,
  past: readonly KeyValue[],
): KeyValue {
  const { graph: g, weight } = lowering;
  if (config.gates[layer] === undefined) return { k, v };
  const links = past.slice(-config.denseLayers);
  const fuse = (which: "k" | "v", own: Value) => {
    const shallower = links.map((link) => link[which]).reduce((a, b) => g.op("Add", [a, b]));
    const read = g.op("Mul", [denseGate(lowering, layer, x, which), shallower]);
    const normWeight = weight(`${attention(layer)}.${which}_norm.weight`);
    return addRmsNorm(lowering, own, read, normWeight, config.normEpsilon, lowering.float)[0];
  };
  return { k: fuse("k", k), v: fuse("v", v) };
}

/** G = SiLU(W2 · SiLU(W1 · x)), one for all links: [B,T,D] -> [B,T,H·dk] or [B,T,H·dv]. */
function denseGate(lowering: Lowering, layer: number, x: Value, which: "k" | "v"): Value {
  const name = `${attention(layer)}.${which}_select`;
  const hidden = linear(lowering, x, `${name}.fc1`, { role: "selection", activation: "silu" });
  return linear(lowering, hidden, `${name}.fc2`, { role: "selection", activation: "silu" });
}
