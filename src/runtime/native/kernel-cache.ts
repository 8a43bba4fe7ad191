/**
 * The kernels' library, compiled at the first start and cached under the hash of everything that it
 * is made from. Safe with several processes: a library and its seal appear by renaming a finished
 * folder, and are never removed. A library that another user could have written is not loaded.
 */
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { DenseMambaError } from "../../errors.ts";
import { publishFolder } from "../../model/publish-folder.ts";
import { isCuda } from "./cuda-build.ts";
import { buildKernels, buildSources, describeBuild, type KernelBuild, unavailable } from "./kernel-build.ts";
import { checkKernelFile, sealKernelFile } from "./kernel-file.ts";

const PRIVATE_MODE = 0o755;

const LIBRARY_NAMES = { cpu: "libdensemamba-kernels.so", cuda: "libdensemamba-cuda.so" };

export interface EnsureKernelsOptions extends KernelBuild {
  /** Created if missing; the libraries are in its folder `kernels`. */
  readonly cacheDir: string;
  /** Called before the compiler runs, which takes seconds. */
  readonly onBuild?: (message: string) => void;
}

/**
 * @returns the library's file, compiled now unless the cache has it
 * @throws `device_unavailable` without a compiler, if it fails, or if the cache cannot be written.
 */
export async function ensureKernelLibrary(options: EnsureKernelsOptions): Promise<string> {
  const folder = resolve(options.cacheDir, "kernels"); // the linker runs elsewhere
  const dir = join(folder, (await hashBuild(options)).slice(0, 16));
  const name = LIBRARY_NAMES[isCuda(options.target) ? "cuda" : "cpu"];
  const library = join(dir, name);
  if (await isWhole(library)) return library;

  options.onBuild?.(`compiling the kernels with ${options.cc}`);
  const temporary = await makeTemporary(folder);
  try {
    const built = join(temporary, "built");
    await mkdir(built);
    await buildKernels(options, join(built, name), join(temporary, "objects"));
    await sealKernelFile(join(built, name));
    // Regardless of the umask: a library that others may write is not loaded.
    await chmod(join(built, name), PRIVATE_MODE);
    await chmod(built, PRIVATE_MODE);
    if (await isWhole(library)) return library; // another process was faster
    // The existing one is broken. Processes that have loaded it still have its file, now unnamed.
    await publishFolder(built, dir, name).catch((cause: unknown) => {
      throw unavailable(`cannot write ${dir}`, cause);
    });
    await chmod(dir, PRIVATE_MODE).catch(() => undefined); // of another user: not loaded, and that is told
    return library;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function hashBuild(build: KernelBuild): Promise<string> {
  const hash = createHash("sha256").update(await describeBuild(build));
  for (const name of await buildSources(build)) {
    hash.update(`\n${name}\n`).update(await readFile(join(build.sourceDir, name)));
  }
  return hash.digest("hex");
}

async function isWhole(library: string): Promise<boolean> {
  try {
    await checkKernelFile(library, { isCached: true });
    return true;
  } catch (error) {
    if (error instanceof DenseMambaError) return false;
    throw error;
  }
}

async function makeTemporary(folder: string): Promise<string> {
  try {
    await mkdir(folder, { recursive: true });
    return await mkdtemp(join(folder, ".compiling-"));
  } catch (cause) {
    throw unavailable(`the kernels cannot be cached in ${folder}: ${String(cause)}`, cause);
  }
}
