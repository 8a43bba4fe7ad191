/**
 * Reads a Dockerfile and carries out its steps in a folder, without a container engine: COPY
 * copies, RUN runs, and the absolute paths of the image become paths below the folder. Base images
 * are not there: the tools are this machine's.
 */
import { execFile } from "node:child_process";
import { cp, mkdir, readdir, stat } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

export interface Instruction {
  readonly keyword: string;
  /** Continuation lines joined, flags such as `--from=build` taken out. */
  readonly text: string;
  readonly flags: Readonly<Record<string, string>>;
}

export interface Stage {
  readonly name: string | undefined;
  readonly image: string;
  readonly instructions: readonly Instruction[];
}

export interface BuiltStage {
  /** The image's root. */
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string;
}

/** With the defaults of ARGs before the first FROM put in. */
export function parseDockerfile(text: string): Stage[] {
  const args = new Map<string, string>();
  const stages: { name: string | undefined; image: string; instructions: Instruction[] }[] = [];
  for (const instruction of parseInstructions(text)) {
    if (instruction.keyword === "FROM") {
      const [image, , name] = instruction.text.split(/\s+/);
      stages.push({ name, image: image!.replace(/\$\{(\w+)\}/, (_, key) => args.get(key) ?? ""), instructions: [] });
    } else if (stages.length === 0 && instruction.keyword === "ARG") {
      const [key, value] = instruction.text.split("=");
      args.set(key!, value ?? "");
    } else stages.at(-1)!.instructions.push(instruction);
  }
  return stages;
}

function parseInstructions(text: string): Instruction[] {
  const lines = text.split("\n").filter((line) => !/^\s*(#|$)/.test(line));
  const joined = lines.join("\n").replaceAll(/\\\n\s*/g, " ");
  return joined.split("\n").map((line) => {
    const [, keyword, rest] = /^(\w+)\s+(.*)$/.exec(line)!;
    const flags: Record<string, string> = {};
    let words = rest!;
    for (let match = flagOf(words); match !== null; match = flagOf(words)) {
      flags[match[1]!] = match[2]!;
      words = words.slice(match[0].length);
    }
    return { keyword: keyword!.toUpperCase(), text: words, flags };
  });
}

function flagOf(text: string): RegExpExecArray | null {
  return /^--([\w-]+)=(\S+)\s+/.exec(text);
}

/** Builds all stages below `folder`; the last one is the image. */
export async function buildStages(
  stages: readonly Stage[],
  { context, folder }: { readonly context: string; readonly folder: string },
): Promise<BuiltStage> {
  const built = new Map<string, BuiltStage>();
  let last: BuiltStage | undefined;
  for (const [index, stage] of stages.entries()) {
    last = await buildStage(stage, { context, root: path.join(folder, `stage-${index}`), built });
    if (stage.name !== undefined) built.set(stage.name, last);
  }
  return last!;
}

async function buildStage(
  stage: Stage,
  { context, root, built }: { context: string; root: string; built: ReadonlyMap<string, BuiltStage> },
): Promise<BuiltStage> {
  const env: Record<string, string> = {};
  let workdir = "/";
  await mkdir(root, { recursive: true });
  for (const { keyword, text, flags } of stage.instructions) {
    switch (keyword) {
      case "WORKDIR":
        workdir = text;
        await mkdir(path.join(root, workdir), { recursive: true });
        break;
      case "ENV":
        for (const [, key, value] of text.matchAll(/(\w+)=(\S+)/g)) env[key!] = value!;
        break;
      case "COPY":
        await copy(text.split(/\s+/), { from: flags.from ? built.get(flags.from)!.root : context, root, workdir });
        break;
      case "RUN":
        await promisify(execFile)("sh", ["-e", "-c", withinRoot(text, root)], {
          cwd: path.join(root, workdir),
          env: { ...withoutOwn(process.env), ...env, CI: "true", npm_config_prefer_offline: "true" },
          maxBuffer: 2 ** 26,
        }).catch((error) => {
          throw new Error(`RUN ${text}\n${error.stdout}\n${error.stderr}`);
        });
        break;
    }
  }
  return { root, env, workdir };
}

/**
 * Of the machine's environment what is not about this program: tests are given the kernels' library
 * by a variable.
 */
function withoutOwn(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("DENSEMAMBA_")));
}

/**
 * COPY's rules as far as they are used: several files need a folder; a folder's content goes into
 * the target.
 */
async function copy(words: string[], places: { from: string; root: string; workdir: string }): Promise<void> {
  const target = words.pop()!;
  const into = path.join(places.root, path.resolve(places.workdir, target));
  for (const word of words) {
    const source = path.join(places.from, word);
    const isFolder = (await stat(source)).isDirectory();
    const isTargetFolder = target.endsWith("/") || words.length > 1;
    const to = !isFolder && isTargetFolder ? path.join(into, path.basename(source)) : into;
    await mkdir(path.dirname(to), { recursive: true });
    await cp(source, to, { recursive: true, verbatimSymlinks: true });
  }
}

/** The image's absolute paths, in a shell command or an environment, as paths of this machine. */
export function withinRoot(text: string, root: string): string {
  return text.replaceAll(/(?<![\w.:/-])\/(app|var)\b/g, (_, top) => path.join(root, top));
}

export async function folderBytes(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
