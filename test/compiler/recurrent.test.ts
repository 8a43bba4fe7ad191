/**
 * The compiled graphs of Mamba-2 and RWKV-7 against what others compute, against the oracle, and
 * against themselves: whole, token by token, in any pieces, and in a batch. Weights of released
 * sizes are not needed for any of it.
 */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assertInPlaceSafe } from "../../src/compiler/in-place.ts";
import { lower } from "../../src/compiler/lower.ts";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint } from "../helpers/checkpoints.ts";
import { expectSameDistributions, logProbabilities } from "../helpers/log-probabilities.ts";
import { CompiledGraphs } from "./compiled-graphs.ts";
import type { States } from "./graph-session.ts";

const MAMBA2 = { kind: "mamba2", vocabSize: 61, numLayers: 3, denseLayers: 0 } as const;
const RWKV7 = { ...MAMBA2, kind: "rwkv7", ranks: { w: 4, a: 4, v: 4, g: 4 } } as const;
const NAMES = ["hf-tiny-mamba2", "hf-tiny-mamba2-tied", "rwkv7-tiny"];
/** Of log-probabilities, at every position. */
const TOLERANCE = 1e-4;

interface Sequence {
  readonly token_ids: number[];
  readonly logits: number[][];
}

describe.each(NAMES)("%s compiled in f32", (name) => {
  const modelDir = join("test/fixtures", name);
  const { sequences } = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as { sequences: Sequence[] };
  let artifact: CompiledGraphs;
  beforeAll(async () => {
    artifact = await CompiledGraphs.of(modelDir, "f32");
  });
  afterAll(() => artifact.close());

  it("gives the log-probabilities of others, all sequences in one batch", async () => {
    const { graph } = artifact;
    const batch = sequences.map(({ token_ids }) => token_ids);
    const { logits } = await graph.step(batch, graph.emptyStates(batch.length));
    const expected = sequences.flatMap((sequence) => sequence.logits);
    expectSameDistributions(logits, expected, TOLERANCE);
  });

  it("gives them token by token, and ends in the oracle's state", async () => {
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    for (const { token_ids, logits } of sequences) {
      const steps = await artifact.readInPasses(
        token_ids,
        token_ids.map(() => 1),
      );
      expectSameDistributions(steps.logits, logits, TOLERANCE);
      const whole = await artifact.readInPasses(token_ids, [token_ids.length]);
      const expected = oracle.newState();
      oracle.forward(token_ids, expected);
      for (const [state, values] of expected) {
        expect(relativeError(steps.states.get(state)!, values), state).toBeLessThan(TOLERANCE);
        expect(relativeError(whole.states.get(state)!, values), state).toBeLessThan(TOLERANCE);
      }
    }
    checkpoint.close();
  });

  it("gives them however it is cut into passes", async () => {
    const { token_ids, logits } = sequences[0]!;
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: token_ids.length - 1 }), { maxLength: 6 });
    const property = fc.asyncProperty(cuts, async (unsorted) => {
      const ends = [...unsorted.sort((a, b) => a - b), token_ids.length];
      const result = await artifact.readInPasses(
        token_ids,
        ends.map((end, i) => end - (ends[i - 1] ?? 0)),
      );
      expectSameDistributions(result.logits, logits, TOLERANCE);
    });
    await fc.assert(property, { numRuns: 15, seed: 1 });
  });

  it("continues sequences from states of their own, as each does alone", async () => {
    const { graph, decode } = artifact;
    const [first, second] = sequences.map(({ token_ids }) => token_ids) as [number[], number[]];
    const starts = [
      await graph.step([first.slice(0, 5)], graph.emptyStates(1)),
      await graph.step([second.slice(0, 9)], graph.emptyStates(1)),
    ];
    const stacked: States = new Map(
      [...starts[0]!.states.keys()].map((state) => {
        return [state, Float32Array.from(starts.flatMap(({ states }) => [...states.get(state)!]))];
      }),
    );
    for (const [session, length] of [
      [graph, 4],
      [decode, 1],
    ] as const) {
      const next = [first.slice(5, 5 + length), second.slice(9, 9 + length)];
      const together = await session.step(next, stacked);
      for (const [i, ids] of next.entries()) {
        const alone = await session.step([ids], starts[i]!.states);
        for (let t = 0; t < length; t++) {
          expect(relativeError(together.logits[i * length + t]!, alone.logits[t]!)).toBeLessThan(1e-5);
        }
      }
    }
  });

  it.each(["native", "portable"] as const)("gives them with its states updated in place (%s)", async (kind) => {
    const runner = await openRunner(kind, { artifactDir: artifact.dir, numSlots: 2, numThreads: 1, device: "cpu" });
    const { token_ids, logits } = sequences[1]!;
    const rows: Float32Array[] = [];
    let start = 0;
    for (const numSteps of [17, token_ids.length - 19, 1, 1]) {
      const all = Array.from({ length: numSteps }, (_, t) => t);
      const output = await runner.run({
        firstSlot: 1,
        lengths: [numSteps],
        tokenIds: token_ids.slice(start, start + numSteps),
        logitRows: all,
        temperatures: all.map(() => 1),
      });
      rows.push(...all.map((t) => output.logitsOf(t).slice()));
      start += numSteps;
    }
    expectSameDistributions(rows, logits, TOLERANCE);
    await runner.close();
  });
});

/**
 * Mean KL divergence from the oracle. Random weights, and so small ones, lose more than trained
 * ones.
 */
describe.each(NAMES)("%s compiled in fewer bits", (name) => {
  it.each([
    ["int8", 0.02],
    ["int4", 0.6],
    ["f16", 1e-4],
  ] as const)("%s stays near the oracle, whole and token by token", async (precision, most) => {
    const modelDir = join("test/fixtures", name);
    const { sequences } = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as {
      sequences: Sequence[];
    };
    const artifact = await CompiledGraphs.of(modelDir, precision);
    for (const { token_ids, logits } of sequences) {
      for (const lengths of [[token_ids.length], token_ids.map(() => 1)]) {
        const actual = await artifact.readInPasses(token_ids, lengths);
        const divergences = logits.map((row, t) => {
          const [expected, given] = [logProbabilities(row), logProbabilities(actual.logits[t]!)];
          return expected.reduce((sum, value, i) => sum + Math.exp(value) * (value - given[i]!), 0);
        });
        const mean = divergences.reduce((a, b) => a + b) / divergences.length;
        expect(mean).toBeLessThan(most);
      }
    }
    await artifact.close();
  });
});

/** Sizes that no block divides, heads of one group, groups of one head. */
const ODD_SHAPES: readonly (readonly [string, RandomShape])[] = [
  ["a Mamba-2 of odd sizes", { ...MAMBA2, hiddenSize: 30, headDim: 5, stateSize: 7, numGroups: 3 }],
  ["a Mamba-2 with a group for each head", { ...MAMBA2, hiddenSize: 24, headDim: 12, stateSize: 20, numGroups: 4 }],
  ["an RWKV-7 of odd sizes", { ...RWKV7, hiddenSize: 21, headDim: 7, ranks: { w: 3, a: 5, v: 2, g: 9 } }],
  ["an RWKV-7 of one layer and one head", { ...RWKV7, hiddenSize: 40, headDim: 40, numLayers: 1 }],
];

describe.each(ODD_SHAPES)("%s", (_, shape) => {
  it.each([
    ["f32", 1e-4],
    ["int8", 0.1],
  ] as const)("in %s is what the oracle computes, whole and token by token", async (precision, tolerance) => {
    const modelDir = await randomCheckpoint(shape);
    const tokens = Array.from({ length: 37 }, (_, i) => (i * i * 7 + i) % shape.vocabSize);
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const expected = oracle.forward(tokens, oracle.newState());
    checkpoint.close();
    const artifact = await CompiledGraphs.of(modelDir, precision);
    for (const lengths of [[37], tokens.map(() => 1)]) {
      const { logits } = await artifact.readInPasses(tokens, lengths);
      for (const [t, row] of expected.entries()) expect(relativeError(logits[t]!, row)).toBeLessThan(tolerance);
    }
    await artifact.close();
    await rm(modelDir, { recursive: true });
  });
});

describe.each(NAMES)("every graph of %s", (name) => {
  it("may have its states updated in place", () => {
    const checkpoint = openCheckpoint(join("test/fixtures", name));
    for (const steps of ["one", "many"] as const) {
      const graph = lower(checkpoint, { precision: "f32" }, steps);
      const pasts = graph.inputs.filter(({ value }) => value.name.startsWith("past_"));
      expect(pasts).toHaveLength(checkpoint.state.length);
      assertInPlaceSafe(graph);
      if (steps === "one") expect(graph.nodes.map(({ opType }) => opType)).not.toContain("Scan");
    }
    checkpoint.close();
  });
});
