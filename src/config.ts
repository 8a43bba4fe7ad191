/**
 * The one configuration, parsed once at start: flags before environment before file. Every problem is found before
 * anything is refused, and the result is frozen. The only module that reads `process.env`.
 */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { z } from "zod";
import { type HubSettings, parseHubSettings } from "./config/hub.ts";
import { nearest } from "./config/nearest.ts";
import { missingNeeds } from "./config/needs.ts";
import { expandHome, type FindHome, homeFor } from "./config/paths.ts";
import { type Config, type ConfigKey, configSchema } from "./config/schema.ts";
import { isServiceLink } from "./config/service-links.ts";
import { DenseMambaError } from "./errors.ts";

export type { Config, ConfigKey, HubSettings };

const ENVIRONMENT_PREFIX = "DENSEMAMBA_";
const CONFIG_VARIABLE = `${ENVIRONMENT_PREFIX}CONFIG`;

/** How an option is named and described, for `--help` and the documents. */
export interface ConfigOption {
  readonly key: ConfigKey;
  /** E.g. `--max-batch`. */
  readonly flag: string;
  /** E.g. `<n>`; empty for a switch. */
  readonly argument: string;
  /** E.g. `DENSEMAMBA_MAX_BATCH`. */
  readonly variable: string;
  readonly description: string;
  readonly shownDefault: string;
  readonly repeatable: boolean;
}

export const configOptions: readonly ConfigOption[] = Object.entries(configSchema.shape).map(([key, option]) => {
  const meta = option.meta() ?? {};
  const fallback: unknown = option instanceof z.ZodDefault ? option.def.defaultValue : undefined;
  return {
    key: key as ConfigKey,
    flag: String(meta.flag ?? `--${words(key).join("-")}`),
    argument: String(meta.argument ?? argumentOf(key, fallback)),
    variable: ENVIRONMENT_PREFIX + words(key).join("_").toUpperCase(),
    description: String(meta.description),
    shownDefault: String(meta.shownDefault ?? fallback),
    repeatable: meta.repeatable === true,
  };
});

const pathKeys = Object.entries(configSchema.shape).flatMap(([key, option]) => (option.meta()?.isPath ? [key] : []));

function argumentOf(key: string, fallback: unknown): string {
  if (typeof fallback === "boolean") return "";
  return typeof fallback === "number" ? "<n>" : `<${key}>`;
}

export interface ConfigSources {
  /** By config key; undefined means not given. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The parsed JSON of the config file. */
  readonly file?: unknown;
  /** Of this user. Default: the system's answer. */
  readonly findHome?: FindHome;
}

/** @throws `invalid_config` that lists every problem, one a line. */
export function loadConfig({ flags, env: given, file = {}, findHome = userHome }: ConfigSources): Config {
  const problems: string[] = [];
  const origins = new Map<string, string>();
  const env = Object.fromEntries(Object.entries(given).filter(([name, value]) => !isServiceLink(name, value)));
  const raw: Record<string, unknown> = {
    cCompiler: env.CC || "cc",
    nvcc: env.CUDA_HOME ? path.join(env.CUDA_HOME, "bin", "nvcc") : "nvcc",
  };
  const take = (key: string, value: unknown, origin: string) => {
    if (value === undefined || value === null) return;
    raw[key] = value;
    origins.set(key, origin);
  };

  // From the weakest source to the strongest: the last one given is the one that counts.
  if (isRecord(file)) {
    problems.push(...unknownNames(Object.keys(file), keys(), "key", "in the config file"));
    for (const key of keys()) take(key, file[key], `${key} in the config file`);
  } else {
    problems.push(`the config file must hold a JSON object, ${JSON.stringify(file)} given`);
  }
  const variables = Object.keys(env).filter((name) => name.startsWith(ENVIRONMENT_PREFIX));
  const known = [...configOptions.map((option) => option.variable), CONFIG_VARIABLE];
  problems.push(...unknownNames(variables, known, "variable", "in the environment"));
  for (const { key, variable, flag } of configOptions) {
    // An empty variable is how a compose file says "not given".
    take(key, env[variable] === "" ? undefined : env[variable], variable);
    take(key, flags[key], flag);
  }

  for (const key of pathKeys) {
    const value = raw[key];
    if (typeof value !== "string") continue;
    raw[key] = tryOr(problems, () => expandHome(value, findHome, origins.get(key)!)) ?? value;
  }
  raw.cacheDir ??= tryOr(problems, () => defaultCacheDir(env, findHome)) ?? "none";

  const parsed = configSchema.safeParse(raw);
  if (!parsed.success) {
    problems.push(...parsed.error.issues.map(({ path, message }) => `${origins.get(String(path[0]))} ${message}`));
  } else {
    const flags = new Map(configOptions.map(({ key, flag }) => [key, flag]));
    problems.push(...missingNeeds(parsed.data, origins, (key) => flags.get(key)!));
  }
  if (problems.length > 0 || !parsed.success) throw new DenseMambaError("invalid_config", problems.join("\n"));
  return Object.freeze(parsed.data);
}

/** The command that npm gave its shell, if npm started us: a script of package.json, or the command of `npx`. */
export function readNpmScript(): string | undefined {
  return process.env.npm_lifecycle_script;
}

/** Environment variables that describe a Service's links and are not configuration. */
export function readServiceLinks(): readonly string[] {
  const all = Object.entries(process.env);
  return all.flatMap(([name, value]) =>
    name.startsWith(ENVIRONMENT_PREFIX) && isServiceLink(name, value) ? [name] : [],
  );
}

/** The process's own configuration. @throws `invalid_config` also for a config file that cannot be read. */
export function readConfig(flags: Readonly<Record<string, unknown>>, configFile: string | undefined): Config {
  const fileName = configFile ?? process.env[CONFIG_VARIABLE];
  return loadConfig({ flags, env: process.env, file: fileName ? readJson(fileName) : {} });
}

/** Where models are pulled from and kept, by Hugging Face's own variables. @throws `invalid_config` */
export function readHubSettings(): HubSettings {
  return parseHubSettings({ env: process.env, findHome: userHome, readText: readIfThere });
}

function userHome(): string | undefined {
  try {
    return homedir();
  } catch {
    return undefined;
  }
}

function readIfThere(fileName: string): string | undefined {
  try {
    return readFileSync(fileName, "utf8");
  } catch {
    return undefined;
  }
}

function readJson(fileName: string): unknown {
  try {
    return JSON.parse(readFileSync(fileName, "utf8").replace(/^\uFEFF/, ""));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DenseMambaError("invalid_config", `config file ${fileName} cannot be read: ${reason}`, { cause });
  }
}

/** @throws `invalid_config` if it is below the home folder, and there is none */
function defaultCacheDir(env: ConfigSources["env"], findHome: FindHome): string {
  const parent = env.XDG_CACHE_HOME
    ? expandHome(env.XDG_CACHE_HOME, findHome, "XDG_CACHE_HOME")
    : path.join(homeFor(findHome, "no --cache-dir is given"), ".cache");
  return path.join(parent, "densemamba");
}

/** @returns undefined where it is a problem */
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
      // The prefix that all variables share says nothing about which was meant.
      const bare = (full: string) => full.replace(ENVIRONMENT_PREFIX, "");
      const closest = nearest(bare(name), known.map(bare));
      const near = known.filter((candidate) => closest.includes(bare(candidate)));
      return `unknown ${what} ${name} ${where}${near.length > 0 ? `; did you mean ${near.join(" or ")}?` : ""}`;
    });
}

function keys(): ConfigKey[] {
  return configOptions.map((option) => option.key);
}

/** `maxBatch` → [max, batch] */
function words(key: string): string[] {
  return key.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).split(" ");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
