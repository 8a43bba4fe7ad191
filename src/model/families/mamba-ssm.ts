/**
 * Mamba and Mamba-2 as their authors' own package, `mamba_ssm`, saves them, and Mamba-2 as Mistral
 * releases it: the models of `mamba.ts` and `mamba2.ts` under other keys, a config without
 * `model_type`, and a vocabulary that is padded after the config was written. Knows nothing of
 * ONNX.
 */
import { type ConfigJson, printed, readBoolean, readInt } from "../config-json.ts";
import { invalidCheckpoint } from "../weights.ts";
import type { Family } from "./family.ts";
import { describe, type MambaConfig, mambaLayout } from "./mamba.ts";
import { describeMamba2, type Mamba2Config, mamba2Layout } from "./mamba2.ts";

export const mambaSsm: Family<MambaConfig> = {
  name: "mamba",
  modelTypes: [null],
  layout: mambaLayout,
  recognizes: (json) => isMambaSsm(json) && !hasMamba2Layers(json),
  describe: (json, tensors) => describe(mambaJson(json), tensors, 0),
};

export const mamba2Ssm: Family<Mamba2Config> = {
  name: "mamba2",
  modelTypes: [null],
  layout: mamba2Layout,
  recognizes: (json) => isMambaSsm(json) && hasMamba2Layers(json),
  describe: (json) => describeMamba2(mamba2Json(json)),
};

/** Codestral Mamba: `mistral-inference` makes a config of `mamba_ssm` from its own. */
export const mistralMamba2: Family<Mamba2Config> = {
  name: "mamba2",
  modelTypes: ["mamba", null],
  layout: mamba2Layout,
  recognizes: (json) => "dim" in json && "n_layers" in json && "n_groups" in json,
  describe: (json) => {
    const { dim: d_model, n_layers: n_layer, n_groups: ngroups, ...others } = json;
    return describeMamba2(mamba2Json({ ...others, d_model, n_layer, ssm_cfg: { layer: "Mamba2", ngroups } }));
  },
};

const MAX_VOCABULARY = 2 ** 20;
const MAX_SIZE = 2 ** 20;

function isMambaSsm(json: ConfigJson): boolean {
  return "d_model" in json && "n_layer" in json;
}

function hasMamba2Layers(json: ConfigJson): boolean {
  return readObject(json, "ssm_cfg").layer === "Mamba2";
}

/** In the keys of Hugging Face's Mamba. */
function mambaJson(json: ConfigJson): ConfigJson {
  const ssm = readObject(json, "ssm_cfg");
  const layer = ssm.layer ?? "Mamba1";
  if (layer !== "Mamba1") {
    throw invalidCheckpoint(`config.json: ssm_cfg.layer ${JSON.stringify(layer)} is not Mamba1 or Mamba2`);
  }
  return { ...commonJson(json, ssm), time_step_rank: ssm.dt_rank };
}

/**
 * In the keys of Hugging Face's Mamba-2.
 * @throws `invalid_checkpoint` for variants of the block that only this package has
 */
function mamba2Json(json: ConfigJson): ConfigJson {
  const ssm = readObject(json, "ssm_cfg");
  for (const [key, needed] of [
    ["rmsnorm", true],
    ["norm_before_gate", false],
    ["D_has_hdim", false],
  ] as const) {
    const value = ssm[key] ?? needed;
    if (value !== needed) throw invalidCheckpoint(`config.json: ssm_cfg.${key} is ${printed(value)}, not ${needed}`);
  }
  const size = (from: ConfigJson, key: string, fallback?: number) =>
    readInt(from, key, { min: 1, max: MAX_SIZE, ...(fallback === undefined ? {} : { fallback }) });
  const channels = size(ssm, "expand", 2) * size(json, "d_model");
  const headDim = size(ssm, "headdim", 64);
  if (channels % headDim !== 0) {
    throw invalidCheckpoint(`config.json: ssm_cfg.headdim is ${headDim}, which does not divide ${channels} channels`);
  }
  if (size(ssm, "d_ssm", channels) !== channels) {
    throw invalidCheckpoint(`config.json: ssm_cfg.d_ssm is ${printed(ssm.d_ssm)}, not all ${channels} channels`);
  }
  return {
    ...commonJson(json, ssm),
    state_size: ssm.d_state ?? 128,
    num_heads: channels / headDim,
    head_dim: headDim,
    n_groups: ssm.ngroups ?? 1,
    time_step_limit: ssm.dt_limit,
    tie_word_embeddings: json.tie_embeddings ?? true,
  };
}

/**
 * @throws `invalid_checkpoint` for what only other models of that package have: an MLP, LayerNorm.
 */
function commonJson(json: ConfigJson, ssm: ConfigJson): ConfigJson {
  if (!readBoolean(json, "rms_norm", true)) throw invalidCheckpoint("config.json: rms_norm is false, not true");
  readInt(json, "d_intermediate", { min: 0, max: 0, fallback: 0 });
  return {
    hidden_size: json.d_model,
    num_hidden_layers: json.n_layer,
    vocab_size: paddedVocabSize(json),
    state_size: ssm.d_state,
    conv_kernel: ssm.d_conv,
    expand: ssm.expand,
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
