/** One random model for all programs: our checkpoint, and the same weights as GGUF. */
import { existsSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import type { BenchPrecision } from "../../src/bench/config.ts";
import { randomCheckpoint, type ShapeName } from "../../src/bench/random-model.ts";
import { type LlamaTools, runTool } from "./install.ts";
import { writeModelGguf } from "./model-gguf.ts";
import { PEER_TYPES } from "./report.ts";

export function peersDir(cacheDir: string): string {
  return join(cacheDir, "bench", "peers");
}

/** One random model: our checkpoint, and its weights as GGUF in each type. */
export interface SameWeights {
  readonly modelDir: string;
  readonly gguf: Readonly<Record<BenchPrecision, string>>;
}

/** Made once and kept in the cache. */
export async function prepareModel(cacheDir: string, shape: ShapeName, tools: LlamaTools): Promise<SameWeights> {
  const modelDir = await randomCheckpoint(cacheDir, shape);
  const dir = join(cacheDir, "bench", "gguf");
  await mkdir(dir, { recursive: true });
  const makeOnce = async (type: string, make: (partialPath: string) => Promise<unknown>): Promise<string> => {
    const path = join(dir, `${shape}-${type}.gguf`);
    // Moved into place when it is complete.
    const partial = `${path}.${process.pid}.partial`;
    if (!existsSync(path)) await make(partial).then(() => rename(partial, path));
    return path;
  };
  const f32 = await makeOnce(PEER_TYPES.f32, (partial) => writeModelGguf(modelDir, partial));
  const quantize = (type: string) =>
    makeOnce(type, (partial) => runTool(tools["llama-quantize"], [f32, partial, type]));
  return { modelDir, gguf: { f32, int8: await quantize(PEER_TYPES.int8), int4: await quantize(PEER_TYPES.int4) } };
}
