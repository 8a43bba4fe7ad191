/**
 * RWKV-7: the order of its operators, and what passes between them. Twin:
 * `model/reference/rwkv7.ts`, which has the symbols.
 */
import { channelMix, MIXED_INPUTS, type Rwkv7Config, timeMix } from "../model/families/rwkv7.ts";
import { lowerDecoder } from "./decoder.ts";
import type { Lowering } from "./lowering.ts";
import type { Activation } from "./operators/activation.ts";
import { deltaRule } from "./operators/delta-rule.ts";
import { linear } from "./operators/linear.ts";
import type { Operand } from "./operators/operand.ts";
import { tokenShift } from "./operators/token-shift.ts";

export function lowerRwkv7(lowering: Lowering, config: Rwkv7Config): void {
  const { weight } = lowering;
  const norm = (name: string) => ({
    weight: weight(`${name}.weight`),
    bias: weight(`${name}.bias`),
    epsilon: config.normEpsilon,
  });
  /** The first layer's value, of which the others take a share. */
  let firstValue: Operand | undefined;
  lowerDecoder(lowering, {
    embedding: "model.embeddings",
    embeddingNorm: norm("model.layers.0.pre_norm"),
    layers: Array.from({ length: config.numLayers }, (_, layer) => [
      {
        norm: norm(`model.layers.${layer}.attn_norm`),
        branch: (x) => {
          const { out, value } = lowerTimeMix(lowering, config, layer, x, firstValue);
          firstValue ??= value;
          return out;
        },
      },
      { norm: norm(`model.layers.${layer}.ffn_norm`), branch: (x) => lowerChannelMix(lowering, layer, x) },
    ]),
    finalNorm: norm("model.norm"),
    head: "lm_head",
  });
}

function lowerTimeMix(
  lowering: Lowering,
  { numHeads: heads, groupNormEpsilon: epsilon }: Rwkv7Config,
  layer: number,
  x: Operand,
  firstValue: Operand | undefined,
): { readonly out: Operand; readonly value: Operand } {
  const name = timeMix(layer);
  const shares = MIXED_INPUTS.map((input) => `${name}.x_${input}`);
  const [xr, xw, xk, xv, xa, xg] = tokenShift(lowering, { x, state: `att_shift.${layer}`, shares }) as [
    ...[Operand, Operand, Operand, Operand, Operand, Operand],
  ];
  const lowRank = (of: Operand, which: string, activation: Activation = "none") => {
    const inner = linear(lowering, of, `${name}.${which}_lora.lora.0`, { role: "selection", activation });
    return linear(lowering, inner, `${name}.${which}_lora.lora.2`, { role: "selection" });
  };
  const { out, value } = deltaRule(lowering, {
    r: linear(lowering, xr, `${name}.r_proj`),
    k: linear(lowering, xk, `${name}.k_proj`),
    v: linear(lowering, xv, `${name}.v_proj`),
    w: lowRank(xw, "w", "tanh"),
    a: lowRank(xa, "a"),
    g: lowRank(xg, "g", "sigmoid"),
    mixed: firstValue && { share: lowRank(xv, "v"), firstValue },
    ...{ heads, epsilon, name, state: `wkv.${layer}` },
  });
  return { out: linear(lowering, out, `${name}.o_proj`), value };
}

function lowerChannelMix(lowering: Lowering, layer: number, x: Operand): Operand {
  const name = channelMix(layer);
  const [mixed] = tokenShift(lowering, { x, state: `ffn_shift.${layer}`, shares: [`${name}.x_k`] }) as [Operand];
  return linear(lowering, linear(lowering, mixed, `${name}.key`, { activation: "relu2" }), `${name}.value`);
}
