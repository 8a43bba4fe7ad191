/**
 * Installs the peers in a folder of the cache, never among our own dependencies: llama.cpp, built
 * for this machine from the source in PyPI's llama-cpp-python, and node-llama-cpp from npm. What is
 * there stays; what was interrupted goes on.
 */
import { spawn } from "node:child_process";
import { createWriteStream, existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { arch, constants, platform, setPriority } from "node:os";
import { join } from "node:path";
import { killOnExit } from "../../src/bench/cleanup.ts";

/** Pinned, so that a rerun compares with the same program. */
export const LLAMA_CPP_PYTHON = "0.3.36";
export const NODE_LLAMA_CPP = "3.22.1";

const TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-server"] as const;
/** Paths of the programs. */
export type LlamaTools = Readonly<Record<(typeof TOOLS)[number], string>>;

export interface InstallOptions {
  /** Created if missing. */
  readonly peersDir: string;
  /** Compilers at once, at low priority. */
  readonly jobs: number;
  readonly print: (line: string) => void;
}

/** As its own releases are built, for this processor; without what needs the network. */
const CMAKE_OPTIONS = [
  "-DCMAKE_BUILD_TYPE=Release",
  "-DBUILD_SHARED_LIBS=OFF",
  "-DGGML_NATIVE=ON",
  "-DLLAMA_BUILD_TESTS=OFF",
  "-DLLAMA_BUILD_EXAMPLES=OFF",
  "-DLLAMA_BUILD_APP=OFF",
  "-DLLAMA_BUILD_UI=OFF",
  "-DLLAMA_USE_PREBUILT_UI=OFF",
  "-DLLAMA_OPENSSL=OFF",
  // The source has no git history to name its version by, and must not take ours.
  "-DLLAMA_BUILD_NUMBER=0",
  `-DLLAMA_BUILD_COMMIT=llama-cpp-python-${LLAMA_CPP_PYTHON}`,
];

/**
 * Takes half an hour the first time on a small machine.
 * @throws Error where pip, cmake or a compiler is missing or fails
 */
export async function installLlamaCpp({ peersDir, jobs, print }: InstallOptions): Promise<LlamaTools> {
  const dir = join(peersDir, "llama.cpp");
  const [source, build, logFile] = [join(dir, "source"), join(dir, "build"), join(dir, "build.log")];
  const tools = toolsIn(join(build, "bin"));
  if (Object.values(tools).every((path) => existsSync(path))) return tools;
  if (!existsSync(source)) await downloadSource(dir, source, print);
  print(`building llama.cpp in ${build} with ${jobs} jobs at low priority; ${logFile} shows the progress`);
  await runTool("cmake", ["-S", join(source, "vendor", "llama.cpp"), "-B", build, ...CMAKE_OPTIONS], { logFile });
  const targets = TOOLS.flatMap((tool) => ["--target", tool]);
  await runTool("cmake", ["--build", build, "-j", String(jobs), ...targets], { logFile, lowPriority: true });
  return tools;
}

export function toolsIn(folder: string): LlamaTools {
  return Object.fromEntries(TOOLS.map((tool) => [tool, join(folder, tool)])) as LlamaTools;
}

async function downloadSource(dir: string, source: string, print: (line: string) => void): Promise<void> {
  print(`downloading llama-cpp-python ${LLAMA_CPP_PYTHON}, which contains llama.cpp's source`);
  const downloads = join(dir, "dist");
  await mkdir(downloads, { recursive: true });
  const name = "llama-cpp-python";
  const options = ["--no-binary", name, "--no-deps", "--dest", downloads];
  await runTool("python3", ["-m", "pip", "download", ...options, `${name}==${LLAMA_CPP_PYTHON}`]);
  const archive = (await readdir(downloads)).find((file) => file.endsWith(".tar.gz"));
  if (archive === undefined) throw new Error(`pip left no .tar.gz in ${downloads}`);
  // Moved into place when it is complete.
  const partial = `${source}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  await runTool("tar", ["-xzf", join(downloads, archive), "-C", partial, "--strip-components=1"]);
  await rename(partial, source);
}

/** @returns the path of its module */
export async function installNodeLlamaCpp({ peersDir, print }: InstallOptions): Promise<string> {
  const dir = join(peersDir, "node-llama-cpp");
  const entry = join(dir, "node_modules", "node-llama-cpp", "dist", "index.js");
  if (existsSync(entry)) return entry;
  print(`installing node-llama-cpp ${NODE_LLAMA_CPP}`);
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "package.json"), JSON.stringify({ private: true }));
  // On Linux the build for the CPU alone: those for CUDA and Vulkan are 600 MB. Elsewhere npm
  // chooses.
  const prebuilt =
    platform() === "linux" ? ["--omit=optional", `@node-llama-cpp/linux-${arch()}@${NODE_LLAMA_CPP}`] : [];
  const packages = [`node-llama-cpp@${NODE_LLAMA_CPP}`, ...prebuilt];
  await runTool("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", ...packages], { cwd: dir });
  return entry;
}

export interface ToolOptions {
  readonly cwd?: string;
  /** Appends stdout and stderr here as they come. */
  readonly logFile?: string;
  /** For builds that take long. */
  readonly lowPriority?: boolean;
}

const TAIL_CHARACTERS = 2000;

/**
 * Runs another program.
 * @returns its stdout
 * @throws Error with the end of its output if it cannot start or fails
 */
export async function runTool(command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  const { cwd, logFile, lowPriority = false } = options;
  // A session of its own where it has low priority: Linux schedules it as one group.
  const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"], detached: lowPriority });
  killOnExit(child, lowPriority ? "group" : "process");
  if (lowPriority && child.pid !== undefined) lowerPriority(child.pid);
  const log = logFile === undefined ? undefined : createWriteStream(logFile, { flags: "a" });
  let stdout = "";
  let tail = "";
  const read = (text: string) => {
    tail = (tail + text).slice(-TAIL_CHARACTERS);
    log?.write(text);
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    read(text);
  });
  child.stderr.setEncoding("utf8").on("data", read);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}:\n${tail}`);
    return stdout;
  } finally {
    log?.end();
  }
}

function lowerPriority(pid: number): void {
  try {
    setPriority(pid, constants.priority.PRIORITY_LOW);
  } catch {
    // It has already ended.
  }
  // Where the scheduler groups sessions, a priority counts within its group only; elsewhere there
  // is no such file.
  writeFile(`/proc/${pid}/autogroup`, "19").catch(() => {});
}
