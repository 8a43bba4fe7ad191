/** What the suites run on: engines and runners opened from an artifact, closed again whatever happens. */
import { existsSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { ensureArtifact } from "../compiler/artifact-cache.ts";
import { RANDOM_SHAPES, type RandomShape, writeRandomCheckpoint } from "../compiler/random-checkpoint.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineObserver } from "../engine/observer.ts";
import type { Manifest, Precision } from "../model/artifact.ts";
import { type KernelLibrary, openRunner } from "../runtime/open.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import { writeNumberedTokenizer } from "./numbered-tokenizer.ts";

export interface Rig {
  readonly runtime: "native" | "portable";
  readonly threads: number;
  readonly cacheDir: string;
  /** Our own operators; undefined runs the plain lowering. */
  readonly kernels: KernelLibrary | undefined;
  /** Prompt tokens read between two decode steps. */
  readonly prefillChunk: number;
  readonly prefillStall: number;
}

export const MAX_BATCH = 32;

/** `mamba-4m` is the packaged model without its dense links, which no peer has. */
export const BENCH_SHAPES = {
  ...RANDOM_SHAPES,
  "mamba-4m": { ...RANDOM_SHAPES["densemamba-4m"], denseLayers: 0 },
} as const satisfies Record<string, RandomShape>;

export type ShapeName = keyof typeof BENCH_SHAPES;

/** Those that a processor runs fast. */
export const BENCH_PRECISIONS = ["f32", "int8", "int4"] as const satisfies readonly Precision[];
export type BenchPrecision = (typeof BENCH_PRECISIONS)[number];

const SILENT: EngineObserver = { onStep() {}, onSequenceEnd() {}, onStatus() {} };

export async function withRunner<T>(
  rig: Rig,
  artifactDir: string,
  use: (runner: ModelRunner) => Promise<T>,
): Promise<T> {
  const runner = await open(rig, artifactDir, MAX_BATCH);
  try {
    return await use(runner);
  } finally {
    await runner.close();
  }
}

export async function withEngine<T>(
  rig: Rig & { readonly maxBatch?: number },
  modelDir: string,
  use: (engine: Engine, manifest: Manifest) => Promise<T>,
): Promise<T> {
  const { maxBatch = MAX_BATCH, prefillChunk, prefillStall } = rig;
  const artifact = await artifactOf(rig, modelDir, "int8");
  const engine = new Engine({
    openRunner: () => open(rig, artifact.dir, maxBatch),
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

/** Random weights of a shape, compiled once, kept in the cache folder. */
export async function randomArtifact(
  rig: Rig,
  shape: ShapeName,
  precision: Precision,
): Promise<{ readonly dir: string; readonly manifest: Manifest }> {
  const modelDir = await randomCheckpoint(rig.cacheDir, shape);
  return artifactOf(rig, modelDir, precision);
}

function artifactOf({ cacheDir, kernels }: Rig, modelDir: string, precision: Precision) {
  return ensureArtifact({ modelDir, precision, cacheDir, lowering: kernels === undefined ? "plain" : "kernels" });
}

/** The folder of a checkpoint with random weights and a vocabulary, made once and kept in the cache folder. */
export async function randomCheckpoint(cacheDir: string, shape: ShapeName): Promise<string> {
  const modelDir = join(cacheDir, "bench", shape);
  if (!existsSync(join(modelDir, "tokenizer.json"))) {
    // Made elsewhere and moved into place: a bench that was cut off leaves no half checkpoint behind.
    const partial = `${modelDir}.${process.pid}`;
    await writeRandomCheckpoint({ outDir: partial, shape: BENCH_SHAPES[shape], seed: 1 });
    await writeNumberedTokenizer(partial, BENCH_SHAPES[shape].vocabSize);
    await rm(modelDir, { recursive: true, force: true });
    await rename(partial, modelDir);
  }
  return modelDir;
}

/** Flags of `densemamba serve` for a server that runs as the rig does. */
export function serveFlags({ runtime, threads, cacheDir, kernels, prefillChunk, prefillStall }: Rig): string[] {
  return [
    ...["--runtime", runtime, "--threads", `${threads}`, "--cache-dir", cacheDir],
    ...["--prefill-chunk", `${prefillChunk}`, "--prefill-stall", `${prefillStall}`],
    ...(kernels === undefined ? ["--kernels", "off"] : ["--kernel-library", kernels.path]),
  ];
}

function open({ runtime, threads, kernels }: Rig, artifactDir: string, numSlots: number): Promise<ModelRunner> {
  return openRunner(runtime, { artifactDir, numSlots, numThreads: threads, device: "cpu", kernels });
}
