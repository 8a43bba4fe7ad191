/**
 * Models that are close to those that are served and are not: hybrids, whose attention layers keep
 * a cache that grows with the text, and earlier generations of RWKV. They are refused by name,
 * rather than for a tensor or a key that is missing.
 */
import { type ConfigJson, printed } from "../config-json.ts";

/** By `model_type`. */
const HYBRIDS = new Set([
  ...["bamba", "falcon_h1", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "minimax", "nemotron_h", "plamo2"],
  ...["qwen3_next", "recurrent_gemma", "samba", "zamba", "zamba2"],
]);

const EARLIER_RWKV: Readonly<Record<string, string>> = {
  rwkv: "RWKV-4",
  rwkv4: "RWKV-4",
  rwkv5: "RWKV-5",
  rwkv6: "RWKV-6",
  rwkv6_fla: "RWKV-6",
};

/**
 * What a config says if some of its layers are attention; undefined if none are, as far as it
 * tells.
 */
export function attentionIn(json: ConfigJson): string | undefined {
  const { model_type: type } = json;
  if (typeof type === "string" && HYBRIDS.has(type)) return `model_type is "${type}"`;
  for (const key of ["attn_layer_idx", "attn_layer_indices", "attention_layers_idx", "hybrid_layer_ids"]) {
    const value = json[key] ?? [];
    if (!Array.isArray(value) || value.length > 0) return `${key} is ${printed(value)}, not empty`;
  }
  for (const key of ["layer_types", "layers_block_type"]) {
    const value = json[key];
    if (Array.isArray(value) && value.some((layer) => /attention|hybrid/.test(String(layer)))) {
      return `${key} is ${printed(value)}`;
    }
  }
  // fla writes null where a model has no attention layers, mamba_ssm its settings for those that
  // attn_layer_idx lists.
  for (const key of ["attn", "attn_layer_period"]) {
    if (json[key] !== undefined && json[key] !== null) return `${key} is ${printed(json[key])}`;
  }
  const pattern = json.hybrid_override_pattern;
  return typeof pattern === "string" && pattern.includes("*") ? `hybrid_override_pattern is "${pattern}"` : undefined;
}

/** Which RWKV a checkpoint is by its config, if an earlier one than RWKV-7. */
export function earlierRwkvIn({ model_type: type }: ConfigJson): string | undefined {
  return typeof type === "string" && Object.hasOwn(EARLIER_RWKV, type) ? EARLIER_RWKV[type] : undefined;
}

/**
 * What a checkpoint's weights are, by their names, if not those of RWKV-7: each generation renamed
 * what it changed.
 */
export function otherRwkvIn(names: readonly string[]): string | undefined {
  const has = (pattern: RegExp) => names.some((name) => pattern.test(name));
  const block = (name: string) => new RegExp(`(^|\\.)blocks\\.\\d+\\.(att|attention)\\.${name}`);
  if (has(block("r_k$"))) return has(/\.ffn\.s_emb/) ? "are those of RWKV-7a, with deep embeddings" : undefined;
  if (has(block("time_maa_"))) return "are those of RWKV-6";
  if (has(block("ln_x\\.weight$"))) return "are those of RWKV-5";
  if (has(block("time_decay$"))) return "are those of RWKV-4";
  return has(block("time_state$")) ? "are a state for an RWKV, without the model" : undefined;
}
