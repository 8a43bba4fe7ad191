/**
 * RetNet and DenseRetNet as a graph: the order of the blocks, and what passes between them. Each block has a file in
 * `blocks/` and a twin of the same name in `model/reference/retnet.ts`.
 *
 * Symbols: H heads; dk and dv, the widths of a head's key and value; q, k, v query, key and value; γ a head's decay;
 * S [dk,dv] a head's state. The others as in `compile.ts`.
 */
import { attention, type RetNetConfig } from "../model/families/retnet.ts";
import type { Value } from "../onnx/graph.ts";
import { denseKeyValues, type KeyValue } from "./blocks/dense-key-values.ts";
import { type Positions, positions, rotate } from "./blocks/position.ts";
import { type Retention, retention } from "./blocks/retention.ts";
import { rmsNorm } from "./blocks/rms-norm.ts";
import { lowerDecoder } from "./decoder.ts";
import { linear } from "./linear.ts";
import { type Lowering, sizes, split } from "./lowering.ts";
import { floatTensor } from "./matrix.ts";

/** What all layers of a pass have in common. */
interface Pass {
  readonly positions: Positions;
  readonly retain: Retention;
  /** Of the layers so far. */
  readonly keyValues: KeyValue[];
}

export function lowerRetNet(lowering: Lowering, config: RetNetConfig): void {
  const decoder = {
    ...config,
    embedding: "model.embed_tokens",
    layerNorm: (layer: number) => `model.layers.${layer}.input_layernorm`,
    finalNorm: "model.norm",
    head: config.tieEmbeddings ? "model.embed_tokens" : "lm_head",
  };
  lowerDecoder(lowering, decoder, (tokenIds) => {
    const pass: Pass = {
      positions: lowering.graph.scoped("position", () => positions(lowering, config, tokenIds)),
      retain: lowering.graph.scoped("decay", () => retention(lowering, config, tokenIds)),
      keyValues: [],
    };
    return (x, layer) => retNetLayer(lowering, config, layer, x, pass);
  });
}

/** The layer's output for its normalised input x. Appends the layer's keys and values to those of the pass. */
function retNetLayer(lowering: Lowering, config: RetNetConfig, layer: number, x: Value, pass: Pass): Value {
  const { graph: g, weight } = lowering;
  const { numHeads: H, keyDim, valueDim } = config;
  const name = attention(layer);

  const query = linear(lowering, x, `${name}.q_proj`, { activation: "silu" });
  const scaling = g.constant(floatTensor(lowering.float, [], [(keyDim / H) ** -0.5]));
  const key = g.op("Mul", [linear(lowering, x, `${name}.k_proj`, { activation: "silu" }), scaling]);
  const hidden = linear(lowering, x, `${name}.to_hidden.0`, { activation: "silu" });
  const [value, gate] = split(g, hidden, [valueDim, valueDim]) as [Value, Value];

  const own = { k: key, v: value };
  const { k, v } = denseKeyValues(lowering, config, layer, x, own, pass.keyValues);
  pass.keyValues.push(own);

  // The query takes the readout's normaliser: dk numbers a head instead of dv, and a readout that f16 can hold.
  const perHead = g.op("Reshape", [query, sizes(g, 0, 0, H, keyDim / H)]);
  const normalized = g.op("Mul", [perHead, pass.positions.normalizer]);
  const q = rotate(lowering, g.op("Reshape", [normalized, sizes(g, 0, 0, keyDim)]), pass.positions);
  const y = pass.retain(layer, { q, k: rotate(lowering, k, pass.positions), v });

  const normed = rmsNorm(lowering, y, weight(`${name}.group_norm.weight`), config.normEpsilon, lowering.float);
  const gated = g.op("Mul", [g.op("Reshape", [normed, sizes(g, 0, 0, valueDim)]), gate]);
  return linear(lowering, gated, `${name}.to_out.0`);
}
