/**
 * Dense hidden connections: a layer also reads the hidden states of the m layers above it in the stack, through gates
 * of its own input. Twins: `denseGates` and `denseReadout` in model/reference/mamba.ts.
 */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import { linear } from "../linear.ts";
import { type Lowering, sizes, split } from "../lowering.ts";

/** G = SiLU(W2 · SiLU(W1 · x)), all k gates of the layer: [B,T,D] -> [B,T,k·E]; undefined without links. */
export function denseGates(lowering: Lowering, config: MambaConfig, layer: number, x: Value): Value | undefined {
  if (config.gates[layer] === undefined) return undefined;
  const name = `${mixer(layer)}.select`;
  const hidden = linear(lowering, x, `${name}.fc1`, { role: "selection", activation: "silu" });
  return linear(lowering, hidden, `${name}.fc2`, { role: "selection", activation: "silu" });
}

/**
 * y + Σ_i G_i ⊙ (C · h^{l-i}): [B,T,E]. Since a gate has one value per channel, C·(G ⊙ h) = G ⊙ (C·h): only readouts
 * cross layers, and no fused state is ever built. `linked` are h^{l-1}, h^{l-2}, … as `selectiveScan` returns
 * them.
 */
export function denseReadout(
  { graph: g, steps }: Lowering,
  config: MambaConfig,
  layer: number,
  y: Value,
  C: Value,
  gates: Value | undefined,
  linked: readonly Value[],
): Value {
  const gate = config.gates[layer];
  if (gate === undefined || gates === undefined) return y;
  const { numGates, numLinks } = gate;
  const shares = Array<number>(numGates).fill(config.dInner);
  const perLink = numGates === 1 ? Array<Value>(numLinks).fill(gates) : split(g, gates, shares);
  const row = steps === "one" ? C : g.op("Unsqueeze", [C, sizes(g, 2)]);
  return perLink.reduce((sum, gate, index) => {
    const product = g.op("MatMul", [row, linked[index]!]);
    const readout = steps === "one" ? product : g.op("Reshape", [product, sizes(g, 0, 0, config.dInner)]);
    return g.op("Add", [sum, g.op("Mul", [gate, readout])]);
  }, y);
}
