/**
 * Our GGUF is the format's own: byte for byte what its Python package writes, and holding the
 * checkpoint's weights.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GgufTensor, writeGguf } from "../../bench/peers/gguf.ts";
import { ggufName, writeMambaGguf } from "../../bench/peers/mamba-gguf.ts";
import { writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";
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
    await writeMambaGguf(modelDir, path.join(dir, "model.gguf"));
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
    await expect(writeMambaGguf(dense, path.join(dir, "dense.gguf"))).rejects.toThrow("dense_mamba");
    expect(() => ggufName("backbone.layers.1.mixer.select.fc1.weight")).toThrow("select.fc1");
  });
});
