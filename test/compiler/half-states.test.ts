/**
 * States in f16 under weights of any precision: every family through plain ONNX, our kernels and,
 * in emulation, CUDA's. What they lose of trained models is in docs/compiler.md.
 */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { assertInPlaceSafe } from "../../src/compiler/in-place.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { stateBytes } from "../../src/model/state.ts";
import { relativeError } from "../helpers/arrays.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { canEmulateCuda, EmulatedCuda } from "../helpers/emulated-cuda.ts";
import { type Golden, readGoldens } from "../helpers/goldens.ts";
import { logProbabilities } from "../helpers/log-probabilities.ts";
import { readPass } from "../helpers/read-pass.ts";
import { TINY_FAMILIES, withCheckpoints } from "../helpers/tiny-models.ts";
import { CompiledGraphs } from "./compiled-graphs.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

/** Mean KL divergence from what others compute in f32: all that states in f16 may cost. */
const MOST = 1e-5;
const RECURRENT: Golden[] = ["hf-tiny-mamba2", "hf-tiny-mamba2-tied", "rwkv7-tiny"].map((name) => {
  const modelDir = join("test/fixtures", name);
  const { sequences } = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8"));
  const renamed = sequences.map(({ token_ids, logits }: { token_ids: number[]; logits: number[][] }) => {
    return { tokenIds: token_ids, logits };
  });
  return { name, modelDir, sequences: renamed, tolerance: MOST };
});
const GOLDENS = [...readGoldens({ torch: MOST, transformers: MOST, retnet: MOST }), ...RECURRENT];

function meanDivergence(actual: readonly ArrayLike<number>[], expected: readonly ArrayLike<number>[]): number {
  const divergences = expected.map((row, t) => {
    const [theirs, ours] = [logProbabilities(row), logProbabilities(actual[t]!)];
    return theirs.reduce((sum, value, id) => sum + Math.exp(value) * (value - ours[id]!), 0);
  });
  return divergences.reduce((a, b) => a + b) / divergences.length;
}

const singles = (tokens: readonly number[]) => tokens.map(() => 1);

describe.each(GOLDENS)("$name with states in f16", ({ modelDir, sequences, tolerance }) => {
  it("stays near in plain ONNX, whole and token by token", async () => {
    const artifact = await CompiledGraphs.of(modelDir, "f32", "f16");
    for (const { tokenIds, logits } of sequences) {
      for (const lengths of [[tokenIds.length], singles(tokenIds)]) {
        const given = await artifact.readInPasses(tokenIds, lengths);
        expect(meanDivergence(given.logits, logits)).toBeLessThan(tolerance);
      }
    }
    await artifact.close();
  });

  it.runIf(hasKernels)("stays near in our kernels, whole and token by token", async () => {
    const graph = await OwnGraph.open(modelDir, "f32", { statePrecision: "f16" });
    for (const { tokenIds, logits } of sequences) {
      for (const lengths of [[tokenIds.length], singles(tokenIds)]) {
        const [rows] = await graph.read([tokenIds], lengths);
        expect(meanDivergence(rows!, logits)).toBeLessThan(tolerance);
      }
    }
    await graph.close();
  });

  it.runIf(canEmulateCuda)("stays near in CUDA's, in emulation", async () => {
    const cuda = await EmulatedCuda.open(modelDir, "f32", "f16");
    const { tokenIds, logits } = sequences[0]!;
    for (const lengths of [[tokenIds.length], [1, 1, tokenIds.length - 3, 1]]) {
      await cuda.clear();
      const [rows] = await cuda.read([tokenIds], lengths);
      expect(meanDivergence(rows!, logits)).toBeLessThan(tolerance);
    }
    await cuda.close();
  });
});

const sources = await withCheckpoints(TINY_FAMILIES);

describe.each(sources)("a $name with states in f16", ({ modelDir }) => {
  it("may have them updated in place in every lowering, and none of its own operators casts one", () => {
    const checkpoint = openCheckpoint(modelDir);
    for (const lowering of ["plain", "kernels", "cuda"] as const) {
      for (const precision of ["f32", "int8", "bf16"] as const) {
        for (const steps of ["one", "many"] as const) {
          const graph = lower(checkpoint, { precision, lowering, statePrecision: "f16" }, steps);
          assertInPlaceSafe(graph);
          const halves = new Set(graph.inputs.filter(({ dtype }) => dtype === "f16").map(({ value }) => value));
          expect(halves.size).toBe(checkpoint.state.filter(({ holds }) => holds === "sums").length);
          const casts = graph.nodes.filter(({ opType, inputs }) => opType === "Cast" && halves.has(inputs[0]!));
          if (lowering === "kernels" && precision !== "bf16") expect(casts).toEqual([]);
        }
      }
    }
    checkpoint.close();
  });

  it("is another artifact; f32 is the usual one by its name", async () => {
    const cacheDir = temporaryFolder();
    const hashes = [];
    for (const statePrecision of ["auto", "f32", "f16"] as const) {
      const { manifest } = await ensureArtifact({ modelDir, precision: "int8", statePrecision, cacheDir });
      hashes.push(manifest.modelHash);
    }
    expect(hashes[1]).toBe(hashes[0]);
    expect(hashes[2]).not.toBe(hashes[0]);
    await rm(cacheDir, { recursive: true });
  });
});

const TOKENS = [5, 17, 42, 3, 70, 0, 8, 61, 33, 20, 7];

describe.runIf(hasKernels).each(sources)("the kernels of a $name with states in f16", ({ modelDir }) => {
  let half: OwnGraph;
  let exact: OwnGraph;
  beforeAll(async () => {
    half = await OwnGraph.open(modelDir, "int8", { statePrecision: "f16" });
    exact = await OwnGraph.open(modelDir, "int8");
  });
  afterAll(async () => {
    for (const graph of [half, exact]) await graph.close();
  });

  // Inputs rounded to eight bits make small differences large.
  it("are near those with f32, and give a sequence the same bits alone and beside others", async () => {
    const batch = [TOKENS, TOKENS.toReversed(), TOKENS.map((id) => (id * 3) % 71), TOKENS];
    for (const lengths of [[11], singles(TOKENS), [4, 1, 6]]) {
      const together = await half.read(batch, lengths);
      const expected = await exact.read(batch, lengths);
      for (const [b, tokens] of batch.entries()) {
        expect((await half.read([tokens], lengths))[0]).toEqual(together[b]);
        for (const [t, row] of expected[b]!.entries()) expect(relativeError(together[b]![t]!, row)).toBeLessThan(0.1);
      }
    }
  });

  it("read sequences of unequal lengths in one pass as each alone", async () => {
    const { runner } = half;
    const batch = [TOKENS, TOKENS.slice(0, 1), [], TOKENS.toReversed().slice(0, 6)];
    for (const slot of batch.keys()) await runner.clearSlot(slot);
    const together = await readPass(runner, batch);
    expect((await runner.readSlot(2)).every((byte) => byte === 0)).toBe(true);
    for (const [b, tokens] of batch.entries()) {
      if (tokens.length > 0) expect((await half.read([tokens]))[0]).toEqual(together[b]);
    }
  });

  it("go on from a snapshot, in another slot too, as they would have", async () => {
    const { runner } = half;
    await half.read([TOKENS], [6, 1, 1, 3]);
    const state = await runner.readSlot(0);
    expect(state).toHaveLength(stateBytes(runner.manifest.state));
    expect(state.length).toBeLessThan(stateBytes(exact.runner.manifest.state));
    await runner.writeSlot(2, state);
    const next = async (slot: number) => {
      const run = { firstSlot: slot, lengths: [1], tokenIds: [9], logitRows: [0], temperatures: [1] };
      return (await runner.run(run)).logitsOf(0).slice();
    };
    expect(await next(2)).toEqual(await next(0));
    // Of other states it is not.
    await expect(runner.writeSlot(2, await exact.runner.readSlot(0))).rejects.toMatchObject({
      code: "invalid_snapshot",
    });
  });
});
