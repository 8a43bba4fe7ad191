/** `densemamba compile`: a checkpoint folder in, an artifact folder out that `--model` takes as it is. */
import { existsSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import path from "node:path";
import { compileModel } from "../compiler/compile.ts";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import { TEXT_FILES } from "../hub/files.ts";
import type { Manifest, Precision } from "../model/artifact.ts";
import { choosePrecisions } from "./device.ts";
import { findKernels, loweringFor } from "./kernels.ts";
import { showProgress } from "./progress.ts";
import { type Terminal, write } from "./terminal.ts";
import { formatBytes } from "./units.ts";

/** @throws `invalid_checkpoint`, `unsupported_value`, `invalid_value` if the two folders are one. */
export async function compile(config: Config, outDir: string, terminal: Terminal): Promise<void> {
  const { model: modelDir, allowNonFinite } = config;
  if (path.resolve(modelDir) === path.resolve(outDir)) {
    throw new DenseMambaError("invalid_value", `--out must be another folder than --model, ${outDir} given for both`);
  }
  const onProgress = showProgress(terminal.stderr, () => performance.now());
  const device = config.device === "cuda" ? "cuda" : "cpu";
  const note = (message: string) => void terminal.stderr.write(`${message}\n`);
  const lowering = loweringFor(await findKernels(config, device, note), modelDir, note);
  const manifest = await compileInOneOf(choosePrecisions(config.precision, device), (precision) =>
    compileModel({ modelDir, precision, lowering, outDir, allowNonFinite, onProgress }),
  );
  const texts = TEXT_FILES.filter((name) => existsSync(path.join(modelDir, name)));
  for (const name of texts) await copyFile(path.join(modelDir, name), path.join(outDir, name));
  const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  await write(terminal.stdout, `${outDir}: ${manifest.family}, ${manifest.precision}, ${formatBytes(bytes)}\n`);
}

/** `auto` is int8 unless the model's sizes do not allow it. */
async function compileInOneOf(
  [precision, ...others]: readonly Precision[],
  attempt: (precision: Precision) => Promise<Manifest>,
): Promise<Manifest> {
  try {
    return await attempt(precision!);
  } catch (error) {
    const goOn = error instanceof DenseMambaError && error.code === "unsupported_value" && others.length > 0;
    if (!goOn) throw error;
    return compileInOneOf(others, attempt);
  }
}
