/**
 * `densemamba compile`, `kernels` and `pull`: what a server would otherwise do at its first start.
 */
import { existsSync } from "node:fs";
import { copyFile, stat } from "node:fs/promises";
import path from "node:path";
import { choosePrecisions } from "../app/device.ts";
import { findKernels, type KernelConfig, loweringFor, openKernelLibrary } from "../app/kernels.ts";
import { firstThatWorks } from "../app/load-model.ts";
import { ensureArtifact } from "../compiler/artifact-cache.ts";
import { type CompileOptions, compileModel } from "../compiler/compile.ts";
import { readHubSettings } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import { TEXT_FILES } from "../hub/files.ts";
import { parseModelId } from "../hub/model-id.ts";
import { copyKernelFile } from "../runtime/native/kernel-file.ts";
import { formatBytes, showProgress, type Terminal, write } from "./terminal.ts";

/**
 * A checkpoint folder in, an artifact folder out, which `--model` accepts as it is; without
 * `outDir` one in the cache, where the checkpoint's next start finds it.
 * @throws `invalid_checkpoint`, `unsupported_value`, `invalid_value` if both folders are the same
 */
export async function compile(config: Config, outDir: string | undefined, terminal: Terminal): Promise<void> {
  const { model: modelDir, allowNonFinite, cacheDir, statePrecision } = config;
  if (outDir !== undefined && path.resolve(modelDir) === path.resolve(outDir)) {
    throw new DenseMambaError("invalid_value", `--out must be another folder than --model, ${outDir} given for both`);
  }
  const note = noteOn(terminal);
  const onProgress = showProgress(terminal);
  const device = config.device === "cuda" ? "cuda" : "cpu";
  const lowering = loweringFor(await findKernels(config, device, note), modelDir, note);
  const precisions = choosePrecisions(config.precision, { device });
  const { dir, manifest } = await firstThatWorks("unsupported_value", precisions, note, (precision) => {
    const options = { modelDir, precision, lowering, statePrecision, allowNonFinite, onProgress };
    return outDir === undefined ? ensureArtifact({ ...options, cacheDir }) : compileInto(outDir, options);
  });
  const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  await write(terminal.stdout, `${dir}: ${manifest.family}, ${manifest.precision}, ${formatBytes(bytes)}\n`);
}

/** With the checkpoint's files that are served as they are. */
async function compileInto(outDir: string, options: Omit<CompileOptions, "outDir">) {
  const manifest = await compileModel({ ...options, outDir });
  const texts = TEXT_FILES.filter((name) => existsSync(path.join(options.modelDir, name)));
  for (const name of texts) await copyFile(path.join(options.modelDir, name), path.join(outDir, name));
  return { dir: outDir, manifest };
}

/**
 * Builds the kernels: with `out` for every CPU, without it for this CPU into the cache. `--device
 * cuda` builds those for CUDA, which takes no GPU.
 * @throws `device_unavailable` with the reason why there are none
 */
export async function buildKernels(
  config: KernelConfig & Pick<Config, "device">,
  out: string | undefined,
  terminal: Terminal,
): Promise<void> {
  const target = config.device === "cuda" ? "cuda" : out === undefined ? "host" : "all";
  const library = await openKernelLibrary(config, target, noteOn(terminal));
  if (out !== undefined) await copyKernelFile(library.path, out);
  const { version, instructionSet } = library;
  const { size } = await stat(library.path);
  const file = out ?? library.path;
  await write(terminal.stdout, `${file}: version ${version}, ${instructionSet} here, ${formatBytes(size)}\n`);
}

/**
 * Downloads a revision's newest files, even if some are cached; prints their folder.
 * @throws `pull_failed`
 */
export async function pull(name: string, terminal: Terminal): Promise<void> {
  const id = parseModelId(name);
  if (id === undefined) {
    throw new DenseMambaError(
      "invalid_value",
      `a model on the hub is named org/name or org/name@revision, ${JSON.stringify(name)} given`,
    );
  }
  // Loaded only when needed: it brings Hugging Face's client.
  const { pullModel } = await import("../hub/pull.ts");
  const dir = await pullModel({ id, part: "model", hub: readHubSettings(), onProgress: showProgress(terminal) });
  await write(terminal.stdout, `${dir}\n`);
}

function noteOn({ stderr }: Terminal): (message: string) => void {
  return (message) => void stderr.write(`${message}\n`);
}
