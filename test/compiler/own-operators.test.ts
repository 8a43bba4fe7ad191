/**
 * Graphs lowered to our own operators: against PyTorch, transformers, the authors' code and the
 * oracle, and against themselves.
 */
import { rm } from "node:fs/promises";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { equalised } from "../../src/compiler/equalise.ts";
import { matrix } from "../../src/compiler/matrix.ts";
import { quantize } from "../../src/compiler/quantize.ts";
import type { Precision } from "../../src/model/artifact.ts";
import { type Checkpoint, openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import type { WeightTensor } from "../../src/model/weights.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint, readRawTensors, TINY_RETNET, TINY_SHAPE, writeRawTensors } from "../helpers/checkpoints.ts";
import { readGoldens } from "../helpers/goldens.ts";
import { readPass } from "../helpers/read-pass.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

const GOLDENS = readGoldens({ torch: 1e-4, transformers: 1e-3, retnet: 2e-4 });

/**
 * Whether the oracle rounds what it multiplies, as the operators do: to 8 bits, in the blocks of
 * columns of 8-bit weights.
 */
let roundsInputs = false;
afterEach(() => {
  roundsInputs = false;
});
vi.mock("../../src/model/reference/math.ts", async (load) => {
  const math = await load<typeof import("../../src/model/reference/math.ts")>();
  const matVec: typeof math.matVec = (weight, x) => math.matVec(weight, roundsInputs ? roundedInput(x) : x);
  return { ...math, matVec };
});

function roundedInput(x: Float32Array): Float32Array {
  const size = [128, 64, 32, 16].find((columns) => x.length % columns === 0);
  if (size === undefined) return x; // the step size, which stays in f32
  return x.map((value, i) => {
    const start = i - (i % size);
    const scale = Math.max(...x.subarray(start, start + size).map(Math.abs)) / 127;
    return scale === 0 ? 0 : Math.round(value / scale) * scale;
  });
}

/** The checkpoint as an artifact of fewer bits holds it: the same codes, read by the oracle. */
function rounded(checkpoint: Checkpoint, precision: Exclude<Precision, "f32">): Checkpoint {
  return { ...checkpoint, tensor: (name) => roundedTensor(checkpoint.tensor(name), precision) };
}

function roundedTensor(tensor: WeightTensor, precision: Exclude<Precision, "f32">): WeightTensor {
  const isMatrix = tensor.shape.length === 2 && !/dt_proj|A_log/.test(tensor.name);
  const isProjection = /in_proj|out_proj|[qk]_proj|to_hidden|to_out/.test(tensor.name);
  const bits = precision === "int4" && isProjection ? 4 : 8;
  const quantized = isMatrix ? quantize(matrix(tensor), tensor.name, bits, "rows") : undefined;
  if (quantized === undefined) return tensor;
  const codes = Buffer.concat([...quantized.codes.chunks()]);
  const scales = new Float32Array(Uint8Array.from(Buffer.concat([...quantized.scales.chunks()])).buffer);
  return {
    ...tensor,
    read: (start, count) =>
      Float32Array.from({ length: count }, (_, at) => {
        const i = start + at;
        const code = bits === 8 ? codes[i]! - 128 : ((codes[i >> 1]! >> (4 * (i & 1))) & 15) - 8;
        return code * scales[Math.floor(i / quantized.blockSize)]!;
      }),
  };
}

/** Lengths of passes that add up to `total`. */
function lengthsOf(total: number) {
  const cuts = fc.subarray(Array.from({ length: total - 1 }, (_, i) => i + 1));
  return cuts.map((at) => [...at, total].map((end, i) => end - (at[i - 1] ?? 0)));
}

describe.runIf(hasKernels).each(["baseline", "avx2", "avx512", "amx"])(
  "with the instruction set %s",
  (instructionSet) => {
    it.each(GOLDENS)("$name in f32 gives the reference's logits, whole and token by token", async (golden) => {
      const graph = await openOn(instructionSet, golden.modelDir, "f32");
      if (graph === undefined) return;
      for (const { tokenIds, logits } of golden.sequences) {
        for (const lengths of [[tokenIds.length], tokenIds.map(() => 1)]) {
          const [rows] = await graph.read([tokenIds], lengths);
          for (const [t, row] of logits.entries()) {
            expect(maxDifference(rows![t]!, row)).toBeLessThan(golden.tolerance);
          }
        }
      }
      await graph.close();
    });

    // Of four bits only the weights: their blocks differ from matrix to matrix, and
    // kernels/test/linear.c is exact about all.
    it.each([
      ["int8", 1e-5],
      ["int4", 0.1],
    ] as const)("%s is near the oracle on the same rounded numbers, within %s", async (precision, tolerance) => {
      roundsInputs = precision === "int8";
      for (const shape of [TINY_SHAPE, { ...TINY_SHAPE, hiddenSize: 48, stateSize: 5, vocabSize: 77 }, EVEN_RETNET]) {
        const modelDir = await randomCheckpoint(shape);
        makeNormsUneven(modelDir);
        const graph = await openOn(instructionSet, modelDir, precision);
        if (graph !== undefined) {
          const checkpoint = openCheckpoint(modelDir);
          const oracle = new ReferenceModel(rounded(equalised(checkpoint, precision), precision));
          const expected = TOKENS.map((id) => oracle.forward([id], oracle.newState())[0]!);
          checkpoint.close();
          const errors: number[] = [];
          for (const [i, row] of expected.entries()) {
            const [logits] = await graph.read([[TOKENS[i]!]]);
            errors.push(relativeError(logits![0]!, row));
          }
          // The median: here and there an input is on the edge between two codes, and falls to
          // either.
          expect(errors.toSorted((a, b) => a - b)[errors.length >> 1]).toBeLessThan(tolerance);
          await graph.close();
        }
        await rm(modelDir, { recursive: true });
      }
    });
  },
);

/**
 * Or all that a layer reads first would be codes of the embedding, times powers of two, half of
 * them on the edge between two codes.
 */
function makeNormsUneven(modelDir: string): void {
  const tensors = readRawTensors(modelDir);
  for (const [name, tensor] of tensors) {
    if (!/norm/.test(name)) continue;
    const values = new Float32Array(new Uint8Array(tensor.bytes).buffer).map((x, i) => x * (1 + Math.sin(i) / 7));
    tensors.set(name, { ...tensor, bytes: new Uint8Array(values.buffer) });
  }
  writeRawTensors(modelDir, tensors);
}

/** Whose gates' rows need no filling up, which the oracle's rounding here does not know of. */
const EVEN_RETNET = { ...TINY_RETNET, valueGateWidth: 16 };

const TOKENS = [5, 17, 42, 3, 70, 0, 8, 61, 33, 20, 7];

/** undefined where this CPU does not have the instruction set. */
async function openOn(instructionSet: string, modelDir: string, precision: Precision): Promise<OwnGraph | undefined> {
  try {
    return await OwnGraph.open(modelDir, precision, { instructionSet });
  } catch (error) {
    if (error instanceof Error && /this CPU lacks/.test(error.message)) return undefined;
    throw error;
  }
}

describe.runIf(hasKernels).each([
  { family: "a DenseMamba", shape: { ...TINY_SHAPE, hiddenSize: 160 }, precision: "int8" },
  { family: "a DenseMamba", shape: TINY_SHAPE, precision: "int4" },
  { family: "a DenseMamba", shape: { ...TINY_SHAPE, hiddenSize: 96 }, precision: "f32" },
] as const)("$family in $precision", ({ shape, precision }) => {
  let modelDir: string;
  let graph: OwnGraph;
  beforeAll(async () => {
    modelDir = await randomCheckpoint(shape);
    graph = await OwnGraph.open(modelDir, precision, { numSlots: 16 });
  });
  afterAll(async () => {
    await graph.close();
    await rm(modelDir, { recursive: true });
  });

  it("gives the same bits however its work is cut into passes", async () => {
    const [whole] = await graph.read([TOKENS]);
    await fc.assert(
      fc.asyncProperty(lengthsOf(TOKENS.length), async (lengths) => {
        expect((await graph.read([TOKENS], lengths))[0]).toEqual(whole);
      }),
      { numRuns: 20 },
    );
  });

  it("gives a sequence the same bits alone and among any number of strangers", async () => {
    const others = Array.from({ length: 16 }, (_, i) => TOKENS.map((id) => (id * (i + 3)) % shape.vocabSize));
    const alone = [];
    for (const tokens of others) alone.push((await graph.read([tokens]))[0]);
    for (const count of [2, 3, 5, 7, 8, 13, 16]) {
      expect(
        await graph.read(
          others.slice(0, count),
          TOKENS.map(() => 1),
        ),
      ).toEqual(alone.slice(0, count));
      expect(await graph.read(others.slice(0, count))).toEqual(alone.slice(0, count));
    }
  });

  it("gives sequences of unequal lengths the same bits in one pass as each alone, and leaves those without a token be", async () => {
    const tokens = Array.from({ length: 5 }, (_, i) => TOKENS.map((id) => (id * (i + 3)) % shape.vocabSize));
    const alone: Float32Array[][] = [];
    for (const ids of tokens) alone.push((await graph.read([ids]))[0]!);
    const lengths = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 5, maxLength: 5 });
    const twoPasses = fc.tuple(lengths, lengths).filter((passes) => passes.every((pass) => Math.max(...pass) > 0));
    await fc.assert(
      fc.asyncProperty(twoPasses, async ([first, second]) => {
        for (const slot of tokens.keys()) await graph.runner.clearSlot(slot);
        const before = await readPass(
          graph.runner,
          tokens.map((ids, b) => ids.slice(0, first[b])),
        );
        for (const [slot, length] of first.entries()) {
          if (length === 0) expect((await graph.runner.readSlot(slot)).every((byte) => byte === 0)).toBe(true);
        }
        const after = await readPass(
          graph.runner,
          tokens.map((ids, b) => ids.slice(first[b], first[b]! + second[b]!)),
        );
        for (const b of tokens.keys()) {
          expect([...before[b]!, ...after[b]!]).toEqual(alone[b]!.slice(0, first[b]! + second[b]!));
        }
      }),
      { numRuns: 20 },
    );
  });

  it("keeps NaN in the sequence that has it", async () => {
    const strangers = [TOKENS, TOKENS.toReversed(), TOKENS];
    const sound = await graph.read(strangers);
    for (const slot of strangers.keys()) await graph.runner.clearSlot(slot);
    await graph.poison(1);
    const [first, poisoned, last] = await graph.continue(strangers);
    expect([first, last]).toEqual([sound[0], sound[2]]);
    expect(poisoned!.every((row) => row.every(Number.isNaN))).toBe(true);
  });
});

describe.runIf(hasKernels).each(["f32", "int8"] as const)("a DenseRetNet in %s", (precision) => {
  it("gives sequences of unequal lengths the same bits in one pass as each alone, from any position, among steps of one", async () => {
    const modelDir = await randomCheckpoint(TINY_RETNET);
    const graph = await OwnGraph.open(modelDir, precision, { numSlots: 8 });
    const lengths = [1, 0, 37, 17, 2, 16];
    const first = lengths.map((length, b) => Array.from({ length }, (_, t) => (5 + 7 * t + 11 * b) % 71));
    const second = lengths.toReversed().map((length, b) => Array.from({ length }, (_, t) => (3 + 13 * t + b) % 71));
    const alone: Float32Array[][] = [];
    for (const [b, tokens] of first.entries()) {
      await graph.runner.clearSlot(0);
      const rows: Float32Array[] = [];
      for (const ids of [tokens, second[b]!])
        if (ids.length > 0) rows.push(...(await readPass(graph.runner, [ids]))[0]!);
      alone.push(rows);
    }
    for (const slot of lengths.keys()) await graph.runner.clearSlot(slot);
    const [before, after] = [await readPass(graph.runner, first), await readPass(graph.runner, second)];
    for (const b of lengths.keys()) expect([...before[b]!, ...after[b]!]).toEqual(alone[b]);
    await graph.close();
    await rm(modelDir, { recursive: true });
  });
});
