/** What the suites run on: engines and runners opened from an artifact, closed again whatever happens. */
import { existsSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { ensureArtifact } from "../compiler/artifact-cache.ts";
import { RANDOM_SHAPES, writeRandomCheckpoint } from "../compiler/random-checkpoint.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineObserver } from "../engine/observer.ts";
import type { Manifest, Precision } from "../model/artifact.ts";
import { openRunner } from "../runtime/open.ts";
import type { ModelRunner } from "../runtime/runner.ts";

export interface Rig {
  readonly runtime: "native" | "portable";
  readonly threads: number;
  readonly cacheDir: string;
}

export const MAX_BATCH = 32;

export type ShapeName = keyof typeof RANDOM_SHAPES;

const SILENT: EngineObserver = { onStep() {}, onSequenceEnd() {}, onStatus() {} };

export async function withRunner<T>(
  rig: Rig,
  artifactDir: string,
  use: (runner: ModelRunner) => Promise<T>,
): Promise<T> {
  const runner = await open(rig, artifactDir);
  try {
    return await use(runner);
  } finally {
    await runner.close();
  }
}

export async function withEngine<T>(rig: Rig, modelDir: string, use: (engine: Engine) => Promise<T>): Promise<T> {
  const artifact = await ensureArtifact({ modelDir, precision: "int8", cacheDir: rig.cacheDir });
  const engine = new Engine({
    openRunner: () => open(rig, artifact.dir),
    limits: { maxBatch: MAX_BATCH, maxQueue: 1024, prefillChunk: 128 },
    observer: SILENT,
    now: () => performance.now(),
    random: Math.random,
  });
  await engine.start();
  try {
    return await use(engine);
  } finally {
    await engine.close({ deadlineMs: 0 });
  }
}

/** Random weights of a shape, made and compiled once, kept in the cache folder. */
export async function randomArtifact(
  rig: Rig,
  shape: ShapeName,
  precision: Precision,
): Promise<{ readonly dir: string; readonly manifest: Manifest }> {
  const modelDir = join(rig.cacheDir, "bench", shape);
  if (!existsSync(join(modelDir, "model.safetensors"))) {
    // Made elsewhere and moved into place: a bench that was cut off leaves no half checkpoint behind.
    const partial = `${modelDir}.${process.pid}`;
    await writeRandomCheckpoint({ outDir: partial, shape: RANDOM_SHAPES[shape], seed: 1 });
    await rm(modelDir, { recursive: true, force: true });
    await rename(partial, modelDir);
  }
  return ensureArtifact({ modelDir, precision, cacheDir: rig.cacheDir });
}

function open(rig: Rig, artifactDir: string): Promise<ModelRunner> {
  return openRunner(rig.runtime, { artifactDir, numSlots: MAX_BATCH, numThreads: rig.threads, device: "cpu" });
}
