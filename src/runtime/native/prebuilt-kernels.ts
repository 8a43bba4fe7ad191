/**
 * The kernels' library as the package brings it: built for every CPU of an architecture, so that no
 * compiler is needed. It is known by what it was built from: sources that have changed since are
 * not taken for it.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { buildKernels, type KernelBuild, kernelSources } from "./kernel-build.ts";
import { copyKernelFile, sealKernelFile } from "./kernel-file.ts";

export interface PrebuiltPlaces {
  readonly sourceDir: string;
  /** Has a folder for each platform, architecture and set of sources. */
  readonly prebuiltDir: string;
}

const NAME = "libdensemamba-kernels.so";

/** @returns undefined if there is none for this machine and these sources */
export async function findPrebuilt(places: PrebuiltPlaces): Promise<string | undefined> {
  // Most checkouts have none: then the sources need not be read.
  if (!existsSync(places.prebuiltDir)) return undefined;
  const file = await prebuiltFile(places, process.arch);
  return existsSync(file) ? file : undefined;
}

/**
 * Builds the library for one architecture. It is not loaded: the compiler may make it for another
 * machine.
 * @throws `device_unavailable`
 */
export async function buildPrebuilt(
  places: PrebuiltPlaces,
  { cc, arch }: Required<Pick<KernelBuild, "cc" | "arch">>,
): Promise<string> {
  const file = await prebuiltFile(places, arch);
  const folder = await mkdtemp(path.join(tmpdir(), "densemamba-prebuilt-"));
  try {
    const built = path.join(folder, NAME);
    const { sourceDir } = places;
    await buildKernels({ sourceDir, cc, target: "all", arch }, built, path.join(folder, "objects"));
    await sealKernelFile(built);
    await copyKernelFile(built, file);
    return file;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function prebuiltFile({ sourceDir, prebuiltDir }: PrebuiltPlaces, arch: string): Promise<string> {
  const hash = createHash("sha256");
  for (const name of (await kernelSources(sourceDir)).filter((name) => !name.endsWith(".cu"))) {
    hash.update(`\n${name}\n`).update(await readFile(path.join(sourceDir, name)));
  }
  return path.join(prebuiltDir, `${process.platform}-${arch}-${hash.digest("hex").slice(0, 16)}`, NAME);
}
