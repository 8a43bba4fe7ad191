/**
 * ONNX Runtime's real CUDA provider on a simulated device (test/cuda-device/): what is captured and
 * replayed, what crosses the bus, and what is waited for. What its own kernels compute is not
 * computed, and nothing here depends on it.
 */
import { pbkdf2 } from "node:crypto";
import { rm } from "node:fs/promises";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import koffi from "koffi";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { PRECISIONS } from "../../src/model/artifact.ts";
import { stateBytes } from "../../src/model/state.ts";
import type { CudaMemory } from "../../src/runtime/native/cuda-memory.ts";
import type { KernelLibrary } from "../../src/runtime/native/kernel-library.ts";
import { onSimulatedCuda } from "../cuda-device/harness.ts";
import { hasProvider, type SimulatedCuda } from "../cuda-device/simulated-cuda.ts";
import { expectOneStep, step } from "../cuda-device/steps.ts";
import { randomCheckpoint, TINY_MAMBA2, TINY_RETNET, TINY_RWKV7, TINY_SHAPE } from "../helpers/checkpoints.ts";

const sources = await Promise.all(
  [
    { name: "DenseMamba", shape: TINY_SHAPE, ownKernels: ["convolve", "scan_step<Share>"] },
    { name: "Mamba", shape: { ...TINY_SHAPE, denseLayers: 0 }, ownKernels: ["convolve", "scan_step<Share>"] },
    { name: "DenseRetNet", shape: TINY_RETNET, ownKernels: ["(advance<16, 4>)"] },
    { name: "RetNet", shape: { ...TINY_RETNET, denseLayers: 0 }, ownKernels: ["(advance<16, 4>)"] },
    { name: "Mamba-2", shape: TINY_MAMBA2, ownKernels: ["convolve", "discretize", "(advance<16, 4>)"] },
    { name: "RWKV-7", shape: TINY_RWKV7, ownKernels: ["prepare", "(advance<16, 4>)", "finish"] },
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
      const state = runner.manifest.state.find(({ name }) => /^(conv|kv|att_shift)\.0$/.test(name))!;
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
      expect(await cost(() => expect(output.logitsOf(3)[0]).not.toBe(3))).toMatchObject({
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
      for (const slot of [0, NUM_SLOTS - 1]) expect(new Set(await runner.readSlot(slot))).toEqual(new Set([0]));
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
      const { crossing, synchronisations } = await cost(work);
      expect(synchronisations).toBe(3); // of the runs
      expect(Object.keys(crossing).toSorted()).toEqual(["device to pinned", "pinned to device"]);
      const { calls } = cuda.book();
      expect(Object.keys(calls).filter((name) => /Malloc|Alloc|Free/.test(name))).toEqual([]);
      const numBytes = stateBytes(runner.manifest.state);
      expect(await cost(() => runner.readSlot(0))).toMatchObject({ numBytes, synchronisations: 1 });
      expect(await cost(() => runner.writeSlot(0, new Uint8Array(numBytes)))).toMatchObject({
        numBytes,
        synchronisations: 1,
      });
    });
  });

  // Old bug: only the lower half of each id was written, over what another shape's run had there.
  it("gives the device the ids that it was given, whatever was in their place before", async () => {
    const inputs: bigint[][] = [];
    const kernels: KernelLibrary = {
      ...cuda.kernels,
      memoryOn: (stream) => {
        const memory = cuda.kernels.memoryOn!(stream);
        const copy: CudaMemory["copy"] = (copies) => {
          const [first] = copies;
          inputs.push([...new BigInt64Array(koffi.view(first!.from, first!.numBytes))]);
          memory.copy(copies);
        };
        return { ...memory, copy };
      },
    };
    const { runner } = await open(sources[0]!.modelDir, { kernels, numSlots: 40 });
    const prompt = Array.from({ length: 70 }, (_, i) => i);
    const rows = { logitRows: prompt, temperatures: prompt.map(() => 0.7) };
    for (const run of [
      () => runner.run({ firstSlot: 0, lengths: [70], tokenIds: prompt, ...rows }),
      () => step(runner, 3),
      () => runner.run({ firstSlot: 1, lengths: [70], tokenIds: prompt, ...rows }),
    ]) {
      await run();
    }
    const ids = prompt.map(BigInt);
    expect(inputs.at(-1)!.slice(0, 70)).toEqual(ids);
    const afterIds = Math.ceil((70 * 8) / 256) * 32;
    expect(inputs.at(-1)!.slice(afterIds, afterIds + 70)).toEqual(ids);
    expect(inputs[0]!.slice(0, 70)).toEqual(ids);
  });

  it("runs two models side by side, one stream each, and captures each one's steps", async () => {
    let timeMs = 0;
    let numCalls = 0;
    const now = () => (timeMs += numCalls++ % 6 < 3 ? 100 : 0);
    const opened = await Promise.all([open(sources[1]!.modelDir, { now }), open(sources[3]!.modelDir, { now })]);
    const runners = opened.map(({ runner }) => runner);
    cuda.reset();
    const states = ["conv.0", "kv.0"];
    await Promise.all(
      runners.map(async (runner, i) => {
        for (let seed = 0; seed < 6; seed++) {
          await expectOneStep(runner, states[i]!, seed);
          await step(runner, 1 + (seed % 3));
          await runner.run({ firstSlot: 3, lengths: [4], tokenIds: [1, 2, 3, 4], logitRows: [3], temperatures: [1] });
        }
      }),
    );
    expect(cuda.book().captures).toBe(6);
    await runners[0]!.close();
    await expectOneStep(runners[1]!, "kv.0", 7);
    for (const { notes } of opened) expect(notes).toEqual([]);
  });

  it.each([
    { name: "a first step", numStepsBefore: 0 },
    { name: "a step that is replayed", numStepsBefore: 2 },
  ])("closes in the middle of $name, and says nothing of captures", async ({ numStepsBefore }) => {
    for (const turns of [0, 1, 2, 5]) {
      const { runner, notes } = await cuda.open(sources[0]!.modelDir, { now: () => performance.now() * 1000 });
      for (let i = 0; i < numStepsBefore; i++) await step(runner, 2);
      const ended = step(runner, 2).catch((error: unknown) => error as DenseMambaError);
      for (let i = 0; i < turns; i++) await new Promise(setImmediate);
      await runner.close();
      const result = await ended;
      if (result instanceof DenseMambaError) expect(result.code).toBe("runtime_fault");
      expect(notes).toEqual([]);
      const { numBlocks, handles } = cuda.book();
      expect({ numBlocks, handles }).toEqual({ numBlocks: 0, handles: {} });
    }
  });

  // Old bug: they were the garbage collector's as soon as the call had been handed to another
  // thread.
  it("keeps the list of a step's copies until another thread has made them", async () => {
    setFlagsFromString("--expose-gc");
    const collectGarbage: () => void = runInNewContext("gc");
    const streams = cuda.kernels.streams!;
    const stream = streams.createStream();
    const NUM_COPIES = 500;
    const [from, to] = [streams.allocatePinned(NUM_COPIES), streams.allocatePinned(NUM_COPIES)];
    const copies = Array.from({ length: NUM_COPIES }, (_, i) => ({
      to: to.address + BigInt(i),
      from: from.address + BigInt(i),
      numBytes: 1,
    }));
    new Uint8Array(from.data).fill(7);
    for (let i = 0; i < 4; i++) {
      new Uint8Array(to.data).fill(0);
      // All of libuv's threads are busy: what comes next has to wait.
      const busy = Array.from({ length: 4 }, () => promisify(pbkdf2)("a", "b", 20_000, 64, "sha512"));
      const finished = streams.finish({ stream, copies });
      const taken: BigUint64Array[] = [];
      for (let turn = 0; turn < 5; turn++) {
        collectGarbage();
        await new Promise(setImmediate);
        for (let k = 0; k < 50; k++) taken.push(new BigUint64Array(new ArrayBuffer(NUM_COPIES * 24)).fill(0n));
      }
      await finished;
      await Promise.all(busy);
      expect(taken).toHaveLength(250);
      expect(new Uint8Array(to.data)).toEqual(new Uint8Array(NUM_COPIES).fill(7));
    }
    for (const memory of [from, to]) streams.freePinned(memory);
    streams.destroyStream(stream);
  });
});
