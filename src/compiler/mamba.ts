/**
 * Mamba and DenseMamba as a graph: the order of the blocks, and what passes between them. Each block has a file in
 * `blocks/` and a twin of the same name in `model/reference/mamba.ts`. Symbols as in `compile.ts`.
 */
import { type MambaConfig, mixer } from "../model/families/mamba.ts";
import type { Value } from "../onnx/graph.ts";
import { causalConv, ownCausalConv } from "./blocks/causal-conv.ts";
import { denseGates, denseReadout } from "./blocks/dense-links.ts";
import { selectiveParameters } from "./blocks/selective-parameters.ts";
import { ownSelectiveScan, selectiveScan } from "./blocks/selective-scan.ts";
import { lowerDecoder } from "./decoder.ts";
import { linear } from "./linear.ts";
import { type Lowering, narrowed, silu, split, widened } from "./lowering.ts";
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
  const name = mixer(layer);
  const xz = linear(lowering, x, `${name}.in_proj`, { bias: config.useBias });
  const gates = denseGates(lowering, config, layer, x);
  const numLinks = config.gates[layer]?.numLinks ?? 0;
  const inputs = { xz, gates, linked: histories.slice(layer - numLinks, layer).toReversed() };
  const mix = lowering.kind === "plain" ? mixWithPlainOperators : mixWithOwnOperators;
  const { y, history } = mix(lowering, config, layer, inputs);
  histories.push(history);
  return linear(lowering, y, `${name}.out_proj`, { bias: config.useBias });
}

interface MixerInputs {
  /** W_in x: [B,T,2E] */
  readonly xz: Value;
  /** [B,T,k·E] */
  readonly gates: Value | undefined;
  /** The hidden states that the layer reads, the nearest layer's first. */
  readonly linked: readonly Value[];
}

/** What `W_out` multiplies, and the layer's hidden states. */
type Mixed = { readonly y: Value; readonly history: Value };

function mixWithPlainOperators(lowering: Lowering, config: MambaConfig, layer: number, inputs: MixerInputs): Mixed {
  const { graph: g, weight } = lowering;
  const { dInner: E } = config;
  const name = mixer(layer);
  const [uRaw, z] = split(g, inputs.xz, [E, E]) as [Value, Value];
  const u = causalConv(lowering, config, layer, uRaw);
  const { delta, B, C } = selectiveParameters(lowering, config, layer, u);
  const scanned = widened(lowering, u);
  const { y: own, history } = selectiveScan(
    lowering,
    config,
    layer,
    { u: scanned, delta, B, C },
    isRead(config, layer),
  );
  const gates = inputs.gates && widened(lowering, inputs.gates);
  const fused = denseReadout(lowering, config, layer, own, C, gates, inputs.linked);
  const skip = g.op("Mul", [scanned, g.initializer(`${name}.D`, vectorTensor(weight(`${name}.D`)))]);
  const y = narrowed(lowering, g.op("Add", [fused, skip]));
  return { y: g.op("Mul", [y, silu(lowering, z)]), history };
}

/** Which take f32 and give it, whatever the matrices are in. */
function mixWithOwnOperators(lowering: Lowering, config: MambaConfig, layer: number, inputs: MixerInputs): Mixed {
  const xz = widened(lowering, inputs.xz);
  const gates = inputs.gates && widened(lowering, inputs.gates);
  const u = ownCausalConv(lowering, config, layer, xz);
  const selected = linear(lowering, narrowed(lowering, u), `${mixer(layer)}.x_proj`, { role: "selection" });
  const scanned = { xz, gates, linked: inputs.linked, u, parameters: widened(lowering, selected) };
  const { y, history } = ownSelectiveScan(lowering, config, layer, scanned, isRead(config, layer));
  return { y: narrowed(lowering, y), history };
}

/** Whether a deeper layer reads this one's hidden states. */
function isRead({ numLayers, denseLayers }: MambaConfig, layer: number): boolean {
  return layer + 1 < numLayers && denseLayers > 0;
}
