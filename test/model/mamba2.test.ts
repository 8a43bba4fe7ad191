/**
 * Mamba-2: the oracle against transformers, the layouts that it is published in, and what is
 * refused.
 */
import { cpSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { editConfig, readRawTensors, temporaryFolder, writeRawTensors } from "../helpers/checkpoints.ts";
import { expectSameDistributions } from "../helpers/log-probabilities.ts";
import { readTransformersGolden } from "../helpers/transformers-goldens.ts";

const GOLDENS = ["hf-tiny-mamba2", "hf-tiny-mamba2-tied"];
const GROUPED = "test/fixtures/hf-tiny-mamba2";
const TIED = "test/fixtures/hf-tiny-mamba2-tied";
const TOKENS = [3, 41, 5, 9, 26, 5, 35, 8, 9, 7];

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => rmSync(folder, { recursive: true }));

function opened(model: string) {
  const checkpoint = openCheckpoint(model);
  checkpoint.close();
  return checkpoint;
}

function logitsOf(model: string, tokenIds: readonly number[] = TOKENS): Float32Array[] {
  const checkpoint = openCheckpoint(model);
  const oracle = new ReferenceModel(checkpoint);
  const logits = oracle.forward(tokenIds, oracle.newState());
  checkpoint.close();
  return logits;
}

function edited(model: string, changes: Record<string, unknown>): string {
  cpSync(model, folder, { recursive: true });
  editConfig(folder, changes);
  return folder;
}

describe.each(GOLDENS)("the oracle on %s", (name) => {
  it("gives transformers' log-probabilities at every position", () => {
    const { modelDir, sequences } = readTransformersGolden(name);
    for (const { token_ids, logits } of sequences) expectSameDistributions(logitsOf(modelDir, token_ids), logits, 2e-5);
  });
});

describe("a Mamba-2 checkpoint", () => {
  it("has a convolution over x, B and C, and a matrix for each head", () => {
    const { family, sizes, state } = opened(GROUPED);
    expect(family.name).toBe("mamba2");
    expect(sizes).toEqual({ vocabSize: 48, hiddenSize: 32, numLayers: 3, denseLayers: 0 });
    expect(state.slice(0, 2)).toEqual([
      { name: "conv.0", shape: [3, 64 + 2 * 2 * 16], holds: "inputs" },
      { name: "ssm.0", shape: [8, 16, 8], holds: "sums" },
    ]);
  });

  it("has bounds of the step size that may be infinite, as transformers 5 writes it", () => {
    expect(opened(edited(TIED, { time_step_limit: [0, { __float__: "Infinity" }] })).architecture).toMatchObject({
      timeStepLimit: [0, Number.POSITIVE_INFINITY],
    });
    expect(logitsOf(folder)).not.toEqual(logitsOf(TIED));
  });

  it.each([
    [
      "heads that do not make up the channels",
      { num_heads: 7 },
      /num_heads 7 of head_dim 8 make 56 channels; expand 2 and hidden_size 32 make 64/,
    ],
    ["groups that do not divide the heads", { n_groups: 3 }, /n_groups is 3, which does not divide num_heads 8/],
    ["step sizes in descending order", { time_step_limit: [1, 0] }, /time_step_limit is \[1,0\], not two numbers/],
    ["step sizes below zero", { time_step_limit: [-1, 1] }, /time_step_limit is \[-1,1\], not two numbers/],
    ["one bound of the step size", { time_step_limit: 0.1 }, /time_step_limit is 0.1, not two numbers/],
    ["another activation", { hidden_act: "gelu" }, /hidden_act "gelu" is not silu/],
    [
      "sizes that contradict the tensors",
      { state_size: 8 },
      /in_proj\.weight has shape \[200,32\]; config\.json asks for \[168,32\]/,
    ],
    ["a layer too many", { num_hidden_layers: 4 }, /tensor backbone\.layers\.3\.norm\.weight is missing/],
    ["a layer too few", { num_hidden_layers: 2 }, /tensor backbone\.layers\.2\..* has no place/],
  ])("is refused for %s", (_, changes, message) => {
    expect(() => opened(edited(GROUPED, changes))).toThrow(message);
    expect(() => opened(folder)).toThrow(expect.objectContaining({ code: "invalid_checkpoint" }));
  });
});

describe("a Mamba-2 of the mamba_ssm package", () => {
  const CONFIG = {
    d_model: 32,
    n_layer: 3,
    vocab_size: 47,
    ssm_cfg: { layer: "Mamba2", d_state: 16, headdim: 8, ngroups: 2 },
    attn_layer_idx: [],
    attn_cfg: {},
    d_intermediate: 0,
    rms_norm: true,
    pad_vocab_size_multiple: 16,
    tie_embeddings: false,
  };
  beforeEach(() => {
    writeFileSync(join(folder, "config.json"), JSON.stringify(CONFIG));
    const tensors = [...readRawTensors(GROUPED)];
    writeRawTensors(
      folder,
      new Map(tensors.map(([name, tensor]) => [name.replace("embeddings", "embedding"), tensor])),
    );
  });

  it("is the model that Hugging Face's names make of it, its vocabulary padded", () => {
    expect(opened(folder).family.name).toBe("mamba2");
    expect(logitsOf(folder)).toEqual(logitsOf(GROUPED));
  });

  it("may have its head tied, biases, and bounds of the step size", () => {
    const ssm_cfg = { layer: "Mamba2", d_state: 16, headdim: 8, bias: true, conv_bias: false, dt_limit: [0.05, 0.6] };
    editConfig(folder, { ssm_cfg, tie_embeddings: undefined });
    writeRawTensors(folder, readRawTensors(TIED));
    expect(logitsOf(folder)).toEqual(logitsOf(TIED));
  });

  it.each([
    [
      "heads that do not divide the channels",
      { headdim: 24 },
      /ssm_cfg\.headdim is 24, which does not divide 64 channels/,
    ],
    ["a part of the channels without memory", { d_ssm: 32 }, /ssm_cfg\.d_ssm is 32, not all 64 channels/],
    ["a norm before the gate", { norm_before_gate: true }, /ssm_cfg\.norm_before_gate is true, not false/],
    ["no gated norm", { rmsnorm: false }, /ssm_cfg\.rmsnorm is false, not true/],
    ["a skip for each channel", { D_has_hdim: true }, /ssm_cfg\.D_has_hdim is true, not false/],
  ])("is refused for %s", (_, changes, message) => {
    editConfig(folder, { ssm_cfg: { ...CONFIG.ssm_cfg, ...changes } });
    expect(() => opened(folder)).toThrow(message);
  });

  it("is refused as a hybrid if it has attention layers", () => {
    editConfig(folder, { attn_layer_idx: [1] });
    expect(() => opened(folder)).toThrow(
      /attn_layer_idx is \[1\].*a hybrid with attention layers.*these are: .*mamba2/,
    );
  });
});

describe("Mistral's Codestral Mamba", () => {
  const PARAMS = {
    dim: 32,
    n_layers: 1,
    vocab_size: 48,
    n_groups: 1,
    rms_norm: true,
    residual_in_fp32: true,
    fused_add_norm: true,
    pad_vocab_size_multiple: 1,
    tie_embeddings: false,
    model_type: "mamba",
  };
  beforeEach(() => {
    const named = [...readRawTensors(GROUPED)].map(
      ([name, tensor]) => [`model.${name.replace("embeddings", "embedding")}`, tensor] as const,
    );
    writeRawTensors(folder, new Map(named));
    renameSync(join(folder, "model.safetensors"), join(folder, "consolidated.safetensors"));
  });

  it.each(["params.json", "config.json"])(
    "is known by its %s, with the sizes of heads that the package has",
    (file) => {
      writeFileSync(join(folder, file), JSON.stringify(PARAMS));
      const [E, conv] = [64, 64 + 2 * 128];
      const mixer = {
        ...{ "in_proj.weight": [E + conv + 1, 32], "conv1d.weight": [conv, 1, 4], "conv1d.bias": [conv], dt_bias: [1] },
        ...{ A_log: [1], D: [1], "norm.weight": [E], "out_proj.weight": [32, E] },
      };
      const shapes = {
        ...{ "backbone.embedding.weight": [48, 32], "backbone.norm_f.weight": [32], "lm_head.weight": [48, 32] },
        "backbone.layers.0.norm.weight": [32],
        ...Object.fromEntries(Object.entries(mixer).map(([name, shape]) => [`backbone.layers.0.mixer.${name}`, shape])),
      };
      const tensors = Object.entries(shapes).map(([name, shape]) => {
        const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b));
        return [`model.${name}`, { dtype: "F32", shape, bytes }] as const;
      });
      writeRawTensors(folder, new Map(tensors));
      renameSync(join(folder, "model.safetensors"), join(folder, "consolidated.safetensors"));
      const { family, architecture } = opened(folder);
      expect(family.name).toBe("mamba2");
      expect(architecture).toMatchObject({
        numHeads: 1,
        headDim: 64,
        stateSize: 128,
        convKernel: 4,
        tieEmbeddings: false,
      });
    },
  );

  it("has the weights of Hugging Face's names under others", () => {
    cpSync(join(GROUPED, "config.json"), join(folder, "config.json"));
    expect(logitsOf(folder)).toEqual(logitsOf(GROUPED));
    const { name } = opened(folder).tensors[0]!;
    expect(name).toBe("backbone.embeddings.weight");
  });

  it("reports a missing tensor by the file's own name", () => {
    cpSync(join(GROUPED, "config.json"), join(folder, "config.json"));
    editConfig(folder, { num_hidden_layers: 4 });
    expect(() => opened(folder)).toThrow(/tensor model\.backbone\.layers\.3\.norm\.weight is missing/);
  });
});
