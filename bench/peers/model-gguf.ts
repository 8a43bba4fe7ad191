/**
 * A checkpoint as llama.cpp names and stores it, so that all programs run the same weights. What
 * llama.cpp has of our families: plain Mamba (no dense links), Mamba-2, RWKV-7.
 */
import { NUM_SPECIAL, numberedPieces } from "../../src/bench/random-model.ts";
import { type Checkpoint, openCheckpoint } from "../../src/model/checkpoint.ts";
import type { MambaConfig } from "../../src/model/families/mamba.ts";
import type { Mamba2Config } from "../../src/model/families/mamba2.ts";
import { MIXED_INPUTS, type Rwkv7Config, timeMix } from "../../src/model/families/rwkv7.ts";
import { numElements } from "../../src/model/state.ts";
import { type GgufTensor, type GgufValue, writeGguf } from "./gguf.ts";

/** How llama.cpp describes and stores an architecture. */
interface GgufLayout {
  readonly architecture: string;
  /** Its own keys, without the architecture's prefix. */
  readonly sizes: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly GgufTensor[];
}

/**
 * Reads the checkpoint in `modelDir`, writes f32 to `path`.
 * @throws Error for a model that llama.cpp does not have
 */
export async function writeModelGguf(modelDir: string, path: string): Promise<void> {
  const checkpoint = openCheckpoint(modelDir);
  try {
    const { architecture, sizes, tensors } = layoutOf(checkpoint);
    const own = Object.entries(sizes).map(([key, value]) => [`${architecture}.${key}`, value] as const);
    const metadata = {
      "general.architecture": text(architecture),
      "general.name": text("random"),
      "general.file_type": u32(0), // all f32
      ...Object.fromEntries(own),
      ...vocabulary(checkpoint.sizes.vocabSize),
    };
    await writeGguf(path, { metadata, tensors });
  } finally {
    checkpoint.close();
  }
}

function layoutOf(checkpoint: Checkpoint): GgufLayout {
  const { architecture } = checkpoint;
  switch (architecture.kind) {
    case "mamba":
      return mambaLayout(checkpoint, architecture);
    case "mamba2":
      return mamba2Layout(checkpoint, architecture);
    case "rwkv7":
      return rwkv7Layout(checkpoint, architecture);
    default:
      throw new Error(`llama.cpp has no ${checkpoint.family.name}`);
  }
}

function mambaLayout(checkpoint: Checkpoint, config: MambaConfig): GgufLayout {
  if (config.denseLayers > 0 || config.parameterNormEpsilon !== undefined) {
    throw new Error(`llama.cpp runs ${checkpoint.family.name} as if it were a plain Mamba`);
  }
  return {
    architecture: "mamba",
    sizes: {
      ...commonSizes(config),
      "attention.layer_norm_rms_epsilon": f32(config.normEpsilon),
      "ssm.conv_kernel": u32(config.convKernel),
      "ssm.inner_size": u32(config.dInner),
      "ssm.state_size": u32(config.stateSize),
      "ssm.time_step_rank": u32(config.timeStepRank),
    },
    tensors: checkpoint.tensors.map(({ name, shape }) => stateSpaceTensor(checkpoint, name, withoutOnes(shape))),
  };
}

function mamba2Layout(checkpoint: Checkpoint, config: Mamba2Config): GgufLayout {
  const { numHeads, headDim, numGroups } = config;
  const shapeOf = (name: string, shape: readonly number[]) => {
    if (name.endsWith("A_log") || name.endsWith(".D")) return [numHeads, 1];
    if (name.endsWith("mixer.norm.weight")) return [numGroups, (numHeads * headDim) / numGroups];
    return withoutOnes(shape);
  };
  return {
    architecture: "mamba2",
    sizes: {
      ...commonSizes(config),
      "attention.layer_norm_rms_epsilon": f32(config.normEpsilon),
      "ssm.conv_kernel": u32(config.convKernel),
      "ssm.inner_size": u32(numHeads * headDim),
      "ssm.state_size": u32(config.stateSize),
      "ssm.time_step_rank": u32(numHeads),
      "ssm.group_count": u32(numGroups),
    },
    tensors: checkpoint.tensors.map(({ name, shape }) => stateSpaceTensor(checkpoint, name, shapeOf(name, shape))),
  };
}

function rwkv7Layout(checkpoint: Checkpoint, config: Rwkv7Config): GgufLayout {
  const { hiddenSize: D, numLayers, headDim, feedForwardSize, ranks } = config;
  const isMixture = /\.attn\.x_\w$/;
  const shapeOf = (name: string, shape: readonly number[]) => {
    if (name.endsWith(".r_k")) return [D];
    return name.endsWith(".ffn.x_k") ? [1, 1, D] : shape;
  };
  const tensors = checkpoint.tensors
    .filter(({ name }) => !isMixture.test(name))
    .map(({ name, shape }) => sameTensor(checkpoint, name, shapeOf(name, shape)));
  for (let l = 0; l < numLayers; l++) {
    tensors.push({
      name: `blk.${l}.time_mix_lerp_fused.weight`,
      shape: [MIXED_INPUTS.length, 1, 1, D],
      *chunks() {
        for (const input of MIXED_INPUTS) yield* chunksOf(checkpoint, `${timeMix(l)}.x_${input}`);
      },
    });
  }
  // llama.cpp loads the first layer's share of the first layer's value, and never reads it.
  tensors.push(
    zeros("blk.0.time_mix_v0.weight", [D]),
    zeros("blk.0.time_mix_v1.weight", [ranks.a, D]),
    zeros("blk.0.time_mix_v2.weight", [D, ranks.a]),
  );
  return {
    architecture: "rwkv7",
    sizes: {
      ...commonSizes(config),
      feed_forward_length: u32(feedForwardSize),
      "attention.layer_norm_epsilon": f32(config.normEpsilon),
      "wkv.head_size": u32(headDim),
      "attention.decay_lora_rank": u32(ranks.w),
      "attention.iclr_lora_rank": u32(ranks.a),
      "attention.value_residual_mix_lora_rank": u32(ranks.v),
      "attention.gate_lora_rank": u32(ranks.g),
      token_shift_count: u32(2),
    },
    tensors,
  };
}

function commonSizes(config: { readonly hiddenSize: number; readonly numLayers: number }): Record<string, GgufValue> {
  return {
    context_length: u32(2 ** 20), // there is no limit; llama.cpp wants one
    embedding_length: u32(config.hiddenSize),
    feed_forward_length: u32(0),
    "attention.head_count": u32(0),
    block_count: u32(config.numLayers),
  };
}

function vocabulary(vocabSize: number): Record<string, GgufValue> {
  const pieces = numberedPieces(vocabSize);
  return {
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("default"),
    "tokenizer.ggml.tokens": { type: "strings", values: pieces.map((piece) => piece.replace("▁", "Ġ")) },
    "tokenizer.ggml.merges": { type: "strings", values: [] },
    "tokenizer.ggml.token_type": {
      type: "i32s",
      values: pieces.map((_, id) => (id < NUM_SPECIAL ? CONTROL : NORMAL)),
    },
    "tokenizer.ggml.bos_token_id": u32(1),
    "tokenizer.ggml.eos_token_id": u32(2),
    "tokenizer.ggml.add_bos_token": { type: "bool", value: false },
    "tokenizer.ggml.unknown_token_id": u32(0),
  };
}

/** llama.cpp's kinds of tokens. */
const NORMAL = 1;
const CONTROL = 3;

const NAMES: readonly (readonly [RegExp, string])[] = [
  // Mamba and Mamba-2
  [/^backbone\.embeddings\.weight$/, "token_embd.weight"],
  [/^backbone\.norm_f\.weight$/, "output_norm.weight"],
  [/^lm_head\.weight$/, "output.weight"],
  [/^backbone\.layers\.(\d+)\.norm\.weight$/, "blk.$1.attn_norm.weight"],
  [/^backbone\.layers\.(\d+)\.mixer\.A_log$/, "blk.$1.ssm_a"],
  [/^backbone\.layers\.(\d+)\.mixer\.D$/, "blk.$1.ssm_d"],
  [/^backbone\.layers\.(\d+)\.mixer\.conv1d\.(weight|bias)$/, "blk.$1.ssm_conv1d.$2"],
  [/^backbone\.layers\.(\d+)\.mixer\.dt_proj\.(weight|bias)$/, "blk.$1.ssm_dt.$2"],
  [/^backbone\.layers\.(\d+)\.mixer\.dt_bias$/, "blk.$1.ssm_dt.bias"],
  [/^backbone\.layers\.(\d+)\.mixer\.norm\.weight$/, "blk.$1.ssm_norm.weight"],
  [/^backbone\.layers\.(\d+)\.mixer\.(in|x|out)_proj\.weight$/, "blk.$1.ssm_$2.weight"],
  // RWKV-7
  [/^model\.embeddings\.weight$/, "token_embd.weight"],
  [/^model\.norm\.(weight|bias)$/, "output_norm.$1"],
  [/^model\.layers\.0\.pre_norm\.(weight|bias)$/, "token_embd_norm.$1"],
  [/^model\.layers\.(\d+)\.attn_norm\.(weight|bias)$/, "blk.$1.attn_norm.$2"],
  [/^model\.layers\.(\d+)\.ffn_norm\.(weight|bias)$/, "blk.$1.attn_norm_2.$2"],
  [/^model\.layers\.(\d+)\.attn\.g_norm\.(weight|bias)$/, "blk.$1.time_mix_ln.$2"],
  [/^model\.layers\.(\d+)\.attn\.r_proj\.weight$/, "blk.$1.time_mix_receptance.weight"],
  [/^model\.layers\.(\d+)\.attn\.k_proj\.weight$/, "blk.$1.time_mix_key.weight"],
  [/^model\.layers\.(\d+)\.attn\.v_proj\.weight$/, "blk.$1.time_mix_value.weight"],
  [/^model\.layers\.(\d+)\.attn\.o_proj\.weight$/, "blk.$1.time_mix_output.weight"],
  [/^model\.layers\.(?<layer>\d+)\.attn\.(?<pair>\w)_lora\.lora\.0\.weight$/, "blk.$<layer>.time_mix_$<pair>1.weight"],
  [/^model\.layers\.(?<layer>\d+)\.attn\.(?<pair>\w)_lora\.lora\.2\.weight$/, "blk.$<layer>.time_mix_$<pair>2.weight"],
  [/^model\.layers\.(?<layer>\d+)\.attn\.(?<pair>\w)_lora\.lora\.2\.bias$/, "blk.$<layer>.time_mix_$<pair>0.weight"],
  [/^model\.layers\.(\d+)\.attn\.(k_k|k_a|r_k)$/, "blk.$1.time_mix_$2.weight"],
  [/^model\.layers\.(\d+)\.ffn\.x_k$/, "blk.$1.channel_mix_lerp_k.weight"],
  [/^model\.layers\.(\d+)\.ffn\.(key|value)\.weight$/, "blk.$1.channel_mix_$2.weight"],
];

/** @throws Error for a tensor that llama.cpp does not have */
export function ggufName(name: string): string {
  for (const [pattern, replacement] of NAMES) {
    if (pattern.test(name)) return name.replace(pattern, replacement);
  }
  throw new Error(`llama.cpp has no tensor for ${name}`);
}

/** llama.cpp keeps A itself. */
function stateSpaceTensor(checkpoint: Checkpoint, name: string, shape: readonly number[]): GgufTensor {
  const tensor = sameTensor(checkpoint, name, shape);
  if (!name.endsWith("A_log")) return tensor;
  return {
    ...tensor,
    *chunks() {
      for (const values of tensor.chunks()) yield values.map((value) => -Math.exp(value));
    },
  };
}

function sameTensor(checkpoint: Checkpoint, name: string, shape: readonly number[]): GgufTensor {
  return { name: ggufName(name), shape, chunks: () => chunksOf(checkpoint, name) };
}

const CHUNK_ELEMENTS = 1 << 22;

function* chunksOf(checkpoint: Checkpoint, name: string): Iterable<Float32Array> {
  const tensor = checkpoint.tensor(name);
  const total = numElements(tensor.shape);
  for (let start = 0; start < total; start += CHUNK_ELEMENTS) {
    yield tensor.read(start, Math.min(CHUNK_ELEMENTS, total - start));
  }
}

function zeros(name: string, shape: readonly number[]): GgufTensor {
  return { name, shape, chunks: () => [new Float32Array(numElements(shape))] };
}

/** [E,1,K] → [E,K]: the axis of one is PyTorch's groups. */
function withoutOnes(shape: readonly number[]): number[] {
  return shape.filter((size, axis) => axis === 0 || axis === shape.length - 1 || size !== 1);
}

function u32(value: number): GgufValue {
  return { type: "u32", value };
}

function f32(value: number): GgufValue {
  return { type: "f32", value };
}

function text(value: string): GgufValue {
  return { type: "string", value };
}
