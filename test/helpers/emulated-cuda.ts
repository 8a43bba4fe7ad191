/**
 * Artifacts lowered for CUDA, run without a device: our own operators are the same source compiled
 * for a CPU (kernels/test/cuda_emulation.h), ONNX Runtime's are its CPU's, and the device's memory
 * is the host's.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { rm } from "node:fs/promises";
import { compileModel } from "../../src/compiler/compile.ts";
import { DenseMambaError } from "../../src/errors.ts";
import type { Precision } from "../../src/model/artifact.ts";
import type { CudaMemory } from "../../src/runtime/native/cuda-memory.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { type KernelLibrary, openKernels } from "../../src/runtime/open.ts";
import { temporaryFolder } from "./checkpoints.ts";
import { readPasses } from "./read-pass.ts";

const CXX = process.env.CXX || "c++";
export const canEmulateCuda = spawnSync(CXX, ["--version"]).status === 0 && process.platform === "linux";

export function emulatedKernels(): Promise<KernelLibrary> {
  return openKernels({
    libraryPath: undefined,
    sourceDir: "kernels",
    cacheDir: ".cache",
    cc: CXX,
    target: "emulated",
    onBuild: () => {},
  });
}

/** Counts what is taken and given back. */
function counted(memory: CudaMemory, maxBytes: number): CudaMemory & { readonly numTaken: () => number } {
  const taken = new Set<bigint>();
  return {
    ...memory,
    allocate(numBytes) {
      if (numBytes > maxBytes) throw new DenseMambaError("runtime_fault", `CUDA cannot allocate ${numBytes} bytes`);
      const address = memory.allocate(numBytes);
      taken.add(address);
      return address;
    },
    free(address) {
      if (!taken.delete(address)) throw new Error(`0x${address.toString(16)} is not the device's, or free already`);
      memory.free(address);
    },
    numTaken: () => taken.size,
  };
}

export class EmulatedCuda {
  readonly runner: NativeRunner;
  /** What the runner holds of the device's memory. */
  readonly numTaken: () => number;
  readonly #dir: string;

  /** `maxBytes`: of what one allocation may take. */
  static async open(
    modelDir: string,
    precision: Precision,
    { numSlots = 4, maxBytes = Number.POSITIVE_INFINITY } = {},
  ): Promise<EmulatedCuda> {
    const artifactDir = temporaryFolder();
    await compileModel({ modelDir, precision, lowering: "cuda", outDir: artifactDir });
    const kernels = await emulatedKernels();
    const memory = counted(kernels.memoryOn!(0n), maxBytes);
    const opening = NativeRunner.open({
      ...{ artifactDir, numSlots, numThreads: 1, device: "cuda", checked: true },
      kernels: { ...kernels, memoryOn: () => memory },
    });
    const runner = await opening.catch(async (error: unknown) => {
      await rm(artifactDir, { recursive: true });
      assert.equal(memory.numTaken(), 0, "memory was not given back");
      throw error;
    });
    return new EmulatedCuda(runner, artifactDir, memory.numTaken);
  }

  private constructor(runner: NativeRunner, dir: string, numTaken: () => number) {
    this.runner = runner;
    this.#dir = dir;
    this.numTaken = numTaken;
  }

  /**
   * [B][T] tokens through slots 0 to B-1 from where they stand, in passes of the given lengths.
   * @returns [B][T][V] logits
   */
  read(tokens: readonly (readonly number[])[], lengths = [tokens[0]!.length]): Promise<Float32Array[][]> {
    return readPasses(this.runner, tokens, lengths);
  }

  async clear(): Promise<void> {
    for (let slot = 0; slot < this.runner.numSlots; slot++) await this.runner.clearSlot(slot);
  }

  async close(): Promise<void> {
    await this.runner.close();
    await rm(this.#dir, { recursive: true });
  }
}
