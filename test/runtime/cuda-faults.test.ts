/**
 * ONNX Runtime's real CUDA provider on a simulated device (test/cuda-device/) that refuses what it
 * is asked for: what a runner does then, and that it gives everything back.
 */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { LostDeviceError } from "../../src/runtime/native/cuda-error.ts";
import {
  CAPTURE_INVALIDATED,
  DEVICE_UNAVAILABLE,
  LAUNCH_FAILED,
  NO_KERNEL_IMAGE,
  OUT_OF_MEMORY,
  UNKNOWN,
} from "../cuda-device/errors.ts";
import { onSimulatedCuda } from "../cuda-device/harness.ts";
import { hasProvider, type SimulatedCuda } from "../cuda-device/simulated-cuda.ts";
import { expectOneStep, step } from "../cuda-device/steps.ts";
import { randomCheckpoint, TINY_SHAPE } from "../helpers/checkpoints.ts";

const LOWERINGS = ["cuda", "plain"] as const;

const modelDir = await randomCheckpoint(TINY_SHAPE);
afterAll(() => rm(modelDir, { recursive: true }));

describe.runIf(hasProvider)("a runner on a CUDA device, when a call fails", () => {
  const harness = onSimulatedCuda();
  const { open } = harness;
  let cuda: SimulatedCuda;
  beforeAll(() => {
    ({ cuda } = harness);
  });

  it.each(LOWERINGS)(
    "opens nothing on a device that fails, lowered to %s: auto goes on to the CPU, and a lost device is told apart",
    async (lowering) => {
      const artifactDir = await cuda.compile(modelDir, "f32", lowering);
      const open = async (): Promise<DenseMambaError | undefined> => {
        const opened = await cuda.openArtifact(artifactDir, { lowering }).catch((error: unknown) => error as Error);
        cuda.reset();
        if (opened instanceof DenseMambaError) return opened;
        if (opened instanceof Error) throw opened;
        return opened.runner.close().then(() => undefined);
      };
      await open();
      await cuda.openArtifact(artifactDir, { lowering }).then(({ runner }) => runner.close());
      const calls = Object.keys(cuda.book().calls);
      for (const call of ["*", ...calls]) {
        cuda.fail({ call, error: LAUNCH_FAILED, stays: true });
        const error = await open();
        if (error === undefined && /Free|Destroy|StreamQuery/.test(call)) continue; // at the close
        expect({ call, code: error?.code }).toEqual({ call, code: "device_unavailable" });
        expect(error!.message).toMatch(
          /^the CUDA device (cannot run|does not have the memory for) \S+ with 4 slots: .{1,250}$/s,
        );
        // ONNX Runtime does not say why there is no memory; cuBLAS has numbers of its own.
        if (!/Malloc|cublas/.test(call)) {
          expect({ call, isLost: error instanceof LostDeviceError }).toEqual({ call, isLost: true });
        }
      }
      cuda.fail({ call: "*", error: DEVICE_UNAVAILABLE, stays: true });
      const error = await open();
      expect(error).toMatchObject({ code: "device_unavailable", message: expect.stringContaining("cudaError46") });
      expect(error).not.toBeInstanceOf(LostDeviceError);
      cuda.forget();
      cuda.forgetErrors();
    },
    200_000,
  );

  it("fails the next run as well when a row cannot be fetched between runs", async () => {
    const { runner } = await open(modelDir);
    const output = await step(runner, 2);
    cuda.fail({ call: "cudaStreamSynchronize", error: LAUNCH_FAILED });
    expect(() => output.logitsOf(1)).toThrow("CUDA cannot copy memory");
    await expect(step(runner, 2)).rejects.toMatchObject({ code: "runtime_fault" });
  });

  it("knows a library that has no code for the device", () => {
    const find = cuda.kernels.findMissingCode!;
    expect(find()).toBeUndefined();
    cuda.fail({ call: "cudaFuncGetAttributes", error: NO_KERNEL_IMAGE });
    expect(find()).toBe("no kernel image is available for execution on the device");
    cuda.fail({ call: "cudaFuncGetAttributes", error: DEVICE_UNAVAILABLE });
    expect(find()).toBeUndefined(); // opening will tell
  });

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

  it.each(["cudaGraphLaunch", "cudaStreamQuery"])(
    "rejects a step whose %s fails, and gives everything back at the close",
    async (call) => {
      const { runner } = await open(modelDir);
      await step(runner, 2);
      await step(runner, 2);
      cuda.fail({ call, error: LAUNCH_FAILED });
      await expect(step(runner, 2)).rejects.toMatchObject({
        code: "runtime_fault",
        message: expect.stringMatching(/^CUDA cannot (launch|finish) a step: /),
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

  it.each(LOWERINGS)(
    "survives any one call that fails in a runner's life, lowered to %s, and all is given back",
    async (lowering) => {
      const live = async () => {
        const { runner } = await cuda.open(modelDir, { lowering });
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
        // ONNX Runtime ends the process where it cannot free pinned memory.
        if (lowering === "plain" && call === "cudaFreeHost") continue;
        const places = lowering === "cuda" ? [0, Math.floor(count / 2), count - 1] : [0];
        for (const after of new Set(places)) {
          cuda.reset();
          cuda.fail({ call, error: UNKNOWN, after });
          const { numBlocks } = cuda.book();
          const result: unknown = await live().catch((error: unknown) => error);
          if (result !== undefined) expect(result).toBeInstanceOf(DenseMambaError);
          // What cannot be freed stays, that alone.
          const numKept = cuda.book().numBlocks - numBlocks;
          if (/^cuda(Free|LaunchHostFunc)/.test(call)) expect(numKept).toBeLessThanOrEqual(1);
          else expect({ call, after, numKept }).toEqual({ call, after, numKept: 0 });
        }
      }
      cuda.forget();
    },
    200_000,
  );

  it.each(LOWERINGS)(
    "outlives a device that is lost for good in the middle of a run, lowered to %s",
    async (lowering) => {
      const { runner } = await cuda.open(modelDir, { lowering });
      await step(runner, 2);
      cuda.fail({ call: "*", error: LAUNCH_FAILED, stays: true });
      await expect(step(runner, 2)).rejects.toMatchObject({ code: "runtime_fault" });
      await expect(runner.close()).rejects.toBeInstanceOf(LostDeviceError);
      cuda.forget();
      cuda.forgetErrors();
    },
  );

  it.each(LOWERINGS)(
    "opens nothing where the memory ends, wherever that is, lowered to %s, and keeps nothing",
    async (lowering) => {
      let numRefused = 0;
      for (let isOpen = false; !isOpen; numRefused++) {
        cuda.reset();
        cuda.fail({ call: "cudaMalloc", error: OUT_OF_MEMORY, after: numRefused, stays: true });
        const result = await cuda.open(modelDir, { lowering }).catch((error: unknown) => error as DenseMambaError);
        isOpen = "runner" in result;
        if ("runner" in result) harness.closeAfterwards(result.runner);
        else {
          // So that `--device auto` goes on to the CPU.
          expect(result.code).toBe("device_unavailable");
          expect(result.message).toMatch(
            /^the CUDA device does not have the memory for \S+ with 4 slots: .*(out of memory|Failed to allocate)/,
          );
          expect(cuda.book().numBlocks).toBe(0);
        }
      }
      expect(numRefused).toBeGreaterThan(5);
    },
  );
});
