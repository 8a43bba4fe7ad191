/**
 * The compiled RetNet graphs against the authors' code, against the oracle, and against themselves
 * cut up otherwise.
 */
import { rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assertInPlaceSafe } from "../../src/compiler/in-place.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { POSITION_BASE } from "../../src/model/families/retnet.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { stateBytes } from "../../src/model/state.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint, TINY_RETNET } from "../helpers/checkpoints.ts";
import { RETNET_GOLDENS, readRetNetGolden } from "../helpers/retnet-goldens.ts";
import { CompiledGraphs } from "./compiled-graphs.ts";
import type { States } from "./graph-session.ts";

function argmax(row: Float32Array): number {
  return row.indexOf(Math.max(...row));
}

function expectLogits(actual: readonly Float32Array[], expected: readonly Float32Array[], tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  for (const [t, row] of expected.entries()) {
    expect(maxDifference(actual[t]!, row)).toBeLessThan(tolerance);
    expect(argmax(actual[t]!)).toBe(argmax(row));
  }
}

describe.each(RETNET_GOLDENS)("%s compiled in f32", (name) => {
  const TOLERANCE = 2e-4;
  const golden = readRetNetGolden(name);
  let artifact: CompiledGraphs;
  beforeAll(async () => {
    artifact = await CompiledGraphs.of(golden.modelDir, "f32");
  });
  afterAll(() => artifact.close());

  it("gives the authors' logits in one pass", async () => {
    const { graph } = artifact;
    const batch = golden.sequences.map(({ tokenIds }) => tokenIds);
    const result = await graph.step(batch, graph.emptyStates(batch.length));
    const expected = golden.sequences.flatMap(({ logits }) => logits);
    expectLogits(result.logits, expected, TOLERANCE);
  });

  it.each(["graph", "decode"] as const)("gives them token by token through its %s", async (single) => {
    for (const { tokenIds, logits } of golden.sequences) {
      const ones = tokenIds.map(() => 1);
      const result = await artifact.readInPasses(tokenIds, ones, artifact[single]);
      expectLogits(result.logits, logits, TOLERANCE);
    }
  });

  it("gives them however it is cut into passes", async () => {
    const { tokenIds, logits } = golden.sequences[0]!;
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: tokenIds.length - 1 }), { maxLength: 8 });
    const property = fc.asyncProperty(cuts, async (unsorted) => {
      const ends = [...unsorted.sort((a, b) => a - b), tokenIds.length];
      const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
      const result = await artifact.readInPasses(tokenIds, lengths);
      expectLogits(result.logits, logits, TOLERANCE);
    });
    await fc.assert(property, { numRuns: 20, seed: 1 });
  });

  it.each(["native", "portable"] as const)("gives them with its states updated in place (%s)", async (kind) => {
    const runner = await openRunner(kind, { artifactDir: artifact.dir, numSlots: 2, numThreads: 1, device: "cpu" });
    const { tokenIds, logits } = golden.sequences[1]!;
    const rows: Float32Array[] = [];
    let start = 0;
    for (const numSteps of [17, 20, 1, 1, 1]) {
      const all = Array.from({ length: numSteps }, (_, t) => t);
      const output = await runner.run({
        firstSlot: 1,
        lengths: [numSteps],
        tokenIds: tokenIds.slice(start, start + numSteps),
        logitRows: all,
        temperatures: all.map(() => 1),
      });
      rows.push(...all.map((t) => output.logitsOf(t).slice()));
      start += numSteps;
    }
    expectLogits(rows, logits, TOLERANCE);
    const untouched = await runner.readSlot(0);
    expect(untouched).toEqual(new Uint8Array(stateBytes(artifact.manifest.state)));
    await runner.close();
  });
});

describe.each(RETNET_GOLDENS)("%s compiled in int8", (name) => {
  // These random weights magnify noise: the oracle itself, its weights off by 1%, errs by 0.15 and
  // agrees on 0.73.
  it("stays near the authors' logits, in one pass and token by token", async () => {
    const golden = readRetNetGolden(name);
    const artifact = await CompiledGraphs.of(golden.modelDir, "int8");
    for (const { tokenIds, logits } of golden.sequences) {
      const whole = await artifact.graph.step([tokenIds], artifact.graph.emptyStates(1));
      const ones = tokenIds.map(() => 1);
      const single = await artifact.readInPasses(tokenIds, ones);
      for (const actual of [whole.logits, single.logits]) {
        const errors = logits.map((row, t) => relativeError(actual[t]!, row));
        expect(errors.reduce((a, b) => a + b) / errors.length).toBeLessThan(0.25);
        const numSame = logits.filter((row, t) => argmax(actual[t]!) === argmax(row)).length;
        expect(numSame / logits.length).toBeGreaterThan(0.7);
      }
    }
    await artifact.close();
  });
});

/** From 4096 numbers a head on, `LinearAttention` takes another way through its kernel. */
const WIDE_HEADS = { keyDim: 128, valueFactor: 4 };

describe.each([
  { name: "a random DenseRetNet in f32", shape: {}, precision: "f32", tolerance: 1e-4 },
  { name: "one with wide heads", shape: WIDE_HEADS, precision: "f32", tolerance: 1e-4 },
  { name: "one with as many links as layers", shape: { denseLayers: 4 }, precision: "f32", tolerance: 1e-4 },
  { name: "a random RetNet in f32", shape: { denseLayers: 0 }, precision: "f32", tolerance: 1e-4 },
  { name: "a random DenseRetNet in int8", shape: {}, precision: "int8", tolerance: 0.15 },
] as const)("$name", ({ shape, precision, tolerance }) => {
  const tokens = [5, 17, 42, 3, 79, 0, 8, 61, 33, 20, 7];
  let modelDir: string;
  let artifact: CompiledGraphs;
  beforeAll(async () => {
    modelDir = await randomCheckpoint({ ...TINY_RETNET, ...shape });
    artifact = await CompiledGraphs.of(modelDir, precision);
  });
  afterAll(async () => {
    await artifact.close();
    await rm(modelDir, { recursive: true });
  });

  /** The oracle after `tokens` from the given position on, with nothing in the other states. */
  function oracleFrom(position: number) {
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const state = oracle.newState();
    state.set("position", positionDigits(position));
    const logits = oracle.forward(tokens, state);
    checkpoint.close();
    return { logits, state };
  }

  function positionDigits(position: number): Float32Array {
    return Float32Array.of(position % POSITION_BASE, Math.floor(position / POSITION_BASE));
  }

  // Past 2^24 whole numbers have gaps in f32; the others end a digit in mid-pass, or lie where f32
  // angles are noise.
  it.each([0, 1_000_000, POSITION_BASE - 5, 10_000_000, 2 ** 24 + 1])(
    "equals the oracle from position %s on",
    async (position) => {
      const expected = oracleFrom(position);
      const start = artifact.graph.emptyStates(1).set("position", positionDigits(position));
      const whole = await artifact.graph.step([tokens], start);
      const logits: Float32Array[] = [];
      let states = start;
      for (const id of tokens) {
        const result = await artifact.decode.step([[id]], states);
        logits.push(...result.logits);
        states = result.states;
      }
      for (const [t, row] of expected.logits.entries()) {
        expect(relativeError(whole.logits[t]!, row)).toBeLessThan(tolerance);
        expect(relativeError(logits[t]!, row)).toBeLessThan(tolerance);
      }
      for (const [name, values] of expected.state) {
        expect(relativeError(whole.states.get(name)!, values), name).toBeLessThan(tolerance);
        expect(relativeError(states.get(name)!, values), name).toBeLessThan(tolerance);
      }
      expect(states.get("position")).toEqual(positionDigits(position + tokens.length));
      expect(whole.states.get("position")).toEqual(states.get("position"));
    },
  );

  it("continues sequences at different positions in one batch as it does each alone", async () => {
    const { graph } = artifact;
    const starts = [2, 6, 4].map((length) => graph.step([tokens.slice(0, length)], graph.emptyStates(1)));
    const states = (await Promise.all(starts)).map((result) => result.states);
    const stacked: States = new Map(
      [...states[0]!.keys()].map((name) => [name, Float32Array.from(states.flatMap((one) => [...one.get(name)!]))]),
    );
    for (const [stepper, next] of [
      [
        graph,
        [
          [11, 1, 7],
          [22, 3, 9],
          [33, 4, 5],
        ],
      ],
      [artifact.decode, [[11], [22], [33]]],
    ] as const) {
      const batched = await stepper.step(next, stacked);
      const numSteps = next[0].length;
      for (const [i, ids] of next.entries()) {
        const alone = await stepper.step([ids], states[i]!);
        for (let t = 0; t < numSteps; t++) {
          expect(relativeError(batched.logits[i * numSteps + t]!, alone.logits[t]!)).toBeLessThan(tolerance);
        }
        for (const [name, values] of alone.states) {
          const row = batched.states.get(name)!.subarray(i * values.length, (i + 1) * values.length);
          expect(relativeError(row, values), name).toBeLessThan(tolerance);
        }
      }
    }
  });
});

describe("every graph of a RetNet", () => {
  it.each([0, 2])("may have its states updated in place, and has no control flow around them (m = %s)", async (m) => {
    const modelDir = await randomCheckpoint({ ...TINY_RETNET, denseLayers: m });
    const checkpoint = openCheckpoint(modelDir);
    for (const steps of ["one", "many"] as const) {
      const graph = lower(checkpoint, { precision: "f32" }, steps);
      expect(graph.inputs.filter(({ value }) => value.name.startsWith("past_"))).toHaveLength(5);
      assertInPlaceSafe(graph);
      expect(graph.nodes.map((node) => node.opType)).not.toContain("Scan");
    }
    checkpoint.close();
    rmSync(modelDir, { recursive: true });
  });
});
