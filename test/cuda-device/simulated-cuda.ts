/**
 * ONNX Runtime's real CUDA provider on a device that does not exist: loads both into this process,
 * opens runners on them, and reads the device's book. README.md says what that shows and what not.
 */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { LibraryHandle } from "koffi";
import { compileModel } from "../../src/compiler/compile.ts";
import type { LoweringKind, Precision } from "../../src/model/artifact.ts";
import { openKernels } from "../../src/runtime/native/kernel-library.ts";
import { NativeRunner, type NativeRunnerOptions } from "../../src/runtime/native/native-runner.ts";
import { loadSharedLibrary } from "../../src/runtime/native/shared-library.ts";
import type { KernelLibrary } from "../../src/runtime/open.ts";
import { buildSimulatedDevice, type SimulatedLibraries } from "./build.ts";

export const PROVIDER_FOLDER = path.resolve(".cache/cuda-provider/1.30.0");
export const PROVIDER = path.join(PROVIDER_FOLDER, "libonnxruntime_providers_cuda.so");

/** Whether fetch-provider.sh has been run. */
export const hasProvider =
  process.platform === "linux" && process.arch === "x64" && existsSync(path.join(PROVIDER_FOLDER, "complete"));

/**
 * Since the last reset, but for what is allocated. Counts are by the name of a function, a kernel,
 * or `pageable to device`.
 */
export interface Book {
  readonly calls: Readonly<Record<string, number>>;
  readonly launches: Readonly<Record<string, number>>;
  readonly copies: Readonly<Record<string, number>>;
  readonly copiedBytes: Readonly<Record<string, number>>;
  /** What a device would refuse or ruin. */
  readonly illegal: readonly string[];
  /** Functions called that the simulation lacks. */
  readonly unsupported: readonly string[];
  readonly captures: number;
  readonly replays: number;
  readonly synchronisations: number;
  readonly numBlocks: number;
  readonly numBytes: number;
  /** Streams, events, graphs and handles of cuBLAS that have not been destroyed, by their kind. */
  readonly handles: Readonly<Record<string, number>>;
}

export interface Fault {
  /** A function's name; `*`: any. */
  readonly call: string;
  /** CUDA's number. */
  readonly error: number;
  /** How many calls succeed before. */
  readonly after?: number;
  /** Whether all that follow fail too. */
  readonly stays?: boolean;
}

export function simulatedLibraries(): Promise<SimulatedLibraries> {
  return buildSimulatedDevice(PROVIDER);
}

export class SimulatedCuda {
  readonly kernels: KernelLibrary;
  /** ONNX Runtime's, with the provider beside it. */
  readonly ortLibrary = path.join(PROVIDER_FOLDER, "libonnxruntime.so.1");
  /** Held, or they are unloaded. */
  readonly #libraries: readonly LibraryHandle[];
  /** The device's own `libcudart.so.13`. */
  readonly runtime: LibraryHandle;
  /** And its `libcublas.so.13`. */
  readonly blas: LibraryHandle;
  /** By model, precision and lowering. */
  readonly #artifacts = new Map<string, Promise<string>>();
  readonly #book: () => string;
  readonly #reset: () => void;
  readonly #fail: (call: string, after: number, error: number, stays: boolean) => void;

  /**
   * NOTE: before anything loads the provider, which finds the device's libraries by their names
   * among those that are loaded.
   */
  static async load(): Promise<SimulatedCuda> {
    const paths = await simulatedLibraries();
    const libraries = paths.device.map((library) => loadSharedLibrary(library));
    const kernels = await openKernels({
      ...{ libraryPath: paths.kernels, target: "cuda", sourceDir: "kernels", cacheDir: ".cache", cc: "" },
      onBuild: () => {},
    });
    return new SimulatedCuda(libraries, kernels);
  }

  private constructor(libraries: readonly LibraryHandle[], kernels: KernelLibrary) {
    this.#libraries = libraries;
    this.kernels = kernels;
    this.runtime = this.#libraries[0]!;
    this.blas = this.#libraries[2]!;
    this.#book = this.runtime.func("simulated_cuda_book", "str", []);
    this.#reset = this.runtime.func("simulated_cuda_reset", "void", []);
    this.#fail = this.runtime.func("simulated_cuda_fail", "void", ["str", "long", "int", "bool"]);
  }

  book(): Book {
    return JSON.parse(this.#book());
  }

  /** Of the book's counts; and of faults that have not come. */
  reset(): void {
    this.#reset();
  }

  /** What is left allocated, after a test that makes freeing fail; and the book with it. */
  forget(): void {
    this.runtime.func("simulated_cuda_forget", "void", [])();
    this.reset();
  }

  /** The address of the one block of the device's that has this size. */
  findBlock(numBytes: number): bigint {
    return this.runtime.func("simulated_cuda_find_block", "void *", ["size_t"])(numBytes);
  }

  /**
   * Of all threads the last errors. A session that ends while every call fails leaves some behind,
   * on libuv's threads too, of which a later run would be told.
   */
  forgetErrors(): void {
    this.runtime.func("simulated_cuda_forget_errors", "void", [])();
  }

  fail({ call, error, after = 0, stays = false }: Fault): void {
    this.#fail(call, after, error, stays);
  }

  async openArtifact(artifactDir: string, options: OpenArtifactOptions = {}): Promise<SimulatedRunner> {
    const { lowering = "cuda", ...runnerOptions } = options;
    const notes: string[] = [];
    const runner = await NativeRunner.open({
      ...{ artifactDir, numSlots: 4, numThreads: 1, device: "cuda", checked: true, ortLibrary: this.ortLibrary },
      kernels: lowering === "cuda" ? this.kernels : undefined,
      note: (message) => notes.push(message),
      ...runnerOptions,
    });
    return { runner, notes };
  }

  /** A runner over the model compiled for the device. `lowering` `plain`: as without nvcc. */
  async open(modelDir: string, options: OpenOptions = {}): Promise<SimulatedRunner> {
    const { precision = "f32", lowering = "cuda", ...runnerOptions } = options;
    return this.openArtifact(await this.compile(modelDir, precision, lowering), { lowering, ...runnerOptions });
  }

  /** @returns the artifact's folder, which lasts until `removeArtifacts` */
  compile(modelDir: string, precision: Precision = "f32", lowering: LoweringKind = "cuda"): Promise<string> {
    const key = `${modelDir} ${precision} ${lowering}`;
    const compiling = async () => {
      const outDir = await mkdtemp(path.join(tmpdir(), "densemamba-simulated-"));
      await compileModel({ modelDir, precision, lowering, outDir });
      return outDir;
    };
    const artifact = this.#artifacts.get(key) ?? compiling();
    this.#artifacts.set(key, artifact);
    return artifact;
  }

  async removeArtifacts(): Promise<void> {
    const folders = await Promise.all(this.#artifacts.values());
    await Promise.all(folders.map((folder) => rm(folder, { recursive: true })));
    this.#artifacts.clear();
  }
}

export type OpenArtifactOptions = Omit<OpenOptions, "precision">;

export interface OpenOptions extends Partial<NativeRunnerOptions> {
  readonly precision?: Precision;
  readonly lowering?: LoweringKind;
}

export interface SimulatedRunner {
  readonly runner: NativeRunner;
  /** What it said of itself. */
  readonly notes: readonly string[];
}
