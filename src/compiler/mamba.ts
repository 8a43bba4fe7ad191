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
import { matrix, vectorTensor } from "./matrix.ts";

export function lowerMamba(lowering: Lowering, config: MambaConfig): void {
  const { graph: g } = lowering;
  const tokenIds = g.input("input_ids", "i64", ["B", "T"]);
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

/** Advances `stream` by one layer and appends the layer's hidden states h_t^l to `histories` if a deeper layer reads them. */
function mambaLayer(
  lowering: Lowering,
  config: MambaConfig,
  layer: number,
  stream: ResidualStream,
  histories: Value[],
): void {
  const { graph: g, precision, weight } = lowering;
  const { dInner: E } = config;
  const name = mixer(layer);
  const bias = (projection: string) => (config.useBias ? weight(`${name}.${projection}.bias`) : undefined);

  const normWeight = weight(`backbone.layers.${layer}.norm.weight`);
  let x: Value;
  if (stream.pending === undefined) x = rmsNorm(lowering, stream.sum, normWeight, config.normEpsilon);
  else [x, stream.sum] = addRmsNorm(lowering, stream.sum, stream.pending, normWeight, config.normEpsilon);

  const inProj = linear(g, x, `${name}.in_proj`, matrix(weight(`${name}.in_proj.weight`)), precision, bias("in_proj"));
  const [uRaw, z] = split(g, inProj, [E, E]) as [Value, Value];
  const u = causalConv(lowering, config, layer, uRaw);
  const { delta, B, C } = selectiveParameters(lowering, config, layer, u);
  const isRead = layer + 1 < config.numLayers && config.denseLayers > 0;
  const { y: own, history } = selectiveScan(lowering, config, layer, { u, delta, B, C }, isRead);
  if (history !== undefined) histories.push(history);

  const gates = denseGates(lowering, config, layer, x);
  const fused = denseReadout(lowering, config, own, C, gates, (i) => histories[layer - i]!);
  const skip = g.op("Mul", [u, g.initializer(`${name}.D`, vectorTensor(weight(`${name}.D`)))]);
  const gated = g.op("Mul", [g.op("Add", [fused, skip]), silu(g, z)]);
  stream.pending = linear(
    g,
    gated,
    `${name}.out_proj`,
    matrix(weight(`${name}.out_proj.weight`)),
    precision,
    bias("out_proj"),
  );
}
