/**
 * RWKV-7: the oracle against its authors' package, the three layouts that it is published in, and
 * what is refused.
 */
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import type { ReferenceState } from "../../src/model/reference/math.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { openTorchFile } from "../../src/model/torch-file.ts";
import { readAll } from "../../src/model/weights.ts";
import { maxDifference } from "../helpers/arrays.ts";
import { editConfig, type RawTensor, temporaryFolder, writeRawTensors } from "../helpers/checkpoints.ts";
import { expectSameDistributions } from "../helpers/log-probabilities.ts";

const GOLDEN = "test/fixtures/rwkv7-tiny";
const [D, H, N, L] = [32, 2, 16, 3];

interface Sequence {
  readonly token_ids: number[];
  readonly logits: number[][];
}

interface Expected {
  readonly sequences: readonly Sequence[];
  /** From persona.pth on. */
  readonly persona: Sequence;
  /** The state after that, a list a layer. */
  readonly after: Readonly<Record<"att_shift" | "time_state" | "ffn_shift", number[][]>>;
}

const { sequences, persona, after } = JSON.parse(readFileSync(join(GOLDEN, "expected.json"), "utf8")) as Expected;

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

function logitsOf(model: string, tokenIds = sequences[0]!.token_ids): Float32Array[] {
  const checkpoint = openCheckpoint(model);
  const oracle = new ReferenceModel(checkpoint);
  const logits = oracle.forward(tokenIds, oracle.newState());
  checkpoint.close();
  return logits;
}

/** [value, key] of each head, as files have it, as [key, value]. */
function swapped(matrices: ArrayLike<number>): Float32Array {
  return new Float32Array(H * N * N).map((_, i) => {
    const [head, key, value] = [Math.floor(i / (N * N)), Math.floor(i / N) % N, i % N];
    return matrices[(head * N + value) * N + key]!;
  });
}

type Tensors = Map<string, RawTensor>;

function nativeTensors(): Tensors {
  const { tensors, close } = openTorchFile(join(GOLDEN, "model.pth"));
  const raw = tensors.map((tensor) => {
    const values = readAll(tensor);
    return [tensor.name, { dtype: "F32", shape: tensor.shape, bytes: new Uint8Array(values.buffer) }] as const;
  });
  close();
  return new Map(raw);
}

function transpose({ shape, bytes }: RawTensor): RawTensor {
  const [rows, columns] = shape as [number, number];
  const values = new Float32Array(Uint8Array.from(bytes).buffer);
  const turned = values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
  return { dtype: "F32", shape: [columns, rows], bytes: new Uint8Array(turned.buffer) };
}

/** As transformers has them. */
function prefixedTensors(): Tensors {
  return new Map(
    [...nativeTensors()].map(([name, tensor]) => [name.startsWith("head") ? name : `rwkv7.${name}`, tensor]),
  );
}

const FLA_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^emb\./, "model.embeddings."],
  [/^ln_out\./, "model.norm."],
  [/^head\./, "lm_head."],
  [/^blocks\./, "model.layers."],
  [/\.ln0\./, ".pre_norm."],
  [/\.ln1\./, ".attn_norm."],
  [/\.ln2\./, ".ffn_norm."],
  [/\.att\.ln_x\./, ".attn.g_norm."],
  [/\.att\.receptance\./, ".attn.r_proj."],
  [/\.att\.key\./, ".attn.k_proj."],
  [/\.att\.value\./, ".attn.v_proj."],
  [/\.att\.output\./, ".attn.o_proj."],
  [/\.att\.([wavg])1$/, ".attn.$1_lora.lora.0.weight"],
  [/\.att\.([wavg])2$/, ".attn.$1_lora.lora.2.weight"],
  [/\.att\.([wav])0$/, ".attn.$1_lora.lora.2.bias"],
  [/\.att\./, ".attn."],
];

/**
 * As fla has them: pairs the other way round, some vectors without axes of one, no v_lora in the
 * first layer.
 */
function flaTensors(): Tensors {
  const named = [...nativeTensors()].flatMap(([name, tensor]): [string, RawTensor][] => {
    if (/^blocks\.0\.att\.v[012]$/.test(name)) return [];
    const fla = FLA_NAMES.reduce((text, [pattern, replacement]) => text.replace(pattern, replacement), name);
    if (/\.lora\.[02]\.weight$/.test(fla)) return [[fla, transpose(tensor)]];
    const isSqueezed = /\.(k_k|k_a)$|bias$|ffn\.x_k$/.test(fla);
    return [[fla, isSqueezed ? { ...tensor, shape: [tensor.shape.at(-1)!] } : tensor]];
  });
  return new Map(named);
}

const CONFIG = {
  model_type: "rwkv7",
  hidden_size: D,
  head_dim: N,
  num_hidden_layers: L,
  vocab_size: 64,
  eos_token_id: 0,
};
const FLA_CONFIG = {
  ...{ ...CONFIG, num_heads: null, norm_bias: true, norm_first: true, hidden_act: "sqrelu", hidden_ratio: 4 },
  ...{ intermediate_size: 80, decay_low_rank_dim: 8, a_low_rank_dim: 6, v_low_rank_dim: 4, gate_low_rank_dim: 12 },
  ...{ attn: null, tie_word_embeddings: false, fuse_norm: true },
};

function write(config: Record<string, unknown> | undefined, tensors: Tensors): string {
  if (config !== undefined) writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  writeRawTensors(folder, tensors);
  return folder;
}

function edited(edit: (tensors: Tensors) => void): string {
  const tensors = nativeTensors();
  edit(tensors);
  return write(undefined, tensors);
}

describe("the oracle", () => {
  it("gives the log-probabilities of its authors' package at every position", () => {
    for (const { token_ids, logits } of sequences) expectSameDistributions(logitsOf(GOLDEN, token_ids), logits, 1e-5);
  });

  it("gives them from a state that was tuned, and ends in the same state", () => {
    const checkpoint = openCheckpoint(GOLDEN);
    const oracle = new ReferenceModel(checkpoint);
    const state: ReferenceState = oracle.newState();
    const start = openTorchFile(join(GOLDEN, "persona.pth"));
    for (const tensor of start.tensors) {
      const [, layer] = /^blocks\.(\d+)\.att\.time_state$/.exec(tensor.name)!;
      state.set(`wkv.${layer}`, swapped(readAll(tensor)));
    }
    start.close();
    expectSameDistributions(oracle.forward(persona.token_ids, state), persona.logits, 1e-5);
    for (let l = 0; l < L; l++) {
      expect(maxDifference(state.get(`wkv.${l}`)!, swapped(after.time_state[l]!))).toBeLessThan(1e-5);
      expect(maxDifference(state.get(`att_shift.${l}`)!, Float32Array.from(after.att_shift[l]!))).toBeLessThan(1e-5);
      expect(maxDifference(state.get(`ffn_shift.${l}`)!, Float32Array.from(after.ffn_shift[l]!))).toBeLessThan(1e-5);
    }
    checkpoint.close();
  });
});

describe("an RWKV-7 checkpoint", () => {
  it("needs no config: every size stands in its tensors", () => {
    const { family, name, sizes, state, architecture, eosTokenIds, bosTokenId } = opened(GOLDEN);
    expect([family.name, name]).toEqual(["rwkv7", "rwkv7-tiny"]);
    expect(sizes).toEqual({ vocabSize: 64, hiddenSize: D, numLayers: L, denseLayers: 0 });
    expect(architecture).toMatchObject({
      numHeads: H,
      headDim: N,
      feedForwardSize: 80,
      ranks: { w: 8, a: 6, v: 4, g: 12 },
    });
    expect(state.slice(0, 3)).toEqual([
      { name: "att_shift.0", shape: [1, D], holds: "inputs" },
      { name: "wkv.0", shape: [H, N, N], holds: "sums" },
      { name: "ffn_shift.0", shape: [1, D], holds: "inputs" },
    ]);
    expect([eosTokenIds, bosTokenId]).toEqual([[0], null]);
  });

  it("is the one file of weights in its folder, or a file that is named", () => {
    copyFileSync(join(GOLDEN, "model.pth"), join(folder, "rwkv7-g1-tiny.pth"));
    expect(logitsOf(folder)).toEqual(logitsOf(GOLDEN));
    copyFileSync(join(GOLDEN, "persona.pth"), join(folder, "persona.pth"));
    expect(() => opened(folder)).toThrow(/holds 2 files \*\.pth: name one, such as .*persona\.pth/);
    expect(opened(join(folder, "rwkv7-g1-tiny.pth")).name).toBe("rwkv7-g1-tiny");
    expect(() => opened(join(folder, "persona.pth"))).toThrow(/are a state for an RWKV, without the model/);
    expect(() => opened(join(GOLDEN, "expected.json"))).toThrow(/expected\.json is not a file of weights/);
  });

  it("may be safetensors by any name", () => {
    writeRawTensors(folder, nativeTensors());
    const other = join(folder, "rwkv7.safetensors");
    copyFileSync(join(folder, "model.safetensors"), other);
    rmSync(join(folder, "model.safetensors"));
    expect(logitsOf(folder)).toEqual(logitsOf(GOLDEN));
    expect(logitsOf(other)).toEqual(logitsOf(GOLDEN));
  });

  it("may be laid out as transformers has it", () => {
    expect(logitsOf(write(CONFIG, prefixedTensors()))).toEqual(logitsOf(GOLDEN));
  });

  it("may be laid out as fla has it", () => {
    expect(logitsOf(write(FLA_CONFIG, flaTensors()))).toEqual(logitsOf(GOLDEN));
    // The epsilon of a head's norm is 64e-5 in the authors' code, and norm_eps a channel in fla's:
    // the same for heads of 64.
    editConfig(folder, { norm_eps: 1e-5 });
    expect(opened(folder).architecture).toMatchObject({ groupNormEpsilon: N * 1e-5 });
  });

  it("may keep what its first layer has no use for, or not", () => {
    const modelDir = edited((tensors) => {
      for (const name of ["v0", "v1", "v2"]) tensors.delete(`blocks.0.att.${name}`);
    });
    expect(logitsOf(modelDir)).toEqual(logitsOf(GOLDEN));
  });
});

describe("an RWKV-7 checkpoint is refused for", () => {
  it.each<[string, (tensors: Tensors) => void, RegExp]>([
    [
      "a layer that is missing",
      (tensors) => {
        for (const name of tensors.keys()) if (name.startsWith("blocks.1.")) tensors.delete(name);
      },
      /tensor blocks\.1\..* is missing; the other tensors ask for shape/,
    ],
    [
      "a tensor that is missing",
      (tensors) => tensors.delete("blocks.2.att.k_a"),
      /tensor blocks\.2\.att\.k_a is missing; .* \[32\]/,
    ],
    [
      "heads that do not make up its width",
      (tensors) => tensors.set("blocks.0.att.r_k", { dtype: "F32", shape: [3, 16], bytes: new Uint8Array(4 * 48) }),
      /3 heads of 16 are 48 channels, but the model is 32 wide/,
    ],
    [
      "matrices of unequal ranks",
      (tensors) => tensors.set("blocks.1.att.w1", { dtype: "F32", shape: [D, 4], bytes: new Uint8Array(4 * D * 4) }),
      /blocks\.1\.att\.w1 \(transposed\) has shape \[4,32\]; the other tensors ask for \[8,32\]/,
    ],
    [
      "a tensor that has no place",
      (tensors) => tensors.set("blocks.0.att.surprise", { dtype: "F32", shape: [1], bytes: new Uint8Array(4) }),
      /tensor blocks\.0\.att\.surprise of shape \[1\] has no place/,
    ],
  ])("%s", (_, edit, message) => {
    const modelDir = edited(edit);
    expect(() => opened(modelDir)).toThrow(message);
    expect(() => opened(modelDir)).toThrow(expect.objectContaining({ code: "invalid_checkpoint" }));
  });

  it.each([
    [
      "a width that contradicts the tensors",
      { hidden_size: 64, head_dim: 32 },
      /r_k has shape|has shape .*; config\.json asks for/,
    ],
    [
      "layers that contradict the tensors",
      { num_hidden_layers: 4 },
      /tensor model\.layers\.3\..* is missing; config\.json asks/,
    ],
    ["heads that do not divide its width", { head_dim: 24 }, /2 heads of 24 are 48 channels, but the model is 32 wide/],
    [
      "a rank that contradicts the tensors",
      { gate_low_rank_dim: 10 },
      /g_lora\.lora\.0\.weight has shape \[12,32\]; .* \[10,32\]/,
    ],
    ["norms without biases", { norm_bias: false }, /norm_bias is false, not true/],
    ["another activation", { hidden_act: "relu" }, /hidden_act "relu" is not sqrelu/],
  ])("a config with %s", (_, changes, message) => {
    expect(() => opened(write({ ...FLA_CONFIG, ...changes }, flaTensors()))).toThrow(message);
  });
});
