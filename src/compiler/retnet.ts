/**
 * RetNet and DenseRetNet: the order of their operators, and what passes between them. Twin:
 * `model/reference/retnet.ts`.
 *
 * Symbols: H heads; dk and dv, the widths of a head's key and value; q, k, v query, key and value;
 * γ a head's decay; S [dk,dv] a head's state. The others as in `compile.ts`.
 */
import { attention, headDecays, type RetNetConfig, rotationAngles } from "../model/families/retnet.ts";
import { lowerDecoder } from "./decoder.ts";
import type { Lowering } from "./lowering.ts";
import { floatTensor } from "./matrix.ts";
import { linear } from "./operators/linear.ts";
import { norm } from "./operators/norm.ts";
import { type Operand, parts, perHead, toValue } from "./operators/operand.ts";
import { retention } from "./operators/retention.ts";
import { positions, rotate } from "./positions.ts";

/**
 * A layer's own keys, H·dk wide, and values, H·dv wide, before anything is fused into them or
 * rotated.
 */
interface KeyValue {
  readonly k: Operand;
  readonly v: Operand;
}

export function lowerRetNet(lowering: Lowering, config: RetNetConfig): void {
  const embedding = "model.embed_tokens";
  const keyValues: KeyValue[] = [];
  lowerDecoder(lowering, {
    embedding,
    layers: config.gates.map((_, layer) => [
      {
        norm: normWeights(lowering, config, `model.layers.${layer}.input_layernorm`),
        branch: (x) => gatedRetention(lowering, config, layer, x, keyValues),
      },
    ]),
    finalNorm: normWeights(lowering, config, "model.norm"),
    head: config.tieEmbeddings ? embedding : "lm_head",
  });
}

function normWeights({ weight }: Lowering, { normEpsilon: epsilon }: RetNetConfig, name: string) {
  return { weight: weight(`${name}.weight`), epsilon };
}

/**
 * A layer's output for its normalised input x. Appends the layer's keys and values to those of the
 * pass.
 */
function gatedRetention(
  lowering: Lowering,
  config: RetNetConfig,
  layer: number,
  x: Operand,
  keyValues: KeyValue[],
): Operand {
  const { float: dtype } = lowering;
  const { numHeads: H, keyDim, valueDim } = config;
  const name = attention(layer);
  const decays = headDecays(config);
  const position = positions(lowering, { angles: rotationAngles(config), decays });

  const query = linear(lowering, x, `${name}.q_proj`, { activation: "silu" });
  const key = scaled(lowering, linear(lowering, x, `${name}.k_proj`, { activation: "silu" }), (keyDim / H) ** -0.5);
  const hidden = linear(lowering, x, `${name}.to_hidden.0`, { activation: "silu" });
  const [value, gate] = parts(hidden, [valueDim, valueDim]) as [Operand, Operand];

  const own = { k: key, v: value };
  const { k, v } = denseKeyValues(lowering, config, layer, x, own, keyValues);
  keyValues.push(own);

  // The query takes the readout's normaliser: dk numbers a head instead of dv, and a readout that
  // f16 can hold.
  const perHeadQuery = lowering.graph.op("Mul", [perHead(lowering, query, H), position.normalizer]);
  const q = rotate(lowering, { value: perHeadQuery, dtype, width: keyDim, heads: H }, position);
  const y = retention(lowering, { q, k: rotate(lowering, k, position), v, state: `kv.${layer}`, decays });
  const { normed } = norm(lowering, {
    ...normWeights(lowering, config, `${name}.group_norm`),
    ...{ x: y, dtype, groups: H },
    gate: { by: gate, place: "after" },
  });
  return linear(lowering, normed, `${name}.to_out.0`);
}

/** RMSNorm(k + G ⊙ Σ_i k^{l-i}), i = 1..min(m, l), and v likewise; as they are without links. */
function denseKeyValues(
  lowering: Lowering,
  config: RetNetConfig,
  layer: number,
  x: Operand,
  { k, v }: KeyValue,
  past: readonly KeyValue[],
): KeyValue {
  const { graph: g, float: dtype } = lowering;
  if (config.gates[layer] === undefined) return { k, v };
  const links = past.slice(-config.denseLayers);
  const fuse = (which: "k" | "v", own: Operand) => {
    const shallower = links.map((link) => toValue(lowering, link[which])).reduce((a, b) => g.op("Add", [a, b]));
    const read = g.op("Mul", [toValue(lowering, denseGate(lowering, layer, x, which)), shallower]);
    const added = { value: read, dtype, width: own.width };
    const weights = normWeights(lowering, config, `${attention(layer)}.${which}_norm`);
    return norm(lowering, { ...weights, x: own, added, dtype }).normed;
  };
  return { k: fuse("k", k), v: fuse("v", v) };
}

/** G = SiLU(W2 · SiLU(W1 · x)), one for all links: H·dk or H·dv wide. */
function denseGate(lowering: Lowering, layer: number, x: Operand, which: "k" | "v"): Operand {
  const name = `${attention(layer)}.${which}_select`;
  const hidden = linear(lowering, x, `${name}.fc1`, { role: "selection", activation: "silu" });
  return linear(lowering, hidden, `${name}.fc2`, { role: "selection", activation: "silu" });
}

function scaled({ graph: g, float: dtype }: Lowering, x: Operand, factor: number): Operand {
  return { ...x, value: g.op("Mul", [x.value, g.constant(floatTensor(dtype, [], [factor]))]) };
}
