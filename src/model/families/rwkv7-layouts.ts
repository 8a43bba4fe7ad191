/**
 * The layouts of RWKV-7: BlinkDL's own `blocks.N.att.…`, transformers' `rwkv7.blocks.N.att.…`, and
 * fla's `model.layers.N.attn.…`, whose names the family has. The first two store pairs of small
 * matrices the other way round.
 */
import { invalidCheckpoint, type WeightTensor } from "../weights.ts";
import { type Layout, squeezed, transposed } from "./layout.ts";
import { otherRwkvIn } from "./unserved.ts";

/** Outside the layers, then inside one: the family's name, the native name. */
const OUTER: readonly (readonly [string, string])[] = [
  ["model.embeddings.weight", "emb.weight"],
  ["model.norm.weight", "ln_out.weight"],
  ["model.norm.bias", "ln_out.bias"],
  ["lm_head.weight", "head.weight"],
];

const INNER: readonly (readonly [string, string])[] = [
  ...(["weight", "bias"] as const).flatMap((part) => [
    [`pre_norm.${part}`, `ln0.${part}`] as const,
    [`attn_norm.${part}`, `ln1.${part}`] as const,
    [`ffn_norm.${part}`, `ln2.${part}`] as const,
    [`attn.g_norm.${part}`, `att.ln_x.${part}`] as const,
  ]),
  ["attn.r_proj.weight", "att.receptance.weight"],
  ["attn.k_proj.weight", "att.key.weight"],
  ["attn.v_proj.weight", "att.value.weight"],
  ["attn.o_proj.weight", "att.output.weight"],
  ...["w", "a", "v", "g"].flatMap((which) => [
    [`attn.${which}_lora.lora.0.weight`, `att.${which}1`] as const,
    [`attn.${which}_lora.lora.2.weight`, `att.${which}2`] as const,
    [`attn.${which}_lora.lora.2.bias`, `att.${which}0`] as const,
  ]),
  ...["x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "k_k", "k_a", "r_k"].map(
    (name) => [`attn.${name}`, `att.${name}`] as const,
  ),
  ...["x_k", "key.weight", "value.weight"].map((name) => [`ffn.${name}`, `ffn.${name}`] as const),
];

const PAIRED = /_lora\.lora\.[02]\.weight$/;
const VECTOR = /\.(x_\w|k_k|k_a|lora\.2\.bias)$/;

/** @throws `invalid_checkpoint` for another generation of RWKV, by its name */
export function rwkv7Layout(tensors: readonly WeightTensor[]): Layout {
  const names = tensors.map(({ name }) => name);
  const other = otherRwkvIn(names);
  if (other !== undefined) throw invalidCheckpoint(`the weights ${other}; of RWKV only RWKV-7 is served`);
  const prefix = names.some((name) => name.startsWith("rwkv7.")) ? "rwkv7." : "";
  if (names.some((name) => name.startsWith(`${prefix}blocks.`))) return native(prefix);
  return { familyName: (name) => name, fileName: (name) => name, adapt: asVector };
}

function asVector(tensor: WeightTensor, familyName: string): WeightTensor {
  return VECTOR.test(familyName) ? squeezed(tensor) : tensor;
}

function native(prefix: string): Layout {
  const toFamily = new Map([...OUTER, ...INNER].map(([family, own]) => [own, family]));
  const toFile = new Map([...OUTER, ...INNER]);
  return {
    familyName(name) {
      const own = name.startsWith(prefix) ? name.slice(prefix.length) : name;
      const [, layer, rest] = /^blocks\.(\d+)\.(.+)$/.exec(own) ?? [];
      const known = toFamily.get(rest ?? own);
      if (known === undefined) return name;
      return layer === undefined ? known : `model.layers.${layer}.${known}`;
    },
    fileName(name) {
      const [, layer, rest] = /^model\.layers\.(\d+)\.(.+)$/.exec(name) ?? [];
      const own = toFile.get(rest ?? name);
      if (own === undefined) return name;
      // transformers leaves the head outside of the model.
      return layer === undefined ? (own === "head.weight" ? own : prefix + own) : `${prefix}blocks.${layer}.${own}`;
    },
    adapt: (tensor, name) =>
      PAIRED.test(name) && tensor.shape.length === 2 ? transposed(tensor) : asVector(tensor, name),
  };
}
