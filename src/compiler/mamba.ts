/**
 * Mamba, Falcon-Mamba and DenseMamba: the order of their operators, and what passes between them.
 * Symbols as in `compile.ts`; twin: `model/reference/mamba.ts`.
 */
import { type MambaConfig, mixer } from "../model/families/mamba.ts";
import type { Value } from "../onnx/graph.ts";
import { lowerDecoder } from "./decoder.ts";
import type { Lowering } from "./lowering.ts";
import { causalConv } from "./operators/causal-conv.ts";
import { linear } from "./operators/linear.ts";
import { converted, type Operand, parts } from "./operators/operand.ts";
import { selectiveScan } from "./operators/selective-scan.ts";

export function lowerMamba(lowering: Lowering, config: MambaConfig): void {
  const norm = (name: string) => ({ weight: lowering.weight(`${name}.weight`), epsilon: config.normEpsilon });
  const histories: Value[] = [];
  lowerDecoder(lowering, {
    embedding: config.embedding,
    layers: config.gates.map((_, layer) => [
      {
        norm: norm(`backbone.layers.${layer}.norm`),
        branch: (x) => mambaMixer(lowering, config, layer, x, histories),
      },
    ]),
    finalNorm: norm("backbone.norm_f"),
    head: config.tieEmbeddings ? config.embedding : "lm_head",
  });
}

/**
 * The mixer's output for its normalised input x. Appends the layer's hidden states to `histories`.
 */
function mambaMixer(lowering: Lowering, config: MambaConfig, layer: number, x: Operand, histories: Value[]): Operand {
  const { dInner: E, timeStepRank: R, stateSize: N, useBias, numLayers, denseLayers } = config;
  const name = mixer(layer);
  const [uRaw, z] = parts(linear(lowering, x, `${name}.in_proj`, { bias: useBias }), [E, E]) as [Operand, Operand];
  const gates = denseGates(lowering, config, layer, x);
  const u = causalConv(lowering, {
    x: uRaw,
    state: `conv.${layer}`,
    name: `${name}.conv1d`,
    numTaps: config.convKernel,
    bias: config.useConvBias,
  });
  const selected = converted(lowering, linear(lowering, u, `${name}.x_proj`, { role: "selection" }), "f32");
  const [dt, B, C] = parts(selected, [R, N, N]) as [Operand, Operand, Operand];
  const { y, history } = selectiveScan(lowering, {
    ...{ u, z, dt, B, C, gates, name },
    epsilon: config.parameterNormEpsilon,
    linked: histories.slice(layer - (config.gates[layer]?.numLinks ?? 0), layer).toReversed(),
    state: `ssm.${layer}`,
    keepsHistory: layer + 1 < numLayers && denseLayers > 0,
  });
  histories.push(history);
  return linear(lowering, y, `${name}.out_proj`, { bias: useBias });
}

/** G = SiLU(W2 · SiLU(W1 · x)), all k gates of the layer, k · E wide; undefined without links. */
function denseGates(lowering: Lowering, config: MambaConfig, layer: number, x: Operand): Operand | undefined {
  if (config.gates[layer] === undefined) return undefined;
  const name = `${mixer(layer)}.select`;
  const hidden = linear(lowering, x, `${name}.fc1`, { role: "selection", activation: "silu" });
  return converted(lowering, linear(lowering, hidden, `${name}.fc2`, { role: "selection", activation: "silu" }), "f32");
}
