/** What this process was given: environment, config file, package. Alone reads `process.env`. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { DenseMambaError } from "../errors.ts";
import { type HubSettings, parseHubSettings } from "./hub.ts";
import { CONFIG_VARIABLE, type ParsedConfig, parseConfig, serviceLinks } from "./load.ts";
import { packageRoot } from "./schema.ts";
import { userHome } from "./values.ts";

/** @throws `invalid_config`, also for a config file that cannot be read */
export function readConfig(flags: Readonly<Record<string, unknown>>, configFile: string | undefined): ParsedConfig {
  const fileName = configFile ?? process.env[CONFIG_VARIABLE];
  const file = fileName ? readJson(fileName) : {};
  return parseConfig({ flags, env: process.env, file, readText: readTextIfAny });
}

/** From Hugging Face's own variables. @throws `invalid_config` */
export function readHubSettings(): HubSettings {
  return parseHubSettings({ env: process.env, findHome: userHome, readText: readTextIfAny });
}

/** What npm's shell runs, if npm started us: a script of package.json, or npx's command. */
export function readNpmScript(): string | undefined {
  return process.env.npm_lifecycle_script;
}

/** The variables that `loadConfig` ignored because they describe a service. */
export function readServiceLinks(): readonly string[] {
  return serviceLinks(process.env);
}

/** Where the loader of shared libraries looks first. */
export function readLibraryPath(): string | undefined {
  return process.env.LD_LIBRARY_PATH;
}

export function programVersion(): string {
  return JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")).version;
}

/** @returns undefined for a file that cannot be read */
export function readTextIfAny(fileName: string): string | undefined {
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
