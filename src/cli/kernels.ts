/**
 * Whether our own operators are used, and where they come from; and `densemamba kernels`, which builds them ahead of time and
 * says what there is.
 */
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { beyondKernels } from "../compiler/kernel-limits.ts";
import { packageRoot } from "../config/schema.ts";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import type { LoweringKind } from "../model/artifact.ts";
import { openCheckpoint } from "../model/checkpoint.ts";
import { MANIFEST_FILE } from "../model/manifest.ts";
import { copyKernelFile } from "../runtime/native/kernel-file.ts";
import { type KernelLibrary, openKernels } from "../runtime/open.ts";
import { type Terminal, write } from "./terminal.ts";
import { formatBytes } from "./units.ts";

const SOURCE_DIR = path.join(packageRoot, "kernels");

type KernelConfig = Pick<Config, "kernels" | "kernelLibrary" | "cCompiler" | "nvcc" | "cacheDir">;

/** A graph of such operators, unless the checkpoint is beyond what they can take: that is told. @throws `invalid_checkpoint` */
export function loweringFor(
  kernels: KernelLibrary | undefined,
  modelDir: string,
  note: (message: string) => void,
): LoweringKind {
  if (kernels === undefined) return "plain";
  if (!existsSync(path.join(modelDir, MANIFEST_FILE))) {
    const checkpoint = openCheckpoint(modelDir);
    checkpoint.close();
    const problem = beyondKernels(checkpoint.architecture, kernels.device);
    if (problem !== undefined) {
      note(`plain ONNX in place of kernels: ${problem}`);
      return "plain";
    }
  }
  return kernels.device === "cuda" ? "cuda" : "kernels";
}

/** @returns undefined, having said why, where the same graphs run on ONNX Runtime's operators alone. */
export async function findKernels(
  config: KernelConfig & Pick<Config, "runtime">,
  device: "cpu" | "cuda",
  note: (message: string) => void,
): Promise<KernelLibrary | undefined> {
  if (config.kernels === "off" || config.runtime !== "native") return undefined;
  try {
    const library = await open(config, note, device === "cuda" ? "cuda" : "host");
    note(`kernels ${library.instructionSet}: ${library.path}`);
    return library;
  } catch (error) {
    if (!(error instanceof DenseMambaError) || error.code !== "device_unavailable") throw error;
    note(`plain ONNX in place of kernels: ${error.message}`);
    return undefined;
  }
}

/**
 * Builds the library for every CPU into `out`, or for this one into the cache; with `--device cuda` that for CUDA, which takes no
 * device. @throws `device_unavailable` with the reason why there is none.
 */
export async function kernels(
  config: KernelConfig & Pick<Config, "device">,
  out: string | undefined,
  terminal: Terminal,
): Promise<void> {
  const note = (message: string) => void terminal.stderr.write(`${message}\n`);
  const library = await open(config, note, config.device === "cuda" ? "cuda" : out === undefined ? "host" : "all");
  if (out !== undefined) await copyKernelFile(library.path, out);
  const { size } = await stat(library.path);
  const { version, instructionSet } = library;
  const file = out ?? library.path;
  await write(terminal.stdout, `${file}: version ${version}, ${instructionSet} here, ${formatBytes(size)}\n`);
}

function open(
  { kernelLibrary, cCompiler, nvcc, cacheDir }: KernelConfig,
  note: (message: string) => void,
  target: "host" | "all" | "cuda",
): Promise<KernelLibrary> {
  const cc = target === "cuda" ? nvcc : cCompiler;
  const build = { sourceDir: SOURCE_DIR, cacheDir, cc, target, onBuild: note };
  return openKernels({ libraryPath: kernelLibrary, ...build });
}
