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
  for (const folder of [SOURCES, KERNELS, path.join(KERNELS, "cuda"), path.join(KERNELS, "test")]) {
    for (const name of (await readdir(folder)).filter((name) => /\.(c|h|cu|cpp|ts)$/.test(name)).toSorted()) {
      hash.update(await readFile(path.join(folder, name)));
    }
  }
  return hash.digest("hex").slice(0, 16);
}

async function build(provider: string, folder: string): Promise<void> {
  const imports = await importedSymbols(provider);
  for (const library of LIBRARIES) {
    const objects = await Promise.all(library.parts.map((part) => compilePart(part, folder)));
    const defined = new Set((await Promise.all(objects.map(definedSymbols))).flat());
    const missing = imports.filter(({ symbol }) => library.owns.test(symbol) && !defined.has(symbol));
    objects.push(await compileStubs(library.name, missing, folder));
    await link(
      library.name,
      objects,
      { links: library.links, isVersioned: /^libcu(dart|blas)/.test(library.name) },
      folder,
    );
  }
  await buildKernels(folder);
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

/** `libcuda.so.1` alone, in `folder`, as a machine has it that has nothing else of CUDA's. */
export async function buildDriver(folder: string): Promise<void> {
  const flags = ["-std=gnu++20", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1"];
  await run(CXX, [...flags, path.join(SOURCES, "driver.cpp"), "-o", path.join(folder, "libcuda.so.1")]);
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
  const code = `__attribute__((section(".nv_fatbin"), aligned(8))) const unsigned char code[] = {${codeFor(capabilities)}};`;
  const text = `const char *GetProvider(void) { return "other" "\\0" "${version}" + 6; }\n`;
  await writeFile(source, capabilities.length > 0 ? `${code}\n${text}` : text);
  await run(CC, [
    ...["-shared", "-fPIC", source, "-Wl,--no-as-needed", ...needed.map((name) => path.join(folder, name))],
    ...["-o", path.join(folder, "provider", "libonnxruntime_providers_cuda.so")],
  ]);
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
  await run(CC, ["-shared", "-x", "c", "/dev/null", `-Wl,-soname,${soname}`, "-o", path.join(folder, soname)]);
}

async function compilePart(part: string, folder: string): Promise<string> {
  const object = path.join(folder, `${part}.o`);
  await run(CXX, [
    "-std=gnu++20",
    "-O1",
    "-g1",
    "-fPIC",
    "-Wall",
    "-Werror",
    "-c",
    path.join(SOURCES, part),
    "-o",
    object,
  ]);
  return object;
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
async function buildKernels(folder: string): Promise<void> {
  const names = (await readdir(path.join(KERNELS, "cuda"))).filter((name) => name.endsWith(".cu"));
  const C = ["-x", "c", "-std=gnu11", "-O1", "-fPIC", "-fvisibility=hidden", "-w", "-DDM_CUDA"];
  const CUDA = ["-x", "c++", "-std=gnu++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-w"];
  const simulated = ["-DDM_CUDA_EMULATION", "-DDM_CUDA_SIMULATION", "-DDM_ISA=cuda", `-I${SOURCES}`];
  const compile = async (source: string, flags: readonly string[]): Promise<string> => {
    const object = path.join(folder, `${path.basename(source)}.o`);
    await run(CXX, [...flags, "-c", path.join(KERNELS, source), "-o", object]);
    return object;
  };
  const objects = await Promise.all([
    ...["op.c", "register.c"].map((source) => compile(source, C)),
    ...names.map((name) => compile(path.join("cuda", name), [...CUDA, ...simulated])),
  ]);
  const library = path.join(folder, KERNEL_LIBRARY);
  await run(CXX, [
    "-shared",
    ...objects,
    path.join(folder, "libcudart.so.13"),
    "-o",
    library,
    "-pthread",
    "-lm",
    "-Wl,-z,nodelete",
  ]);
}
