/**
 * The program for tests that run it in a process of its own: the sources as JavaScript, in
 * `.built/`. Running the sources with tsx would take each process one to two seconds of CPU time
 * more.
 */
import { execFileSync } from "node:child_process";
import path from "node:path";

const ROOT = path.join(import.meta.dirname, "../..");
/** Relative to the root of the repository, as is `PROGRAM`. */
export const BUILT = ".built";

/** For Node. */
export const PROGRAM = `${BUILT}/cli/main.js`;

/** Compiles what has changed, without checking types. */
export function buildProgram(): void {
  const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
  const incremental = ["--incremental", "--tsBuildInfoFile", path.join(BUILT, ".tsbuildinfo")];
  const options = ["-p", "tsconfig.build.json", "--outDir", BUILT, "--noCheck", ...incremental];
  execFileSync(process.execPath, [tsc, ...options], { cwd: ROOT, stdio: "inherit", timeout: 120_000 });
}
