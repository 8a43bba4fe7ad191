/** Whether our own operators are used, and where they come from. */
import { existsSync } from "node:fs";
import path from "node:path";
import { surveyOperators } from "../compiler/lower.ts";
import { type Config, packageRoot } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import type { LoweringKind } from "../model/artifact.ts";
import { openCheckpoint } from "../model/checkpoint.ts";
import { MANIFEST_FILE } from "../model/manifest.ts";
import { findPrebuiltKernels, type KernelLibrary, openKernels } from "../runtime/open.ts";

/** Of the package. */
const PLACES = { sourceDir: path.join(packageRoot, "kernels"), prebuiltDir: path.join(packageRoot, "prebuilt") };

export type KernelConfig = Pick<Config, "kernelLibrary" | "cCompiler" | "nvcc" | "cacheDir">;

/**
 * What a model's graphs are made of. Reports with `note` the kernels whose limits a
 * checkpoint is beyond.
 * @throws `invalid_checkpoint`
 */
export function loweringFor(
  kernels: KernelLibrary | undefined,
  modelDir: string,
  note: (message: string) => void,
): LoweringKind {
  if (kernels === undefined) return "plain";
  const kind = kernels.device === "cuda" ? "cuda" : "kernels";
  if (!existsSync(path.join(modelDir, MANIFEST_FILE))) {
    const checkpoint = openCheckpoint(modelDir);
    const { beyond } = surveyOperators(checkpoint, kind);
    checkpoint.close();
    for (const [name, reason] of beyond) note(`plain ONNX in place of the kernel of ${name}: ${reason}`);
  }
  return kind;
}

/** @returns undefined, after reporting why, if ONNX Runtime's own operators have to do */
export async function findKernels(
  config: KernelConfig & Pick<Config, "kernels" | "runtime">,
  device: "cpu" | "cuda",
  note: (message: string) => void,
): Promise<KernelLibrary | undefined> {
  if (config.kernels === "off" || config.runtime !== "native") return undefined;
  try {
    const library = await openKernelLibrary(config, device === "cuda" ? "cuda" : "host", note);
    const missing = library.findMissingCode?.();
    if (missing !== undefined) {
      note(`plain ONNX in place of kernels: ${library.path} has no code for this device: ${missing}`);
      return undefined;
    }
    note(`kernels ${library.instructionSet}: ${library.path}`);
    return library;
  } catch (error) {
    if (!(error instanceof DenseMambaError) || error.code !== "device_unavailable") throw error;
    note(`plain ONNX in place of kernels: ${error.message}`);
    return undefined;
  }
}

/**
 * @param target `host`: what the package brings, or else built for this CPU only; `all` builds for
 * every CPU of its architecture
 * @throws `device_unavailable`
 */
export async function openKernelLibrary(
  { kernelLibrary, cCompiler, nvcc, cacheDir }: KernelConfig,
  target: "host" | "all" | "cuda",
  onBuild: (message: string) => void,
  places = PLACES,
): Promise<KernelLibrary> {
  const cc = target === "cuda" ? nvcc : cCompiler;
  const open = (libraryPath: string | undefined) =>
    openKernels({ libraryPath, sourceDir: places.sourceDir, cacheDir, cc, target, onBuild });
  const prebuilt = target === "host" && kernelLibrary === undefined ? await findPrebuiltKernels(places) : undefined;
  if (prebuilt === undefined) return open(kernelLibrary);
  try {
    return await open(prebuilt);
  } catch (error) {
    if (!(error instanceof DenseMambaError) || error.code !== "device_unavailable") throw error;
    onBuild(`not the packaged kernels: ${error.message}`);
    return open(undefined);
  }
}
