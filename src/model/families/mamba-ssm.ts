/**
 * Mamba as its authors' own package, `mamba_ssm`, saves it: the model of `mamba.ts` under other keys, a config without
 * `model_type`, and a vocabulary that is padded after the config was written. Knows nothing of ONNX.
 */
import { type ConfigJson, readBoolean, readInt } from "../config-json.ts";
import { invalidCheckpoint } from "../weights.ts";
import type { Family } from "./family.ts";
import { describe, MAMBA_PREFIX, type MambaConfig } from "./mamba.ts";

export const mambaSsm: Family<MambaConfig> = {
  name: "mamba",
  modelTypes: [null],
  prefix: MAMBA_PREFIX,
  recognizes: (json) => "d_model" in json && "n_layer" in json,
  describe: (json, tensors) => describe(toHuggingFace(json), tensors, 0),
};

const MAX_VOCABULARY = 2 ** 20;

/**
 * The same model in the keys of Hugging Face's Mamba.
 * @throws `invalid_checkpoint` for what only other models of that package have: Mamba-2, attention layers, an MLP, LayerNorm.
 */
function toHuggingFace(json: ConfigJson): ConfigJson {
  const ssm = readObject(json, "ssm_cfg");
  const layer = ssm.layer ?? "Mamba1";
  if (layer !== "Mamba1") throw invalidCheckpoint(`config.json: ssm_cfg.layer ${JSON.stringify(layer)} is not Mamba1`);
  if (!readBoolean(json, "rms_norm", true)) throw invalidCheckpoint("config.json: rms_norm is false, not true");
  const attention = json.attn_layer_idx ?? [];
  if (!Array.isArray(attention) || attention.length > 0) {
    throw invalidCheckpoint(`config.json: attn_layer_idx is ${JSON.stringify(attention)}, not empty`);
  }
  readInt(json, "d_intermediate", { min: 0, max: 0, fallback: 0 });
  return {
    hidden_size: json.d_model,
    num_hidden_layers: json.n_layer,
    vocab_size: paddedVocabSize(json),
    state_size: ssm.d_state,
    conv_kernel: ssm.d_conv,
    expand: ssm.expand,
    time_step_rank: ssm.dt_rank,
    use_bias: ssm.bias,
    use_conv_bias: ssm.conv_bias,
    tie_word_embeddings: json.tie_embeddings,
  };
}

/** `vocab_size` counts the tokens; the embedding has rows up to the next multiple. */
function paddedVocabSize(json: ConfigJson): number {
  const bounds = { min: 1, max: MAX_VOCABULARY };
  const vocabSize = readInt(json, "vocab_size", { ...bounds, fallback: 50_277 });
  const multiple = readInt(json, "pad_vocab_size_multiple", { ...bounds, fallback: 8 });
  return Math.ceil(vocabSize / multiple) * multiple;
}

function readObject(json: ConfigJson, key: string): ConfigJson {
  const value = json[key] ?? {};
  if (typeof value === "object" && !Array.isArray(value)) return value as ConfigJson;
  throw invalidCheckpoint(`config.json: ${key} is ${JSON.stringify(value)}, not an object`);
}
