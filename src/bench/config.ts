/**
 * How models are run while they are measured, and what opens them: engines and runners, closed
 * again whatever happens.
 */
import { performance } from "node:perf_hooks";
import { ensureArtifact } from "../compiler/artifact-cache.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineObserver } from "../engine/observer.ts";
import type { Manifest, Precision } from "../model/artifact.ts";
import type { StatePrecision } from "../model/state.ts";
import { type KernelLibrary, openRunner } from "../runtime/open.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import type { ReadBandwidth } from "./bandwidth.ts";
import { randomCheckpoint, type ShapeName } from "./random-model.ts";

export interface BenchConfig {
  readonly runtime: "native" | "portable";
  readonly threads: number;
  readonly cacheDir: string;
  /** Our own operators; undefined runs the plain lowering. */
  readonly kernels: KernelLibrary | undefined;
  readonly statePrecision: StatePrecision;
  /** Prompt tokens read between two decode steps. */
  readonly prefillChunk: number;
  readonly prefillStall: number;
}

/** What every suite of `densemamba bench` is given. */
export interface SuiteContext extends BenchConfig {
  /** Checkpoint folder of the model that all suites run but those with random weights. */
  readonly modelDir: string;
  /** Of the random weights, in the suites that let the user choose. */
  readonly shape: ShapeName;
  /** Of the suite `shape`: all that a processor runs fast, or one. */
  readonly precisions: readonly Precision[];
  /** To measure the memory in turns with what it limits. */
  readonly memory: ReadBandwidth;
  /** Bytes per second, the best when the run began. */
  readonly bandwidth: number;
  /** Length of the `session` suite. */
  readonly sessionTokens: number;
  /** For progress. */
  readonly print: (line: string) => void;
}

export const MAX_BATCH = 32;

/** Those that a processor runs fast. */
export const BENCH_PRECISIONS = ["f32", "int8", "int4"] as const satisfies readonly Precision[];
export type BenchPrecision = (typeof BENCH_PRECISIONS)[number];

const SILENT: EngineObserver = { onStep() {}, onSequenceEnd() {}, onStatus() {} };

export async function withRunner<T>(
  config: BenchConfig,
  artifactDir: string,
  use: (runner: ModelRunner) => Promise<T>,
): Promise<T> {
  const runner = await open(config, artifactDir, MAX_BATCH);
  try {
    return await use(runner);
  } finally {
    await runner.close();
  }
}

/** In 8 bits. */
export async function withEngine<T>(
  config: BenchConfig & { readonly maxBatch?: number },
  modelDir: string,
  use: (engine: Engine, manifest: Manifest) => Promise<T>,
): Promise<T> {
  const { maxBatch = MAX_BATCH, prefillChunk, prefillStall } = config;
  const artifact = await artifactOf(config, modelDir, "int8");
  const engine = new Engine({
    openRunner: () => open(config, artifact.dir, maxBatch),
    limits: { maxBatch, maxQueue: 1024, prefillChunk, maxStall: prefillStall },
    observer: SILENT,
    now: () => performance.now(),
    random: Math.random,
  });
  await engine.start();
  try {
    return await use(engine, artifact.manifest);
  } finally {
    await engine.close({ deadlineMs: 0 });
  }
}

/** Random weights of a shape, compiled once and kept in the cache folder. */
export async function randomArtifact(
  config: BenchConfig,
  shape: ShapeName,
  precision: Precision,
): Promise<{ readonly dir: string; readonly manifest: Manifest }> {
  return artifactOf(config, await randomCheckpoint(config.cacheDir, shape), precision);
}

function artifactOf({ cacheDir, kernels, statePrecision }: BenchConfig, modelDir: string, precision: Precision) {
  const lowering = kernels === undefined ? "plain" : "kernels";
  return ensureArtifact({ modelDir, precision, statePrecision, cacheDir, lowering });
}

/** Flags that make `densemamba serve` run a model the same way. */
export function serveFlags(config: BenchConfig): string[] {
  const { runtime, threads, cacheDir, kernels, statePrecision, prefillChunk, prefillStall } = config;
  return [
    ...["--runtime", runtime, "--threads", `${threads}`, "--cache-dir", cacheDir],
    ...["--state-precision", statePrecision],
    ...["--prefill-chunk", `${prefillChunk}`, "--prefill-stall", `${prefillStall}`],
    ...(kernels === undefined ? ["--kernels", "off"] : ["--kernel-library", kernels.path]),
  ];
}

function open({ runtime, threads, kernels }: BenchConfig, artifactDir: string, numSlots: number): Promise<ModelRunner> {
  return openRunner(runtime, { artifactDir, numSlots, numThreads: threads, device: "cpu", kernels });
}
