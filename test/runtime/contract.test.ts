/**
 * What the engine relies on, of both runners alike. The native one runs with its lifetime checks
 * on.
 */
import { AssertionError } from "node:assert";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { DenseMambaError, type ErrorCode } from "../../src/errors.ts";
import { stateBytes } from "../../src/model/state.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { PortableRunner } from "../../src/runtime/portable/portable-runner.ts";
import type { ModelRunner, RunInput, RunnerOptions } from "../../src/runtime/runner.ts";
import { allLogits } from "../helpers/all-logits.ts";
import { CompiledTiny } from "../helpers/compiled-tiny.ts";
import { PlainSession } from "./plain-session.ts";

const NUM_SLOTS = 4;
const VOCAB_SIZE = 48;
/** Enough steps of the tiny model for a run of a few hundred milliseconds. */
const LONG_RUN_STEPS = 10_000;

let artifact: CompiledTiny;
beforeAll(async () => {
  artifact = await CompiledTiny.create();
});
afterAll(() => artifact.remove());

function cpuOptions(artifactDir: string): RunnerOptions {
  return { artifactDir, numSlots: NUM_SLOTS, numThreads: 1, device: "cpu" };
}

const openers = {
  native: (options: RunnerOptions): Promise<ModelRunner> => NativeRunner.open({ ...options, checked: true }),
  portable: (options: RunnerOptions): Promise<ModelRunner> => PortableRunner.open(options),
};

describe.each(["native", "portable"] as const)("%s runner", (kind) => {
  const open = (artifactDir: string) => openers[kind](cpuOptions(artifactDir));
  let runner: ModelRunner;
  beforeAll(async () => {
    runner = await open(artifact.dir);
  });
  beforeEach(async () => {
    for (let slot = 0; slot < NUM_SLOTS; slot++) await runner.clearSlot(slot);
  });
  afterAll(() => runner.close());

  describe("run", () => {
    it("in place equals new output tensors, bit for bit", async () => {
      const plain = await PlainSession.open(artifact.dir, runner.manifest, 2);
      for (const tokenIds of [
        [5, 9, 30, 7, 2, 41],
        [3, 4],
        [47, 0],
        [8, 8],
      ]) {
        const expected = await plain.run(tokenIds, 2);
        expect(allLogits(await runner.run(lastRows(1, 2, tokenIds)))).toEqual(expected);
      }
      await plain.close();
    });

    it("gives candidates and normalisers that agree with the logits", async () => {
      const input = { ...lastRows(0, 2, [5, 9, 30, 7]), temperatures: [0.5, 2] };
      const output = await runner.run(input);
      for (const row of [0, 1]) {
        const logits = Array.from(output.logitsOf(row));
        const descending = logits.toSorted((a, b) => b - a);
        const topIds = Array.from(output.topIds.subarray(row * VOCAB_SIZE, (row + 1) * VOCAB_SIZE), Number);
        expect(Array.from(output.topLogits.subarray(row * VOCAB_SIZE, (row + 1) * VOCAB_SIZE))).toEqual(descending);
        expect(topIds.map((id) => logits[id])).toEqual(descending);
        expect(output.logSumExp[row]).toBeCloseTo(logSumExp(logits, 1), 4);
        expect(output.temperedLogSumExp[row]).toBeCloseTo(logSumExp(logits, input.temperatures[row]!), 4);
      }
    });

    it("of a prompt and then of single tokens equals token by token", async () => {
      const tokenIds = [5, 9, 30, 7, 2, 41, 11, 12];
      await runner.run(lastRows(0, 1, tokenIds.slice(0, 3)));
      await runner.run(lastRows(0, 1, tokenIds.slice(3, 7)));
      const chunked = allLogits(await runner.run(lastRows(0, 1, [tokenIds[7]!])));
      let logits = new Float32Array();
      for (const tokenId of tokenIds) logits = allLogits(await runner.run(lastRows(1, 1, [tokenId])));
      expectClose(chunked, logits, 1e-5);
      expectClose(floats(await runner.readSlot(0)), floats(await runner.readSlot(1)), 1e-5);
    });

    it("of one step through the artifact's graph for it equals one through the other graph", async () => {
      expect(runner.manifest.decodeGraph).not.toBe(runner.manifest.graph);
      const dir = await artifact.withManifest(`${kind}-one-graph`, (manifest) => ({
        ...manifest,
        decodeGraph: manifest.graph,
      }));
      const oneGraph = await open(dir);
      for (const tokenIds of [
        [5, 9, 30, 7],
        [2, 41],
        [8, 3],
      ]) {
        const expected = allLogits(await oneGraph.run(lastRows(0, 2, tokenIds)));
        expectClose(allLogits(await runner.run(lastRows(0, 2, tokenIds))), expected, 1e-5);
      }
      await oneGraph.close();
    });

    it("gives a sequence among strangers what it gets alone, bit for bit in f32", async () => {
      const prompts = [
        [5, 9, 30],
        [7, 2, 41],
        [1, 1, 1],
        [20, 3, 46],
      ];
      const together = allLogits(await runner.run(lastRows(0, 4, prompts.flat())));
      for (const slot of [0, 1, 2, 3]) await runner.clearSlot(slot);
      for (const [index, prompt] of prompts.entries()) {
        const logits = allLogits(await runner.run(lastRows(2, 1, prompt)));
        expect(logits).toEqual(together.subarray(index * VOCAB_SIZE, (index + 1) * VOCAB_SIZE));
        await runner.clearSlot(2);
      }
    });

    it("changes the states of its own slots only", async () => {
      await runner.run(lastRows(0, 4, [1, 2, 3, 4]));
      const before = await readSlots(runner);
      await runner.run(lastRows(1, 2, [9, 10]));
      const after = await readSlots(runner);
      expect(after[0]).toEqual(before[0]);
      expect(after[1]).not.toEqual(before[1]);
      expect(after[2]).not.toEqual(before[2]);
      expect(after[3]).toEqual(before[3]);
    });

    it("gives logits of the rows asked for, be they none, some, or more than slots", async () => {
      const tokenIds = Array.from({ length: 3 * 7 }, (_, index) => index);
      const rows = Array.from({ length: 21 }, (_, row) => row);
      const run = async (logitRows: readonly number[]) => {
        for (const slot of [0, 1, 2, 3]) await runner.clearSlot(slot);
        const temperatures = logitRows.map(() => 1);
        const input = { firstSlot: 1, lengths: [7, 7, 7], tokenIds, logitRows, temperatures };
        const output = await runner.run(input);
        const { numRows, topIds, logSumExp } = output;
        expect([numRows, logSumExp.length]).toEqual([logitRows.length, logitRows.length]);
        expect(topIds.length).toBe(logitRows.length * VOCAB_SIZE);
        return { logits: allLogits(output), states: await readSlots(runner) };
      };
      const some = await run([6, 20]);
      const all = await run(rows);
      const none = await run([]);
      expectClose(some.logits.subarray(0, VOCAB_SIZE), all.logits.subarray(6 * VOCAB_SIZE, 7 * VOCAB_SIZE), 1e-5);
      expectClose(some.logits.subarray(VOCAB_SIZE), all.logits.subarray(20 * VOCAB_SIZE), 1e-5);
      expect(all.states).toEqual(none.states);
      expect(some.states).toEqual(none.states);
    });

    it("leaves the event loop free", async () => {
      const running = runner.run(longRun());
      let done = false;
      running.finally(() => {
        done = true;
      });
      let numTicks = 0;
      while (!done) {
        await new Promise((resolve) => setImmediate(resolve));
        numTicks++;
      }
      await running;
      expect(numTicks).toBeGreaterThan(10);
    });
  });

  describe("slots", () => {
    it("start clear, and are clear again after clearSlot", async () => {
      const zeros = new Uint8Array(stateBytes(runner.manifest.state));
      expect(await runner.readSlot(3)).toEqual(zeros);
      await runner.run(lastRows(3, 1, [5, 6, 7]));
      expect(await runner.readSlot(3)).not.toEqual(zeros);
      await runner.clearSlot(3);
      expect(await runner.readSlot(3)).toEqual(zeros);
    });

    it("are copied and swapped whole", async () => {
      await runner.run(lastRows(0, 4, [1, 2, 3, 4, 5, 6, 7, 8]));
      const [a, b, c, d] = await readSlots(runner);
      await runner.copySlot(0, 1);
      expect(await readSlots(runner)).toEqual([a, a, c, d]);
      await runner.swapSlots(1, 3);
      expect(await readSlots(runner)).toEqual([a, d, c, a]);
      await runner.swapSlots(2, 2);
      await runner.copySlot(2, 2);
      expect(await readSlots(runner)).toEqual([a, d, c, a]);
      expect(b).not.toEqual(a);
    });

    it("written back make a sequence go on as if it had never stopped", async () => {
      await runner.run(lastRows(0, 1, [5, 6, 7]));
      const saved = await runner.readSlot(0);
      const expected = allLogits(await runner.run(lastRows(0, 1, [8])));
      await runner.writeSlot(2, saved);
      expect(allLogits(await runner.run(lastRows(2, 1, [8])))).toEqual(expected);
    });

    it("refuse a state of another length, and stay as they were", async () => {
      await runner.run(lastRows(0, 1, [5]));
      const before = await runner.readSlot(0);
      const numBytes = stateBytes(runner.manifest.state);
      const error = await rejection(runner.writeSlot(0, new Uint8Array(numBytes - 4)));
      expectCode(error, "invalid_snapshot");
      expect(String(error)).toContain(`${numBytes} bytes`);
      expect(String(error)).toContain(`${numBytes - 4}`);
      expect(await runner.readSlot(0)).toEqual(before);
    });
  });

  describe("misuse", () => {
    it("is asserted: a second call before the first has ended", async () => {
      const running = runner.run(longRun());
      expect(await rejection(runner.run(lastRows(0, 1, [1])))).toBeInstanceOf(AssertionError);
      expect(await rejection(runner.readSlot(1))).toBeInstanceOf(AssertionError);
      await running;
      await runner.run(lastRows(0, 1, [1]));
    });

    it.each<[string, Partial<RunInput>]>([
      [
        "a slot that is not there",
        { firstSlot: 3, lengths: [1, 1], tokenIds: [1, 2], logitRows: [], temperatures: [] },
      ],
      ["a negative slot", { firstSlot: -1 }],
      ["too few token ids", { lengths: [2] }],
      ["no sequence", { lengths: [], tokenIds: [], logitRows: [], temperatures: [] }],
      ["no token", { lengths: [0], tokenIds: [], logitRows: [], temperatures: [] }],
      ["lengths that are unequal, where the graph takes none", { lengths: [1, 2], tokenIds: [1, 2, 3] }],
      ["half a token", { lengths: [0.5, 0.5] }],
      ["a token id of no token", { tokenIds: [VOCAB_SIZE] }],
      ["a row past the end", { logitRows: [1] }],
      ["a temperature of 0", { temperatures: [0] }],
      ["fewer temperatures than rows", { temperatures: [] }],
    ])("is asserted: %s", async (_, change) => {
      expect(await rejection(runner.run({ ...lastRows(0, 1, [1]), ...change }))).toBeInstanceOf(AssertionError);
      await runner.run(lastRows(0, 1, [1]));
    });

    it("is asserted: slots out of range", async () => {
      expect(await rejection(runner.clearSlot(NUM_SLOTS))).toBeInstanceOf(AssertionError);
      expect(await rejection(runner.copySlot(0, -1))).toBeInstanceOf(AssertionError);
      expect(await rejection(runner.swapSlots(0.5, 1))).toBeInstanceOf(AssertionError);
    });
  });

  describe("close", () => {
    it("is idempotent, and every later call says so", async () => {
      const closing = await open(artifact.dir);
      await Promise.all([closing.close(), closing.close()]);
      for (const call of [closing.run(lastRows(0, 1, [1])), closing.clearSlot(0), closing.readSlot(0)]) {
        const error = await rejection(call);
        expectCode(error, "runtime_fault");
        expect(String(error)).toContain("closed");
      }
    });

    it("during a run lets that run end exactly once", async () => {
      const closing = await open(artifact.dir);
      const outcome = closing.run(longRun()).then(
        () => "finished",
        (error: unknown) => (error instanceof DenseMambaError ? error.code : "another error"),
      );
      await closing.close();
      // The native runner cuts it short, the portable one cannot.
      expect(await outcome).toBe(kind === "native" ? "runtime_fault" : "finished");
    });
  });

  describe("fault", () => {
    it("in a run is a runtime_fault, and every later call is one", async () => {
      // The graph's embedding has fewer rows than this manifest says.
      const dir = await artifact.withManifest(`${kind}-vocabulary`, (manifest) => ({
        ...manifest,
        sizes: { ...manifest.sizes, vocabSize: 1000 },
      }));
      const faulty = await open(dir);
      const error = await rejection(faulty.run(lastRows(0, 1, [999])));
      expectCode(error, "runtime_fault");
      expect(String(error)).toContain("ONNX Runtime: ");
      expectCode(await rejection(faulty.run(lastRows(0, 1, [1]))), "runtime_fault");
      expectCode(await rejection(faulty.readSlot(0)), "runtime_fault");
      await faulty.close();
    });
  });

  describe("open", () => {
    it("says what runs where", () => {
      expect(runner.description).toMatch(
        new RegExp(`^${kind} cpu, onnxruntime \\d+\\.\\d+\\.\\d+, 1 thread, plain ONNX, f32 exact$`),
      );
      expect(runner.numSlots).toBe(NUM_SLOTS);
    });

    it("refuses a truncated graph", async () => {
      const dir = await artifact.withTruncatedGraph(`${kind}-truncated`, 1000);
      const error = await rejection(openRunner(kind, cpuOptions(dir)));
      expectCode(error, "invalid_artifact");
      expect(String(error)).toContain(dir);
    });

    it("refuses an artifact whose graph for one step is not there", async () => {
      const dir = await artifact.withManifest(`${kind}-no-decode`, (manifest) => ({
        ...manifest,
        decodeGraph: "missing.onnx",
      }));
      const error = await rejection(openRunner(kind, cpuOptions(dir)));
      expectCode(error, "invalid_artifact");
      expect(String(error)).toContain("missing.onnx");
    });

    it("refuses a graph whose states are not the manifest's, and names them", async () => {
      const dir = await artifact.withManifest(`${kind}-states`, (manifest) => ({
        ...manifest,
        state: [...manifest.state, { name: "ssm.99", shape: [4, 32] }],
      }));
      const error = await rejection(openRunner(kind, cpuOptions(dir)));
      expectCode(error, "invalid_artifact");
      expect(String(error)).toContain("past_ssm.99");
    });

    it("refuses a folder without an artifact", async () => {
      expectCode(await rejection(openRunner(kind, cpuOptions(`${artifact.dir}/nothing`))), "invalid_artifact");
    });
  });
});

/** All sequences' last steps get logits, at temperature 1. */
function lastRows(firstSlot: number, numSequences: number, tokenIds: readonly number[]): RunInput {
  const numSteps = tokenIds.length / numSequences;
  const logitRows = Array.from({ length: numSequences }, (_, sequence) => (sequence + 1) * numSteps - 1);
  return {
    firstSlot,
    lengths: new Array<number>(numSequences).fill(numSteps),
    tokenIds,
    logitRows,
    temperatures: logitRows.map(() => 1),
  };
}

function longRun(): RunInput {
  return lastRows(
    0,
    1,
    Array.from({ length: LONG_RUN_STEPS }, (_, index) => index % VOCAB_SIZE),
  );
}

function readSlots(runner: ModelRunner): Promise<Uint8Array[]> {
  return [0, 1, 2, 3].reduce<Promise<Uint8Array[]>>(
    async (slots, slot) => [...(await slots), await runner.readSlot(slot)],
    Promise.resolve([]),
  );
}

function floats(state: Uint8Array): Float32Array {
  return new Float32Array(state.buffer, state.byteOffset, state.byteLength / 4);
}

function logSumExp(logits: readonly number[], temperature: number): number {
  return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit / temperature), 0));
}

function expectClose(actual: Float32Array, expected: Float32Array, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  const worst = actual.reduce((max, value, index) => Math.max(max, Math.abs(value - expected[index]!)), 0);
  expect(worst).toBeLessThanOrEqual(tolerance);
}

async function rejection(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => expect.fail("should have been refused"),
    (error: unknown) => error,
  );
}

function expectCode(error: unknown, code: ErrorCode): void {
  expect(error).toBeInstanceOf(DenseMambaError);
  expect((error as DenseMambaError).code).toBe(code);
}
