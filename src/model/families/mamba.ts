/**
 * Mamba, Falcon-Mamba and DenseMamba: one config and one list of tensors, since plain Mamba is
 * DenseMamba with m = 0. The checkpoint formats are described in docs/compiler.md. Knows nothing of
 * ONNX.
 */
import { type ConfigJson, readBoolean, readInt, readNumber, requireSilu } from "../config-json.ts";
import type { StateLayout } from "../state.ts";
import type { WeightTensor } from "../weights.ts";
import { boundedSteps, type ExpectedTensor, type Family, type ModelDescription } from "./family.ts";
import { withOptionalPrefix } from "./layout.ts";

export interface MambaConfig {
  readonly kind: "mamba";
  readonly vocabSize: number; // V
  readonly hiddenSize: number; // D, width of the residual stream
  readonly dInner: number; // E, channels of the mixer
  readonly stateSize: number; // N, numbers a channel remembers
  readonly timeStepRank: number; // R, rank of the projection that gives the step size
  readonly convKernel: number; // K, taps of the causal convolution
  readonly numLayers: number;
  readonly denseLayers: number; // m, how many shallower layers each layer reads
  readonly normEpsilon: number;
  /**
   * ε of the RMS norms without weights on dt, B and C that Falcon-Mamba has; undefined for the
   * others, which have none.
   */
  readonly parameterNormEpsilon: number | undefined;
  /** Name of the embedding's tensor without `.weight`. */
  readonly embedding: string;
  readonly tieEmbeddings: boolean;
  readonly useBias: boolean; // on in_proj and out_proj
  readonly useConvBias: boolean;
  /** Per layer: the gate's sizes, or undefined where there are no links. */
  readonly gates: readonly (GateSizes | undefined)[];
}

export interface GateSizes {
  /** r, width of the gate's hidden layer. */
  readonly width: number;
  /** min(m, l). */
  readonly numLinks: number;
  /** k: one gate per link, or 1 shared by all. */
  readonly numGates: number;
}

/** Of `MambaConfig` and `FalconMambaConfig` in Hugging Face's transformers. */
const TRANSFORMERS_DEFAULTS: ConfigJson = {
  vocab_size: 50_280,
  hidden_size: 768,
  num_hidden_layers: 32,
  bos_token_id: 0,
  eos_token_id: 0,
};

/** With the prefix that transformers leaves out of a model without its head. */
export const mambaLayout: Family<unknown>["layout"] = (tensors) => withOptionalPrefix("backbone.", tensors);

export const denseMamba: Family<MambaConfig> = {
  name: "dense_mamba",
  modelTypes: ["dense_mamba"],
  layout: mambaLayout,
  describe: (json, tensors) => describe(json, tensors, readInt(json, "dense_layers", { min: 0, max: MAX_LAYERS })),
};

export const mamba: Family<MambaConfig> = {
  name: "mamba",
  modelTypes: ["mamba"],
  defaults: TRANSFORMERS_DEFAULTS,
  layout: mambaLayout,
  describe: (json, tensors) => describe(json, tensors, 0),
};

export const falconMamba: Family<MambaConfig> = {
  name: "falcon_mamba",
  modelTypes: ["falcon_mamba"],
  defaults: TRANSFORMERS_DEFAULTS,
  layout: mambaLayout,
  describe: (json, tensors) =>
    describe(json, tensors, 0, readNumber(json, "mixer_rms_eps", { min: 0, max: 1, fallback: 1e-6 })),
};

const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;
/** As the authors of Mamba name it; Hugging Face's releases say `embeddings`. */
const ORIGINAL_EMBEDDING = "backbone.embedding";

/** @throws `invalid_checkpoint` */
export function describe(
  json: ConfigJson,
  tensors: ReadonlyMap<string, WeightTensor>,
  denseLayers: number,
  parameterNormEpsilon?: number,
): ModelDescription<MambaConfig> {
  const config = { ...parse(json, tensors, denseLayers), parameterNormEpsilon };
  const { vocabSize, hiddenSize, numLayers } = config;
  return {
    architecture: config,
    sizes: { vocabSize, hiddenSize, numLayers, denseLayers },
    tensors: expectedTensors(config),
    ignored: config.tieEmbeddings ? ["lm_head.weight"] : [],
    state: stateSpec(config),
    maxPassSteps: maxPassSteps(config),
  };
}

function parse(
  json: ConfigJson,
  tensors: ReadonlyMap<string, WeightTensor>,
  denseLayers: number,
): Omit<MambaConfig, "parameterNormEpsilon"> {
  const size = (key: string, fallback?: number) =>
    readInt(json, key, { min: 1, max: MAX_SIZE, ...(fallback === undefined ? {} : { fallback }) });
  requireSilu(json);
  const hiddenSize = size("hidden_size");
  const expand = readNumber(json, "expand", { min: 1 / hiddenSize, max: MAX_SIZE, fallback: 2 });
  const dInner = size("intermediate_size", Math.floor(expand * hiddenSize));
  const numLayers = readInt(json, "num_hidden_layers", { min: 1, max: MAX_LAYERS });
  const rank = (json.time_step_rank ?? "auto") === "auto" ? Math.ceil(hiddenSize / 16) : size("time_step_rank");
  return {
    kind: "mamba",
    vocabSize: size("vocab_size"),
    hiddenSize,
    dInner,
    stateSize: size("state_size", 16),
    timeStepRank: rank,
    convKernel: readInt(json, "conv_kernel", { min: 2, max: 64, fallback: 4 }),
    numLayers,
    denseLayers,
    normEpsilon: readNumber(json, "layer_norm_epsilon", { min: 0, max: 1, fallback: 1e-5 }),
    embedding: tensors.has(`${ORIGINAL_EMBEDDING}.weight`) ? ORIGINAL_EMBEDDING : "backbone.embeddings",
    tieEmbeddings: readBoolean(json, "tie_word_embeddings", true),
    useBias: readBoolean(json, "use_bias", false),
    useConvBias: readBoolean(json, "use_conv_bias", true),
    gates: Array.from({ length: numLayers }, (_, l) => gateSizes(l, Math.min(denseLayers, l), dInner, tensors)),
  };
}

/**
 * The gate's width, and whether it is shared, stand only in its tensors; absent ones are reported
 * as missing later.
 */
function gateSizes(
  layer: number,
  numLinks: number,
  dInner: number,
  tensors: ReadonlyMap<string, WeightTensor>,
): GateSizes | undefined {
  if (numLinks === 0) return undefined;
  const width = tensors.get(`${mixer(layer)}.select.fc1.weight`)?.shape[0] ?? 1;
  const shared = tensors.get(`${mixer(layer)}.select.fc2.weight`)?.shape[0] === dInner;
  return { width: Math.max(width, 1), numLinks, numGates: shared ? 1 : numLinks };
}

/** Name prefix of a layer's mixer. */
export function mixer(layer: number): string {
  return `backbone.layers.${layer}.mixer`;
}

function expectedTensors(config: MambaConfig): ExpectedTensor[] {
  const { vocabSize: V, hiddenSize: D, dInner: E, stateSize: N, timeStepRank: R, convKernel: K } = config;
  const tensors: [string, number[]][] = [
    [`${config.embedding}.weight`, [V, D]],
    ["backbone.norm_f.weight", [D]],
  ];
  if (!config.tieEmbeddings) tensors.push(["lm_head.weight", [V, D]]);
  for (const [l, gate] of config.gates.entries()) {
    const name = mixer(l);
    tensors.push(
      [`backbone.layers.${l}.norm.weight`, [D]],
      [`${name}.A_log`, [E, N]],
      [`${name}.D`, [E]],
      [`${name}.conv1d.weight`, [E, 1, K]],
      [`${name}.in_proj.weight`, [2 * E, D]],
      [`${name}.x_proj.weight`, [R + 2 * N, E]],
      [`${name}.dt_proj.weight`, [E, R]],
      [`${name}.dt_proj.bias`, [E]],
      [`${name}.out_proj.weight`, [D, E]],
    );
    if (config.useConvBias) tensors.push([`${name}.conv1d.bias`, [E]]);
    if (config.useBias) tensors.push([`${name}.in_proj.bias`, [2 * E]], [`${name}.out_proj.bias`, [D]]);
    if (gate !== undefined) {
      tensors.push(
        [`${name}.select.fc1.weight`, [gate.width, D]],
        [`${name}.select.fc2.weight`, [gate.numGates * E, gate.width]],
      );
    }
  }
  return tensors.map(([name, shape]) => ({ name, shape }));
}

/**
 * Dense links read the hidden states of every step of a pass; without them `in_proj` has the
 * largest result.
 */
function maxPassSteps({ dInner: E, stateSize: N, denseLayers }: MambaConfig): number {
  return boundedSteps((numSteps) => numSteps * (denseLayers > 0 ? Math.max(2, N) : 2) * E);
}

/**
 * Per layer: `conv`, the last K - 1 inputs of the convolution, oldest first; `ssm`, the hidden
 * state, E innermost.
 */
function stateSpec({ numLayers, dInner: E, stateSize: N, convKernel: K }: MambaConfig): StateLayout[] {
  return Array.from({ length: numLayers }, (_, l): StateLayout[] => [
    { name: `conv.${l}`, shape: [K - 1, E], holds: "inputs" },
    { name: `ssm.${l}`, shape: [N, E], holds: "sums", mayNarrow: true },
  ]).flat();
}
