/**
 * Compiles kernels/ to a shared library with whatever C compiler there is: every operator once per instruction set, in
 * parallel, then one link. Which of them runs is chosen when the library is loaded. Knows nothing of ONNX Runtime.
 */
import { execFile } from "node:child_process";
import { mkdir, readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { promisify } from "node:util";
import { DenseMambaError } from "../../errors.ts";

/** Instruction set → flags, as in kernels/isa.h. A newer set's processors have all that the older ones have. */
const INSTRUCTION_SETS: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  x64: {
    baseline: [],
    avx2: ["-mavx2", "-mfma", "-mf16c"],
    avx512: [
      ...["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"],
      "-mprefer-vector-width=512",
    ],
  },
  arm64: { baseline: [] },
};

/** No `-ffast-math`: a NaN must stay one. */
const FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-w"];
/** `nodelete`: threads that outlive the process's last use of the library still run the destructor of their scratch memory. */
const LINK_FLAGS = ["-shared", "-lm", "-pthread", ...(process.platform === "linux" ? ["-Wl,-z,nodelete"] : [])];

/** Compiled once; every other file once per instruction set. */
const SHARED_SOURCES = ["op.c", "register.c"];

/** About ten times what it takes on one slow core. */
const TIMEOUT_MS = 5 * 60 * 1000;

export interface KernelBuild {
  /** Folder of the C files. */
  readonly sourceDir: string;
  /** The compiler's command, perhaps with arguments: `ccache gcc`. */
  readonly cc: string;
}

/**
 * All that the library is made from, as text: equal texts give equal libraries.
 * @throws `device_unavailable` without a compiler, or where the kernels cannot be built.
 */
export async function describeBuild({ sourceDir, cc }: KernelBuild): Promise<string> {
  const { platform, arch } = process;
  const flags = { FLAGS, LINK_FLAGS, sets: instructionSets() };
  const version = await run(cc, ["--version"], sourceDir).catch((cause: unknown) => {
    throw unavailable(`there is no C compiler: ${cc} ${reasonOf(cause)}`, cause);
  });
  return JSON.stringify({ platform, arch, cc, version, flags });
}

/** @throws `device_unavailable` with the compiler's first error. */
export async function buildKernels(build: KernelBuild, library: string, objectDir: string): Promise<void> {
  const sources = await kernelSources(build.sourceDir);
  const own = sources.filter((name) => name.endsWith(".c") && !SHARED_SOURCES.includes(name));
  const compile = async (folder: string, names: readonly string[], flags: readonly string[]): Promise<string[]> => {
    const cwd = join(objectDir, folder); // where the compiler puts its objects
    await mkdir(cwd, { recursive: true });
    const files = names.map((name) => resolve(build.sourceDir, name));
    await run(build.cc, [...FLAGS, ...flags, "-c", ...files], cwd);
    return names.map((name) => join(cwd, `${basename(name, ".c")}.o`));
  };
  try {
    const objects = await Promise.all([
      compile("shared", SHARED_SOURCES, []),
      ...Object.entries(instructionSets()).map(([name, flags]) => compile(name, own, [`-DDM_ISA=${name}`, ...flags])),
    ]);
    await run(build.cc, [...objects.flat(), "-o", library, ...LINK_FLAGS], objectDir);
  } catch (cause) {
    throw unavailable(`${build.cc} cannot compile the kernels: ${reasonOf(cause)}`, cause);
  }
}

/** The C files and headers, in one order. @throws `device_unavailable` if the folder is not there. */
export async function kernelSources(sourceDir: string): Promise<string[]> {
  const names = await readdir(sourceDir).catch((cause: unknown) => {
    throw unavailable(`the kernels' sources are not in ${sourceDir}`, cause);
  });
  return names.filter((name) => /\.[ch]$/.test(name)).toSorted();
}

export function unavailable(message: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("device_unavailable", message, { cause });
}

/** Instruction set → its flags. @throws `device_unavailable` on other machines than those that the kernels are written for. */
export function instructionSets(): Readonly<Record<string, readonly string[]>> {
  const sets = process.platform === "win32" ? undefined : INSTRUCTION_SETS[process.arch];
  if (sets === undefined) throw unavailable(`the kernels are not written for ${process.platform}/${process.arch}`);
  return sets;
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
