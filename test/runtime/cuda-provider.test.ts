/**
 * ONNX Runtime's real CUDA provider on a simulated device (test/cuda-device/): what is captured and replayed, what crosses the bus, what
 * is waited for, and what happens when a call fails. What its own kernels compute is not computed, and nothing here depends on it.
 */
import { rm } from "node:fs/promises";
import koffi from "koffi";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { PRECISIONS } from "../../src/model/artifact.ts";
import { stateBytes, tensorBytes } from "../../src/model/state.ts";
import type { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import type { RunInput, RunOutput } from "../../src/runtime/runner.ts";
import { CAPTURE_INVALIDATED, LAUNCH_FAILED, OUT_OF_MEMORY } from "../cuda-device/errors.ts";
import { onSimulatedCuda } from "../cuda-device/harness.ts";
import { hasProvider, type SimulatedCuda } from "../cuda-device/simulated-cuda.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE } from "../helpers/checkpoints.ts";

const sources = await Promise.all(
  [
    { name: "DenseMamba", shape: TINY_SHAPE, ownKernels: ["convolve", "scan_step<Share>"] },
    { name: "Mamba", shape: { ...TINY_SHAPE, denseLayers: 0 }, ownKernels: ["convolve", "scan_step<Share>"] },
    { name: "DenseRetNet", shape: TINY_RETNET, ownKernels: ["retain"] },
    { name: "RetNet", shape: { ...TINY_RETNET, denseLayers: 0 }, ownKernels: ["retain"] },
  ].map(async (source) => ({ ...source, modelDir: await randomCheckpoint(source.shape) })),
);
afterAll(() => Promise.all(sources.map(({ modelDir }) => rm(modelDir, { recursive: true }))));

if (!hasProvider)
  console.warn("CUDA's provider is not there (bash test/cuda-device/fetch-provider.sh): its tests are skipped");

describe.runIf(hasProvider)("ONNX Runtime's CUDA provider", () => {
  const harness = onSimulatedCuda();
  const { open } = harness;
  let cuda: SimulatedCuda;
  beforeAll(() => {
    ({ cuda } = harness);
  });

  describe.each(sources)("running a $name", ({ modelDir, ownKernels, shape }) => {
    it.each(PRECISIONS)(
      "captures a step once for each size of batch, whatever thread it runs on (%s)",
      async (precision) => {
        // Every other run is too long for the event loop's thread, and goes to one of libuv's.
        let timeMs = 0;
        let numCalls = 0;
        const now = () => (timeMs += numCalls++ % 4 < 2 ? 100 : 0);
        const { runner, notes } = await open(modelDir, { precision, now });
        for (let i = 0; i < 24; i++) await step(runner, 1 + (i % 3));
        expect(notes).toEqual([]);
        expect(cuda.book()).toMatchObject({ captures: 3, replays: 21 });
      },
    );

    it("launches the same in a step that is replayed as in one that is not", async () => {
      const { runner } = await open(modelDir);
      const launches = async () => {
        cuda.reset();
        await step(runner, 2);
        return cuda.book().launches;
      };
      const first = await launches();
      for (const kernel of ownKernels) expect(first[kernel]).toBe(shape.numLayers);
      expect(await launches()).toEqual(first);
      expect(await launches()).toEqual(first);
    });

    it("moves states on by one, however a step is made", async () => {
      const { runner } = await open(modelDir);
      const state = runner.manifest.state.find(({ name }) => name === "conv.0" || name === "kv.0")!;
      for (let i = 0; i < 4; i++) await expectOneStep(runner, state.name, i);
    });

    it("waits once in a step that is replayed, and allocates nothing", async () => {
      const { runner } = await open(modelDir);
      await step(runner, 3);
      cuda.reset();
      for (let i = 0; i < 10; i++) await step(runner, 3);
      const { calls, synchronisations } = cuda.book();
      expect(synchronisations).toBe(10);
      expect(Object.keys(calls).toSorted()).toEqual(["cudaGraphLaunch", "cudaStreamSynchronize"]);
    });

    it("reads prompts between steps, and goes on replaying", async () => {
      const { runner } = await open(modelDir);
      for (let i = 0; i < 3; i++) {
        await step(runner, 2);
        await runner.run({ firstSlot: 3, lengths: [5], tokenIds: [1, 2, 3, 4, 5], logitRows: [], temperatures: [] });
        await runner.run({ firstSlot: 1, lengths: [1], tokenIds: [7], logitRows: [0], temperatures: [1] });
      }
      expect(cuda.book()).toMatchObject({ captures: 1, replays: 2 });
    });
  });

  describe("with 32 sequences and a vocabulary of 50,280", () => {
    const NUM_SLOTS = 32;
    const VOCAB_SIZE = 50_280;
    const ROW_BYTES = VOCAB_SIZE * 4;
    let modelDir: string;
    beforeAll(async () => {
      modelDir = await randomCheckpoint({ ...TINY_SHAPE, numLayers: 2, denseLayers: 0, vocabSize: VOCAB_SIZE });
    });
    afterAll(() => rm(modelDir, { recursive: true }));

    /** What crosses the bus in `run`, how, and how often it is waited for. */
    const cost = async (run: () => unknown) => {
      cuda.reset();
      await run();
      const { copiedBytes, synchronisations } = cuda.book();
      const { "device to device": _, ...crossing } = copiedBytes;
      return { numBytes: Object.values(crossing).reduce((a, b) => a + b, 0), crossing, synchronisations };
    };

    it("takes 64 KiB over the bus in a step, through pinned memory, and one wait", async () => {
      const { runner } = await open(modelDir, { numSlots: NUM_SLOTS });
      const [first, replayed] = [await cost(() => step(runner, NUM_SLOTS)), await cost(() => step(runner, NUM_SLOTS))];
      const besidePrompt = () =>
        runner.run({
          firstSlot: 0,
          lengths: Array.from({ length: NUM_SLOTS }, (_, slot) => (slot === 31 ? 100 : 1)),
          tokenIds: new Int32Array(NUM_SLOTS - 1 + 100),
          logitRows: Array.from({ length: NUM_SLOTS - 1 }, (_, row) => row),
          temperatures: new Float32Array(NUM_SLOTS - 1).fill(1),
        });
      await besidePrompt();
      const mixed = await cost(besidePrompt);
      console.log(
        `a step of ${NUM_SLOTS} sequences, ${VOCAB_SIZE} tokens: ${replayed.numBytes} bytes over the bus, ` +
          `${replayed.synchronisations} synchronisation; beside a prompt of 100 tokens ${mixed.numBytes} and ${mixed.synchronisations}`,
      );
      for (const { numBytes, crossing, synchronisations } of [first, replayed, mixed]) {
        expect(numBytes).toBeLessThanOrEqual(64 * 1024);
        expect(Object.keys(crossing).toSorted()).toEqual(["device to pinned", "pinned to device"]);
        expect(synchronisations).toBe(1);
      }
    });

    it("brings whole rows of logits for those that ask, with the rest, and others when they are asked for", async () => {
      const { runner } = await open(modelDir, { numSlots: NUM_SLOTS + 1 });
      for (const isReplayed of [false, true]) {
        const { numBytes } = await cost(() => step(runner, NUM_SLOTS));
        const whole = await cost(() =>
          step(runner, NUM_SLOTS, { firstSlot: isReplayed ? 0 : 1, wholeRows: [3, 4, 17] }),
        );
        const own = isReplayed ? numBytes : whole.numBytes - 3 * ROW_BYTES;
        expect(own).toBeLessThanOrEqual(64 * 1024);
        expect(whole).toMatchObject({ numBytes: own + 3 * ROW_BYTES, synchronisations: 1 });
      }
      const output = await step(runner, NUM_SLOTS, { wholeRows: [3] });
      // What the device has there now: what it had when the run ended is the same but for this.
      const logits = new Float32Array(koffi.view(cuda.findBlock((NUM_SLOTS + 1) * ROW_BYTES), NUM_SLOTS * ROW_BYTES));
      for (const row of [3, 5]) logits.fill(row, row * VOCAB_SIZE, (row + 1) * VOCAB_SIZE);
      expect(await cost(() => expect(output.logitsOf(3)[0]).toBe(0))).toMatchObject({
        numBytes: 0,
        synchronisations: 0,
      });
      const asked = { numBytes: ROW_BYTES, synchronisations: 1 };
      expect(await cost(() => expect(output.logitsOf(5)).toEqual(new Float32Array(VOCAB_SIZE).fill(5)))).toMatchObject(
        asked,
      );
      expect(await cost(() => output.logitsOf(5))).toMatchObject({ numBytes: 0, synchronisations: 0 });
    });

    it("keeps states where they are but for a snapshot, and allocates nothing once all shapes have been seen", async () => {
      const { runner } = await open(modelDir, { numSlots: NUM_SLOTS });
      const prompt = Array.from({ length: NUM_SLOTS + 3 }, (_, i) => i); // more rows than slots
      const work = async () => {
        for (const count of [NUM_SLOTS, 7]) await step(runner, count, { wholeRows: [0, 6] });
        const rows = { logitRows: prompt, temperatures: prompt.map(() => 1), wholeRows: prompt };
        await runner.run({ firstSlot: 5, lengths: [prompt.length], tokenIds: prompt, ...rows });
        await runner.swapSlots(0, 31);
        await runner.copySlot(1, 2);
        await runner.clearSlot(3);
      };
      for (let i = 0; i < 2; i++) await work();
      const { crossing } = await cost(work);
      expect(Object.keys(crossing).toSorted()).toEqual(["device to pinned", "pinned to device"]);
      const { calls } = cuda.book();
      expect(Object.keys(calls).filter((name) => /Malloc|Alloc|Free/.test(name))).toEqual([]);
      const snapshot = await cost(() => runner.readSlot(0));
      expect(snapshot.numBytes).toBe(stateBytes(runner.manifest.state));
    });
  });

  describe("when a call fails", () => {
    const { modelDir } = sources[0]!;

    it.each([
      { call: "cudaStreamBeginCapture", error: OUT_OF_MEMORY },
      { call: "cudaStreamEndCapture", error: CAPTURE_INVALIDATED },
      { call: "cudaGraphInstantiate", error: OUT_OF_MEMORY },
    ])("goes on without captures where $call is refused, and says why", async (fault) => {
      const { runner, notes } = await open(modelDir);
      cuda.fail(fault);
      for (let i = 0; i < 4; i++) await expectOneStep(runner, "conv.0", i);
      expect(notes).toEqual([expect.stringMatching(/^steps are not captured as CUDA graphs: CUDA cannot .*: \w+/)]);
      expect(cuda.book().replays).toBe(0);
    });

    it("goes on without captures where ONNX Runtime refuses, and says why in its words", async () => {
      const { runner } = await open(modelDir);
      await step(runner, 2);
      const { cudaLaunchKernel = 0 } = cuda.book().calls; // of the step and of its capture
      const { runner: second, notes } = await open(modelDir);
      cuda.fail({ call: "cudaLaunchKernel", error: LAUNCH_FAILED, after: cudaLaunchKernel / 2 });
      for (let i = 0; i < 4; i++) await expectOneStep(second, "conv.0", i);
      expect(notes).toEqual([expect.stringMatching(/^steps are not captured as CUDA graphs: ONNX Runtime: .* node/)]);
    });

    it.each(["cudaGraphLaunch", "cudaStreamSynchronize"])(
      "rejects a step whose %s fails, and gives everything back at the close",
      async (call) => {
        const { runner } = await open(modelDir);
        await step(runner, 2);
        await step(runner, 2);
        cuda.fail({ call, error: LAUNCH_FAILED });
        await expect(step(runner, 2)).rejects.toMatchObject({
          code: "runtime_fault",
          message: expect.stringContaining("CUDA cannot finish a step"),
        });
        await expect(step(runner, 2)).rejects.toMatchObject({ code: "runtime_fault" });
      },
    );

    it("is not blamed for what a runner before it could not free", async () => {
      const { runner: first } = await cuda.open(modelDir);
      cuda.fail({ call: "cudaFree", error: LAUNCH_FAILED, stays: true });
      await expect(first.close()).rejects.toThrow(/free memory/);
      cuda.forget();
      const { runner, notes } = await open(modelDir);
      for (let i = 0; i < 3; i++) await step(runner, 2);
      expect(notes).toEqual([]);
      expect(cuda.book()).toMatchObject({ captures: 1, replays: 2 });
    });

    it("survives any one call that fails in a runner's life, and all is given back", async () => {
      const live = async () => {
        const { runner } = await cuda.open(modelDir);
        try {
          await runner.run({ firstSlot: 0, lengths: [3], tokenIds: [1, 2, 3], logitRows: [2], temperatures: [1] });
          for (let i = 0; i < 3; i++) await step(runner, 2);
          await runner.writeSlot(1, await runner.readSlot(0));
          await runner.swapSlots(0, 1);
        } finally {
          await runner.close();
        }
      };
      cuda.reset();
      await live();
      for (const [call, count] of Object.entries(cuda.book().calls)) {
        for (const after of new Set([0, Math.floor(count / 2), count - 1])) {
          cuda.reset();
          cuda.fail({ call, error: LAUNCH_FAILED, after });
          const { numBlocks } = cuda.book();
          const result: unknown = await live().catch((error: unknown) => error);
          if (result !== undefined) expect(result).toBeInstanceOf(DenseMambaError);
          // What cannot be freed stays, that alone.
          const numKept = cuda.book().numBlocks - numBlocks;
          if (call.startsWith("cudaFree")) expect(numKept).toBeLessThanOrEqual(1);
          else expect({ call, after, numKept }).toEqual({ call, after, numKept: 0 });
        }
      }
      cuda.forget();
    }, 200_000);

    it("opens nothing where the memory ends, wherever that is, and keeps nothing", async () => {
      let numRefused = 0;
      for (let isOpen = false; !isOpen; numRefused++) {
        cuda.reset();
        cuda.fail({ call: "cudaMalloc", error: OUT_OF_MEMORY, after: numRefused, stays: true });
        const result = await cuda.open(modelDir).catch((error: unknown) => error as DenseMambaError);
        isOpen = "runner" in result;
        if ("runner" in result) harness.closeAfterwards(result.runner);
        else {
          // So that `--device auto` goes on to the CPU.
          expect(result.code).toBe("device_unavailable");
          expect(result.message).toMatch(
            /^the CUDA device has not the memory for \S+ with 4 slots: .*(out of memory|Failed to allocate)/,
          );
          expect(cuda.book().numBlocks).toBe(0);
        }
      }
      expect(numRefused).toBeGreaterThan(5);
    });
  });

  /** One step of the slots from 0 on, with a row of logits for each. */
  function step(runner: NativeRunner, numSequences: number, more: Partial<RunInput> = {}): Promise<RunOutput> {
    const of = <T>(value: T) => Array.from({ length: numSequences }, () => value);
    const input: RunInput = {
      firstSlot: 0,
      lengths: of(1),
      tokenIds: of(5),
      logitRows: of(0).map((_, row) => row),
      temperatures: of(1),
      ...more,
    };
    return runner.run(input);
  }

  /**
   * What a step does to the first layer's state that does not depend on what ONNX Runtime computes: the window of a convolution
   * moves by one place; the difference of two matrices shrinks by each head's decay.
   */
  async function expectOneStep(runner: NativeRunner, name: string, seed: number): Promise<void> {
    const after = async (value: (i: number) => number) => {
      for (const slot of [0, 1]) await runner.writeSlot(slot, withTensor(runner, name, value));
      const before = tensorOf(runner, name, await runner.readSlot(0));
      await step(runner, 2);
      return { before, now: tensorOf(runner, name, await runner.readSlot(0)) };
    };
    const { shape } = runner.manifest.state.find((tensor) => tensor.name === name)!;
    const first = await after((i) => seed + i / 1000);
    if (name.startsWith("conv")) {
      const width = shape[1]!;
      expect(first.now.subarray(0, -width)).toEqual(first.before.subarray(width));
      expect(first.now.subarray(-width)).not.toEqual(first.before.subarray(-width));
      return;
    }
    const second = await after((i) => seed + (i % 7));
    const perHead = shape[1]! * shape[2]!;
    for (let head = 0; head < shape[0]!; head++) {
      const ratios = [1, 8, perHead - 1].map((i) => {
        const at = head * perHead + i;
        return (second.now[at]! - first.now[at]!) / (second.before[at]! - first.before[at]!);
      });
      for (const ratio of ratios) expect(ratio).toBeCloseTo(1 - 2 ** (-5 - head), 4);
    }
  }
});

/** Of one slot's state, the tensor's place, as f32. */
function placeOf(runner: NativeRunner, name: string): readonly [start: number, numBytes: number] {
  let start = 0;
  for (const tensor of runner.manifest.state) {
    if (tensor.name === name) return [start, tensorBytes(tensor)];
    start += tensorBytes(tensor);
  }
  throw new Error(`there is no state ${name}`);
}

function tensorOf(runner: NativeRunner, name: string, state: Uint8Array): Float32Array {
  const [start, numBytes] = placeOf(runner, name);
  return new Float32Array(state.slice(start, start + numBytes).buffer);
}

/** A state of zeros but for this tensor. */
function withTensor(runner: NativeRunner, name: string, value: (i: number) => number): Uint8Array {
  const [start, numBytes] = placeOf(runner, name);
  const state = new Uint8Array(runner.manifest.state.reduce((sum, tensor) => sum + tensorBytes(tensor), 0));
  state.set(new Uint8Array(Float32Array.from({ length: numBytes / 4 }, (_, i) => value(i)).buffer), start);
  return state;
}
