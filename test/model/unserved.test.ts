/** Models that are near to those that are served are refused by what they are. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { temporaryFolder, writeRawTensors } from "../helpers/checkpoints.ts";

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => rmSync(folder, { recursive: true }));

function refusal(config: Record<string, unknown> | undefined, names: readonly string[] = ["x"]): unknown {
  mkdirSync(folder, { recursive: true });
  if (config !== undefined) writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const tensor = { dtype: "F32", shape: [1], bytes: new Uint8Array(4) };
  writeRawTensors(folder, new Map(names.map((name) => [name, tensor])));
  try {
    openCheckpoint(folder).close();
  } catch (error) {
    return error;
  }
  return undefined;
}

it.each([
  ["Zamba", { model_type: "zamba", attn_layer_period: 6 }, 'model_type is "zamba"'],
  ["Zamba 2", { model_type: "zamba2", hybrid_layer_ids: [6, 12] }, 'model_type is "zamba2"'],
  ["Jamba", { model_type: "jamba", attn_layer_offset: 4 }, 'model_type is "jamba"'],
  ["Bamba", { model_type: "bamba", attn_layer_indices: [9, 18, 27] }, 'model_type is "bamba"'],
  ["Falcon-H1", { model_type: "falcon_h1", num_attention_heads: 8 }, 'model_type is "falcon_h1"'],
  ["Nemotron-H", { model_type: "nemotron_h", hybrid_override_pattern: "M-M*-" }, 'model_type is "nemotron_h"'],
  [
    "a Mamba-2 with some",
    { model_type: "mamba2", attention_layers_idx: [3] },
    "attention_layers_idx is [3], not empty",
  ],
  [
    "a Mamba-2 with types of layers",
    { model_type: "mamba2", layer_types: ["mamba", "full_attention"] },
    "layer_types is",
  ],
  [
    "a Codestral with some",
    { model_type: "mamba", dim: 64, n_layers: 2, n_groups: 8, attn_layer_idx: [1] },
    "attn_layer_idx",
  ],
  ["an RWKV-7 of fla's with some", { model_type: "rwkv7", attn: { layers: [1], num_heads: 2 } }, "attn is {"],
  [
    "a model that we have never heard of",
    { model_type: "new", layers_block_type: ["mamba", "attention"] },
    "layers_block_type",
  ],
])("a hybrid, %s, is refused with what tells it and what is supported", (_, config, message) => {
  expect(refusal(config)).toMatchObject({
    code: "invalid_checkpoint",
    message: expect.stringMatching(/a hybrid with attention layers.*these are: dense_mamba, mamba, mamba2, rwkv7/),
  });
  expect(refusal(config)).toMatchObject({ message: expect.stringContaining(message) });
});

it.each([
  ["RWKV-4", ["blocks.0.att.time_decay", "blocks.0.att.time_first", "blocks.0.att.time_mix_k"]],
  ["RWKV-5", ["blocks.0.att.time_decay", "blocks.0.att.ln_x.weight", "blocks.0.att.time_mix_k"]],
  ["RWKV-6", ["blocks.0.att.time_decay", "blocks.0.att.ln_x.weight", "blocks.0.att.time_maa_x"]],
  ["RWKV-7a", ["blocks.0.att.r_k", "blocks.0.ffn.s_emb.weight"]],
])("weights of %s without a config are refused by that name", (name, tensors) => {
  expect(refusal(undefined, tensors)).toMatchObject({
    code: "invalid_checkpoint",
    message: expect.stringMatching(new RegExp(`the weights are those of ${name}.*only RWKV-7 is served`)),
  });
});

it.each([
  ["rwkv", "RWKV-4"],
  ["rwkv5", "RWKV-5"],
  ["rwkv6", "RWKV-6"],
])("a config of %s is refused as that of %s", (model_type, name) => {
  expect(refusal({ model_type })).toMatchObject({
    message: expect.stringContaining(`is ${name}, and of RWKV only RWKV-7`),
  });
});

it("a state without a model is refused as such", () => {
  expect(refusal(undefined, ["blocks.0.att.time_state"])).toMatchObject({
    message: expect.stringContaining("are a state for an RWKV, without the model"),
  });
});

it("weights without a config that are no RWKV's miss it", () => {
  expect(refusal(undefined, ["backbone.embeddings.weight"])).toMatchObject({
    message: expect.stringMatching(/cannot read .*config\.json: ENOENT/),
  });
});
