/**
 * The peers, in a folder of the cache and never among our own dependencies: llama.cpp built for this very machine from
 * the source that PyPI's llama-cpp-python carries, and node-llama-cpp from npm as its users get it. What is there is
 * left as it is; what was cut off goes on.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { arch, platform } from "node:os";
import { join } from "node:path";
import { runTool } from "./tool.ts";

/** Pinned, so that a rerun compares with the same program. */
export const LLAMA_CPP_PYTHON = "0.3.36";
export const NODE_LLAMA_CPP = "3.22.1";

const TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-server"] as const;
export type LlamaTool = (typeof TOOLS)[number];
export type LlamaTools = Readonly<Record<LlamaTool, string>>;

export interface InstallOptions {
  /** Created if missing. */
  readonly peersDir: string;
  /** Compilers at once, at low priority. */
  readonly jobs: number;
  readonly print: (line: string) => void;
}

/** Takes half an hour the first time on a small machine. @throws Error where pip, cmake or a compiler is missing or fails */
export async function installLlamaCpp({ peersDir, jobs, print }: InstallOptions): Promise<LlamaTools> {
  const dir = join(peersDir, "llama.cpp");
  const tools = llamaTools(peersDir);
  if (tools !== undefined) return tools;
  const source = join(dir, "source");
  if (!existsSync(source)) await downloadSource(dir, source, print);
  const build = join(dir, "build");
  const logFile = join(dir, "build.log");
  print(`building llama.cpp in ${build} with ${jobs} jobs at low priority; ${logFile} tells how far it is`);
  await runTool("cmake", ["-S", join(source, "vendor", "llama.cpp"), "-B", build, ...CMAKE_OPTIONS], { logFile });
  const targets = TOOLS.flatMap((tool) => ["--target", tool]);
  await runTool("cmake", ["--build", build, "-j", String(jobs), ...targets], { logFile, lowPriority: true });
  return llamaTools(peersDir)!;
}

/** Paths of the programs, undefined if they are not all built. */
export function llamaTools(peersDir: string): LlamaTools | undefined {
  const paths = TOOLS.map((tool) => [tool, join(peersDir, "llama.cpp", "build", "bin", tool)] as const);
  return paths.every(([, path]) => existsSync(path)) ? (Object.fromEntries(paths) as LlamaTools) : undefined;
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

async function downloadSource(dir: string, source: string, print: (line: string) => void): Promise<void> {
  print(`downloading llama-cpp-python ${LLAMA_CPP_PYTHON}, which carries llama.cpp's source`);
  const downloads = join(dir, "dist");
  await mkdir(downloads, { recursive: true });
  const name = "llama-cpp-python";
  const requirement = `${name}==${LLAMA_CPP_PYTHON}`;
  const options = ["--no-binary", name, "--no-deps", "--dest", downloads];
  await runTool("python3", ["-m", "pip", "download", ...options, requirement]);
  const archive = (await readdir(downloads)).find((file) => file.endsWith(".tar.gz"));
  if (archive === undefined) throw new Error(`pip left no .tar.gz in ${downloads}`);
  // Moved into place when it is whole.
  const partial = `${source}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  await runTool("tar", ["-xzf", join(downloads, archive), "-C", partial, "--strip-components", "1"]);
  await rename(partial, source);
}

/** Path of the module to import. @throws Error if npm fails */
export async function installNodeLlamaCpp({ peersDir, print }: InstallOptions): Promise<string> {
  const dir = join(peersDir, "node-llama-cpp");
  const entry = join(dir, "node_modules", "node-llama-cpp", "dist", "index.js");
  if (existsSync(entry)) return entry;
  print(`installing node-llama-cpp ${NODE_LLAMA_CPP}`);
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "package.json"), JSON.stringify({ private: true }));
  const packages = [`node-llama-cpp@${NODE_LLAMA_CPP}`, ...prebuilt()];
  await runTool("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", ...packages], { cwd: dir });
  return entry;
}

/** On Linux its build for the CPU alone: those for CUDA and Vulkan are 600 MB. Elsewhere npm chooses. */
function prebuilt(): string[] {
  return platform() === "linux" ? ["--omit=optional", `@node-llama-cpp/linux-${arch()}@${NODE_LLAMA_CPP}`] : [];
}
