/**
 * Checkpoints as the `mamba_ssm` package saves them: the same model as Hugging Face's under other
 * names.
 */
import { copyFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { maxDifference } from "../helpers/arrays.ts";
import { editConfig, readRawTensors, temporaryFolder, writeRawTensors } from "../helpers/checkpoints.ts";
import { readTransformersGolden } from "../helpers/transformers-goldens.ts";

const { modelDir: HUGGING_FACE, sequences } = readTransformersGolden("hf-tiny-mamba");
/** As transformers' converter relates the two; 45 tokens in 48 rows. */
const CONFIG = {
  d_model: 32,
  n_layer: 3,
  vocab_size: 45,
  ssm_cfg: { d_state: 4, dt_rank: 4 },
  rms_norm: true,
  residual_in_fp32: true,
  fused_add_norm: true,
  pad_vocab_size_multiple: 16,
};

let modelDir: string;
beforeEach(() => {
  modelDir = temporaryFolder();
  writeFileSync(join(modelDir, "config.json"), JSON.stringify(CONFIG));
  const tensors = readRawTensors(HUGGING_FACE);
  const embedding = tensors.get("backbone.embeddings.weight")!;
  tensors.delete("backbone.embeddings.weight");
  // The package ties the head and saves it all the same.
  writeRawTensors(
    modelDir,
    new Map([["backbone.embedding.weight", embedding], ["lm_head.weight", embedding], ...tensors]),
  );
});
afterEach(() => rmSync(modelDir, { recursive: true }));

function logitsOf(dir: string): Float32Array[] {
  const checkpoint = openCheckpoint(dir);
  const oracle = new ReferenceModel(checkpoint);
  const rows = oracle.forward(sequences[0]!.token_ids, oracle.newState());
  checkpoint.close();
  return rows;
}

describe("a checkpoint of the mamba_ssm package", () => {
  it("is the model that Hugging Face's names make of it, its vocabulary padded", () => {
    const { sizes, family, close } = openCheckpoint(modelDir);
    close();
    expect(family.name).toBe("mamba");
    expect(sizes.vocabSize).toBe(48);
    expect(logitsOf(modelDir)).toEqual(logitsOf(HUGGING_FACE));
  });

  it("may have a head of its own", () => {
    editConfig(modelDir, { tie_embeddings: false });
    const tensors = readRawTensors(modelDir);
    const { shape, dtype, bytes } = tensors.get("lm_head.weight")!;
    tensors.set("lm_head.weight", { shape, dtype, bytes: new Uint8Array(bytes.length) });
    writeRawTensors(modelDir, tensors);
    expect(maxDifference(logitsOf(modelDir)[0]!, new Float32Array(48))).toBe(0);
  });

  it.each([
    [
      "another architecture of the package",
      { ssm_cfg: { layer: "Mamba3" } },
      /ssm_cfg\.layer "Mamba3" is not Mamba1 or Mamba2/,
    ],
    ["attention layers", { attn_layer_idx: [1] }, /attn_layer_idx is \[1\], not empty/],
    ["an MLP", { d_intermediate: 64 }, /d_intermediate is 64/],
    ["another norm", { rms_norm: false }, /rms_norm is false/],
    ["a vocabulary of other rows", { pad_vocab_size_multiple: 32 }, /embedding\.weight has shape \[48,32\].*\[64,32\]/],
    ["a switch of another type", { ssm_cfg: [] }, /ssm_cfg is \[\], not an object/],
  ])("is refused for %s", (_, change, message) => {
    editConfig(modelDir, change);
    expect(() => openCheckpoint(modelDir)).toThrow(message);
  });

  it("may have Hugging Face's config over the package's tensors", () => {
    copyFileSync(join(HUGGING_FACE, "config.json"), join(modelDir, "config.json"));
    expect(logitsOf(modelDir)).toEqual(logitsOf(HUGGING_FACE));
  });
});
