/**
 * Whether our own operators are used, and where they come from; and `densemamba kernels`, which builds them ahead of time and
 * says what there is.
 */
import { stat } from "node:fs/promises";
import path from "node:path";
import { packageRoot } from "../config/schema.ts";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import { copyKernelFile } from "../runtime/native/kernel-file.ts";
import { type KernelLibrary, openKernels } from "../runtime/open.ts";
import { type Terminal, write } from "./terminal.ts";
import { formatBytes } from "./units.ts";

const SOURCE_DIR = path.join(packageRoot, "kernels");

type KernelConfig = Pick<Config, "kernels" | "kernelLibrary" | "cCompiler" | "cacheDir">;

/** @returns undefined, having said why, where the same graphs run on ONNX Runtime's operators alone. */
export async function findKernels(
  config: KernelConfig & Pick<Config, "runtime">,
  device: "cpu" | "cuda",
  note: (message: string) => void,
): Promise<KernelLibrary | undefined> {
  if (config.kernels === "off" || config.runtime !== "native" || device !== "cpu") return undefined;
  try {
    const library = await open(config, note, "host");
    note(`kernels ${library.instructionSet}: ${library.path}`);
    return library;
  } catch (error) {
    if (!(error instanceof DenseMambaError) || error.code !== "device_unavailable") throw error;
    note(`no kernels, plain ONNX in their place: ${error.message}`);
    return undefined;
  }
}

/** Builds the library for every CPU into `out`, or for this one into the cache. @throws `device_unavailable` with the reason why there is none. */
export async function kernels(config: KernelConfig, out: string | undefined, terminal: Terminal): Promise<void> {
  const note = (message: string) => void terminal.stderr.write(`${message}\n`);
  const library = await open(config, note, out === undefined ? "host" : "all");
  if (out !== undefined) await copyKernelFile(library.path, out);
  const { size } = await stat(library.path);
  const { version, instructionSet } = library;
  const file = out ?? library.path;
  await write(terminal.stdout, `${file}: version ${version}, ${instructionSet} here, ${formatBytes(size)}\n`);
}

function open(
  { kernelLibrary, cCompiler, cacheDir }: KernelConfig,
  note: (message: string) => void,
  target: "host" | "all",
): Promise<KernelLibrary> {
  const build = { sourceDir: SOURCE_DIR, cacheDir, cc: cCompiler, target, onBuild: note };
  return openKernels({ libraryPath: kernelLibrary, ...build });
}
