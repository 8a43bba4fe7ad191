/** Expands paths as a shell does: compose files, unit files and images have no shell. */
import path from "node:path";
import { DenseMambaError } from "../errors.ts";

/** @returns undefined where the user has none: ids without an entry in passwd, started without HOME */
export type FindHome = () => string | undefined;

/** `~` and `~/…`. @throws `invalid_config` if there is no home */
export function expandHome(given: string, findHome: FindHome, what: string): string {
  if (given !== "~" && !given.startsWith("~/")) return given;
  return path.join(homeFor(findHome, `${what} is ${given}`), given.slice(1));
}

/** @throws `invalid_config` if there is none */
export function homeFor(findHome: FindHome, why: string): string {
  const home = findHome();
  if (home) return home;
  throw new DenseMambaError("invalid_config", `${why}, and this user has no home folder: set HOME, or give the path`);
}

/** `$NAME` and `${NAME}`; what is not set stays as it is. */
export function expandVariables(given: string, env: Readonly<Record<string, string | undefined>>): string {
  return given.replaceAll(/\$(?:(\w+)|\{([^}]*)\})/g, (whole, plain, braced) => env[plain ?? braced] ?? whole);
}
