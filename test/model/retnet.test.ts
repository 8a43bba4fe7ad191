/** The oracle against the authors' code, and what a RetNet checkpoint may and may not look like. */
import { cpSync, rmSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type RetNetShape, writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { headDecays, POSITION_BASE, rotationAngles } from "../../src/model/families/retnet.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { maxDifference } from "../helpers/arrays.ts";
import {
  editConfig,
  type RawTensor,
  readRawTensors,
  TINY_RETNET,
  temporaryFolder,
  writeRawTensors,
} from "../helpers/checkpoints.ts";
import { RETNET_GOLDENS, readRetNetGolden } from "../helpers/retnet-goldens.ts";

const HUB = "test/fixtures/dense-retnet-hub";
const GITHUB = "test/fixtures/dense-retnet-github";

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A copy of the hub's fixture with its tensors edited. */
function editedTensors(edit: (tensors: Map<string, RawTensor>) => void): string {
  cpSync(HUB, folder, { recursive: true });
  const tensors = readRawTensors(HUB);
  edit(tensors);
  writeRawTensors(folder, tensors);
  return folder;
}

function editedConfig(modelDir: string, changes: Record<string, unknown>): string {
  cpSync(modelDir, folder, { recursive: true });
  editConfig(folder, changes);
  return folder;
}

/** Opens, closes, and returns what was found. */
function opened(modelDir: string) {
  const checkpoint = openCheckpoint(modelDir);
  checkpoint.close();
  return checkpoint;
}

function logitsOf(modelDir: string, tokenIds: readonly number[]): Float32Array[] {
  const checkpoint = openCheckpoint(modelDir);
  const model = new ReferenceModel(checkpoint);
  const logits = model.forward(tokenIds, model.newState());
  checkpoint.close();
  return logits;
}

async function randomCheckpointIn(shape: Partial<RetNetShape>): Promise<string> {
  await writeRandomCheckpoint({ outDir: folder, shape: { ...TINY_RETNET, ...shape }, seed: 1 });
  return folder;
}

describe.each(RETNET_GOLDENS)("the oracle on %s", (name) => {
  const golden = readRetNetGolden(name);

  it("gives the authors' recurrent logits at every position", () => {
    for (const { tokenIds, logits } of golden.sequences) {
      const actual = logitsOf(golden.modelDir, tokenIds);
      for (const [t, row] of logits.entries()) {
        expect(maxDifference(actual[t]!, row)).toBeLessThan(2e-4);
        expect(actual[t]!.indexOf(Math.max(...actual[t]!))).toBe(row.indexOf(Math.max(...row)));
      }
    }
  });
});

describe("the oracle's state", () => {
  it("counts positions across a digit's end", () => {
    const checkpoint = openCheckpoint(HUB);
    const model = new ReferenceModel(checkpoint);
    const state = model.newState().set("position", Float32Array.of(POSITION_BASE - 2, 3));
    model.forward([1, 2, 3], state);
    expect(state.get("position")).toEqual(Float32Array.of(1, 4));
    checkpoint.close();
  });

  it("knows nothing of the position but differences and the normaliser, which saturates", () => {
    const checkpoint = openCheckpoint(HUB);
    const model = new ReferenceModel(checkpoint);
    const logitsFrom = (position: number) => {
      const digits = Float32Array.of(position % POSITION_BASE, Math.floor(position / POSITION_BASE));
      return model.forward([4, 8, 15, 16, 23], model.newState().set("position", digits));
    };
    const near = logitsFrom(1_000_000);
    const far = logitsFrom(10_000_000);
    for (const [t, row] of near.entries()) expect(maxDifference(far[t]!, row)).toBeLessThan(1e-4);
    checkpoint.close();
  });
});

describe("a DenseRetNet checkpoint", () => {
  it("is found under either naming, with sizes from the config and gate widths from the tensors", () => {
    const hub = opened(HUB);
    expect(hub.family.name).toBe("dense_retnet");
    expect(hub.sizes).toEqual({ vocabSize: 160, hiddenSize: 64, numLayers: 4, denseLayers: 2 });
    expect(hub.architecture).toMatchObject({
      keyDim: 32,
      valueDim: 128,
      gates: [undefined, ...Array(3).fill({ keyWidth: 8, valueWidth: 2 })],
    });
    const github = opened(GITHUB);
    expect(github.family.name).toBe("dense_retnet");
    expect(github.architecture).toMatchObject({
      denseLayers: 1,
      gates: [undefined, ...Array(3).fill({ keyWidth: 2, valueWidth: 2 })],
    });
  });

  it("carries one state per head, however long the sequence, and its position", () => {
    expect(opened(HUB).state).toEqual([
      { name: "position", shape: [2], holds: "count" },
      ...[0, 1, 2, 3].map((l) => ({ name: `kv.${l}`, shape: [2, 16, 64], holds: "sums", mayNarrow: true })),
    ]);
  });

  it("may come without derivable buffers and without layer 0's links, which nothing reads", () => {
    const modelDir = editedTensors((tensors) => {
      for (const name of tensors.keys()) {
        if (/retnet_rel_pos|layers\.0\.self_attn\.([kv]_select|[kv]_norm)/.test(name)) tensors.delete(name);
      }
    });
    const tokenIds = [3, 141, 59, 26];
    expect(logitsOf(modelDir, tokenIds)).toEqual(logitsOf(HUB, tokenIds));
  });

  it("has the angles and decays that the authors' buffers hold", () => {
    const { architecture } = opened(HUB);
    if (architecture.kind !== "retnet") throw new Error(architecture.kind);
    const tensors = readRawTensors(HUB);
    const buffer = (name: string) => new Float32Array(Uint8Array.from(tensors.get(name)!.bytes).buffer);
    const angles = rotationAngles(architecture).flatMap((angle) => [angle, angle]);
    expect(maxDifference(buffer("model.retnet_rel_pos.angle"), angles)).toBeLessThan(1e-6);
    const logs = headDecays(architecture).map(Math.log);
    expect(maxDifference(buffer("model.retnet_rel_pos.decay"), logs)).toBeLessThan(1e-8);
  });

  it("has a decay below 1, exact in f32, for every head that is allowed", async () => {
    const checkpoint = opened(await randomCheckpointIn({ numHeads: 20, keyDim: 40, hiddenSize: 40 }));
    if (checkpoint.architecture.kind !== "retnet") throw new Error(checkpoint.architecture.kind);
    for (const decay of headDecays(checkpoint.architecture)) {
      expect(decay).toBeLessThan(1);
      expect(Math.fround(decay)).toBe(decay);
    }
  });

  it("computes the same with deepnorm, which only scales weights before training", () => {
    const modelDir = editedConfig(HUB, { deepnorm: true });
    expect(logitsOf(modelDir, [1, 2, 3])).toEqual(logitsOf(HUB, [1, 2, 3]));
  });

  it.each([
    [{ dense_block_layers: -1 }, /dense_block_layers is -1, not a number from 0 to 1024/],
    [{ dense_block_layers: undefined }, /dense_block_layers is missing/],
    [{ query_key_dim: 30 }, /query_key_dim is 30, not an even number for each of 2 heads/],
    [{ num_attention_heads: 3, query_key_dim: 36 }, /v_factor 2 makes 128 values .* not a multiple of 3 heads/],
    [{ num_attention_heads: 0 }, /num_attention_heads is 0, not a number from 1 to 20/],
    [{ num_attention_heads: 32, query_key_dim: 64 }, /num_attention_heads is 32, not a number from 1 to 20/],
    [{ v_factor: 0 }, /v_factor is 0/],
    [{ v_factor: 1.3 }, /v_factor 1.3 makes 83.2 values/],
    [{ hidden_act: "gelu" }, /hidden_act "gelu" is not silu/],
    [{ deepnorm: "yes" }, /deepnorm is "yes", not true or false/],
    [{ hidden_size: 32 }, /shape \[160,64\]; config.json asks for \[160,32\]/],
    [{ dense_block_layers: 0 }, /k_norm.weight of shape \[32\] has no place|k_select.* has no place/],
  ])("is refused for %j", (changes, message) => {
    expect(() => opened(editedConfig(HUB, changes))).toThrow(message);
  });

  it("is refused for links that are missing, by name", () => {
    const modelDir = editedTensors((tensors) => tensors.delete("model.layers.2.self_attn.v_select.fc2.weight"));
    expect(() => opened(modelDir)).toThrow(/model.layers.2.self_attn.v_select.fc2.weight is missing/);
  });
});

describe("a config of another model called llama", () => {
  it.each([[undefined], [null], [{ AutoModelForCausalLM: "modeling_llama.LlamaForCausalLM" }]])(
    "is refused, with the families that are known (auto_map %j)",
    (autoMap) => {
      const modelDir = editedConfig(GITHUB, { auto_map: autoMap });
      expect(() => opened(modelDir)).toThrow(
        /model_type is "llama", which is not supported; these are: .*DenseGauRetNet/,
      );
    },
  );
});

describe("a RetNet checkpoint", () => {
  it("is the same block without links, under a name of its own or as a DenseRetNet with m = 0", async () => {
    const modelDir = await randomCheckpointIn({ denseLayers: 0 });
    const retNet = opened(modelDir);
    expect(retNet.family.name).toBe("retnet");
    expect(retNet.sizes.denseLayers).toBe(0);
    expect(retNet.tensors.filter(({ name }) => /select|k_norm|v_norm/.test(name))).toEqual([]);
    const logits = logitsOf(modelDir, [5, 6, 7]);
    editConfig(modelDir, { model_type: "DenseGauRetNet", dense_block_layers: 0 });
    expect(logitsOf(modelDir, [5, 6, 7])).toEqual(logits);
  });

  it("may tie its head to the embedding", async () => {
    const modelDir = await randomCheckpointIn({ denseLayers: 0, tieEmbeddings: true });
    expect(opened(modelDir).tensors.map(({ name }) => name)).not.toContain("lm_head.weight");
    expect(logitsOf(modelDir, [5])[0]).toHaveLength(TINY_RETNET.vocabSize);
  });
});
