/** `densemamba bench`: what this machine reaches, measured by `bench/`. */
import { runBench, SUITES } from "../bench/bench.ts";
import { RANDOM_SHAPES } from "../compiler/random-checkpoint.ts";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import { usableCores } from "./cores.ts";
import { type Terminal, write } from "./terminal.ts";

export interface BenchCommandOptions {
  /** Names of suites; none means all. */
  readonly suite: readonly string[];
  /** Name of a shape that random weights can take. */
  readonly shape: string;
  readonly sessionTokens: number;
}

/** @throws `invalid_value` for a suite or a shape that there is not. */
export async function bench(config: Config, options: BenchCommandOptions, terminal: Terminal): Promise<void> {
  const suites = options.suite.map((name) => pick("--suite", SUITES, name));
  const shapes = Object.keys(RANDOM_SHAPES) as (keyof typeof RANDOM_SHAPES)[];
  await runBench({
    suites: suites.length > 0 ? suites : SUITES,
    modelDir: config.model,
    shape: pick("--shape", shapes, options.shape),
    runtime: config.runtime,
    threads: config.threads === 0 ? usableCores() : config.threads,
    cacheDir: config.cacheDir,
    sessionTokens: options.sessionTokens,
    print: (line) => void write(terminal.stdout, `${line}\n`),
  });
}

function pick<T extends string>(flag: string, known: readonly T[], name: string): T {
  const found = known.find((candidate) => candidate === name);
  if (found !== undefined) return found;
  throw new DenseMambaError("invalid_value", `${flag} must be one of ${known.join(", ")}, ${name} given`);
}
