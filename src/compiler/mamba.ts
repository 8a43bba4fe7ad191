/**
 * Mamba and DenseMamba as a graph: the order of the blocks, and what passes between them. Each block has a file in
 * `blocks/` and a twin of the same name in `model/reference/mamba.ts`. Symbols as in `compile.ts`.
 */
import { type MambaConfig, mixer } from "../model/families/mamba.ts";
import type { Value } from "../onnx/graph.ts";
import { causalConv } from "./blocks/causal-conv.ts";
import { denseGates, denseReadout } from "./blocks/dense-links.ts";
import { selectiveParameters } from "./blocks/selective-parameters.ts";
import { selectiveScan } from "./blocks/selective-scan.ts";
import { lowerDecoder } from "./decoder.ts";
import { linear } from "./linear.ts";
import { type Lowering, silu, split } from "./lowering.ts";
import { vectorTensor } from "./matrix.ts";

export function lowerMamba(lowering: Lowering, config: MambaConfig): void {
  const decoder = {
    ...config,
    layerNorm: (layer: number) => `backbone.layers.${layer}.norm`,
    finalNorm: "backbone.norm_f",
    head: config.tieEmbeddings ? config.embedding : "lm_head",
  };
  lowerDecoder(lowering, decoder, () => {
    const histories: Value[] = [];
    return (x, layer) => mambaLayer(lowering, config, layer, x, histories);
  });
}

/** The layer's output for its normalised input x. Appends the layer's hidden states to `histories`. */
function mambaLayer(lowering: Lowering, config: MambaConfig, layer: number, x: Value, histories: Value[]): Value {
  const { graph: g, weight } = lowering;
  const { dInner: E, useBias: bias } = config;
  const name = mixer(layer);

  const [uRaw, z] = split(g, linear(lowering, x, `${name}.in_proj`, { bias }), [E, E]) as [Value, Value];
  const u = causalConv(lowering, config, layer, uRaw);
  const { delta, B, C } = selectiveParameters(lowering, config, layer, u);
  const isRead = layer + 1 < config.numLayers && config.denseLayers > 0;
  const { y: own, history } = selectiveScan(lowering, config, layer, { u, delta, B, C }, isRead);
  histories.push(history);

  const gates = denseGates(lowering, config, layer, x);
  const fused = denseReadout(lowering, config, own, C, gates, (i) => histories[layer - i]!);
  const skip = g.op("Mul", [u, g.initializer(`${name}.D`, vectorTensor(weight(`${name}.D`)))]);
  const gated = g.op("Mul", [g.op("Add", [fused, skip]), silu(g, z)]);
  return linear(lowering, gated, `${name}.out_proj`, { bias });
}
