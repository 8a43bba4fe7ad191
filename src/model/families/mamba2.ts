/**
 * Mamba-2: scalar decays for whole heads, and a matrix of memory for each. One config and one list
 * of tensors, named as in Hugging Face's transformers; `mamba-ssm.ts` reads the other layouts.
 * Described in docs/compiler.md. Knows nothing of ONNX.
 */
import { type ConfigJson, readBoolean, readInt, readNumber, readRange, requireSilu } from "../config-json.ts";
import type { StateLayout } from "../state.ts";
import { invalidCheckpoint } from "../weights.ts";
import { boundedSteps, type ExpectedTensor, type Family, type ModelDescription } from "./family.ts";
import { type Layout, withOptionalPrefix } from "./layout.ts";
import { mixer } from "./mamba.ts";

export interface Mamba2Config {
  readonly kind: "mamba2";
  readonly vocabSize: number; // V
  readonly hiddenSize: number; // D, width of the residual stream
  readonly numHeads: number; // H
  readonly headDim: number; // P, channels of a head; E = H·P channels in all
  readonly stateSize: number; // N, numbers a channel remembers
  readonly numGroups: number; // G, of heads that share B and C; the gated norm is over a group's channels, E / G
  readonly convKernel: number; // K, taps of the causal convolution
  readonly numLayers: number;
  readonly normEpsilon: number; // of all norms
  /** Bounds of the step size Δ; the upper one may be infinite. */
  readonly timeStepLimit: readonly [min: number, max: number];
  readonly tieEmbeddings: boolean;
  readonly useBias: boolean; // on in_proj and out_proj
  readonly useConvBias: boolean;
}

/** Of `Mamba2Config` in Hugging Face's transformers. */
const TRANSFORMERS_DEFAULTS: ConfigJson = {
  vocab_size: 32_768,
  hidden_size: 4096,
  num_hidden_layers: 64,
  num_heads: 128,
  head_dim: 64,
  n_groups: 8,
  bos_token_id: 0,
  eos_token_id: 2,
};

export const mamba2: Family<Mamba2Config> = {
  name: "mamba2",
  modelTypes: ["mamba2"],
  defaults: TRANSFORMERS_DEFAULTS,
  layout: mamba2Layout,
  describe: describeMamba2,
};

const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;
const ORIGINAL_EMBEDDING = "backbone.embedding.weight";
const EMBEDDING = "backbone.embeddings.weight";

/**
 * The package `mamba_ssm` has another name for the embedding, and Mistral's releases one more
 * prefix.
 */
export function mamba2Layout(tensors: Parameters<Family<unknown>["layout"]>[0]): Layout {
  const outer = tensors.some(({ name }) => name.startsWith("model.backbone.")) ? "model." : "";
  const inner = withOptionalPrefix(
    "backbone.",
    tensors.map((tensor) => ({ ...tensor, name: tensor.name.slice(outer.length) })),
  );
  const isOriginal = tensors.some(({ name }) => name === outer + ORIGINAL_EMBEDDING);
  return {
    familyName(name) {
      const known = name.startsWith(outer) ? name.slice(outer.length) : name;
      return known === ORIGINAL_EMBEDDING ? EMBEDDING : inner.familyName(known);
    },
    fileName: (name) => outer + (isOriginal && name === EMBEDDING ? ORIGINAL_EMBEDDING : name),
  };
}

/** @throws `invalid_checkpoint` */
export function describeMamba2(json: ConfigJson): ModelDescription<Mamba2Config> {
  const config = parse(json);
  const { vocabSize, hiddenSize, numLayers } = config;
  return {
    architecture: config,
    sizes: { vocabSize, hiddenSize, numLayers, denseLayers: 0 },
    tensors: expectedTensors(config),
    ignored: config.tieEmbeddings ? ["lm_head.weight"] : [],
    state: stateSpec(config),
    maxPassSteps: maxPassSteps(config),
  };
}

function parse(json: ConfigJson): Mamba2Config {
  const size = (key: string, fallback?: number) =>
    readInt(json, key, { min: 1, max: MAX_SIZE, ...(fallback === undefined ? {} : { fallback }) });
  requireSilu(json);
  const hiddenSize = size("hidden_size");
  const expand = readNumber(json, "expand", { min: 1 / hiddenSize, max: MAX_SIZE, fallback: 2 });
  const numHeads = size("num_heads");
  const headDim = size("head_dim");
  const channels = Math.floor(expand * hiddenSize);
  if (numHeads * headDim !== channels) {
    throw invalidCheckpoint(
      `config.json: num_heads ${numHeads} of head_dim ${headDim} make ${numHeads * headDim} channels; expand ${expand} and hidden_size ${hiddenSize} make ${channels}`,
    );
  }
  const numGroups = size("n_groups");
  if (numHeads % numGroups !== 0) {
    throw invalidCheckpoint(`config.json: n_groups is ${numGroups}, which does not divide num_heads ${numHeads}`);
  }
  return {
    kind: "mamba2",
    vocabSize: size("vocab_size"),
    hiddenSize,
    numHeads,
    headDim,
    stateSize: size("state_size", 128),
    numGroups,
    convKernel: readInt(json, "conv_kernel", { min: 2, max: 64, fallback: 4 }),
    numLayers: readInt(json, "num_hidden_layers", { min: 1, max: MAX_LAYERS }),
    normEpsilon: readNumber(json, "layer_norm_epsilon", { min: 0, max: 1, fallback: 1e-5 }),
    timeStepLimit: readRange(json, "time_step_limit", [0, Number.POSITIVE_INFINITY]),
    tieEmbeddings: readBoolean(json, "tie_word_embeddings", false),
    useBias: readBoolean(json, "use_bias", false),
    useConvBias: readBoolean(json, "use_conv_bias", true),
  };
}

/**
 * Widths of what `in_proj` gives, in its order: the gate, what is convolved, and a step size for
 * each head.
 */
export function projectionWidths(config: Mamba2Config): {
  readonly gate: number;
  readonly conv: number;
  readonly dt: number;
} {
  const { numHeads, headDim, numGroups, stateSize } = config;
  const channels = numHeads * headDim;
  return { gate: channels, conv: channels + 2 * numGroups * stateSize, dt: numHeads };
}

function expectedTensors(config: Mamba2Config): ExpectedTensor[] {
  const { vocabSize: V, hiddenSize: D, numHeads: H, convKernel: K, numLayers } = config;
  const { gate: E, conv, dt } = projectionWidths(config);
  const tensors: [string, number[]][] = [
    [EMBEDDING, [V, D]],
    ["backbone.norm_f.weight", [D]],
  ];
  if (!config.tieEmbeddings) tensors.push(["lm_head.weight", [V, D]]);
  for (let l = 0; l < numLayers; l++) {
    const name = mixer(l);
    tensors.push(
      [`backbone.layers.${l}.norm.weight`, [D]],
      [`${name}.in_proj.weight`, [E + conv + dt, D]],
      [`${name}.conv1d.weight`, [conv, 1, K]],
      [`${name}.dt_bias`, [H]],
      [`${name}.A_log`, [H]],
      [`${name}.D`, [H]],
      [`${name}.norm.weight`, [E]],
      [`${name}.out_proj.weight`, [D, E]],
    );
    if (config.useConvBias) tensors.push([`${name}.conv1d.bias`, [conv]]);
    if (config.useBias) tensors.push([`${name}.in_proj.bias`, [E + conv + dt]], [`${name}.out_proj.bias`, [D]]);
  }
  return tensors.map(([name, shape]) => ({ name, shape }));
}

/**
 * In plain ONNX a pass is one chunk, whose steps all see each other: H scores for each pair of
 * them, in f64 for a moment.
 */
function maxPassSteps(config: Mamba2Config): number {
  const { gate, conv, dt } = projectionWidths(config);
  return boundedSteps((numSteps) => Math.max(2 * config.numHeads * numSteps ** 2, numSteps * (gate + conv + dt)));
}

/**
 * Per layer: `conv`, the last K - 1 inputs of the convolution, oldest first; `ssm`, a matrix a
 * head, P innermost.
 */
function stateSpec(config: Mamba2Config): StateLayout[] {
  const { numLayers, numHeads: H, headDim: P, stateSize: N, convKernel: K } = config;
  const { conv } = projectionWidths(config);
  return Array.from({ length: numLayers }, (_, l): StateLayout[] => [
    { name: `conv.${l}`, shape: [K - 1, conv], holds: "inputs" },
    { name: `ssm.${l}`, shape: [H, N, P], holds: "sums" },
  ]).flat();
}
