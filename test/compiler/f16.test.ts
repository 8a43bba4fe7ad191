/**
 * Graphs in f16. ONNX Runtime's CPU computes in f32 between casts, so what shows here is the
 * rounding of weights and states: docs/compiler.md, "f16", has what f16 arithmetic adds.
 */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { compileModel } from "../../src/compiler/compile.ts";
import { assertInPlaceSafe } from "../../src/compiler/in-place.ts";
import { lower } from "../../src/compiler/lower.ts";
import type { LoweringKind, Manifest } from "../../src/model/artifact.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { readManifest } from "../../src/model/manifest.ts";
import { stateBytes } from "../../src/model/state.ts";
import { DATA_TYPE_CODES } from "../../src/onnx/tensor.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import {
  randomCheckpoint,
  readRawTensors,
  TINY_RETNET,
  TINY_SHAPE,
  temporaryFolder,
  writeRawTensors,
} from "../helpers/checkpoints.ts";
import { readGoldens } from "../helpers/goldens.ts";
import { withCheckpoints } from "../helpers/tiny-models.ts";
import { GraphSession } from "./graph-session.ts";

/** Weights and states in 11 bits: twice what was measured, see docs/compiler.md. */
const GOLDENS = readGoldens({ torch: 0.045, transformers: 0.03, retnet: 0.1 });

const sources = await withCheckpoints([
  { name: "DenseMamba", shape: TINY_SHAPE },
  { name: "Mamba", shape: { ...TINY_SHAPE, denseLayers: 0 } },
  { name: "DenseRetNet", shape: TINY_RETNET },
  { name: "DenseRetNet with eight heads", shape: { ...TINY_RETNET, numHeads: 8, keyDim: 32 } },
]);

/** An f16 artifact, asked for with our own operators, which do not take f16. */
async function compiled(modelDir: string) {
  const dir = temporaryFolder();
  const manifest = await compileModel({ modelDir, precision: "f16", lowering: "kernels", outDir: dir });
  return { dir, manifest };
}

describe.each(GOLDENS)("$name compiled in f16", ({ modelDir, sequences, tolerance }) => {
  let dir: string;
  let manifest: Manifest;
  beforeAll(async () => {
    ({ dir, manifest } = await compiled(modelDir));
  });
  afterAll(() => rm(dir, { recursive: true }));

  it("gives the authors' logits, whole and token by token", async () => {
    const graph = await GraphSession.open(dir, manifest);
    const decode = await GraphSession.open(dir, manifest, manifest.decodeGraph);
    for (const { tokenIds, logits } of sequences) {
      const whole = await graph.step([tokenIds], graph.emptyStates(1));
      let states = decode.emptyStates(1);
      for (const [t, row] of logits.entries()) {
        const one = await decode.step([[tokenIds[t]!]], states);
        states = one.states;
        expect(maxDifference(whole.logits[t]!, row)).toBeLessThan(tolerance);
        expect(maxDifference(one.logits[0]!, row)).toBeLessThan(tolerance);
      }
    }
    await graph.close();
    await decode.close();
  });
});

describe.each(sources)("a random $name in f16", ({ modelDir }) => {
  const tokens = [5, 17, 42, 3, 79, 0, 8, 61, 33, 20, 7];
  let artifact: Awaited<ReturnType<typeof compiled>>;
  beforeAll(async () => {
    artifact = await compiled(modelDir);
  });
  afterAll(() => rm(artifact.dir, { recursive: true }));

  it("may have its states updated in place, and is plain ONNX", () => {
    const checkpoint = openCheckpoint(modelDir);
    for (const steps of ["one", "many"] as const) {
      const graph = lower(checkpoint, { precision: "f16", lowering: "kernels" }, steps);
      assertInPlaceSafe(graph);
      expect(graph.nodes.map(({ domain }) => domain)).not.toContain("densemamba");
    }
    checkpoint.close();
  });

  it.each(["native", "portable"] as const)("reads in pieces, beside another, as in one pass (%s)", async (kind) => {
    const runner = await openRunner(kind, { artifactDir: artifact.dir, numSlots: 3, numThreads: 1, device: "cpu" });
    const read = async (slot: number, lengths: readonly number[]) => {
      let start = 0;
      let logits = new Float32Array();
      for (const numSteps of lengths) {
        const tokenIds = tokens.slice(start, start + numSteps);
        const row = { logitRows: [numSteps - 1], temperatures: [1] };
        logits = (await runner.run({ firstSlot: slot, lengths: [numSteps], tokenIds, ...row })).logitsOf(0).slice();
        start += numSteps;
      }
      return logits;
    };
    const whole = await read(0, [tokens.length]);
    expect(relativeError(await read(1, [4, 1, 5, 1]), whole)).toBeLessThan(0.01);
    // What a snapshot holds is the whole of the state, of its dtypes' size, and goes on in another
    // slot as it was.
    const state = await runner.readSlot(1);
    expect(state).toHaveLength(stateBytes(artifact.manifest.state));
    await runner.writeSlot(2, state);
    const next = async (slot: number) =>
      (
        await runner.run({
          ...{ firstSlot: slot, lengths: [1], tokenIds: [9] },
          ...{ logitRows: [0], temperatures: [1] },
        })
      )
        .logitsOf(0)
        .slice();
    expect(await next(2)).toEqual(await next(1));
    await runner.close();
  });
});

describe("the state of a model in f16", () => {
  const bytesOf = async (modelDir: string, precision: "f16" | "f32") => {
    const dir = temporaryFolder();
    await compileModel({ modelDir, precision, outDir: dir });
    const manifest = await readManifest(dir);
    await rm(dir, { recursive: true });
    return manifest.state;
  };

  it("takes half the bytes, a RetNet's position aside", async () => {
    for (const { modelDir } of sources.slice(0, 3)) {
      const halves = await bytesOf(modelDir, "f16");
      const floats = await bytesOf(modelDir, "f32");
      const exact = halves.filter(({ dtype }) => dtype === "f32");
      expect(exact.map(({ name }) => name)).toEqual(halves[0]!.name === "position" ? ["position"] : []);
      expect(stateBytes(halves) - stateBytes(exact)).toBe((stateBytes(floats) - stateBytes(exact)) / 2);
    }
  });

  it("stays f32 where a head remembers longer than f16's digits reach", async () => {
    const state = await bytesOf(sources[3]!.modelDir, "f16");
    expect(new Set(state.map(({ dtype }) => dtype))).toEqual(new Set(["f32"]));
  });

  it("is another model's than the same weights' in f32, and the same with or without our operators", async () => {
    const { modelDir } = sources[0]!;
    const cacheDir = temporaryFolder();
    const find = (precision: "f16" | "f32", lowering: LoweringKind) =>
      ensureArtifact({ modelDir, precision, lowering, cacheDir });
    const plain = await find("f16", "plain");
    expect(await find("f16", "kernels")).toEqual({ ...plain, compiled: false });
    expect(plain.manifest.kernels).toBeUndefined();
    expect((await find("f32", "plain")).manifest.modelHash).not.toBe(plain.manifest.modelHash);
    await rm(cacheDir, { recursive: true });
  });
});

describe("weights that f16 cannot hold", () => {
  it("are refused, with the value and the bound", async () => {
    const modelDir = await randomCheckpoint();
    const name = "backbone.layers.1.mixer.in_proj.weight";
    const tensors = readRawTensors(modelDir);
    const { bytes } = tensors.get(name)!;
    new DataView(bytes.buffer, bytes.byteOffset).setFloat32(400, 70_000, true);
    writeRawTensors(modelDir, tensors);
    const outDir = temporaryFolder();
    await expect(compileModel({ modelDir, precision: "f16", outDir })).rejects.toMatchObject({
      code: "unsupported_value",
      message: `tensor ${name} holds 70000; f16 ends at 65504`,
    });
    await rm(outDir, { recursive: true });
    await rm(modelDir, { recursive: true });
  });
});

describe.each(sources)("a $name in bf16", ({ modelDir }) => {
  it.each(["one", "many"] as const)("is the graph of f16 with the other type, for %s steps on CUDA", (steps) => {
    const checkpoint = openCheckpoint(modelDir);
    const graphOf = (precision: "f16" | "bf16") => {
      const { nodes, inputs, outputs, initializers } = lower(checkpoint, { precision, lowering: "cuda" }, steps);
      const text = JSON.stringify({
        nodes: nodes.map(({ inputs, outputs, attributes, ...node }) => {
          const names = [...inputs, ...outputs].map((value) => value?.name);
          // Links read exact states in bf16.
          return { ...node, names, attributes: [...attributes].filter(([name]) => name !== "half") };
        }),
        ports: [...inputs, ...outputs],
        weights: initializers.map(({ value, tensor }) => [value.name, tensor.dtype, tensor.shape]),
      });
      return text;
    };
    const toBf16 = DATA_TYPE_CODES.bf16;
    const expected = graphOf("f16")
      .replaceAll('"f16"', '"bf16"')
      .replaceAll(`{"type":"int","value":${DATA_TYPE_CODES.f16}}`, `{"type":"int","value":${toBf16}}`);
    expect(graphOf("bf16")).toBe(expected);
    expect(expected).toContain('"bf16"');
    checkpoint.close();
  });

  it("is refused by a CPU", async () => {
    const dir = temporaryFolder();
    await compileModel({ modelDir, precision: "bf16", outDir: dir });
    for (const kind of ["native", "portable"] as const) {
      const opening = openRunner(kind, { artifactDir: dir, numSlots: 1, numThreads: 1, device: "cpu" });
      await expect(opening).rejects.toThrow(/was compiled to bf16, which runs on CUDA only/);
    }
    await rm(dir, { recursive: true });
  });
});
