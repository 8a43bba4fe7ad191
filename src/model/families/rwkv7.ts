/**
 * RWKV-7 ("Goose"): a matrix of memory for each head, from which one direction is removed and
 * another is written at each step. Every size stands in its tensors; a config, if there is one,
 * must agree. Tensors are named as in fla's releases; the other layouts are in `rwkv7-layouts.ts`.
 * Described in docs/compiler.md. Knows nothing of ONNX.
 */
import { type ConfigJson, printed, readBoolean, readInt, readNumber } from "../config-json.ts";
import type { StateLayout } from "../state.ts";
import { invalidCheckpoint, type WeightTensor } from "../weights.ts";
import { boundedSteps, type ExpectedTensor, type Family, type ModelDescription } from "./family.ts";
import { rwkv7Layout } from "./rwkv7-layouts.ts";

export interface Rwkv7Config {
  readonly kind: "rwkv7";
  readonly vocabSize: number; // V
  readonly hiddenSize: number; // D, width of the residual stream; D = H · N
  readonly numLayers: number;
  readonly numHeads: number; // H
  readonly headDim: number; // N
  readonly feedForwardSize: number; // F
  /**
   * Of the pairs of small matrices that give decay, removal, the share of the first layer's value,
   * and gate.
   */
  readonly ranks: Readonly<Record<LowRank, number>>;
  readonly normEpsilon: number; // of the layer norms
  readonly groupNormEpsilon: number; // of the norm of each head
}

/** w decay, a how much is removed, v the share of the first layer's value, g gate. */
export type LowRank = "w" | "a" | "v" | "g";

/** Inputs of a layer's time mixing, each a mixture of its own of this step's and the last one's. */
export const MIXED_INPUTS = ["r", "w", "k", "v", "a", "g"] as const;

export const rwkv7: Family<Rwkv7Config> = {
  name: "rwkv7",
  modelTypes: ["rwkv7", "rwkv7_fla"],
  // Id 0 ends a document in every release.
  defaults: { eos_token_id: 0 },
  layout: rwkv7Layout,
  recognizesTensors: (names) => names.some((name) => /(^|\.)blocks\.\d+\.(att|attention)\./.test(name)),
  describe,
};

const NORM_EPSILON = 1e-5;
const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;

/** Keys of configs, for the ranks. */
const RANK_KEYS: Readonly<Record<LowRank, string>> = {
  w: "decay_low_rank_dim",
  a: "a_low_rank_dim",
  v: "v_low_rank_dim",
  g: "gate_low_rank_dim",
};

function describe(json: ConfigJson, tensors: ReadonlyMap<string, WeightTensor>): ModelDescription<Rwkv7Config> {
  const config = parse(json, tensors);
  const { vocabSize, hiddenSize, numLayers } = config;
  const unused = ["lora.0.weight", "lora.2.weight", "lora.2.bias"];
  return {
    architecture: config,
    sizes: { vocabSize, hiddenSize, numLayers, denseLayers: 0 },
    tensors: expectedTensors(config),
    // The first layer's value is its own.
    ignored: unused.map((name) => `${timeMix(0)}.v_lora.${name}`),
    state: stateSpec(config),
    maxPassSteps: boundedSteps((numSteps) => numSteps * Math.max(config.feedForwardSize, 6 * hiddenSize)),
  };
}

function parse(json: ConfigJson, tensors: ReadonlyMap<string, WeightTensor>): Rwkv7Config {
  checkVariant(json);
  /** The config's, or that of the tensor; an absent tensor is reported as missing later. */
  const size = (key: string, tensor: string, axis: number, max = MAX_SIZE) =>
    readInt(json, key, { min: 1, max, fallback: tensors.get(tensor)?.shape[axis] ?? 1 });
  const hiddenSize = size("hidden_size", "model.embeddings.weight", 1);
  const bonus = `${timeMix(0)}.r_k`;
  const headDim = size("head_dim", bonus, 1);
  const numHeads = size((json.num_heads ?? null) === null ? "num_attention_heads" : "num_heads", bonus, 0);
  if (numHeads * headDim !== hiddenSize) {
    throw invalidCheckpoint(
      `${numHeads} heads of ${headDim} are ${numHeads * headDim} channels, but the model is ${hiddenSize} wide`,
    );
  }
  const numLayers = readInt(json, "num_hidden_layers", { min: 1, max: MAX_LAYERS, fallback: countLayers(tensors) });
  const rank = (which: LowRank) =>
    size(RANK_KEYS[which], `${timeMix(which === "v" ? 1 : 0)}.${which}_lora.lora.0.weight`, 0);
  const normEpsilon = readNumber(json, "norm_eps", { min: 0, max: 1, fallback: NORM_EPSILON });
  return {
    kind: "rwkv7",
    vocabSize: size("vocab_size", "model.embeddings.weight", 0),
    hiddenSize,
    numLayers,
    numHeads,
    headDim,
    feedForwardSize: size("intermediate_size", `${channelMix(0)}.key.weight`, 0),
    ranks: { w: rank("w"), a: rank("a"), v: rank("v"), g: rank("g") },
    normEpsilon,
    // As fla has it; for heads of 64, which all releases have, the same as in the authors' code.
    groupNormEpsilon: (json.norm_eps ?? null) === null ? 64 * NORM_EPSILON : headDim * normEpsilon,
  };
}

/** @throws `invalid_checkpoint` for what fla can build and nobody has published */
function checkVariant(json: ConfigJson): void {
  for (const [key, needed] of [
    ["norm_bias", true],
    ["norm_first", true],
    ["tie_word_embeddings", false],
  ] as const) {
    if (readBoolean(json, key, needed) !== needed) {
      throw invalidCheckpoint(`config.json: ${key} is ${!needed}, not ${needed}`);
    }
  }
  const activation = json.hidden_act ?? "sqrelu";
  if (activation === "sqrelu" || activation === "relu2") return;
  throw invalidCheckpoint(`config.json: hidden_act ${printed(activation)} is not sqrelu`);
}

function countLayers(tensors: ReadonlyMap<string, WeightTensor>): number {
  let count = 1;
  for (const name of tensors.keys()) {
    const [, layer] = /^model\.layers\.(\d{1,6})\./.exec(name) ?? [];
    if (layer !== undefined) count = Math.max(count, Number(layer) + 1);
  }
  return count;
}

/** Name prefix of a layer's first half, which looks along time. */
export function timeMix(layer: number): string {
  return `model.layers.${layer}.attn`;
}

/** Of its second half, which looks one step back. */
export function channelMix(layer: number): string {
  return `model.layers.${layer}.ffn`;
}

function expectedTensors(config: Rwkv7Config): ExpectedTensor[] {
  const { vocabSize: V, hiddenSize: D, numLayers, numHeads: H, headDim: N, feedForwardSize: F, ranks } = config;
  const norm = (name: string): [string, number[]][] => [
    [`${name}.weight`, [D]],
    [`${name}.bias`, [D]],
  ];
  const tensors: [string, number[]][] = [
    ["model.embeddings.weight", [V, D]],
    ...norm("model.layers.0.pre_norm"),
    ...norm("model.norm"),
    ["lm_head.weight", [V, D]],
  ];
  for (let l = 0; l < numLayers; l++) {
    const name = timeMix(l);
    tensors.push(
      ...norm(`model.layers.${l}.attn_norm`),
      ...norm(`model.layers.${l}.ffn_norm`),
      ...norm(`${name}.g_norm`),
    );
    for (const input of MIXED_INPUTS) tensors.push([`${name}.x_${input}`, [D]]);
    for (const matrix of ["r_proj", "k_proj", "v_proj", "o_proj"]) tensors.push([`${name}.${matrix}.weight`, [D, D]]);
    for (const which of ["w", "a", "v", "g"] as const) {
      if (which === "v" && l === 0) continue;
      tensors.push(
        [`${name}.${which}_lora.lora.0.weight`, [ranks[which], D]],
        [`${name}.${which}_lora.lora.2.weight`, [D, ranks[which]]],
      );
      if (which !== "g") tensors.push([`${name}.${which}_lora.lora.2.bias`, [D]]);
    }
    tensors.push([`${name}.k_k`, [D]], [`${name}.k_a`, [D]], [`${name}.r_k`, [H, N]]);
    tensors.push([`${channelMix(l)}.x_k`, [D]]);
    tensors.push([`${channelMix(l)}.key.weight`, [F, D]], [`${channelMix(l)}.value.weight`, [D, F]]);
  }
  return tensors.map(([name, shape]) => ({ name, shape }));
}

/**
 * Per layer: `att_shift` and `ffn_shift`, the last step's normalised inputs of its halves; `wkv`, a
 * matrix a head, [key, value]. NOTE: files of states (`time_state`) hold it as [value, key].
 */
function stateSpec({ numLayers, hiddenSize: D, numHeads: H, headDim: N }: Rwkv7Config): StateLayout[] {
  return Array.from({ length: numLayers }, (_, l): StateLayout[] => [
    { name: `att_shift.${l}`, shape: [1, D], holds: "inputs" },
    { name: `wkv.${l}`, shape: [H, N, N], holds: "sums" },
    { name: `ffn_shift.${l}`, shape: [1, D], holds: "inputs" },
  ]).flat();
}
