/**
 * Graphs lowered for CUDA, in emulation: against PyTorch, transformers
 * and the authors' code, and against themselves. What that shows and what it cannot: docs/gpu.md
 */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import { assertInPlaceSafe } from "../../src/compiler/in-place.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { readManifest } from "../../src/model/manifest.ts";
import { stateBytes } from "../../src/model/state.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import { TINY_MAMBA2, TINY_RWKV7, TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";
import { canEmulateCuda, EmulatedCuda, emulatedKernels } from "../helpers/emulated-cuda.ts";
import { readGoldens } from "../helpers/goldens.ts";
import { readPass } from "../helpers/read-pass.ts";
import { TINY_FAMILIES, withCheckpoints } from "../helpers/tiny-models.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

const GOLDENS = readGoldens({ torch: 1e-4, transformers: 1e-3, retnet: 2e-4 });
const HALF_GOLDENS = readGoldens({ torch: 0.045, transformers: 0.03, retnet: 0.1 });
const TOKENS = [5, 17, 42, 3, 70, 0, 8, 61, 33, 20, 7];

const CUDA_OPERATORS = [
  ...["CausalConv", "SelectiveScan", "Recurrence", "Discretize", "TokenShift"],
  ...["DeltaRuleInputs", "DeltaRuleOutput"],
];

const sources = await withCheckpoints(TINY_FAMILIES);

describe.each(sources)("a $name lowered for CUDA", ({ modelDir }) => {
  it.each(["f32", "f16", "int8", "int4"] as const)("has no control flow, and may work in place (%s)", (precision) => {
    const checkpoint = openCheckpoint(modelDir);
    for (const steps of ["one", "many"] as const) {
      const graph = lower(checkpoint, { precision, lowering: "cuda" }, steps);
      assertInPlaceSafe(graph);
      const types = new Set(graph.nodes.map(({ opType }) => opType));
      for (const opType of ["Scan", "Loop", "If"]) expect(types).not.toContain(opType);
      const own = graph.nodes.filter(({ domain }) => domain === "densemamba").map(({ opType }) => opType);
      for (const opType of own) expect(CUDA_OPERATORS).toContain(opType);
    }
    checkpoint.close();
  });

  it("says so in its manifest, with another hash than other lowerings, and keeps its states in f32", async () => {
    const outDir = temporaryFolder();
    const hashes = new Set<string>();
    for (const lowering of ["plain", "kernels", "cuda"] as const) {
      await compileModel({ modelDir, precision: "f32", lowering, outDir });
      const manifest = await readManifest(outDir);
      hashes.add(manifest.modelHash);
      expect([manifest.device, manifest.kernels]).toEqual([
        lowering === "cuda" ? "cuda" : undefined,
        lowering === "plain" ? undefined : expect.any(Number),
      ]);
    }
    expect(hashes.size).toBe(3);
    await compileModel({ modelDir, precision: "f16", lowering: "cuda", outDir });
    expect(new Set((await readManifest(outDir)).state.map(({ dtype }) => dtype))).toEqual(new Set(["f32"]));
    await rm(outDir, { recursive: true });
  });
});

beforeAll(async () => {
  if (canEmulateCuda) await emulatedKernels(); // compiled once
}, 240_000);

describe.runIf(canEmulateCuda).each([
  { precision: "f32" as const, goldens: GOLDENS },
  { precision: "f16" as const, goldens: HALF_GOLDENS },
])("emulated in $precision", ({ precision, goldens }) => {
  it.each(goldens)("$name gives the reference's logits, whole and in pieces", async (golden) => {
    const cuda = await EmulatedCuda.open(golden.modelDir, precision);
    for (const { tokenIds, logits } of golden.sequences.slice(0, 1)) {
      for (const lengths of [[tokenIds.length], [1, 1, tokenIds.length - 3, 1]]) {
        await cuda.clear();
        const [rows] = await cuda.read([tokenIds], lengths);
        for (const [t, row] of logits.entries()) {
          expect(maxDifference(rows![t]!, row)).toBeLessThan(golden.tolerance);
        }
      }
    }
    await cuda.close();
  });
});

describe.runIf(canEmulateCuda).each(sources)("an emulated $name", ({ name, modelDir }) => {
  let cuda: EmulatedCuda;
  beforeAll(async () => {
    cuda = await EmulatedCuda.open(modelDir, "f32");
  });
  afterAll(() => cuda.close());

  it("gives a sequence the same alone, among others, and whatever sizes of batch come in between", async () => {
    const others = [TOKENS, TOKENS.toReversed(), TOKENS.map((id) => (id * 3) % 71)];
    const alone = [];
    for (const tokens of others) {
      await cuda.clear();
      alone.push((await cuda.read([tokens]))[0]!);
    }
    await cuda.clear();
    const first = await cuda.read(others, [1, 1, 1, 1]);
    const lone = await cuda.read([TOKENS.slice(4)], [1, 1]); // slot 0 goes ahead by itself
    for (const [b, rows] of first.entries()) {
      for (const [t, row] of rows.entries()) expect(relativeError(row, alone[b]![t]!)).toBeLessThan(1e-4);
    }
    for (const [t, row] of lone[0]!.entries()) expect(relativeError(row, alone[0]![4 + t]!)).toBeLessThan(1e-4);
  });

  it("reads sequences of unequal lengths in one pass as each alone, if it says so", async () => {
    const { runner } = cuda;
    const others = [TOKENS, TOKENS.slice(0, 1), [], TOKENS.toReversed().slice(0, 6)];
    expect(runner.manifest.ragged).toBe(name === "DenseRetNet" ? undefined : true);
    if (runner.manifest.ragged !== true) return;
    await cuda.clear();
    const together = await readPass(runner, others);
    expect((await runner.readSlot(2)).every((byte) => byte === 0)).toBe(true);
    for (const [b, tokens] of others.entries()) {
      if (tokens.length === 0) continue;
      await cuda.clear();
      const [alone] = await cuda.read([tokens]);
      for (const [t, row] of together[b]!.entries()) expect(relativeError(row, alone![t]!)).toBeLessThan(1e-4);
    }
  });

  it("goes on from a snapshot, a copy and a swap as if nothing had been", async () => {
    const { runner } = cuda;
    await cuda.clear();
    await cuda.read([TOKENS, TOKENS.toReversed()]);
    const next = async (slot: number) => {
      const run = { firstSlot: slot, lengths: [1], tokenIds: [9], logitRows: [0], temperatures: [1] };
      const state = await runner.readSlot(slot);
      const logits = (await runner.run(run)).logitsOf(0).slice();
      await runner.writeSlot(slot, state);
      return logits;
    };
    const [a, b] = [await next(0), await next(1)];
    expect(a).not.toEqual(b);
    expect(await next(0)).toEqual(a); // the snapshot went back
    await runner.copySlot(0, 2);
    await runner.swapSlots(0, 1);
    for (const [slot, logits] of [b, a, a].entries())
      expect(relativeError(await next(slot), logits)).toBeLessThan(1e-6);
    const state = await runner.readSlot(1);
    expect(state).toHaveLength(stateBytes(runner.manifest.state));
    await runner.clearSlot(1);
    expect((await runner.readSlot(1)).every((byte) => byte === 0)).toBe(true);
    await expect(runner.writeSlot(1, state.subarray(1))).rejects.toMatchObject({ code: "invalid_snapshot" });
    expect((await runner.readSlot(1)).every((byte) => byte === 0)).toBe(true);
  });
});

const WIDE_STATE = { ...TINY_SHAPE, hiddenSize: 16, numLayers: 2, stateSize: 70, vocabSize: 16 };

const longRead = await withCheckpoints([
  { name: "DenseMamba", shape: { ...TINY_SHAPE, vocabSize: 16 } },
  { name: "Mamba of large states", shape: WIDE_STATE },
  { name: "Mamba-2", shape: TINY_MAMBA2 },
  { name: "RWKV-7", shape: TINY_RWKV7 },
]);

describe.runIf(canEmulateCuda && hasKernels).each(longRead)("long prompts of a $name", ({ modelDir }) => {
  it("end in the same states, and give the same, as the operators on a CPU", { timeout: 120_000 }, async () => {
    const cuda = await EmulatedCuda.open(modelDir, "f32");
    const cpu = await OwnGraph.open(modelDir, "f32");
    // From empty states, then from those: one step, none, a segment and a bit, more than a block of
    // segments.
    for (const lengths of [
      [17, 1, 300, 2],
      [1, 40, 5, 0],
    ]) {
      const tokens = lengths.map((length, b) => Array.from({ length }, (_, i) => (i * 7 + b) % 16));
      const [ours, expected] = [await readPass(cuda.runner, tokens), await readPass(cpu.runner, tokens)];
      for (const [b, rows] of ours.entries()) {
        for (const [t, row] of rows.entries()) expect(relativeError(row, expected[b]![t]!)).toBeLessThan(1e-4);
        const [state, cpuState] = [await cuda.runner.readSlot(b), await cpu.runner.readSlot(b)];
        expect(relativeError(floats(state), floats(cpuState))).toBeLessThan(1e-4);
      }
    }
    for (const runner of [cuda, cpu]) await runner.close();
  });
});

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}
