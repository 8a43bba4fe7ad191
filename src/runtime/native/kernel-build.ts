/**
 * Compiles kernels/ to a shared library with whatever C compiler there is: every operator once per
 * instruction set, in parallel, then one link. Which of them runs is chosen when the library is
 * loaded. Knows nothing of ONNX Runtime.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { DenseMambaError } from "../../errors.ts";
import { type CudaTarget, cudaRecipe, isCuda, type Recipe } from "./cuda-build.ts";

const AVX512_FLAGS = [
  ...["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"],
  "-mprefer-vector-width=512",
];

/**
 * Instruction set → flags, as in kernels/isa.h. A newer set's processors have all that the older
 * ones have.
 */
const INSTRUCTION_SETS: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  x64: {
    baseline: [],
    avx2: ["-mavx2", "-mfma", "-mf16c"],
    avx512: AVX512_FLAGS,
    amx: [...AVX512_FLAGS, "-mamx-tile", "-mamx-int8"],
  },
  arm64: { baseline: [] },
};

const AVX512_FEATURES = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"];

/** As /proc/cpuinfo has them. */
const CPU_FEATURES: Readonly<Record<string, readonly string[]>> = {
  avx2: ["avx2", "fma", "f16c"],
  avx512: AVX512_FEATURES,
  amx: [...AVX512_FEATURES, "amx_tile", "amx_int8"],
};

/**
 * The CPU may have it and the system, an old one or a sandbox, not grant it: then the library takes
 * the set before.
 */
const MAY_BE_REFUSED: ReadonlySet<string> = new Set(["amx"]);

/** No `-ffast-math`: a NaN must stay one. */
const FLAGS = [
  ...["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-w"],
  // Or an inner loop may begin anywhere in a line of the cache, by a change somewhere else: up to
  // 5% of a step.
  ...["-falign-functions=64", "-falign-loops=64"],
];
/**
 * `nodelete`: threads that outlive the process's last use of the library still run the destructor
 * of their scratch memory.
 */
const LINK_FLAGS = ["-shared", "-lm", "-pthread", ...(process.platform === "linux" ? ["-Wl,-z,nodelete"] : [])];

/** Compiled once; every other file once per instruction set. */
const SHARED_SOURCES = ["op.c", "register.c"];

/** About ten times what it takes on one slow core. */
const TIMEOUT_MS = 5 * 60 * 1000;

export interface KernelBuild {
  /** Folder of the C files. */
  readonly sourceDir: string;
  /**
   * The compiler's command, perhaps with arguments: `ccache gcc`. nvcc for `cuda`, a C++ compiler
   * for `emulated`.
   */
  readonly cc: string;
  /**
   * `host`: for this CPU alone, in a part of the time. `all`: for every CPU of this architecture.
   */
  readonly target: "host" | "all" | CudaTarget;
  /** Of the library, where the compiler makes one for another machine. Default: this one's. */
  readonly arch?: string;
}

/**
 * All that the library is made from but its sources, as text: equal texts give equal libraries.
 * @throws `device_unavailable` without a compiler, or where the kernels cannot be built.
 */
export async function describeBuild(build: KernelBuild): Promise<string> {
  const { platform, arch } = process;
  const { cc, sourceDir } = build;
  const recipe = await recipeFor(build);
  const version = await run(cc, ["--version"], sourceDir).catch((cause: unknown) => {
    const kind = build.target === "cuda" ? "CUDA" : "C";
    throw unavailable(`there is no ${kind} compiler: ${cc} ${reasonOf(cause)}`, cause);
  });
  return JSON.stringify({ platform, arch, cc, version, recipe });
}

/** @throws `device_unavailable` with the compiler's first error. */
export async function buildKernels(build: KernelBuild, library: string, objectDir: string): Promise<void> {
  const { jobs, linkFlags } = await recipeFor(build);
  try {
    await mkdir(objectDir, { recursive: true });
    await eachOnSomeCore(jobs, ({ source, object, flags }) =>
      run(build.cc, [...flags, "-c", resolve(build.sourceDir, source), "-o", object], objectDir),
    );
    const objects = jobs.map(({ object }) => object);
    await run(build.cc, [...objects, "-o", resolve(library), ...linkFlags], objectDir);
  } catch (cause) {
    throw unavailable(`${build.cc} cannot compile the kernels: ${reasonOf(cause)}`, cause);
  }
}

/**
 * The files that the library is made from, below `sourceDir`, in one order. @throws
 * `device_unavailable` if they are not there.
 */
export async function buildSources(build: KernelBuild): Promise<string[]> {
  const { folders } = await recipeFor(build);
  const names = await Promise.all(
    folders.map(async (folder) => {
      const names = await kernelSources(resolve(build.sourceDir, folder));
      return names.map((name) => join(folder, name));
    }),
  );
  return names.flat();
}

async function recipeFor({ sourceDir, target, cc, arch }: KernelBuild): Promise<Recipe> {
  if (isCuda(target)) return cudaRecipe(target, await kernelSources(resolve(sourceDir, "cuda")));
  const own = (await kernelSources(sourceDir)).filter((name) => name.endsWith(".c") && !SHARED_SOURCES.includes(name));
  const sets = await setsFor(target, cc, arch);
  const listed = Object.keys(sets).map((set) => `X(${set})`);
  const jobs = [
    ...SHARED_SOURCES.map((source) => ({
      source,
      object: `${source}.o`,
      flags: [...FLAGS, `-DDM_ISAS(X)=${listed.join(" ")}`],
    })),
    ...Object.entries(sets).flatMap(([set, flags]) =>
      own.map((source) => ({ source, object: `${source}.${set}.o`, flags: [...FLAGS, `-DDM_ISA=${set}`, ...flags] })),
    ),
  ];
  return { folders: ["."], jobs, linkFlags: LINK_FLAGS };
}

/**
 * The files of C and CUDA and their headers, in one order. @throws `device_unavailable` if the
 * folder is not there.
 */
export async function kernelSources(sourceDir: string): Promise<string[]> {
  const names = await readdir(sourceDir).catch((cause: unknown) => {
    throw unavailable(`the kernels' sources are not in ${sourceDir}`, cause);
  });
  return names.filter((name) => /\.(c|h|cu)$/.test(name)).toSorted();
}

export function unavailable(message: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("device_unavailable", message, { cause });
}

/**
 * Instruction set → its flags. @throws `device_unavailable` on other machines than those that the
 * kernels are written for.
 */
export function instructionSets(arch: string = process.arch): Readonly<Record<string, readonly string[]>> {
  const sets = process.platform === "win32" ? undefined : INSTRUCTION_SETS[arch];
  if (sets === undefined) throw unavailable(`the kernels are not written for ${process.platform}/${arch}`);
  return sets;
}

/** What to compile for: of those that the compiler knows, what this CPU will use, or all. */
async function setsFor(
  target: "host" | "all",
  cc: string,
  arch: string | undefined,
): Promise<Readonly<Record<string, readonly string[]>>> {
  const all = Object.entries(instructionSets(arch));
  const known: [string, readonly string[]][] = [];
  for (const [set, flags] of all) {
    if (flags.length === 0 || (await knowsFlags(cc, flags))) known.push([set, flags]);
  }
  const has = target === "host" && process.platform === "linux" ? cpuHas() : undefined;
  const best = has ? known.findLastIndex(([set]) => has(set)) : -1;
  if (best === -1) return Object.fromEntries(known);
  const first = MAY_BE_REFUSED.has(known[best]![0]) ? best - 1 : best;
  return Object.fromEntries(known.slice(first, best + 1));
}

/**
 * Whether this CPU has an instruction set, by the kernel's own list; undefined if there is no
 * telling.
 */
function cpuHas(): ((set: string) => boolean) | undefined {
  if (process.arch !== "x64") return () => true;
  const features = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1]?.split(" ");
  return features && ((set) => (CPU_FEATURES[set] ?? []).every((feature) => features.includes(feature)));
}

const flagsKnown = new Map<string, Promise<boolean>>();

/** A compiler may be older than the CPU. */
function knowsFlags(cc: string, flags: readonly string[]): Promise<boolean> {
  const key = JSON.stringify([cc, flags]);
  const known =
    flagsKnown.get(key) ??
    run(cc, [...flags, "-fsyntax-only", "-x", "c", "/dev/null"], ".").then(
      () => true,
      () => false,
    );
  flagsKnown.set(key, known);
  return known;
}

/**
 * As many at once as there are cores. Rejects with the first failure, when nothing is at work any
 * more.
 */
export async function eachOnSomeCore<Job>(jobs: readonly Job[], work: (job: Job) => Promise<unknown>): Promise<void> {
  const waiting = [...jobs];
  const workers = Array.from({ length: availableParallelism() }, async () => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
      await work(job).catch((error: unknown) => {
        waiting.length = 0;
        throw error;
      });
    }
  });
  await Promise.allSettled(workers);
  await Promise.all(workers);
}

/** @returns what it printed. */
async function run(cc: string, args: readonly string[], cwd: string): Promise<string> {
  const [command, ...own] = cc.trim().split(/\s+/);
  const { stdout } = await promisify(execFile)(command!, [...own, ...args], { cwd, timeout: TIMEOUT_MS });
  return stdout;
}

/** One line: the first that names an error, the compiler's own words if there is none. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if ("code" in error && error.code === "ENOENT") return "is not found";
  if ("killed" in error && error.killed === true) return `took longer than ${TIMEOUT_MS / 60_000} minutes`;
  const stderr = "stderr" in error ? String(error.stderr).split("\n") : [];
  const said = stderr.find((line) => /\berror\b/i.test(line)) ?? stderr.find((line) => line.trim() !== "");
  const code = "code" in error ? ` (exit code ${String(error.code)})` : "";
  return said === undefined ? `fails${code}` : said.trim();
}
