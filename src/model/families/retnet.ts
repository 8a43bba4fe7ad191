/**
 * RetNet as the DenseSSM authors build it, a gated attention unit over retention, with dense links
 * (DenseRetNet) or without (RetNet): one config and one list of tensors, named as in their
 * checkpoints. Described in docs/compiler.md. Knows nothing of ONNX.
 */
import { type ConfigJson, readBoolean, readInt, readNumber, requireSilu } from "../config-json.ts";
import type { StateLayout } from "../state.ts";
import { invalidCheckpoint, type WeightTensor } from "../weights.ts";
import { boundedSteps, type ExpectedTensor, type Family, type ModelDescription } from "./family.ts";
import { withOptionalPrefix } from "./layout.ts";

export interface RetNetConfig {
  readonly kind: "retnet";
  readonly vocabSize: number; // V
  readonly hiddenSize: number; // D, width of the residual stream
  readonly numLayers: number;
  readonly numHeads: number; // H
  readonly keyDim: number; // H · dk, even per head: pairs of neighbours are rotated
  readonly valueDim: number; // H · dv
  readonly denseLayers: number; // m, how many shallower layers' keys and values each layer reads
  readonly normEpsilon: number;
  readonly tieEmbeddings: boolean;
  /** Per layer: widths of the two gates' hidden layers, or undefined where there are no links. */
  readonly gates: readonly (LinkGates | undefined)[];
}

export interface LinkGates {
  readonly keyWidth: number;
  readonly valueWidth: number;
}

const layout: Family<unknown>["layout"] = (tensors) => withOptionalPrefix("model.", tensors);

export const denseRetNet: Family<RetNetConfig> = {
  name: "dense_retnet",
  modelTypes: ["DenseGauRetNet"],
  layout,
  describe: (json, tensors) =>
    describe(json, tensors, readInt(json, "dense_block_layers", { min: 0, max: MAX_LAYERS })),
};

/** The same architecture under the name of another, as the authors' repository publishes it. */
export const denseRetNetAsLlama: Family<RetNetConfig> = {
  ...denseRetNet,
  modelTypes: ["llama"],
  recognizes: ({ auto_map: map }) =>
    typeof map === "object" && map !== null && Object.values(map).some((name) => /dense_gau_retnet/.test(String(name))),
};

export const retNet: Family<RetNetConfig> = {
  name: "retnet",
  modelTypes: ["GauRetNet"],
  layout,
  describe: (json, tensors) => describe(json, tensors, 0),
};

const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;
/** The γ of a further head would be 1 in f32. */
const MAX_HEADS = 20;

function describe(
  json: ConfigJson,
  tensors: ReadonlyMap<string, WeightTensor>,
  denseLayers: number,
): ModelDescription<RetNetConfig> {
  const config = parse(json, tensors, denseLayers);
  const { vocabSize, hiddenSize, numLayers } = config;
  return {
    architecture: config,
    sizes: { vocabSize, hiddenSize, numLayers, denseLayers },
    tensors: expectedTensors(config),
    ignored: ignoredTensors(config),
    state: stateSpec(config),
    maxPassSteps: maxPassSteps(config),
  };
}

function parse(json: ConfigJson, tensors: ReadonlyMap<string, WeightTensor>, denseLayers: number): RetNetConfig {
  const size = (key: string) => readInt(json, key, { min: 1, max: MAX_SIZE });
  requireSilu(json);
  // NOTE: deepnorm only scales the weights when training begins; the authors' forward pass never
  // applies its alpha.
  readBoolean(json, "deepnorm", false);
  const hiddenSize = size("hidden_size");
  const keyDim = size("query_key_dim");
  const numHeads = readInt(json, "num_attention_heads", { min: 1, max: MAX_HEADS });
  const factor = readNumber(json, "v_factor", { min: 1 / hiddenSize, max: 64 });
  const valueDim = factor * hiddenSize;
  if (keyDim % (2 * numHeads) !== 0) {
    throw invalidCheckpoint(
      `config.json: query_key_dim is ${keyDim}, not an even number for each of ${numHeads} heads`,
    );
  }
  if (valueDim % numHeads !== 0) {
    throw invalidCheckpoint(
      `config.json: v_factor ${factor} makes ${valueDim} values of hidden_size ${hiddenSize}, not a multiple of ${numHeads} heads`,
    );
  }
  const numLayers = readInt(json, "num_hidden_layers", { min: 1, max: MAX_LAYERS });
  return {
    kind: "retnet",
    vocabSize: size("vocab_size"),
    hiddenSize,
    numLayers,
    numHeads,
    keyDim,
    valueDim,
    denseLayers,
    normEpsilon: readNumber(json, "rms_norm_eps", { min: 0, max: 1, fallback: 1e-6 }),
    tieEmbeddings: readBoolean(json, "tie_word_embeddings", false),
    gates: Array.from({ length: numLayers }, (_, l) =>
      l === 0 || denseLayers === 0
        ? undefined
        : { keyWidth: gateWidth(tensors, l, "k_select"), valueWidth: gateWidth(tensors, l, "v_select") },
    ),
  };
}

/**
 * Stands only in the tensor: releases differ in how they name it in the config. An absent tensor is
 * reported later.
 */
function gateWidth(tensors: ReadonlyMap<string, WeightTensor>, layer: number, gate: string): number {
  return Math.max(1, tensors.get(`${attention(layer)}.${gate}.fc1.weight`)?.shape[0] ?? 1);
}

/** Name prefix of a layer's retention. */
export function attention(layer: number): string {
  return `model.layers.${layer}.self_attn`;
}

/** γ = 1 - 2^(-5-h), the share of its state that head h keeps at each step. Exact in f32. */
export function headDecays({ numHeads }: RetNetConfig): number[] {
  return Array.from({ length: numHeads }, (_, h) => 1 - 2 ** (-5 - h));
}

/** θ_j = 10000^(-j / (n - 1)), j < n = dk / 2: radians a step by which pair j of a key turns. */
export function rotationAngles({ keyDim, numHeads }: RetNetConfig): number[] {
  const numPairs = keyDim / numHeads / 2;
  return Array.from({ length: numPairs }, (_, j) => 10000 ** (-j / Math.max(1, numPairs - 1)));
}

/**
 * State `position` holds how many tokens have been read, in two digits of this base, so that f32 is
 * exact: [low, high]. The angles of a rotation need it to the last unit.
 */
export const POSITION_BASE = 2 ** 20;

/** A pass is one chunk, whose steps all see each other: H scores for each pair of them. */
function maxPassSteps({ numHeads: H, valueDim }: RetNetConfig): number {
  return boundedSteps((numSteps) => Math.max(H * numSteps ** 2, numSteps * 2 * valueDim));
}

/**
 * The slowest head's state sums over 2^(4 + H) steps; with more heads than these a step's share of
 * it drowns in f16's rounding. docs/compiler.md, "f16", has the measurement.
 */
const MAX_NARROW_HEADS = 4;

/**
 * Per head: `kv`, Σ γ^age k ⊗ v over the past, not normalised, dv innermost. One `position` for all
 * layers.
 */
function stateSpec({ numLayers, numHeads: H, keyDim, valueDim }: RetNetConfig): StateLayout[] {
  const layers = Array.from(
    { length: numLayers },
    (_, l): StateLayout => ({
      name: `kv.${l}`,
      shape: [H, keyDim / H, valueDim / H],
      holds: "sums",
      mayNarrow: H <= MAX_NARROW_HEADS,
    }),
  );
  return [{ name: "position", shape: [2], holds: "count" }, ...layers];
}

function expectedTensors(config: RetNetConfig): ExpectedTensor[] {
  const { vocabSize: V, hiddenSize: D, keyDim: K, valueDim: U, numHeads: H } = config;
  const tensors: [string, number[]][] = [
    ["model.embed_tokens.weight", [V, D]],
    ["model.norm.weight", [D]],
  ];
  if (!config.tieEmbeddings) tensors.push(["lm_head.weight", [V, D]]);
  for (const [l, gates] of config.gates.entries()) {
    const name = attention(l);
    tensors.push(
      [`model.layers.${l}.input_layernorm.weight`, [D]],
      [`${name}.q_proj.weight`, [K, D]],
      [`${name}.k_proj.weight`, [K, D]],
      [`${name}.to_hidden.0.weight`, [2 * U, D]],
      [`${name}.to_out.0.weight`, [D, U]],
      [`${name}.group_norm.weight`, [U / H]],
    );
    if (gates !== undefined) {
      tensors.push(
        [`${name}.k_select.fc1.weight`, [gates.keyWidth, D]],
        [`${name}.k_select.fc2.weight`, [K, gates.keyWidth]],
        [`${name}.k_norm.weight`, [K]],
        [`${name}.v_select.fc1.weight`, [gates.valueWidth, D]],
        [`${name}.v_select.fc2.weight`, [U, gates.valueWidth]],
        [`${name}.v_norm.weight`, [U]],
      );
    }
  }
  return tensors.map(([name, shape]) => ({ name, shape }));
}

/**
 * Buffers that follow from the config; links of layer 0, which has nothing to read; a tied head
 * saved all the same.
 */
function ignoredTensors({ tieEmbeddings, denseLayers }: RetNetConfig): string[] {
  const links = ["k_select.fc1", "k_select.fc2", "k_norm", "v_select.fc1", "v_select.fc2", "v_norm"];
  return [
    "model.retnet_rel_pos.angle",
    "model.retnet_rel_pos.decay",
    ...(tieEmbeddings ? ["lm_head.weight"] : []),
    ...(denseLayers > 0 ? links.map((name) => `${attention(0)}.${name}.weight`) : []),
  ];
}
