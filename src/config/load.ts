/**
 * Parses the configuration: flags before environment variables before the config file. It collects
 * all problems before it refuses, and freezes the result. The sources are arguments: `process.ts`
 * reads those of this process.
 */
import path from "node:path";
import { DenseMambaError } from "../errors.ts";
import { type Config, configOptions, configSchema, ENVIRONMENT_PREFIX, type Options } from "./schema.ts";
import { expandHome, type FindHome, homeFor, userHome } from "./values.ts";

/** Names the config file. */
export const CONFIG_VARIABLE = `${ENVIRONMENT_PREFIX}CONFIG`;

/** Behind a secret's variable: names a file with the secret, as those of Docker and Kubernetes. */
const FILE_SUFFIX = "_FILE";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface ConfigSources {
  /** By config key; undefined means not given. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Environment;
  /** The parsed JSON of the config file. */
  readonly file?: unknown;
  readonly findHome?: FindHome;
  /** Reads a file that a variable names. @returns undefined if it cannot be read */
  readonly readText?: (file: string) => string | undefined;
}

export interface ParsedConfig {
  readonly config: Config;
  /** As they were given, or by default. */
  readonly options: Options;
  /** Those that were given, each with the name of its source. */
  readonly origins: ReadonlyMap<string, string>;
  /** Those that came from a file, whose content may change. */
  readonly fromFiles: ReadonlySet<string>;
}

/** @throws `invalid_config` with every problem, one per line */
export function loadConfig(sources: ConfigSources): Config {
  return parseConfig(sources).config;
}

/** @throws `invalid_config` with every problem, one per line */
export function parseConfig(sources: ConfigSources): ParsedConfig {
  const { flags, env: given, file = {}, findHome = userHome, readText = () => undefined } = sources;
  const problems: string[] = [];
  const origins = new Map<string, string>();
  const fromFiles = new Set<string>();
  const links = new Set(serviceLinks(given));
  const env = Object.fromEntries(Object.entries(given).filter(([name]) => !links.has(name)));
  const raw: Record<string, unknown> = {
    cCompiler: env.CC || "cc",
    nvcc: env.CUDA_HOME ? path.join(env.CUDA_HOME, "bin", "nvcc") : "nvcc",
  };
  const take = (key: string, value: unknown, origin: string, isFile = false) => {
    if (value === undefined || value === null) return;
    raw[key] = value;
    origins.set(key, origin);
    fromFiles.delete(key);
    if (isFile) fromFiles.add(key);
  };

  // From the weakest source to the strongest: the last value wins.
  if (isRecord(file)) {
    const keys = configOptions.map(({ key }) => key);
    problems.push(...unknownNames(Object.keys(file), keys, "key", "in the config file"));
    for (const key of keys) take(key, file[key], `${key} in the config file`, true);
  } else {
    problems.push(`the config file must hold a JSON object, ${JSON.stringify(file)} given`);
  }
  const variables = Object.keys(env).filter((name) => name.startsWith(ENVIRONMENT_PREFIX));
  const secrets = configOptions.filter(({ isSecret }) => isSecret);
  const known = [
    ...configOptions.map(({ variable }) => variable),
    ...secrets.map(({ variable }) => variable + FILE_SUFFIX),
    CONFIG_VARIABLE,
  ];
  problems.push(...unknownNames(variables, known, "variable", "in the environment"));
  const secretIn = (variable: string, named: string) =>
    tryOr(problems, () => {
      const text = readText(expandHome(named, findHome, variable));
      if (text !== undefined) return text.trim();
      throw new DenseMambaError("invalid_config", `${variable} names a file that cannot be read: ${named}`);
    });
  for (const { key, variable, flag, isSecret } of configOptions) {
    // In a compose file an empty variable means "not given".
    take(key, env[variable] || undefined, variable);
    const fileVariable = variable + FILE_SUFFIX;
    const named = isSecret ? env[fileVariable] : undefined;
    if (named && env[variable]) problems.push(`${variable} and ${fileVariable} are both given`);
    else if (named) take(key, secretIn(fileVariable, named), `the file that ${fileVariable} names`, true);
    take(key, flags[key], flag);
  }

  for (const { key, isPath } of configOptions) {
    const value = raw[key];
    if (!isPath || typeof value !== "string") continue;
    raw[key] = tryOr(problems, () => expandHome(value, findHome, origins.get(key)!)) ?? value;
  }
  raw.cacheDir ??= tryOr(problems, () => defaultCacheDir(env, findHome)) ?? "none";

  const parsed = configSchema.safeParse(raw);
  const models = (parsed.data?.model ?? []).map((source) => {
    const expand = () => expandHome(source.path, findHome, origins.get("model") ?? "model");
    return Object.freeze({ ...source, path: tryOr(problems, expand) ?? source.path });
  });
  const personas = (parsed.data?.personas ?? []).map((file) => {
    const expand = () => expandHome(file.path, findHome, origins.get("personas") ?? "personas");
    return Object.freeze({ ...file, path: tryOr(problems, expand) ?? file.path });
  });
  if (parsed.success) problems.push(...unmetNeeds(parsed.data, origins));
  else problems.push(...parsed.error.issues.map(({ path, message }) => `${origins.get(String(path[0]))} ${message}`));
  if (problems.length > 0 || !parsed.success) throw new DenseMambaError("invalid_config", problems.join("\n"));
  const [first, ...otherModels] = models;
  const modelName = first!.name === undefined ? parsed.data.modelName : [first!.name, ...parsed.data.modelName];
  const config = Object.freeze({
    ...parsed.data,
    model: first!.path,
    modelName: Object.freeze(modelName),
    otherModels: Object.freeze(otherModels),
    personas: Object.freeze(personas),
  });
  return { config, options: parsed.data, origins, fromFiles };
}

const LINK_NAME = /_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)$/;
const LINK_ADDRESS = /^(?:tcp|udp|sctp):\/\//;

/**
 * Variables that are no options of ours. Kubernetes describes services to every pod: those of a
 * service named `densemamba` have our prefix, and `DENSEMAMBA_PORT` is also an option. Docker's
 * `--link` does the same.
 */
export function serviceLinks(env: Environment): string[] {
  return Object.entries(env).flatMap(([name, value = ""]) => {
    const isLink = LINK_NAME.test(name) || (name.endsWith("_PORT") && LINK_ADDRESS.test(value));
    return isLink && name.startsWith(ENVIRONMENT_PREFIX) ? [name] : [];
  });
}

/** An option that has no effect without another one is refused without it. */
function unmetNeeds(config: Options, origins: ReadonlyMap<string, string>): string[] {
  const flags = new Map(configOptions.map(({ key, flag }) => [key, flag]));
  return configOptions.flatMap(({ key, needs }) => {
    const origin = origins.get(key);
    // To turn something off needs nothing else.
    if (origin === undefined || config[key] === false || config[key] === 0) return [];
    return needs.flatMap((needed) => {
      if (config[needed] === undefined) return [`${origin} needs ${flags.get(needed)}`];
      return config[needed] === 0 ? [`${origin} needs ${flags.get(needed)} above 0`] : [];
    });
  });
}

/** @throws `invalid_config` if it would be in the home folder and there is none */
function defaultCacheDir(env: Environment, findHome: FindHome): string {
  const parent = env.XDG_CACHE_HOME
    ? expandHome(env.XDG_CACHE_HOME, findHome, "XDG_CACHE_HOME")
    : path.join(homeFor(findHome, "no --cache-dir is given"), ".cache");
  return path.join(parent, "densemamba");
}

/** @returns undefined after adding a problem */
function tryOr(problems: string[], act: () => string): string | undefined {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof DenseMambaError)) throw error;
    problems.push(error.message);
    return undefined;
  }
}

function unknownNames(given: readonly string[], known: readonly string[], what: string, where: string): string[] {
  return given
    .filter((name) => !known.includes(name))
    .map((name) => {
      const near = nearest(name, known);
      return `unknown ${what} ${name} ${where}${near.length > 0 ? `; did you mean ${near.join(" or ")}?` : ""}`;
    });
}

/**
 * The known names with the fewest edits, if at most two or a third of the letters. Case, separators
 * and our prefix do not count, so `max_batch` is near `maxBatch`. (Commander suggests flags, but
 * not for keys and variables.)
 */
function nearest(name: string, known: readonly string[]): string[] {
  const plain = (full: string) =>
    full
      .replace(ENVIRONMENT_PREFIX, "")
      .toLowerCase()
      .replaceAll(/[^a-z0-9]/g, "");
  const wanted = plain(name);
  const distances = known.map((candidate) => editDistance(wanted, plain(candidate)));
  const least = Math.min(...distances);
  if (least > Math.max(2, Math.floor(wanted.length / 3))) return [];
  return known.filter((_, index) => distances[index] === least);
}

/** Levenshtein's, one row of the table at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(row[j]! + (letter === b[j] ? 0 : 1), row[j + 1]! + 1, next[j]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
