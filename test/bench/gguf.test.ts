/**
 * Our GGUF is the format's own: byte for byte what its Python package writes, and holding the
 * checkpoint's weights.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GgufTensor, writeGguf } from "../../bench/peers/gguf.ts";
import { ggufName, writeModelGguf } from "../../bench/peers/model-gguf.ts";
import { type RandomShape, writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { openWeights } from "../../src/model/open-weights.ts";
import { readAll } from "../../src/model/weights.ts";
import { type ReadGguf, readGguf } from "../helpers/gguf-reader.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "gguf-"));
});
afterAll(() => rm(dir, { recursive: true }));

function tensor(name: string, shape: readonly number[], values: readonly number[]): GgufTensor {
  const half = Math.ceil(values.length / 2);
  return {
    name,
    shape,
    chunks: () => [values.slice(0, half), values.slice(half)].map((part) => new Float32Array(part)),
  };
}

const TINY = {
  metadata: {
    "general.architecture": { type: "string", value: "mamba" },
    "general.name": { type: "string", value: "tiny" },
    "mamba.block_count": { type: "u32", value: 2 },
    "test.signed": { type: "i32", value: -3 },
    "mamba.attention.layer_norm_rms_epsilon": { type: "f32", value: 1e-5 },
    "tokenizer.ggml.add_bos_token": { type: "bool", value: false },
    "tokenizer.ggml.tokens": { type: "strings", values: ["<unk>", "▁3", "é"] },
    "tokenizer.ggml.scores": { type: "f32s", values: [0, -1.5, 2] },
    "tokenizer.ggml.token_type": { type: "i32s", values: [2, 1, -1] },
  },
  tensors: [
    tensor("a.weight", [2, 3], [0, 1, 2, 3, 4, 5]),
    tensor("b", [1], [0.5]),
    tensor(
      "c.weight",
      [5, 8],
      Array.from({ length: 40 }, (_, i) => i / 7),
    ),
  ],
} as const;

describe("a GGUF file", () => {
  it("has the very bytes that the format's own package writes", async () => {
    const file = path.join(dir, "tiny.gguf");
    await writeGguf(file, TINY);
    expect(await readFile(file)).toEqual(await readFile("test/fixtures/gguf/tiny.gguf"));
  });

  it("is refused where a tensor has not the elements that its shape says", async () => {
    const tensors = [tensor("short", [2, 3], [1, 2, 3, 4, 5])];
    await expect(writeGguf(path.join(dir, "short.gguf"), { metadata: {}, tensors })).rejects.toThrow(
      "tensor short of shape [2,3] has 5 elements",
    );
  });
});

describe("a Mamba checkpoint as GGUF", () => {
  const SHAPE = { hiddenSize: 32, numLayers: 2, vocabSize: 50, denseLayers: 0 };
  let modelDir: string;
  let gguf: ReadGguf;
  beforeAll(async () => {
    modelDir = path.join(dir, "model");
    await writeRandomCheckpoint({ outDir: modelDir, shape: SHAPE, seed: 5 });
    await writeModelGguf(modelDir, path.join(dir, "model.gguf"));
    gguf = readGguf(await readFile(path.join(dir, "model.gguf")));
  });

  it("holds every weight, A in place of its logarithm and the convolution without its axis of one", () => {
    const weights = openWeights(modelDir);
    try {
      expect(gguf.tensors.size).toBe(weights.tensors.length);
      for (const weight of weights.tensors) {
        const written = gguf.tensors.get(ggufName(weight.name))!;
        const values = readAll(weight);
        const expected = weight.name.endsWith("A_log") ? values.map((value) => -Math.exp(value)) : values;
        expect(written.values, weight.name).toEqual(expected);
        expect(written.shape).toEqual(weight.name.endsWith("conv1d.weight") ? [64, 4] : weight.shape);
      }
    } finally {
      weights.close();
    }
  });

  it("says the sizes by llama.cpp's names, and a word for every token", () => {
    expect(gguf.metadata).toMatchObject({
      "general.architecture": "mamba",
      "mamba.block_count": 2,
      "mamba.embedding_length": 32,
      "mamba.ssm.inner_size": 64,
      "mamba.ssm.state_size": 16,
      "mamba.ssm.conv_kernel": 4,
      "mamba.ssm.time_step_rank": 2,
    });
    const tokens = gguf.metadata["tokenizer.ggml.tokens"] as string[];
    expect(tokens).toHaveLength(50);
    expect(new Set(tokens).size).toBe(50);
  });

  it("does not exist for a model with dense links, which llama.cpp would run without them", async () => {
    const dense = path.join(dir, "dense");
    await writeRandomCheckpoint({ outDir: dense, shape: { ...SHAPE, denseLayers: 1 }, seed: 5 });
    await expect(writeModelGguf(dense, path.join(dir, "dense.gguf"))).rejects.toThrow("dense_mamba");
    expect(() => ggufName("backbone.layers.1.mixer.select.fc1.weight")).toThrow("select.fc1");
  });
});

describe("Mamba-2 and RWKV-7 as GGUF", () => {
  const SHAPES = {
    mamba2: {
      ...{ kind: "mamba2", hiddenSize: 32, numLayers: 2, vocabSize: 50, denseLayers: 0 },
      ...{ headDim: 8, stateSize: 16, numGroups: 2 },
    },
    rwkv7: {
      ...{ kind: "rwkv7", hiddenSize: 64, numLayers: 2, vocabSize: 50, denseLayers: 0 },
      ...{ headDim: 32, ranks: { w: 8, a: 12, v: 4, g: 16 } },
    },
  } as const satisfies Record<string, RandomShape>;

  async function written(name: keyof typeof SHAPES) {
    const modelDir = path.join(dir, name);
    await writeRandomCheckpoint({ outDir: modelDir, shape: SHAPES[name], seed: 5 });
    await writeModelGguf(modelDir, path.join(dir, `${name}.gguf`));
    return { checkpoint: openCheckpoint(modelDir), gguf: readGguf(await readFile(path.join(dir, `${name}.gguf`))) };
  }

  it("has A of a head, and the gated norm by groups", async () => {
    const { checkpoint, gguf } = await written("mamba2");
    try {
      expect(gguf.tensors.size).toBe(checkpoint.tensors.length);
      for (const { name } of checkpoint.tensors) {
        const values = readAll(checkpoint.tensor(name));
        const expected = name.endsWith("A_log") ? values.map((value) => -Math.exp(value)) : values;
        expect(gguf.tensors.get(ggufName(name))!.values, name).toEqual(expected);
      }
      expect(gguf.tensors.get("blk.1.ssm_a")!.shape).toEqual([8, 1]);
      expect(gguf.tensors.get("blk.1.ssm_norm.weight")!.shape).toEqual([2, 32]);
      expect(gguf.metadata).toMatchObject({
        "mamba2.ssm.group_count": 2,
        "mamba2.ssm.time_step_rank": 8,
        "mamba2.ssm.inner_size": 64,
      });
    } finally {
      checkpoint.close();
    }
  });

  it("has the mixtures of a layer in one tensor, in llama.cpp's order", async () => {
    const { checkpoint, gguf } = await written("rwkv7");
    try {
      const fused = gguf.tensors.get("blk.1.time_mix_lerp_fused.weight")!;
      expect(fused.shape).toEqual([6, 1, 1, 64]);
      for (const [i, input] of ["r", "w", "k", "v", "a", "g"].entries()) {
        expect(fused.values.subarray(i * 64, (i + 1) * 64)).toEqual(
          readAll(checkpoint.tensor(`model.layers.1.attn.x_${input}`)),
        );
      }
      for (const { name } of checkpoint.tensors.filter((tensor) => !/attn\.x_/.test(tensor.name))) {
        expect(gguf.tensors.get(ggufName(name))!.values, name).toEqual(readAll(checkpoint.tensor(name)));
      }
      expect(gguf.metadata).toMatchObject({
        "rwkv7.attention.decay_lora_rank": 8,
        "rwkv7.attention.iclr_lora_rank": 12,
        "rwkv7.attention.value_residual_mix_lora_rank": 4,
        "rwkv7.attention.gate_lora_rank": 16,
        "rwkv7.wkv.head_size": 32,
        "rwkv7.feed_forward_length": 256,
      });
    } finally {
      checkpoint.close();
    }
  });
});
