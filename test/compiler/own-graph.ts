/**
 * Runs an artifact that is lowered to our own operators, through the native runner. Holds several
 * slots.
 */
import { rm } from "node:fs/promises";
import { compileModel } from "../../src/compiler/compile.ts";
import type { Precision } from "../../src/model/artifact.ts";
import { type StatePrecision, stateBytes } from "../../src/model/state.ts";
import { openKernels, openRunner } from "../../src/runtime/open.ts";
import type { ModelRunner } from "../../src/runtime/runner.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { readPasses } from "../helpers/read-pass.ts";

export interface OwnGraphOptions {
  readonly numSlots?: number;
  readonly numThreads?: number;
  /** In place of the best that this CPU has. */
  readonly instructionSet?: string;
  readonly statePrecision?: StatePrecision;
}

/**
 * False where the library could not be built before the tests: test/runtime/kernels.test.ts says
 * why.
 */
export const hasKernels = process.env.DENSEMAMBA_KERNEL_LIBRARY !== undefined;

export class OwnGraph {
  readonly runner: ModelRunner;
  readonly #dir: string;

  static async open(modelDir: string, precision: Precision, options: OwnGraphOptions = {}): Promise<OwnGraph> {
    const { numSlots = 4, numThreads = 2, instructionSet, statePrecision = "auto" } = options;
    const artifactDir = temporaryFolder();
    await compileModel({ modelDir, precision, statePrecision, lowering: "kernels", outDir: artifactDir });
    const kernels = await openKernels({
      libraryPath: process.env.DENSEMAMBA_KERNEL_LIBRARY,
      sourceDir: "kernels",
      cacheDir: ".cache",
      cc: "cc",
      target: "all",
      onBuild: () => {},
      ...(instructionSet === undefined ? {} : { instructionSet }),
    });
    const runner = await openRunner("native", { artifactDir, numSlots, numThreads, device: "cpu", kernels });
    return new OwnGraph(runner, artifactDir);
  }

  private constructor(runner: ModelRunner, dir: string) {
    this.runner = runner;
    this.#dir = dir;
  }

  /**
   * [B][T] tokens through slots 0 to B-1, cleared before, in passes of the given lengths.
   * @returns [B][T][V] logits
   */
  async read(tokens: readonly (readonly number[])[], lengths = [tokens[0]!.length]): Promise<Float32Array[][]> {
    for (const slot of tokens.keys()) await this.runner.clearSlot(slot);
    return this.continue(tokens, lengths);
  }

  /** The same from where the slots stand. */
  continue(tokens: readonly (readonly number[])[], lengths = [tokens[0]!.length]): Promise<Float32Array[][]> {
    return readPasses(this.runner, tokens, lengths);
  }

  /** A state that holds NaN everywhere. */
  poison(slot: number): Promise<void> {
    const state = new Float32Array(stateBytes(this.runner.manifest.state) / 4).fill(Number.NaN);
    return this.runner.writeSlot(slot, new Uint8Array(state.buffer));
  }

  async close(): Promise<void> {
    await this.runner.close();
    await rm(this.#dir, { recursive: true });
  }
}
