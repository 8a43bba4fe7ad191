/**
 * Mamba-2 and RWKV-7 through our kernels: what plain ONNX computes, the same bits alone and beside
 * others, however a prompt is cut, and with sequences of unequal lengths in one pass.
 */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint } from "../helpers/checkpoints.ts";
import { expectSameDistributions, logProbabilities } from "../helpers/log-probabilities.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

const NAMES = ["hf-tiny-mamba2", "hf-tiny-mamba2-tied", "rwkv7-tiny"];

interface Sequence {
  readonly token_ids: number[];
  readonly logits: number[][];
}

function sequencesOf(name: string): readonly [Sequence, Sequence] {
  return JSON.parse(readFileSync(join("test/fixtures", name, "expected.json"), "utf8")).sequences;
}

describe.runIf(hasKernels).each(NAMES)("%s in f32", (name) => {
  const sequences = sequencesOf(name);
  const tokens = sequences.map(({ token_ids }) => token_ids);
  let graph: OwnGraph;
  beforeAll(async () => {
    graph = await OwnGraph.open(join("test/fixtures", name), "f32");
  });
  afterAll(() => graph.close());

  it("gives the log-probabilities of others, whole, token by token and in pieces", async () => {
    for (const lengths of [[40], Array<number>(40).fill(1), [16, 1, 7, 16]]) {
      const rows = await graph.read(tokens, lengths);
      for (const [i, { logits }] of sequences.entries()) expectSameDistributions(rows[i]!, logits, 1e-4);
    }
  });

  it("reads sequences of unequal lengths in one pass", async () => {
    const { runner } = graph;
    expect(runner.manifest.ragged).toBe(true);
    for (const slot of [0, 1]) await runner.clearSlot(slot);
    const got: Float32Array[][] = [[], []];
    const at = [0, 0];
    for (const lengths of [
      [1, 23],
      [30, 1],
      [9, 16],
    ]) {
      const total = lengths[0]! + lengths[1]!;
      const output = await runner.run({
        firstSlot: 0,
        lengths,
        tokenIds: lengths.flatMap((length, i) => tokens[i]!.slice(at[i], at[i]! + length)),
        logitRows: Array.from({ length: total }, (_, row) => row),
        temperatures: Array(total).fill(1),
      });
      for (let row = 0; row < total; row++) got[row < lengths[0]! ? 0 : 1]!.push(output.logitsOf(row).slice());
      for (const i of [0, 1]) at[i]! += lengths[i]!;
    }
    for (const [i, { logits }] of sequences.entries()) expectSameDistributions(got[i]!, logits, 1e-4);
  });
});

describe.runIf(hasKernels).each(NAMES)("%s in int8 and int4", (name) => {
  it.each([
    ["int8", 0.02],
    ["int4", 0.6],
  ] as const)("%s stays near, and gives a sequence the same bits alone and beside another", async (precision, most) => {
    const sequences = sequencesOf(name);
    const tokens = sequences.map(({ token_ids }) => token_ids);
    const graph = await OwnGraph.open(join("test/fixtures", name), precision);
    for (const lengths of [[40], Array<number>(40).fill(1)]) {
      const together = await graph.read(tokens, lengths);
      for (const [i, { logits }] of sequences.entries()) {
        expect((await graph.read([tokens[i]!], lengths))[0]).toEqual(together[i]);
        const divergences = logits.map((row, t) => {
          const [expected, given] = [logProbabilities(row), logProbabilities(together[i]![t]!)];
          return expected.reduce((sum, value, id) => sum + Math.exp(value) * (value - given[id]!), 0);
        });
        expect(divergences.reduce((a, b) => a + b) / divergences.length).toBeLessThan(most);
      }
    }
    await graph.close();
  });
});

const MAMBA2 = { kind: "mamba2", vocabSize: 61, numLayers: 3, denseLayers: 0 } as const;
const RWKV7 = { ...MAMBA2, kind: "rwkv7", ranks: { w: 4, a: 4, v: 4, g: 4 } } as const;
const SHAPES: readonly (readonly [string, RandomShape])[] = [
  ["a Mamba-2 of odd sizes", { ...MAMBA2, hiddenSize: 30, headDim: 5, stateSize: 7, numGroups: 3 }],
  ["a Mamba-2 of usual heads", { ...MAMBA2, hiddenSize: 128, headDim: 64, stateSize: 128, numGroups: 2 }],
  ["an RWKV-7 of odd sizes", { ...RWKV7, hiddenSize: 21, headDim: 7, ranks: { w: 3, a: 5, v: 2, g: 9 } }],
  ["an RWKV-7 of usual heads", { ...RWKV7, hiddenSize: 128, ranks: { w: 32, a: 32, v: 16, g: 64 } }],
];

describe.runIf(hasKernels).each(SHAPES)("%s", (_, shape) => {
  it.each([
    ["f32", 1e-4],
    ["int8", 0.1],
  ] as const)("in %s is what the oracle computes", async (precision, tolerance) => {
    const modelDir = await randomCheckpoint(shape);
    const tokens = Array.from({ length: 70 }, (_, i) => (i * i * 7 + i) % shape.vocabSize);
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const expected = oracle.forward(tokens, oracle.newState());
    checkpoint.close();
    const graph = await OwnGraph.open(modelDir, precision);
    for (const lengths of [[70], tokens.map(() => 1)]) {
      const [rows] = await graph.read([tokens], lengths);
      for (const [t, row] of expected.entries()) expect(relativeError(rows![t]!, row)).toBeLessThan(tolerance);
    }
    await graph.close();
    await rm(modelDir, { recursive: true });
  });
});
