/**
 * Checks a shared library's bytes before it is loaded: a truncated one would end the process when
 * its missing pages are touched. Its seal, `<file>.sha256`, may be next to it.
 */
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { unavailable } from "./kernel-build.ts";

const ELF_MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };
const MACH_O_CPUS: Readonly<Record<string, number>> = { x64: 0x0100_0007, arm64: 0x0100_000c };

const ELF_HEADER_BYTES = 64;
const MACH_O_HEADER_BYTES = 32;
const SHARED_OBJECT = 3; // e_type
const MACH_O_LIBRARIES = [6, 8]; // filetype: dylib, bundle

/**
 * @param isCached it must have a seal and belong to this user or root
 * @throws `device_unavailable` if it is missing, not a shared library for this machine, truncated,
 * or does not match its seal
 */
export async function checkKernelFile(file: string, { isCached }: { readonly isCached: boolean }): Promise<void> {
  if (isCached) {
    await checkOwner(path.dirname(file));
    await checkOwner(file);
  }
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw unavailable(`cannot read ${file}`, cause);
  });
  const problem = findProblem(bytes);
  if (problem !== undefined) throw unavailable(`${file} ${problem}`);
  const seal = await readFile(sealOf(file), "utf8").catch(() => undefined);
  if (seal === undefined) {
    if (isCached) throw unavailable(`${file} has no ${sealOf(file)} beside it`);
  } else if (seal.trim() !== hash(bytes)) {
    throw unavailable(`${file} is corrupt: its sha256 is not the one in ${sealOf(file)}`);
  }
}

/** The library's code runs in this process: only this user and root may have written it. */
async function checkOwner(place: string): Promise<void> {
  const user = process.getuid?.();
  if (user === undefined) return;
  const { uid, mode } = await stat(place).catch((cause: unknown) => {
    throw unavailable(`cannot read ${place}`, cause);
  });
  if (uid !== user && uid !== 0) throw unavailable(`${place} belongs to user ${uid}, not to ${user} or root`);
  if ((mode & OTHERS_MAY_WRITE) !== 0) {
    throw unavailable(`${place} may be written by others, its mode is ${(mode & 0o777).toString(8)}`);
  }
}

const OTHERS_MAY_WRITE = 0o022;

/** Writes the library's seal. */
export async function sealKernelFile(file: string): Promise<void> {
  await writeFile(sealOf(file), `${hash(await readFile(file))}\n`);
}

/**
 * Moves a library and its seal to another name. Processes that have loaded a replaced one still
 * have it.
 */
export async function copyKernelFile(from: string, to: string): Promise<void> {
  await mkdir(path.dirname(to), { recursive: true });
  for (const [source, target] of [
    [sealOf(from), sealOf(to)],
    [from, to],
  ] as const) {
    const partial = `${target}.${process.pid}`;
    await copyFile(source, partial);
    await rename(partial, target);
  }
}

export function sealOf(file: string): string {
  return `${file}.sha256`;
}

function hash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function findProblem(bytes: Buffer): string | undefined {
  const expected = `a shared library for ${process.platform}/${process.arch}`;
  if (process.platform === "darwin") {
    if (bytes.length < MACH_O_HEADER_BYTES || bytes.readUInt32LE(0) !== 0xfeed_facf) return `is not ${expected}`;
    if (bytes.readUInt32LE(4) !== MACH_O_CPUS[process.arch]) return `was built for another machine, not ${expected}`;
    return MACH_O_LIBRARIES.includes(bytes.readUInt32LE(12)) ? undefined : `is not ${expected}`;
  }
  if (bytes.length < ELF_HEADER_BYTES || bytes.readUInt32BE(0) !== 0x7f45_4c46) return `is not ${expected}`;
  const is64BitLittleEndian = bytes[4] === 2 && bytes[5] === 1;
  if (!is64BitLittleEndian || bytes.readUInt16LE(18) !== ELF_MACHINES[process.arch]) {
    return `was built for another machine, not ${expected}`;
  }
  if (bytes.readUInt16LE(16) !== SHARED_OBJECT) return `is not ${expected}`;
  // The table of sections stands at the end of the file.
  const end = Number(bytes.readBigUInt64LE(40)) + bytes.readUInt16LE(58) * bytes.readUInt16LE(60);
  return end > bytes.length ? `is cut off: ${bytes.length} bytes, its header says ${end}` : undefined;
}
