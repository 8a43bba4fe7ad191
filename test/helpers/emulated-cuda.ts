/**
 * Artifacts lowered for CUDA, run without a device: our own operators are the same source compiled
 * for a CPU (kernels/test/cuda_emulation.h), ONNX Runtime's are its CPU's, and states are in the
 * host's memory.
 */
import { spawnSync } from "node:child_process";
import { rm } from "node:fs/promises";
import { compileModel } from "../../src/compiler/compile.ts";
import type { Precision } from "../../src/model/artifact.ts";
import type { StatePrecision } from "../../src/model/state.ts";
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

export class EmulatedCuda {
  readonly runner: NativeRunner;
  readonly #dir: string;

  static async open(
    modelDir: string,
    precision: Precision,
    statePrecision: StatePrecision = "auto",
  ): Promise<EmulatedCuda> {
    const artifactDir = temporaryFolder();
    await compileModel({ modelDir, precision, statePrecision, lowering: "cuda", outDir: artifactDir });
    const runner = await NativeRunner.open({
      ...{ artifactDir, numSlots: 4, numThreads: 1, device: "cuda", checked: true },
      kernels: await emulatedKernels(),
    });
    return new EmulatedCuda(runner, artifactDir);
  }

  private constructor(runner: NativeRunner, dir: string) {
    this.runner = runner;
    this.#dir = dir;
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
