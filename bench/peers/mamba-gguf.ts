/**
 * A Mamba checkpoint as llama.cpp names and stores it, so that all programs run the same weights.
 * It has no dense links there: only plain Mamba (m = 0) can be compared.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import type { BenchPrecision } from "../../src/bench/config.ts";
import { NUM_SPECIAL, numberedPieces, randomCheckpoint, type ShapeName } from "../../src/bench/random-model.ts";
import { openWeights } from "../../src/model/open-weights.ts";
import { numElements } from "../../src/model/state.ts";
import type { WeightTensor } from "../../src/model/weights.ts";
import { type GgufTensor, type GgufValue, writeGguf } from "./gguf.ts";
import { type LlamaTools, runTool } from "./install.ts";
import { PEER_TYPES } from "./report.ts";

export function peersDir(cacheDir: string): string {
  return join(cacheDir, "bench", "peers");
}

/** One random model: our checkpoint, and its weights as GGUF in each type. */
export interface SameWeights {
  readonly modelDir: string;
  readonly gguf: Readonly<Record<BenchPrecision, string>>;
}

/** Made once and kept in the cache. */
export async function prepareModel(cacheDir: string, shape: ShapeName, tools: LlamaTools): Promise<SameWeights> {
  const modelDir = await randomCheckpoint(cacheDir, shape);
  const dir = join(cacheDir, "bench", "gguf");
  await mkdir(dir, { recursive: true });
  const makeOnce = async (type: string, make: (partialPath: string) => Promise<unknown>): Promise<string> => {
    const path = join(dir, `${shape}-${type}.gguf`);
    // Moved into place when it is complete.
    const partial = `${path}.${process.pid}.partial`;
    if (!existsSync(path)) await make(partial).then(() => rename(partial, path));
    return path;
  };
  const f32 = await makeOnce(PEER_TYPES.f32, (partial) => writeMambaGguf(modelDir, partial));
  const quantize = (type: string) =>
    makeOnce(type, (partial) => runTool(tools["llama-quantize"], [f32, partial, type]));
  return { modelDir, gguf: { f32, int8: await quantize(PEER_TYPES.int8), int4: await quantize(PEER_TYPES.int4) } };
}

const CHUNK_ELEMENTS = 1 << 22;
/** llama.cpp's kinds of tokens. */
const NORMAL = 1;
const CONTROL = 3;

/**
 * Reads `config.json` and the weights of `modelDir`, writes f32 to `path`.
 * @throws Error for a model with dense links
 */
export async function writeMambaGguf(modelDir: string, path: string): Promise<void> {
  const config = JSON.parse(readFileSync(join(modelDir, "config.json"), "utf8")) as MambaConfig;
  if (config.model_type !== "mamba") throw new Error(`llama.cpp has no ${config.model_type}, only plain mamba`);
  const weights = openWeights(modelDir);
  try {
    await writeGguf(path, { metadata: metadataOf(config), tensors: weights.tensors.map(toGguf) });
  } finally {
    weights.close();
  }
}

/** Keys of Hugging Face's Mamba. */
interface MambaConfig {
  readonly model_type: string;
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  readonly state_size: number;
  readonly conv_kernel: number;
  readonly expand: number;
  readonly time_step_rank: number;
  readonly layer_norm_epsilon: number;
  readonly vocab_size: number;
}

function metadataOf(config: MambaConfig): Record<string, GgufValue> {
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const pieces = numberedPieces(config.vocab_size);
  return {
    "general.architecture": { type: "string", value: "mamba" },
    "general.name": { type: "string", value: "random" },
    "general.file_type": u32(0), // all f32
    "mamba.context_length": u32(2 ** 20), // there is no limit; llama.cpp wants one
    "mamba.embedding_length": u32(config.hidden_size),
    "mamba.feed_forward_length": u32(0),
    "mamba.attention.head_count": u32(0),
    "mamba.attention.layer_norm_rms_epsilon": { type: "f32", value: config.layer_norm_epsilon },
    "mamba.block_count": u32(config.num_hidden_layers),
    "mamba.ssm.conv_kernel": u32(config.conv_kernel),
    "mamba.ssm.inner_size": u32(config.expand * config.hidden_size),
    "mamba.ssm.state_size": u32(config.state_size),
    "mamba.ssm.time_step_rank": u32(config.time_step_rank),
    "tokenizer.ggml.model": { type: "string", value: "gpt2" },
    "tokenizer.ggml.pre": { type: "string", value: "default" },
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

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^backbone\.embeddings\.weight$/, "token_embd.weight"],
  [/^backbone\.norm_f\.weight$/, "output_norm.weight"],
  [/^lm_head\.weight$/, "output.weight"],
  [/^backbone\.layers\.(\d+)\.norm\.weight$/, "blk.$1.attn_norm.weight"],
  [/^backbone\.layers\.(\d+)\.mixer\.A_log$/, "blk.$1.ssm_a"],
  [/^backbone\.layers\.(\d+)\.mixer\.D$/, "blk.$1.ssm_d"],
  [/^backbone\.layers\.(\d+)\.mixer\.conv1d\.(weight|bias)$/, "blk.$1.ssm_conv1d.$2"],
  [/^backbone\.layers\.(\d+)\.mixer\.dt_proj\.(weight|bias)$/, "blk.$1.ssm_dt.$2"],
  [/^backbone\.layers\.(\d+)\.mixer\.(in|x|out)_proj\.weight$/, "blk.$1.ssm_$2.weight"],
];

/** @throws Error for a tensor that plain Mamba does not have */
export function ggufName(name: string): string {
  for (const [pattern, replacement] of NAMES) {
    if (pattern.test(name)) return name.replace(pattern, replacement);
  }
  throw new Error(`llama.cpp's mamba has no tensor for ${name}`);
}

function toGguf(tensor: WeightTensor): GgufTensor {
  const isDecay = tensor.name.endsWith("A_log");
  const total = numElements(tensor.shape);
  return {
    name: ggufName(tensor.name),
    // [E,1,K] → [E,K]: the axis of one is PyTorch's groups.
    shape: tensor.shape.filter((size, axis) => axis === 0 || axis === tensor.shape.length - 1 || size !== 1),
    *chunks() {
      for (let start = 0; start < total; start += CHUNK_ELEMENTS) {
        const values = tensor.read(start, Math.min(CHUNK_ELEMENTS, total - start));
        // llama.cpp keeps A itself.
        if (isDecay) for (let i = 0; i < values.length; i++) values[i] = -Math.exp(values[i]!);
        yield values;
      }
    },
  };
}
