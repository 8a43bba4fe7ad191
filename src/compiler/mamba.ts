/**
 * Mamba and DenseMamba as a graph: the order of the blocks, and what passes between them. Each block has a file in
 * `blocks/` and a twin of the same name in `model/reference.ts`. Symbols as in `compile.ts`.
 */
import { type MambaConfig, mixer } from "../model/families/mamba.ts";
import type { Value } from "../onnx/graph.ts";
import { causalConv } from "./blocks/causal-conv.ts";
import { denseGates, denseReadout } from "./blocks/dense-links.ts";
import { embed } from "./blocks/embed.ts";
import { logits, sampleStatistics } from "./blocks/logits.ts";
import { addRmsNorm, rmsNorm } from "./blocks/rms-norm.ts";
import { selectiveParameters } from "./blocks/selective-parameters.ts";
import { selectiveScan } from "./blocks/selective-scan.ts";
import { linear } from "./linear.ts";
import { type Lowering, silu, split } from "./lowering.ts";
import { vectorTensor } from "./matrix.ts";

export function lowerMamba(lowering: Lowering, config: MambaConfig): void {
  const { graph: g } = lowering;
  const tokenIds = g.input("input_ids", "i64", ["B", lowering.steps === "one" ? 1 : "T"]);
  const logitRows = g.input("logit_rows", "i64", ["R"]);
  const temperature = g.input("temperature", "f32", ["R"]);

  const stream: ResidualStream = { sum: embed(lowering, tokenIds), pending: undefined };
  const histories: Value[] = [];
  for (let layer = 0; layer < config.numLayers; layer++) {
    g.scoped(`layers.${layer}`, () => mambaLayer(lowering, config, layer, stream, histories));
  }
  g.scoped("head", () => {
    const result = logits(lowering, config, stream.sum, stream.pending!, logitRows);
    sampleStatistics(lowering, config.vocabSize, result, temperature);
  });
}

/** [B,T,D] each: the residual, and the last layer's output, not yet added: the next norm adds it in the same pass. */
interface ResidualStream {
  sum: Value;
  pending: Value | undefined;
}

/** Advances `stream` by one layer and appends the layer's hidden states to `histories`. */
function mambaLayer(
  lowering: Lowering,
  config: MambaConfig,
  layer: number,
  stream: ResidualStream,
  histories: Value[],
): void {
  const { graph: g, weight } = lowering;
  const { dInner: E, useBias: bias } = config;
  const name = mixer(layer);

  const normWeight = weight(`backbone.layers.${layer}.norm.weight`);
  let x: Value;
  if (stream.pending === undefined) x = rmsNorm(lowering, stream.sum, normWeight, config.normEpsilon);
  else [x, stream.sum] = addRmsNorm(lowering, stream.sum, stream.pending, normWeight, config.normEpsilon);

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
  stream.pending = linear(lowering, gated, `${name}.out_proj`, { bias });
}
