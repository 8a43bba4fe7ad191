/**
 * A function costs the same in eight bits however its weights are written, and it stays the same
 * function.
 */
import { rm } from "node:fs/promises";
import { afterEach, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import { equalised } from "../../src/compiler/equalise.ts";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import type { Precision } from "../../src/model/artifact.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { readAll } from "../../src/model/weights.ts";
import { relativeError } from "../helpers/arrays.ts";
import {
  randomCheckpoint,
  readRawTensors,
  TINY_MAMBA2,
  TINY_RETNET,
  TINY_RWKV7,
  TINY_SHAPE,
  temporaryFolder,
  writeRawTensors,
} from "../helpers/checkpoints.ts";
import { GraphSession } from "./graph-session.ts";

const TOKENS = Array.from({ length: 64 }, (_, i) => (i * i + 3 * i) % TINY_SHAPE.vocabSize);
const MAMBA = { ...TINY_SHAPE, hiddenSize: 64, tieEmbeddings: false } as const;
const RETNET = { ...TINY_RETNET, hiddenSize: 64, tieEmbeddings: false } as const;
const MAMBA2 = { ...TINY_MAMBA2, hiddenSize: 64, tieEmbeddings: false } as const;
const RWKV7 = { ...TINY_RWKV7, hiddenSize: 64 } as const;
const OUTLIERS = [3, 17, 18, 29];

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

/** Which matrices read what a norm gives. */
const READERS: readonly (readonly [norm: RegExp, readers: RegExp])[] = [
  [/backbone\.layers\.(\d+)\.norm\.weight/, /backbone\.layers\.(\d+)\.mixer\.(in_proj|select\.fc1)/],
  [/model\.layers\.(\d+)\.input_layernorm/, /model\.layers\.(\d+)\.self_attn\.(q_proj|k_proj|to_hidden|._select\.fc1)/],
  [/model\.layers\.(\d+)\.self_attn\.group_norm/, /model\.layers\.(\d+)\.self_attn\.to_out/],
  [/backbone\.layers\.(\d+)\.mixer\.norm\.weight/, /backbone\.layers\.(\d+)\.mixer\.out_proj/],
  [/model\.layers\.(\d+)\.attn_norm\.weight/, /model\.layers\.(\d+)\.attn\.([rkv]_proj|[wavg]_lora\.lora\.0)/],
  [/model\.layers\.(\d+)\.ffn_norm\.weight/, /model\.layers\.(\d+)\.ffn\.key/],
  [/(norm_f|model\.norm)\.weight/, /lm_head/],
];

/**
 * Random weights, and the same function with some channels of the norms `factor` times as large and
 * the columns as much smaller.
 */
async function written(shape: RandomShape, factor: number): Promise<string> {
  const dir = await randomCheckpoint(shape);
  folders.push(dir);
  const tensors = readRawTensors(dir);
  const scale = (name: string, width: number, by: number) => {
    const tensor = tensors.get(name)!;
    const values = new Float32Array(new Uint8Array(tensor.bytes).buffer);
    const scaled = values.map((value, i) => (OUTLIERS.includes((i % width) % 32) ? value * by : value));
    tensors.set(name, { ...tensor, bytes: new Uint8Array(scaled.buffer) });
  };
  for (const [norm, readers] of READERS) {
    for (const name of tensors.keys()) {
      const layer = norm.exec(name)?.[1];
      if (layer === undefined) continue;
      const width = tensors.get(name)!.shape[0]!;
      scale(name, width, factor);
      const bias = name.replace(/weight$/, "bias");
      if (tensors.has(bias)) scale(bias, width, factor);
      const isReader = (other: string) => {
        const match = readers.exec(other);
        return match !== null && (match[1] === undefined || !/^\d+$/.test(layer) || match[1] === layer);
      };
      for (const reader of [...tensors.keys()].filter(isReader)) scale(reader, width, 1 / factor);
    }
  }
  writeRawTensors(dir, tensors);
  return dir;
}

async function logits(modelDir: string, precision: Precision): Promise<number[]> {
  const outDir = temporaryFolder();
  folders.push(outDir);
  const manifest = await compileModel({ modelDir, precision, outDir });
  const session = await GraphSession.open(outDir, manifest);
  const result = await session.step([TOKENS], session.emptyStates(1));
  await session.close();
  return result.logits.flatMap((row) => [...row]);
}

describe.each<[string, RandomShape]>([
  ["a DenseMamba", MAMBA],
  ["a RetNet", RETNET],
  ["a Mamba-2", MAMBA2],
  ["an RWKV-7", RWKV7],
])("%s with some channels of its norms fifty times as large, columns as much smaller", (_, shape) => {
  it.each<[Precision, number]>([
    ["int8", 1.2],
    ["int4", 1.2],
  ])("loses no more in %s than it does otherwise", async (precision, most) => {
    const plain = await written(shape, 1);
    const exact = await logits(plain, "f32");
    const usual = relativeError(await logits(plain, precision), exact);
    const outlying = await written(shape, 50);
    expect(relativeError(await logits(outlying, "f32"), exact)).toBeLessThan(1e-5);
    expect(relativeError(await logits(outlying, precision), exact)).toBeLessThan(most * usual);
  });

  it("is the same function to the last bit: products of norm and column are", async () => {
    const checkpoint = openCheckpoint(await written(shape, 50));
    const other = equalised(checkpoint, "int8");
    for (const [norm, readers] of READERS) {
      for (const { name } of checkpoint.tensors.filter(({ name }) => norm.test(name))) {
        const layer = norm.exec(name)![1];
        const reader =
          checkpoint.tensors.find(({ name }) => readers.exec(name)?.[1] === layer)?.name ?? "lm_head.weight";
        const products = (of: typeof checkpoint) => {
          const gains = readAll(of.tensor(name));
          return readAll(of.tensor(reader)).map((weight, i) => weight * gains[i % gains.length]!);
        };
        expect(products(other)).toEqual(products(checkpoint));
      }
    }
    expect(equalised(checkpoint, "f32")).toBe(checkpoint);
    checkpoint.close();
  });
});

describe.each(["hf-tiny-mamba2", "hf-tiny-mamba2-tied", "rwkv7-tiny", "dense-retnet-hub", "hf-tiny-mamba"])(
  "%s with other weights for the same function",
  (name) => {
    it.each(["int8", "int4"] as const)("is to the oracle what it was (%s)", (precision) => {
      const checkpoint = openCheckpoint(`test/fixtures/${name}`);
      const [before, after] = [checkpoint, equalised(checkpoint, precision)].map((source) => {
        const oracle = new ReferenceModel(source);
        return oracle.forward([3, 14, 15, 9, 26, 5, 35], oracle.newState()).flatMap((row) => [...row]);
      });
      expect(relativeError(after!, before!)).toBeLessThan(1e-5);
      checkpoint.close();
    });
  },
);
