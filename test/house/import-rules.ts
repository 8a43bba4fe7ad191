/**
 * The layering of ARCHITECTURE.md as a table, and the search for breaches. Imports point downward
 * only: a folder may import itself, `errors.ts`, and what its row allows. No file may import itself
 * through others, types included.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

export interface SourceFile {
  /** Relative to the repository, with `/`. */
  readonly file: string;
  readonly text: string;
}

/** Folder (or file) of `src/` → those it may import from. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  "errors.ts": [],
  "index.ts": ["app", "config", "generation"],
  model: [],
  onnx: [],
  grammar: ["sampling"],
  sampling: ["model"],
  tokenizer: [],
  hub: ["model", "config"],
  compiler: ["model", "onnx"],
  runtime: ["model"],
  sessions: ["model", "runtime", "tokenizer"],
  engine: ["model", "runtime", "sampling", "sessions"],
  prefix: ["engine", "sessions"],
  generation: ["model", "grammar", "sampling", "sessions", "prefix", "tokenizer", "engine"],
  server: ["model", "grammar", "sampling", "tokenizer", "engine", "sessions", "generation"],
  metrics: ["model", "sessions", "prefix", "engine"],
  config: [],
  app: [
    ...["model", "compiler", "runtime", "tokenizer", "hub", "sampling", "sessions", "prefix", "engine", "generation"],
    ...["grammar", "server", "metrics", "config"],
  ],
  bench: [
    ...[
      "model",
      "compiler",
      "runtime",
      "sampling",
      "tokenizer",
      "sessions",
      "prefix",
      "engine",
      "generation",
      "config",
    ],
  ],
  cli: [
    ...["model", "compiler", "runtime", "tokenizer", "hub", "sampling", "sessions", "engine", "generation"],
    ...["config", "app", "bench"],
  ],
};

/** Packages that only one folder may import. */
const OWNED_PACKAGES: Readonly<Record<string, string>> = {
  koffi: "runtime",
  "onnxruntime-node": "runtime",
  "onnxruntime-common": "runtime",
  hono: "server",
  "@hono/node-server": "server",
  ws: "server",
  tokenizers: "tokenizer",
  "@huggingface/tokenizers": "tokenizer",
  "@eslint-community/regexpp": "grammar",
  "prom-client": "metrics",
  "@huggingface/hub": "hub",
  undici: "hub",
  ioredis: "sessions",
  commander: "cli",
  pino: "app",
  "sonic-boom": "app",
};

const ENVIRONMENT_READER = "src/config/process.ts";

/** Every breach, as `file: what`. */
export function findBreaches(files: readonly SourceFile[]): string[] {
  return files.flatMap((source) => [...importBreaches(source), ...environmentBreaches(source)]);
}

export function readSources(root = "src"): SourceFile[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => path.join(root, name))
    .map((name) => ({ file: name.split(path.sep).join("/"), text: readFileSync(name, "utf8") }));
}

function importBreaches({ file, text }: SourceFile): string[] {
  const folder = folderOf(file);
  const allowed = ALLOWED[folder];
  if (allowed === undefined) return [`${file}: src/${folder} has no row in the import rules`];
  return importsOf(text).flatMap((specifier) => {
    if (!specifier.startsWith(".")) {
      const owner = OWNED_PACKAGES[packageOf(specifier)];
      return owner === undefined || owner === folder
        ? []
        : [`${file}: imports ${specifier}, which belongs to ${owner}`];
    }
    if (!/\.(?:ts|json)$/.test(specifier)) return [`${file}: imports ${specifier} without its extension`];
    const target = path.posix.join(path.posix.dirname(file), specifier);
    if (!target.startsWith("src/")) return [`${file}: imports ${target}, which is not shipped`];
    const to = folderOf(target);
    if (to === folder || to === "errors.ts" || allowed.includes(to)) return [];
    return [`${file}: src/${folder} must not import ${target}`];
  });
}

/**
 * Sets of files that import each other, directly or through others; all sorted. Tarjan's algorithm.
 */
export function findCircles(files: readonly SourceFile[]): string[][] {
  const imports = new Map(files.map(({ file, text }) => [file, relativeImports(file, text)]));
  /** The order of the first visit, and the earliest file still on the stack that a file reaches. */
  const visited = new Map<string, number>();
  const earliest = new Map<string, number>();
  const stack: string[] = [];
  const circles: string[][] = [];
  const visit = (file: string) => {
    visited.set(file, visited.size);
    earliest.set(file, visited.get(file)!);
    stack.push(file);
    for (const target of imports.get(file) ?? []) {
      if (!visited.has(target)) visit(target);
      if (stack.includes(target)) earliest.set(file, Math.min(earliest.get(file)!, earliest.get(target)!));
    }
    if (earliest.get(file) !== visited.get(file)) return;
    const circle = stack.splice(stack.indexOf(file));
    if (circle.length > 1 || imports.get(file)?.includes(file)) circles.push(circle.toSorted());
  };
  for (const { file } of files) if (!visited.has(file)) visit(file);
  return circles.toSorted(([a = ""], [b = ""]) => a.localeCompare(b));
}

function relativeImports(file: string, text: string): string[] {
  const relative = importsOf(text).filter((specifier) => specifier.startsWith("."));
  return relative.map((specifier) => path.posix.join(path.posix.dirname(file), specifier));
}

function environmentBreaches({ file, text }: SourceFile): string[] {
  const reads = /\bprocess\s*\.\s*env\b|\benv\b[^;]*\bfrom\s+"(?:node:)?process"/.test(withoutComments(text));
  return reads && file !== ENVIRONMENT_READER
    ? [`${file}: reads process.env, which only ${ENVIRONMENT_READER} may`]
    : [];
}

/** Static, dynamic, re-exported, required, and in types. */
export function importsOf(text: string): string[] {
  const code = withoutComments(text);
  const patterns = [
    /\b(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']/g,
    /\bimport\s*["']([^"']+)["']/g,
    /\b(?:import|require)\s*\(\s*["']([^"']+)["']/g,
    // createRequire(import.meta.url)("x")
    /\bcreateRequire\([^)]*\)(?:\.resolve)?\(\s*["']([^"']+)["']/g,
  ];
  return patterns.flatMap((pattern) => [...code.matchAll(pattern)].map((match) => match[1]!));
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "");
}

/** `src/engine/slots.ts` → `engine`; `src/errors.ts` → `errors.ts`. */
function folderOf(file: string): string {
  return file.split("/")[1] ?? "";
}

/** `@hono/node-server/utils` → `@hono/node-server` */
export function packageOf(specifier: string): string {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : parts[0]!;
}
