/**
 * Checkpoints of any shape with random weights, for benches and tests: seeded, streamed to disk,
 * initialised as models are before training, so that activations and decays have the sizes of a
 * real model's. What they say is noise.
 */
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ConfigJson } from "../model/config-json.ts";
import { DTYPE_BYTES, narrowF16 } from "../model/dtypes.ts";
import type { ExpectedTensor, ModelDescription } from "../model/families/family.ts";
import { mixer } from "../model/families/mamba.ts";
import { type Architecture, familyOf } from "../model/families/registry.ts";
import { attention } from "../model/families/retnet.ts";
import type { Rwkv7Config } from "../model/families/rwkv7.ts";
import { numElements } from "../model/state.ts";
import type { WeightTensor } from "../model/weights.ts";
import { asBytes } from "./matrix.ts";

export type RandomShape = MambaShape | Mamba2Shape | RetNetShape | Rwkv7Shape;

interface CommonShape {
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly vocabSize: number;
  /** m; 0 makes a plain Mamba or RetNet. */
  readonly denseLayers: number;
  readonly tieEmbeddings?: boolean;
}

export interface Mamba2Shape extends CommonShape {
  readonly kind: "mamba2";
  readonly denseLayers: 0;
  readonly headDim?: number;
  readonly stateSize?: number;
  readonly numGroups?: number;
}

export interface Rwkv7Shape extends CommonShape {
  readonly kind: "rwkv7";
  readonly denseLayers: 0;
  readonly headDim?: number;
  readonly ranks: Rwkv7Config["ranks"];
}

export interface MambaShape extends CommonShape {
  readonly kind?: "mamba";
  readonly stateSize?: number;
  readonly timeStepRank?: number;
  readonly convKernel?: number;
  readonly expand?: number;
  /** r, the width of the gates' hidden layer. */
  readonly gateWidth?: number;
}

export interface RetNetShape extends CommonShape {
  readonly kind: "retnet";
  readonly numHeads: number;
  /** Of all heads together. */
  readonly keyDim: number;
  /** Values are this many times as wide as the hidden size. */
  readonly valueFactor?: number;
  /** The widths of the gates' hidden layers. */
  readonly keyGateWidth?: number;
  readonly valueGateWidth?: number;
}

const MAMBA_130M: RandomShape = { hiddenSize: 768, numLayers: 24, vocabSize: 50280, denseLayers: 0 };
const RETNET: Pick<RetNetShape, "kind" | "vocabSize" | "denseLayers"> = {
  kind: "retnet",
  vocabSize: 32001,
  denseLayers: 2,
};

const MAMBA2 = { kind: "mamba2", vocabSize: 50288, denseLayers: 0 } as const;
const RWKV7 = { kind: "rwkv7", vocabSize: 65536, denseLayers: 0 } as const;

export const RANDOM_SHAPES = {
  "mamba-130m": MAMBA_130M,
  "densemamba-130m": { ...MAMBA_130M, denseLayers: 2 },
  "densemamba-4m": { hiddenSize: 256, numLayers: 7, vocabSize: 4096, denseLayers: 2, gateWidth: 32 },
  "denseretnet-350m": { ...RETNET, hiddenSize: 1536, numLayers: 16, keyDim: 768, numHeads: 2 },
  "denseretnet-1.3b": { ...RETNET, hiddenSize: 2560, numLayers: 25, keyDim: 1280, numHeads: 4 },
  "mamba2-130m": { ...MAMBA2, hiddenSize: 768, numLayers: 24 },
  "mamba2-780m": { ...MAMBA2, hiddenSize: 1536, numLayers: 48 },
  "mamba2-2.7b": { ...MAMBA2, hiddenSize: 2560, numLayers: 64 },
  "codestral-7b": {
    ...{ ...MAMBA2, vocabSize: 32768, hiddenSize: 4096, numLayers: 64, numGroups: 8, tieEmbeddings: false },
  },
  "rwkv7-0.1b": { ...RWKV7, hiddenSize: 768, numLayers: 12, ranks: { w: 64, a: 64, v: 32, g: 128 } },
  "rwkv7-0.4b": { ...RWKV7, hiddenSize: 1024, numLayers: 24, ranks: { w: 64, a: 64, v: 32, g: 128 } },
  "rwkv7-1.5b": { ...RWKV7, hiddenSize: 2048, numLayers: 24, ranks: { w: 96, a: 96, v: 64, g: 256 } },
  "rwkv7-2.9b": { ...RWKV7, hiddenSize: 2560, numLayers: 32, ranks: { w: 96, a: 96, v: 64, g: 320 } },
} as const satisfies Record<string, RandomShape>;

const CHUNK_ELEMENTS = 1 << 20;

/**
 * Writes `config.json` and `model.safetensors` into `outDir`, which is created. The same seed, the
 * same bytes.
 */
export async function writeRandomCheckpoint(options: {
  readonly outDir: string;
  readonly shape: RandomShape;
  readonly seed: number;
  /** Default F32. */
  readonly dtype?: "F32" | "F16";
}): Promise<void> {
  const { outDir, shape, seed, dtype = "F32" } = options;
  const config = configJson(shape);
  const { tensors } = describeShape(shape);
  await mkdir(outDir, { recursive: true });
  await writeFile(join(outDir, "config.json"), `${JSON.stringify(config, null, 2)}\n`);

  const file = await open(join(outDir, "model.safetensors"), "w");
  try {
    await file.writeFile(safetensorsHeader(tensors, dtype));
    const random = new Random(seed);
    for (const tensor of tensors) {
      const draw = initializer(tensor, shape.numLayers, random);
      const count = numElements(tensor.shape);
      for (let start = 0; start < count; start += CHUNK_ELEMENTS) {
        const values = new Float32Array(Math.min(CHUNK_ELEMENTS, count - start));
        for (let i = 0; i < values.length; i++) values[i] = draw(start + i);
        await file.writeFile(asBytes(dtype === "F16" ? narrowF16(values) : values));
      }
    }
  } finally {
    await file.close();
  }
}

function configJson(shape: RandomShape): ConfigJson {
  return {
    ...ownConfigJson(shape),
    hidden_size: shape.hiddenSize,
    num_hidden_layers: shape.numLayers,
    vocab_size: shape.vocabSize,
    bos_token_id: 1,
    eos_token_id: 2,
  };
}

function ownConfigJson(shape: RandomShape): ConfigJson {
  switch (shape.kind) {
    case "mamba2":
      return mamba2ConfigJson(shape);
    case "retnet":
      return retNetConfigJson(shape);
    case "rwkv7":
      return rwkv7ConfigJson(shape);
    default:
      return mambaConfigJson(shape);
  }
}

function mamba2ConfigJson({ hiddenSize, headDim = 64, stateSize, numGroups, tieEmbeddings }: Mamba2Shape): ConfigJson {
  return {
    model_type: "mamba2",
    num_heads: (2 * hiddenSize) / headDim,
    head_dim: headDim,
    state_size: stateSize ?? 128,
    n_groups: numGroups ?? 1,
    expand: 2,
    tie_word_embeddings: tieEmbeddings ?? true,
  };
}

function rwkv7ConfigJson({ hiddenSize, headDim = 64, ranks }: Rwkv7Shape): ConfigJson {
  return {
    model_type: "rwkv7",
    num_heads: hiddenSize / headDim,
    head_dim: headDim,
    intermediate_size: 4 * hiddenSize,
    decay_low_rank_dim: ranks.w,
    a_low_rank_dim: ranks.a,
    v_low_rank_dim: ranks.v,
    gate_low_rank_dim: ranks.g,
  };
}

function mambaConfigJson(shape: MambaShape): ConfigJson {
  return {
    model_type: shape.denseLayers > 0 ? "dense_mamba" : "mamba",
    state_size: shape.stateSize ?? 16,
    time_step_rank: shape.timeStepRank ?? Math.ceil(shape.hiddenSize / 16),
    conv_kernel: shape.convKernel ?? 4,
    expand: shape.expand ?? 2,
    use_bias: false,
    use_conv_bias: true,
    hidden_act: "silu",
    layer_norm_epsilon: 1e-5,
    tie_word_embeddings: shape.tieEmbeddings ?? true,
    ...(shape.denseLayers > 0 ? { dense_layers: shape.denseLayers } : {}),
  };
}

function retNetConfigJson(shape: RetNetShape): ConfigJson {
  return {
    model_type: shape.denseLayers > 0 ? "DenseGauRetNet" : "GauRetNet",
    query_key_dim: shape.keyDim,
    num_attention_heads: shape.numHeads,
    v_factor: shape.valueFactor ?? 2,
    hidden_act: "silu",
    rms_norm_eps: 1e-6,
    deepnorm: false,
    tie_word_embeddings: shape.tieEmbeddings ?? false,
    ...(shape.denseLayers > 0 ? { dense_block_layers: shape.denseLayers } : {}),
  };
}

/**
 * As the family has it; the gates' widths, which it reads from tensors, are given to it as such.
 */
export function describeShape(shape: RandomShape): ModelDescription<Architecture> {
  const config = configJson(shape);
  const gates = new Map<string, WeightTensor>();
  const addGate = (name: string, width: number) => {
    gates.set(name, { name, shape: [width, shape.hiddenSize], dtype: "F32", read: () => new Float32Array() });
  };
  for (let l = 1; l < shape.numLayers; l++) {
    if (shape.kind === "retnet") {
      addGate(`${attention(l)}.k_select.fc1.weight`, shape.keyGateWidth ?? Math.ceil(shape.hiddenSize / 32));
      addGate(`${attention(l)}.v_select.fc1.weight`, shape.valueGateWidth ?? Math.ceil(shape.hiddenSize / 32));
    } else if (shape.kind !== "mamba2" && shape.kind !== "rwkv7") {
      addGate(`${mixer(l)}.select.fc1.weight`, shape.gateWidth ?? Math.ceil(shape.hiddenSize / 8));
    }
  }
  return familyOf(config)!.describe(config, gates);
}

function safetensorsHeader(tensors: readonly ExpectedTensor[], dtype: "F32" | "F16"): Buffer {
  let offset = 0;
  const entries = tensors.map(({ name, shape }) => {
    const begin = offset;
    offset += numElements(shape) * DTYPE_BYTES[dtype]!;
    return [name, { dtype, shape, data_offsets: [begin, offset] }] as const;
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const header = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8, " "));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header]);
}

/** Gives element `i` of a tensor, in order. */
function initializer({ name, shape }: ExpectedTensor, numLayers: number, random: Random): (i: number) => number {
  if (name.endsWith("A_log"))
    return shape.length === 1 ? () => Math.log(1 + 15 * random.next()) : (i) => Math.log(1 + (i % shape[1]!));
  if (/(norm|norm_f)\.weight$|mixer\.D$|attn\.k_a$/.test(name)) return () => 1;
  if (/dt_proj\.bias$|dt_bias$/.test(name)) return () => inverseSoftplus(10 ** (-3 + 2 * random.next()));
  // Of a decay: from a step's memory to hundreds of steps'.
  if (name.endsWith("w_lora.lora.2.bias")) return () => -6 + 6 * random.next();
  if (/(conv1d|norm|lora\.2)\.bias$/.test(name)) return () => 0;
  if (/\.x_\w$/.test(name)) return () => random.next();
  if (name.endsWith("k_k")) return () => 0.85;
  if (name.endsWith("r_k")) return uniform(0.1, random);
  if (/embeddings|embed_tokens|lm_head/.test(name)) return uniform(0.02, random);
  const fanIn = shape.at(-1)!;
  const depth = /(out_proj|to_out\.0|o_proj|ffn\.value)\.weight$/.test(name) ? 1 / Math.sqrt(numLayers) : 1;
  return uniform(depth / Math.sqrt(3 * fanIn), random);
}

function uniform(standardDeviation: number, random: Random): () => number {
  const width = 2 * Math.sqrt(3) * standardDeviation;
  return () => (random.next() - 0.5) * width;
}

function inverseSoftplus(y: number): number {
  return y + Math.log(-Math.expm1(-y));
}

/** xorshift32: fast, and good enough for noise. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b) | 1;
  }

  /** In [0, 1). */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) / 2 ** 32;
  }
}
