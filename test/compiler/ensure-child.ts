/**
 * A process of its own that asks for an artifact again and again: `ensure-child.ts MODEL CACHE
 * TIMES`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { flipLastByte } from "./flip-byte.ts";

const [modelDir, cacheDir, times] = process.argv.slice(2) as [string, string, string];
for (let i = 0; i < Number(times); i++) {
  const { dir } = await ensureArtifact({ modelDir, precision: "f32", cacheDir });
  if (!existsSync(join(dir, "manifest.json"))) throw new Error(`${dir} has gone`);
  flipLastByte(join(dir, "decode.onnx"));
}
