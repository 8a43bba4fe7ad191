/**
 * Dense hidden connections: a layer also reads the hidden states of the m layers above it in the stack, through gates
 * of its own input. Twins: `denseGates` and `denseReadout` in model/reference/mamba.ts.
 */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import { linear } from "../linear.ts";
import { type Lowering, silu, sizes, split } from "../lowering.ts";

/** G = SiLU(W2 · SiLU(W1 · x)): [B,T,D] -> one [B,T,E] per link, for layers l-1, l-2, …; none without links. */
export function denseGates(lowering: Lowering, config: MambaConfig, layer: number, x: Value): Value[] {
  const { graph: g } = lowering;
  const gate = config.gates[layer];
  if (gate === undefined) return [];
  const name = `${mixer(layer)}.select`;
  const hidden = silu(g, linear(lowering, x, `${name}.fc1`, { role: "selection" }));
  const gates = silu(g, linear(lowering, hidden, `${name}.fc2`, { role: "selection" }));
  if (gate.numGates === 1) return Array<Value>(gate.numLinks).fill(gates);
  return split(g, gates, Array<number>(gate.numGates).fill(config.dInner));
}

/**
 * y + Σ_i G_i ⊙ (C · h^{l-i}): [B,T,E]. Since a gate has one value per channel, C·(G ⊙ h) = G ⊙ (C·h): only readouts
 * cross layers, and no fused state is ever built. `historyOf(i)` is h^{l-i} as `selectiveScan` returns it.
 */
export function denseReadout(
  { graph: g, steps }: Lowering,
  config: MambaConfig,
  y: Value,
  C: Value,
  gates: readonly Value[],
  historyOf: (i: number) => Value,
): Value {
  if (gates.length === 0) return y;
  const row = steps === "one" ? C : g.op("Unsqueeze", [C, sizes(g, 2)]);
  return gates.reduce((sum, gate, index) => {
    const product = g.op("MatMul", [row, historyOf(index + 1)]);
    const readout = steps === "one" ? product : g.op("Reshape", [product, sizes(g, 0, 0, config.dInner)]);
    return g.op("Add", [sum, g.op("Mul", [gate, readout])]);
  }, y);
}
