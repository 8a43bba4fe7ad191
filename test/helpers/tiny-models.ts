/** The families, each as a random checkpoint: for tests of what has to hold in all of them. */
import { rm } from "node:fs/promises";
import { afterAll } from "vitest";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { randomCheckpoint, TINY_MAMBA2, TINY_RETNET, TINY_RWKV7, TINY_SHAPE } from "./checkpoints.ts";

export const TINY_FAMILIES = [
  { name: "DenseMamba", shape: TINY_SHAPE },
  { name: "DenseRetNet", shape: TINY_RETNET },
  { name: "Mamba-2", shape: TINY_MAMBA2 },
  { name: "RWKV-7", shape: TINY_RWKV7 },
] as const;

/** The same, and the two without dense connections. */
export const TINY_MODELS = [
  ...TINY_FAMILIES,
  { name: "Mamba", shape: { ...TINY_SHAPE, denseLayers: 0 } },
  { name: "RetNet", shape: { ...TINY_RETNET, denseLayers: 0 } },
] as const;

/** Each with a random checkpoint, which lasts until the file's tests have run. */
export async function withCheckpoints<Source extends { readonly shape: RandomShape }>(
  sources: readonly Source[],
): Promise<(Source & { readonly modelDir: string })[]> {
  const written = await Promise.all(
    sources.map(async (source) => ({ ...source, modelDir: await randomCheckpoint(source.shape) })),
  );
  afterAll(() => Promise.all(written.map(({ modelDir }) => rm(modelDir, { recursive: true }))));
  return written;
}
