import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { numElements } from "../../src/model/state.ts";
import {
  editConfig,
  type RawTensor,
  randomCheckpoint,
  readRawTensors,
  TINY_SHAPE,
  writeRawTensors,
} from "../helpers/checkpoints.ts";

let modelDir: string;
beforeEach(async () => {
  modelDir = await randomCheckpoint();
});
afterEach(() => rmSync(modelDir, { recursive: true }));

function editTensors(edit: (tensors: Map<string, RawTensor>) => void): void {
  const tensors = readRawTensors(modelDir);
  edit(tensors);
  writeRawTensors(modelDir, tensors);
}

function zeros(...shape: number[]): RawTensor {
  return { dtype: "F32", shape, bytes: new Uint8Array(4 * numElements(shape)) };
}

describe("a sound checkpoint", () => {
  it("opens with its family, sizes, state and parameters", () => {
    const checkpoint = openCheckpoint(modelDir);
    expect(checkpoint.family.name).toBe("dense_mamba");
    expect(checkpoint.sizes).toEqual({ vocabSize: 80, hiddenSize: 32, numLayers: 4, denseLayers: 2 });
    expect(checkpoint.state.slice(0, 2)).toEqual([
      { name: "conv.0", shape: [3, 64], holds: "inputs" },
      { name: "ssm.0", shape: [8, 64], holds: "sums", mayNarrow: true },
    ]);
    const stored = [...readRawTensors(modelDir).values()].reduce((sum, { bytes }) => sum + bytes.length / 4, 0);
    expect(checkpoint.numParameters).toBe(stored);
    expect(checkpoint.bosTokenId).toBe(1);
    checkpoint.close();
  });

  it("may be plain Mamba, with a head of its own and biases", async () => {
    rmSync(modelDir, { recursive: true });
    modelDir = await randomCheckpoint({ ...TINY_SHAPE, denseLayers: 0, tieEmbeddings: false });
    editTensors((tensors) => {
      for (let l = 0; l < TINY_SHAPE.numLayers; l++) {
        tensors.set(`backbone.layers.${l}.mixer.in_proj.bias`, zeros(128));
        tensors.set(`backbone.layers.${l}.mixer.out_proj.bias`, zeros(32));
      }
    });
    editConfig(modelDir, { use_bias: true, eos_token_id: [2, 3] });
    const checkpoint = openCheckpoint(modelDir);
    expect(checkpoint.family.name).toBe("mamba");
    expect(checkpoint.eosTokenIds).toEqual([2, 3]);
    checkpoint.close();
  });

  it("may have one gate for all links", () => {
    editTensors((tensors) => {
      for (const l of [2, 3]) tensors.set(`backbone.layers.${l}.mixer.select.fc2.weight`, zeros(64, 16));
    });
    const { architecture, close } = openCheckpoint(modelDir);
    expect(architecture).toHaveProperty("gates.3", { width: 16, numLinks: 2, numGates: 1 });
    close();
  });
});

describe("a checkpoint as transformers writes it", () => {
  const plain = async (config: Record<string, unknown>) => {
    rmSync(modelDir, { recursive: true });
    modelDir = await randomCheckpoint({ ...TINY_SHAPE, denseLayers: 0, timeStepRank: 2 });
    editConfig(modelDir, config);
  };
  const configText = (edit: (text: string) => string) => {
    const path = join(modelDir, "config.json");
    writeFileSync(path, edit(readFileSync(path, "utf8")));
  };
  const opened = () => {
    const checkpoint = openCheckpoint(modelDir);
    checkpoint.close();
    return checkpoint;
  };

  it.each(["mamba", "falcon_mamba"])("may leave out what has a default there: %s", async (model_type) => {
    const missing = ["expand", "conv_kernel", "time_step_rank", "use_bias", "use_conv_bias", "layer_norm_epsilon"];
    const others = ["hidden_act", "tie_word_embeddings", "bos_token_id", "eos_token_id"];
    const config = Object.fromEntries([...missing, ...others].map((key) => [key, undefined]));
    await plain({ ...config, model_type });
    expect(opened()).toMatchObject({
      architecture: { timeStepRank: 2, dInner: 64, convKernel: 4, useBias: false, useConvBias: true },
      bosTokenId: 0,
      eosTokenIds: [0],
    });
    editConfig(modelDir, { eos_token_id: null });
    expect(opened().eosTokenIds).toEqual([]);
    editConfig(modelDir, { hidden_size: undefined, vocab_size: undefined, num_hidden_layers: undefined });
    expect(opened).toThrow(/embeddings\.weight has shape \[80,32\]; config\.json asks for \[50280,768\]/);
  });

  it("has a width of channels by a factor that need not be whole", async () => {
    await plain({ expand: 2.03 });
    expect(opened().architecture).toMatchObject({ dInner: 64 });
  });

  it("calls the activation silu or swish", async () => {
    await plain({ hidden_act: "swish" });
    expect(opened().family.name).toBe("mamba");
  });

  it("holds a model without its head, whose tensors have no prefix", async () => {
    await plain({});
    const expected = opened();
    const tensors = readRawTensors(modelDir);
    const bare = new Map([...tensors].map(([name, tensor]) => [name.replace(/^backbone\./, ""), tensor]));
    writeRawTensors(modelDir, bare);
    const checkpoint = openCheckpoint(modelDir);
    expect(checkpoint.numParameters).toBe(expected.numParameters);
    const name = "layers.1.norm.weight";
    expect(checkpoint.tensor(`backbone.${name}`).read(0, 32)).toHaveLength(32);
    checkpoint.close();
    bare.set(name, zeros(31));
    writeRawTensors(modelDir, bare);
    expect(opened).toThrow(/layers\.1\.norm\.weight has shape \[31\]/);
    bare.delete(name);
    bare.set("surprise", zeros(1));
    writeRawTensors(modelDir, bare);
    expect(opened).toThrow(/tensor backbone\.layers\.1\.norm\.weight is missing/);
  });

  it("may begin with a byte order mark", async () => {
    await plain({});
    configText((text) => `\ufeff${text}`);
    expect(opened().family.name).toBe("mamba");
  });

  it.each([["Infinity"], ["-Infinity"], ["NaN"], ['{"__float__": "Infinity"}']])(
    "may hold %s, as Python writes it",
    async (number) => {
      await plain({ time_step_limit: ["HERE"], note: '\\"Infinity, NaN' });
      configText((text) => text.replace('"HERE"', `0.0,\n    ${number}\n  `));
      expect(opened().family.name).toBe("mamba");
      configText((text) => text.replace('"mamba"', `"mamba3", "limit": ${number}`));
      expect(opened).toThrow(/model_type is "mamba3", which is not supported/);
    },
  );
});

describe("a checkpoint is refused, by the tensor's name, for", () => {
  const norm = "backbone.layers.1.norm.weight";
  it.each<[string, (tensors: Map<string, RawTensor>) => void, RegExp]>([
    [
      "a missing tensor",
      (tensors) => tensors.delete(norm),
      /tensor backbone\.layers\.1\.norm\.weight is missing; .* \[32\]/,
    ],
    [
      "an extra tensor",
      (tensors) => tensors.set("surprise", zeros(2, 3)),
      /tensor surprise of shape \[2,3\] has no place/,
    ],
    [
      "a misshapen tensor",
      (tensors) => tensors.set(norm, zeros(31)),
      /norm\.weight has shape \[31\]; config\.json asks for \[32\]/,
    ],
    ["another rank", (tensors) => tensors.set(norm, zeros(32, 1)), /norm\.weight has shape \[32,1\]; .* \[32\]/],
    [
      "gates for another number of links",
      (tensors) => tensors.set("backbone.layers.3.mixer.select.fc2.weight", zeros(192, 16)),
      /layers\.3\.mixer\.select\.fc2\.weight has shape \[192,16\]; .* \[128,16\]/,
    ],
    [
      "a missing gate",
      (tensors) => tensors.delete("backbone.layers.1.mixer.select.fc1.weight"),
      /layers\.1\.mixer\.select\.fc1\.weight is missing/,
    ],
  ])("%s", (_, edit, message) => {
    editTensors(edit);
    expect(() => openCheckpoint(modelDir)).toThrow(message);
    expect(() => openCheckpoint(modelDir)).toThrow(expect.objectContaining({ code: "invalid_checkpoint" }));
  });

  it("a config that contradicts the tensors", () => {
    editConfig(modelDir, { state_size: 16 });
    expect(() => openCheckpoint(modelDir)).toThrow(/mixer\.A_log has shape \[64,8\]; config\.json asks for \[64,16\]/);
  });
});

describe("a config is refused, by its key, for", () => {
  it.each<[string, Record<string, unknown>, RegExp]>([
    [
      "an unknown model_type",
      { model_type: "gpt2" },
      /model_type is "gpt2", which is not supported; these are: dense_mamba, mamba/,
    ],
    [
      "a number without end",
      { layer_norm_epsilon: { __float__: "Infinity" } },
      /layer_norm_epsilon is Infinity, not a number/,
    ],
    ["a missing size", { hidden_size: undefined }, /hidden_size is missing/],
    ["a fractional size", { num_hidden_layers: 2.5 }, /num_hidden_layers is 2.5, not a whole number/],
    ["a size of zero", { vocab_size: 0 }, /vocab_size is 0, not a number from 1 to 1048576/],
    ["negative links", { dense_layers: -1 }, /dense_layers is -1, not a number from 0/],
    ["no links given", { dense_layers: undefined }, /dense_layers is missing/],
    ["a string for a number", { state_size: "8" }, /state_size is "8", not a number/],
    ["a number for a boolean", { use_bias: 1 }, /use_bias is 1, not true or false/],
    ["an activation that we do not have", { hidden_act: "gelu" }, /hidden_act "gelu" is not silu/],
    ["an end token outside the vocabulary", { eos_token_id: 80 }, /eos_token_id holds 80, not a token id from 0 to 79/],
  ])("%s", (_, changes, message) => {
    editConfig(modelDir, changes);
    expect(() => openCheckpoint(modelDir)).toThrow(message);
    expect(() => openCheckpoint(modelDir)).toThrow(expect.objectContaining({ code: "invalid_checkpoint" }));
  });

  it("not being JSON, or not being there", () => {
    writeFileSync(join(modelDir, "config.json"), "{");
    expect(() => openCheckpoint(modelDir)).toThrow(/cannot read .*config\.json/);
    rmSync(join(modelDir, "config.json"));
    expect(() => openCheckpoint(modelDir)).toThrow(/cannot read .*config\.json: ENOENT/);
  });

  it("weights that are not there", () => {
    rmSync(join(modelDir, "model.safetensors"));
    expect(() => openCheckpoint(modelDir)).toThrow(/holds none of model\.safetensors/);
  });
});
