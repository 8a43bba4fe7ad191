/** `densemamba bench`: what this machine reaches, measured by `bench/`. */
import { type BenchResult, DEFAULT_SUITES, runBench, SUITES } from "../bench/bench.ts";
import { benchSections } from "../bench/bench-section.ts";
import { BENCH_SHAPES, type Rig, type ShapeName } from "../bench/rig.ts";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import { usableCores } from "./cores.ts";
import { findKernels } from "./kernels.ts";
import { writePage } from "./performance-page.ts";
import { type Terminal, write } from "./terminal.ts";
import { programVersion } from "./version.ts";

export interface BenchCommandOptions {
  /** Names of suites; none means all but those that take many minutes. */
  readonly suite?: readonly string[];
  /** Name of a shape that random weights can take. */
  readonly shape: string;
  readonly sessionTokens: number;
  /** How long the soak lasts. */
  readonly minutes: number;
  /** Into docs/performance.md too. */
  readonly write: boolean;
}

/** @throws `invalid_value` for a suite or a shape that there is not. */
export async function bench(config: Config, options: BenchCommandOptions, terminal: Terminal): Promise<BenchResult> {
  const suites = (options.suite ?? []).map((name) => pick("--suite", SUITES, name));
  const shape = pickShape(options.shape);
  const print = printTo(terminal);
  const result = await runBench({
    ...(await openRig(config, print)),
    suites: suites.length > 0 ? suites : DEFAULT_SUITES,
    modelDir: config.model,
    shape,
    sessionTokens: options.sessionTokens,
    soakMinutes: options.minutes,
    version: programVersion(),
    print,
  });
  if (options.write) for (const section of benchSections(result)) await writePage(section);
  return result;
}

/** How every measurement runs its models: on this machine's processors. Says which operators it takes. */
export async function openRig(config: Config, print: (line: string) => void): Promise<Rig> {
  const { runtime, cacheDir, prefillChunk, prefillStall } = config;
  const threads = config.threads === 0 ? usableCores() : config.threads;
  return { runtime, cacheDir, prefillChunk, prefillStall, threads, kernels: await findKernels(config, "cpu", print) };
}

export function printTo(terminal: Terminal): (line: string) => void {
  return (line) => void write(terminal.stdout, `${line}\n`);
}

/** @throws `invalid_value` */
export function pickShape(name: string): ShapeName {
  return pick("--shape", Object.keys(BENCH_SHAPES) as ShapeName[], name);
}

/** @throws `invalid_value` */
export function pick<T extends string>(flag: string, known: readonly T[], name: string): T {
  const found = known.find((candidate) => candidate === name);
  if (found !== undefined) return found;
  throw new DenseMambaError("invalid_value", `${flag} must be one of ${known.join(", ")}, ${name} given`);
}
