/**
 * What a session costs, by dtype; and how many steps a pass may have before it costs out of
 * proportion.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { stateIn, type Target } from "../../src/model/artifact.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { FORMAT_VERSION, MANIFEST_FILE, readManifest } from "../../src/model/manifest.ts";
import { type StateLayout, stateBytes } from "../../src/model/state.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE } from "../helpers/checkpoints.ts";

describe("a state in a precision", () => {
  const layouts: readonly StateLayout[] = [
    { name: "position", shape: [2], holds: "count" },
    { name: "conv.0", shape: [3, 2], holds: "inputs" },
    { name: "kv.0", shape: [2, 3, 5], holds: "sums", mayNarrow: true },
    { name: "wkv.0", shape: [2, 4], holds: "sums" },
  ];
  const dtypes = (target: Pick<Target, "precision"> & Partial<Target>) =>
    stateIn({ lowering: "plain", statePrecision: "auto", ...target }, layouts).map(({ dtype }) => dtype);

  it("is f32, but for a model in f16", () => {
    for (const precision of ["f32", "bf16", "int8", "int4"] as const) {
      expect(dtypes({ precision })).toEqual(["f32", "f32", "f32", "f32"]);
    }
    expect(dtypes({ precision: "f16" })).toEqual(["f32", "f16", "f16", "f32"]);
    expect(dtypes({ precision: "f16", lowering: "cuda" })).toEqual(["f32", "f32", "f32", "f32"]);
  });

  it("is what is asked for: sums alone, unless all is f16; a count never", () => {
    for (const precision of ["f32", "bf16", "int8", "int4"] as const) {
      for (const lowering of ["plain", "kernels", "cuda"] as const) {
        expect(dtypes({ precision, lowering, statePrecision: "f16" })).toEqual(["f32", "f32", "f16", "f16"]);
      }
    }
    expect(dtypes({ precision: "f16", statePrecision: "f16" })).toEqual(["f32", "f16", "f16", "f16"]);
    expect(dtypes({ precision: "f16", statePrecision: "f32" })).toEqual(["f32", "f32", "f32", "f32"]);
  });

  it("takes the bytes of its types", () => {
    const bytes = (statePrecision: "f32" | "f16") =>
      stateBytes(stateIn({ precision: "int8", lowering: "kernels", statePrecision }, layouts));
    expect(bytes("f32")).toBe(8 + 24 + 120 + 32);
    expect(bytes("f16")).toBe(8 + 24 + 60 + 16);
  });

  it("is f32 where a manifest does not say", async () => {
    const dir = mkdtempSync(join(tmpdir(), "densemamba-state-"));
    const manifest = {
      ...{
        formatVersion: FORMAT_VERSION,
        compilerVersion: "1",
        modelHash: "0".repeat(64),
        name: "n",
        family: "f",
        precision: "f32",
      },
      ...{ sizes: { vocabSize: 1, hiddenSize: 1, numLayers: 1, denseLayers: 0 }, numParameters: 1 },
      ...{ bosTokenId: null, eosTokenIds: [], graph: "g", decodeGraph: "d", files: [] },
      state: [{ name: "ssm.0", shape: [4] }],
    };
    writeFileSync(join(dir, MANIFEST_FILE), JSON.stringify(manifest));
    expect(stateBytes((await readManifest(dir)).state)).toBe(16);
    rmSync(dir, { recursive: true });
  });
});

describe("the most steps of a pass", () => {
  it.each<[string, RandomShape, number]>([
    // 2 heads: 4096² scores each in f32 are 128 MiB, and 8192² are 512.
    ["a RetNet", TINY_RETNET, 4096],
    ["one of 8 heads", { ...TINY_RETNET, numHeads: 8, keyDim: 32 }, 2048],
    // 64 channels of 8 numbers: 2 KiB a step.
    ["a DenseMamba", TINY_SHAPE, 131_072],
    ["one that remembers more", { ...TINY_SHAPE, stateSize: 64 }, 16_384],
    ["a Mamba, which keeps no history", { ...TINY_SHAPE, stateSize: 64, denseLayers: 0 }, 524_288],
  ])("of %s keep its tensors below 256 MiB", async (_name, shape, expected) => {
    const modelDir = await randomCheckpoint(shape);
    const checkpoint = openCheckpoint(modelDir);
    expect(checkpoint.maxPassSteps).toBe(expected);
    checkpoint.close();
    rmSync(modelDir, { recursive: true });
  });
});
