/**
 * Makes the simulated device's libraries: its parts in C++, and for every other function that the
 * provider imports a stub that fails and leaves its name in the book. Also our own kernels, to run
 * on it.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { eachOnSomeCore } from "../../src/runtime/native/kernel-build.ts";

const run = promisify(execFile);
const CXX = process.env.CXX || "c++";
const CC = process.env.CC || "cc";
const SOURCES = path.resolve("test/cuda-device");
const KERNELS = path.resolve("kernels");

/** By the sonames of the provider's release. `parts`: what is simulated of it. */
const LIBRARIES = [
  { name: "libcudart.so.13", owns: /^(__)?cuda/, parts: ["memory.cpp", "streams.cpp", "runtime.cpp"], links: [] },
  { name: "libcublasLt.so.13", owns: /^cublasLt/, parts: ["cublaslt.cpp"], links: ["libcudart.so.13"] },
  { name: "libcublas.so.13", owns: /^cublas(?!Lt)/, parts: ["cublas.cpp"], links: ["libcudart.so.13"] },
  { name: "libcurand.so.10", owns: /^curand/, parts: [], links: ["libcudart.so.13"] },
  { name: "libcuda.so.1", owns: /^cu[A-Z]/, parts: ["driver.cpp"], links: ["libcudart.so.13"] },
] as const;
const KERNEL_LIBRARY = "densemamba-kernels.so";

export interface SimulatedLibraries {
  /** In the order in which they have to be loaded. */
  readonly device: readonly string[];
  /** Of them all. */
  readonly folder: string;
  readonly kernels: string;
}

/** Built once for each state of the sources and the provider, in .cache/cuda-device/. */
export async function buildSimulatedDevice(provider: string): Promise<SimulatedLibraries> {
  const folder = path.resolve(".cache/cuda-device", await fingerprint(provider));
  if (!existsSync(folder)) {
    await mkdir(path.dirname(folder), { recursive: true });
    const partial = await mkdtemp(`${folder}.`);
    await build(provider, partial);
    // Another worker may have been first.
    await rename(partial, folder).catch(() => rm(partial, { recursive: true }));
  }
  return {
    device: LIBRARIES.map(({ name }) => path.join(folder, name)),
    folder,
    kernels: path.join(folder, KERNEL_LIBRARY),
  };
}

async function fingerprint(provider: string): Promise<string> {
  const hash = createHash("sha256").update((await run(CXX, ["--version"])).stdout);
  const { size } = await stat(provider);
  hash.update(String(size));
  const sources: [folder: string, names: RegExp][] = [
    [SOURCES, /\.(h|cpp)$|^build\.ts$/],
    [KERNELS, /\.h$|^(op|register)\.c$/],
    [path.join(KERNELS, "cuda"), /\.(h|cu)$/],
    [path.join(KERNELS, "test"), /\.h$/],
  ];
  for (const [folder, names] of sources) {
    for (const name of (await readdir(folder)).filter((name) => names.test(name)).toSorted()) {
      hash.update(await readFile(path.join(folder, name)));
    }
  }
  return hash.digest("hex").slice(0, 16);
}

async function build(provider: string, folder: string): Promise<void> {
  const imports = await importedSymbols(provider);
  const kernels = await kernelJobs(folder);
  const parts = await Promise.all(LIBRARIES.map(({ name, parts }) => partsJob(name, parts, folder)));
  await eachOnSomeCore([...parts, ...kernels], ({ flags, source, object }) =>
    run(CXX, [...flags, "-c", source, "-o", object]),
  );
  for (const [i, library] of LIBRARIES.entries()) {
    const { object } = parts[i]!;
    const defined = new Set(await definedSymbols(object));
    const missing = imports.filter(({ symbol }) => library.owns.test(symbol) && !defined.has(symbol));
    const objects = [object, await compileStubs(library.name, missing, folder)];
    await link(
      library.name,
      objects,
      { links: library.links, isVersioned: /^libcu(dart|blas)/.test(library.name) },
      folder,
    );
  }
  await run(CXX, [
    ...["-shared", ...kernels.map(({ object }) => object), path.join(folder, "libcudart.so.13")],
    ...["-o", path.join(folder, KERNEL_LIBRARY), "-pthread", "-lm", "-Wl,-z,nodelete"],
  ]);
}

interface Job {
  readonly flags: readonly string[];
  readonly source: string;
  readonly object: string;
}

interface Import {
  readonly symbol: string;
}

/** Of CUDA's libraries. @throws if one belongs to none of those that are made here. */
async function importedSymbols(provider: string): Promise<Import[]> {
  const { stdout } = await run("nm", ["-D", "--undefined-only", provider], { maxBuffer: 64 << 20 });
  const names = stdout.split("\n").map((line) => (line.trim().split(/\s+/).at(-1) ?? "").replace(/@.*/, ""));
  return names.filter((name) => /^((__)?cuda|cublas|curand|cu[A-Z])/.test(name)).map((symbol) => ({ symbol }));
}

async function definedSymbols(object: string): Promise<string[]> {
  const { stdout } = await run("nm", ["--defined-only", "--extern-only", object], { maxBuffer: 64 << 20 });
  return stdout.split("\n").map((line) => line.trim().split(/\s+/).at(-1) ?? "");
}

/** What has been compiled in this process, by what it was made from. */
const compiled = new Map<string, Promise<Buffer>>();

/** Compiles `file`, or copies what was compiled from the same before. */
async function compileOnce(from: string, file: string, compile: () => Promise<unknown>): Promise<void> {
  const contents = compiled.get(from) ?? compile().then(() => readFile(file));
  compiled.set(from, contents);
  await writeFile(file, await contents);
}

/** `libcuda.so.1` alone, in `folder`, as a machine has it that has nothing else of CUDA's. */
export async function buildDriver(folder: string): Promise<void> {
  const file = path.join(folder, "libcuda.so.1");
  const args = ["-std=gnu++17", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", path.join(SOURCES, "driver.cpp")];
  await compileOnce("driver", file, () => run(CXX, [...args, "-o", file]));
}

export interface FakeProvider {
  readonly version: string;
  /** Sonames that it is linked with. */
  readonly needed: readonly string[];
  /** Of the devices that it has machine code for, e.g. 90. Default: none is found in it. */
  readonly capabilities?: readonly number[];
}

/**
 * In `folder` libraries without contents of these sonames, and in its folder `provider` one that
 * says of itself what a CUDA provider of that release says.
 */
export async function buildFakeProvider(
  folder: string,
  { version, needed, capabilities = [] }: FakeProvider,
): Promise<void> {
  for (const name of needed) await buildEmptyLibrary(folder, name);
  await mkdir(path.join(folder, "provider"), { recursive: true });
  await buildEmptyLibrary(path.join(folder, "provider"), "libonnxruntime_providers_shared.so");
  const source = path.join(folder, "provider", "provider.c");
  const file = path.join(folder, "provider", "libonnxruntime_providers_cuda.so");
  const code = `__attribute__((section(".nv_fatbin"), aligned(8))) const unsigned char code[] = {${codeFor(capabilities)}};`;
  const text = `const char *GetProvider(void) { return "other" "\\0" "${version}" + 6; }\n`;
  await writeFile(source, capabilities.length > 0 ? `${code}\n${text}` : text);
  const libraries = needed.map((name) => path.join(folder, name));
  const args = ["-shared", "-fPIC", source, "-Wl,--no-as-needed", ...libraries];
  await compileOnce(JSON.stringify([version, needed, capabilities]), file, () => run(CC, [...args, "-o", file]));
}

/** A container of code as nvcc makes it, for each of these devices 8 bytes. */
function codeFor(capabilities: readonly number[]): number[] {
  const entries = capabilities.map((capability) => {
    const entry = Buffer.alloc(64 + 8);
    entry.writeUInt16LE(2, 0); // machine code
    entry.writeUInt32LE(64, 4);
    entry.writeBigUInt64LE(8n, 8);
    entry.writeUInt32LE(capability, 28);
    return entry;
  });
  const contents = Buffer.concat(entries);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(0xba55_ed50, 0);
  header.writeUInt16LE(1, 4);
  header.writeUInt16LE(16, 6);
  header.writeBigUInt64LE(BigInt(contents.length), 8);
  return [...header, ...contents];
}

export async function buildEmptyLibrary(folder: string, soname: string): Promise<void> {
  const file = path.join(folder, soname);
  const args = ["-shared", "-x", "c", "/dev/null", `-Wl,-soname,${soname}`];
  await compileOnce(soname, file, () => run(CC, [...args, "-o", file]));
}

/** All parts of a library at once: the standard library's headers take longest. */
async function partsJob(name: string, parts: readonly string[], folder: string): Promise<Job> {
  const source = path.join(folder, `${name}.cpp`);
  await writeFile(source, parts.map((part) => `#include "${path.join(SOURCES, part)}"\n`).join(""));
  const flags = ["-std=gnu++17", "-O1", "-fPIC", "-Wall", "-Werror"];
  return { flags, source, object: `${source}.o` };
}

async function compileStubs(name: string, missing: readonly Import[], folder: string): Promise<string> {
  const source = path.join(folder, `${name}.stubs.c`);
  const stubs = missing.map(({ symbol }) => `int ${symbol}(void) { return simulated_cuda_unsupported("${symbol}"); }`);
  await writeFile(source, ["int simulated_cuda_unsupported(const char *);", ...stubs, ""].join("\n"));
  const object = `${source}.o`;
  await run(CC, ["-fPIC", "-fno-builtin", "-w", "-c", source, "-o", object]);
  return object;
}

interface LinkOptions {
  readonly links: readonly string[];
  /** Whether the provider asks for its symbols with the library's name as their version. */
  readonly isVersioned: boolean;
}

async function link(
  name: string,
  objects: readonly string[],
  { links, isVersioned }: LinkOptions,
  folder: string,
): Promise<void> {
  const script = path.join(folder, `${name}.map`);
  await writeFile(script, `${name} { *; };\n`);
  const versions = isVersioned ? [`-Wl,--version-script=${script}`] : [];
  const libraries = links.map((other) => path.join(folder, other));
  await run(CXX, [
    "-shared",
    ...objects,
    ...libraries,
    "-o",
    path.join(folder, name),
    `-Wl,-soname,${name}`,
    ...versions,
    "-pthread",
  ]);
}

/**
 * As `cuda-build.ts` builds them for a device, but emulated: to ONNX Runtime they are the kernels
 * of its CUDA provider.
 */
async function kernelJobs(folder: string): Promise<Job[]> {
  const names = (await readdir(path.join(KERNELS, "cuda"))).filter((name) => name.endsWith(".cu"));
  const C = ["-x", "c", "-std=gnu11", "-O1", "-fPIC", "-fvisibility=hidden", "-w", "-DDM_CUDA"];
  const CUDA = ["-x", "c++", "-std=gnu++20", "-O1", "-fPIC", "-fvisibility=hidden", "-w"];
  const simulated = ["-DDM_CUDA_EMULATION", "-DDM_CUDA_SIMULATION", "-DDM_ISA=cuda", `-I${SOURCES}`];
  const job = (source: string, flags: readonly string[]): Job => {
    return { flags, source: path.join(KERNELS, source), object: path.join(folder, `${path.basename(source)}.o`) };
  };
  return [
    ...["op.c", "register.c"].map((source) => job(source, C)),
    ...names.map((name) => job(path.join("cuda", name), [...CUDA, ...simulated])),
  ];
}
