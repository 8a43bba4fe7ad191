/** One random model for all contenders: our checkpoint with a vocabulary, and the same weights as GGUF in each type. */
import { existsSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { type BenchPrecision, randomCheckpoint, type ShapeName } from "../rig.ts";
import type { LlamaTools } from "./install.ts";
import { quantizeGguf } from "./llama-cpp.ts";
import { writeMambaGguf } from "./mamba-gguf.ts";

/** Which of llama.cpp's types stands against which of our precisions. Q4_0 is its fastest with four bits on a CPU. */
export const PEER_TYPES = { f32: "F32", int8: "Q8_0", int4: "Q4_0" } as const satisfies Record<BenchPrecision, string>;

export interface SameWeights {
  readonly modelDir: string;
  readonly gguf: Readonly<Record<BenchPrecision, string>>;
}

/** Made once and kept in the cache. */
export async function prepareModel(cacheDir: string, shape: ShapeName, tools: LlamaTools): Promise<SameWeights> {
  const modelDir = await randomCheckpoint(cacheDir, shape);
  const dir = join(cacheDir, "bench", "gguf");
  await mkdir(dir, { recursive: true });
  const f32 = join(dir, `${shape}-F32.gguf`);
  await makeOnce(f32, (partial) => writeMambaGguf(modelDir, partial));
  const quantized = async (type: string): Promise<string> => {
    const path = join(dir, `${shape}-${type}.gguf`);
    await makeOnce(path, (partial) => quantizeGguf(tools, f32, partial, type));
    return path;
  };
  return { modelDir, gguf: { f32, int8: await quantized(PEER_TYPES.int8), int4: await quantized(PEER_TYPES.int4) } };
}

/** A run that was cut off leaves no half a file under the name. */
async function makeOnce(path: string, make: (partialPath: string) => Promise<void>): Promise<void> {
  if (existsSync(path)) return;
  const partial = `${path}.${process.pid}.partial`;
  await make(partial);
  await rename(partial, path);
}
