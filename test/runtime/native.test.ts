/**
 * What only the native runner has to prove: that C objects are released once and not used after
 * that, that nothing piles up, and that the output memory it hands out is guarded.
 */
import { AssertionError } from "node:assert";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import koffi from "koffi";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { type Handle, OrtApi } from "../../src/runtime/native/ort-api.ts";
import { NameArray, PointerArray } from "../../src/runtime/native/pointer-array.ts";
import { loadSharedLibrary } from "../../src/runtime/native/shared-library.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { CompiledTiny } from "../helpers/compiled-tiny.ts";

const NUM_SLOTS = 4;
/** In each of the windows in which memory is watched. */
const NUM_DECODES = 1000;
/** What a run may leave behind: less than the smallest object that C code makes for one. */
const LEAK_BYTES = 400;

let artifact: CompiledTiny;
beforeAll(async () => {
  artifact = await CompiledTiny.create();
});
afterAll(() => artifact.remove());

function options(artifactDir = artifact.dir) {
  return { artifactDir, numSlots: NUM_SLOTS, numThreads: 1, device: "cpu" } as const;
}

/** Of this process, those that are to have large pages. */
function countHugeRegions(): number {
  return readFileSync("/proc/self/smaps", "utf8").match(/^VmFlags:.* hg\b/gm)?.length ?? 0;
}

/** Decoding `numSequences` after `numSteps` of prefill: the shapes change like an engine's. */
async function step(runner: NativeRunner, numSequences: number, numSteps: number): Promise<void> {
  const numTokens = numSequences * numSteps;
  await runner.run({
    firstSlot: NUM_SLOTS - numSequences,
    lengths: new Array<number>(numSequences).fill(numSteps),
    tokenIds: new Int32Array(numTokens).fill(7),
    logitRows: Array.from({ length: numSequences }, (_, row) => row),
    temperatures: new Float32Array(numSequences).fill(1),
  });
}

function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
}

/**
 * Bytes that C code has allocated and not freed, by glibc's own count: unlike resident memory, it
 * does not move with pages that allocators and V8 keep. Undefined with a C library that does not
 * count.
 */
function openMallocCounter(): (() => number) | undefined {
  const fields = [
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
  ];
  try {
    const libc = loadSharedLibrary("libc.so.6");
    const info = koffi.struct(Object.fromEntries(fields.map((field) => [field, "size_t"])));
    const mallinfo2 = libc.func("mallinfo2", info, []) as () => { hblkhd: number; uordblks: number };
    return () => {
      const { uordblks, hblkhd } = mallinfo2();
      return libc && uordblks + hblkhd; // naming the library here keeps it loaded
    };
  } catch {
    return undefined;
  }
}

it.runIf(existsSync("/sys/kernel/mm/transparent_hugepage"))("asks for large pages under the states", async () => {
  const before = countHugeRegions();
  const runner = await NativeRunner.open({ ...options(), numSlots: 4096 });
  try {
    expect(countHugeRegions()).toBeGreaterThan(before);
  } finally {
    await runner.close();
  }
});

describe("handles of the C API", () => {
  const api = new OrtApi({ checked: true });

  it("cannot be released twice", () => {
    const env = api.createEnv();
    api.release(env);
    expect(() => api.release(env)).toThrow(AssertionError);
    api.assertNothingLive();
  });

  it("cannot be used after release", () => {
    const memoryInfo = api.createCpuMemoryInfo();
    api.release(memoryInfo);
    expect(() => api.createTensor(memoryInfo, "float32", new Float32Array(new ArrayBuffer(4)), [1])).toThrow(
      /use after release: OrtMemoryInfo/,
    );
    api.assertNothingLive();
  });

  it("are reported when they are never released", () => {
    const runOptions = api.createRunOptions();
    expect(() => api.assertNothingLive()).toThrow(/never released: OrtRunOptions/);
    api.release(runOptions);
    api.assertNothingLive();
  });

  it("inside a run's arrays are checked before the call", () => {
    const data = new Float32Array(new ArrayBuffer(4));
    const memoryInfo = api.createCpuMemoryInfo();
    const value = api.createTensor(memoryInfo, "float32", data, [1]);
    const inputs = new PointerArray(1);
    inputs.values[0] = value.address;
    api.release(value);
    const notReached = {} as Handle;
    expect(() =>
      api.run({
        session: notReached,
        runOptions: notReached,
        inputNames: new NameArray(["x"]),
        inputs,
        outputNames: new NameArray([]),
        outputs: new PointerArray(0),
        firstOutput: 0,
      }),
    ).toThrow(/use after release: the run's value/);
    api.release(memoryInfo);
    api.assertNothingLive();
  });

  it("carry ONNX Runtime's message when they cannot be made", () => {
    const memoryInfo = api.createCpuMemoryInfo();
    const tooSmall = new Float32Array(new ArrayBuffer(4));
    expect(() => api.createTensor(memoryInfo, "float32", tooSmall, [2])).toThrow(DenseMambaError);
    expect(() => api.createTensor(memoryInfo, "float32", tooSmall, [2])).toThrow(/ONNX Runtime: .+/);
    api.release(memoryInfo);
    api.assertNothingLive();
  });
});

describe("native runner", () => {
  it("releases all it made, also after a failed load", async () => {
    const runner = await NativeRunner.open({ ...options(), checked: true });
    // More shapes than are kept, so that old ones are released on the way.
    for (let numSteps = 1; numSteps <= 40; numSteps++) await step(runner, 1 + (numSteps % 3), numSteps);
    await runner.close(); // asserts that nothing is live
    const dir = await artifact.withTruncatedGraph("leak", 1000);
    await expect(NativeRunner.open({ ...options(dir), checked: true })).rejects.toThrow(DenseMambaError);
  });

  it("keeps a bounded number of C objects, and its memory, however many shapes come by", async () => {
    const runner = await NativeRunner.open({ ...options(), checked: true });
    const run = async (numRuns: number) => {
      for (let index = 0; index < numRuns; index++) await step(runner, 1 + (index % NUM_SLOTS), 1 + (index % 37));
    };
    await run(2 * 148); // every pair twice: more shapes than are kept, and the buffers have grown
    const { numLive } = runner;
    const countMalloc = openMallocCounter();
    const sizes: number[] = [];
    for (let window = 0; window < 4; window++) {
      await run(148);
      for (let index = 0; index < NUM_DECODES; index++) await step(runner, 1, 1);
      expect(runner.numLive).toBe(numLive);
      collectGarbage();
      if (countMalloc) sizes.push(countMalloc());
    }
    await runner.close();
    // V8 and the compilers move it by some 0.4 MB to and fro; a leak adds up over three windows.
    if (countMalloc) expect(Math.min(...sizes.slice(2)) - sizes[0]!).toBeLessThan(2 * NUM_DECODES * LEAK_BYTES);
  });

  // koffi unloads a library when its handle is collected, even while functions decoded from its
  // pointers remain: with the handle dropped after loading, a process crashed at some later call.
  it("outlives the collection of garbage, between runs and in one", async () => {
    const child = path.join(import.meta.dirname, "garbage-child.ts");
    const args = ["--expose-gc", "--import", import.meta.resolve("tsx"), child, artifact.dir];
    await promisify(execFile)(process.execPath, args);
  });

  it("refuses to write into output memory that its caller transferred away", async () => {
    const runner = await NativeRunner.open({ ...options(), checked: true });
    const input = { firstSlot: 0, lengths: [1], tokenIds: [1], logitRows: [0], temperatures: [1] };
    const logits = (await runner.run(input)).logitsOf(0);
    structuredClone(logits, { transfer: [logits.buffer as ArrayBuffer] });
    await expect(runner.run(input)).rejects.toThrow(/transferred away/);
    await runner.close();
  });

  it("cuts a long run short when it is closed", async () => {
    const numSteps = 20_000;
    const runner = await NativeRunner.open({ ...options(), checked: true });
    const running = step(runner, 1, numSteps).catch((error: unknown) => error);
    const startMs = performance.now();
    await runner.close();
    const closedMs = performance.now() - startMs;
    expect(await running).toMatchObject({ code: "runtime_fault" });
    const whole = await NativeRunner.open({ ...options(), checked: true });
    const wholeStartMs = performance.now();
    await step(whole, 1, numSteps);
    expect(closedMs).toBeLessThan((performance.now() - wholeStartMs) / 2);
    await whole.close();
  });
});

describe.runIf(!new OrtApi().providers.includes("CUDAExecutionProvider"))("without CUDA libraries", () => {
  it.each(["native", "portable"] as const)(
    "the %s runner refuses device cuda and names what there is",
    async (kind) => {
      const opening = openRunner(kind, { ...options(), device: "cuda" });
      await expect(opening).rejects.toMatchObject({ code: "device_unavailable" });
      await expect(opening).rejects.toThrow(/CPUExecutionProvider/);
    },
  );
});
