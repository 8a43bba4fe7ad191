/** `densemamba bench` and `bench-server`: options checked and handed to `src/bench/`. */
import { findKernels } from "../app/kernels.ts";
import { numThreads } from "../app/machine.ts";
import { type BenchResult, DEFAULT_SUITES, runBench, SUITES } from "../bench/bench.ts";
import { BENCH_PRECISIONS, type BenchConfig } from "../bench/config.ts";
import { runServerBench } from "../bench/load/server-bench.ts";
import { runningTargets, startOwnTarget } from "../bench/load/targets.ts";
import { BENCH_SHAPES, type ShapeName } from "../bench/random-model.ts";
import { programVersion } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import { type Terminal, write } from "./terminal.ts";

export interface BenchCommandOptions {
  /** Names of suites; default: all but those that take many minutes. */
  readonly suite?: readonly string[];
  /** Of the random weights. */
  readonly shape: string;
  readonly sessionTokens: number;
}

/** @throws `invalid_value` for a suite or a shape that does not exist */
export async function bench(config: Config, options: BenchCommandOptions, terminal: Terminal): Promise<BenchResult> {
  const suites = (options.suite ?? []).map((name) => pick("--suite", SUITES, name));
  const shape = pickShape(options.shape);
  const print = printTo(terminal);
  return runBench({
    ...(await benchConfig(config, print)),
    suites: suites.length > 0 ? suites : DEFAULT_SUITES,
    modelDir: config.model,
    shape,
    precisions: config.precision === "auto" ? BENCH_PRECISIONS : [config.precision],
    sessionTokens: options.sessionTokens,
    version: programVersion(),
    print,
  });
}

export interface BenchServerOptions {
  /** Running servers; without any, one of ours is started. */
  readonly url?: readonly string[];
  /** Of random weights for the server that is started, in place of the model. */
  readonly shape?: string;
  /** Requests per second, separated by commas. */
  readonly rates: string;
  readonly requests: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly sloTtft: number;
  readonly sloTpot: number;
  readonly seed: number;
  readonly timeoutMs: number;
}

/**
 * @throws `invalid_value` for bad rates, a shape that does not exist, or a server that does not
 * answer
 */
export async function benchServer(config: Config, options: BenchServerOptions, terminal: Terminal): Promise<void> {
  const print = printTo(terminal);
  const rates = parseRates(options.rates);
  const shape = options.shape === undefined ? undefined : pickShape(options.shape);
  const { url: urls = [] } = options;
  const runConfig = await benchConfig(config, print);
  const own = { config: runConfig, modelDir: config.model, shape, maxBatch: config.maxBatch };
  const { targets, modelName, versions, close } =
    urls.length > 0
      ? await runningTargets(urls, config.apiKeys[0])
      : await startOwnTarget({ ...own, version: programVersion() });
  try {
    await runServerBench({
      targets,
      modelName,
      versions,
      threads: runConfig.threads,
      rates,
      numRequests: options.requests,
      promptTokens: options.promptTokens,
      outputTokens: options.outputTokens,
      objective: { ttftMs: options.sloTtft, tpotMs: options.sloTpot },
      seed: options.seed,
      timeoutMs: options.timeoutMs,
      print,
    });
  } finally {
    await close();
  }
}

/** How every measurement runs its models: on the CPU. Prints which operators it uses. */
export async function benchConfig(config: Config, print: (line: string) => void): Promise<BenchConfig> {
  const { runtime, cacheDir, statePrecision, prefillChunk, prefillStall } = config;
  const kernels = await findKernels(config, "cpu", print);
  return { runtime, cacheDir, statePrecision, prefillChunk, prefillStall, threads: numThreads(config), kernels };
}

function printTo(terminal: Terminal): (line: string) => void {
  return (line) => void write(terminal.stdout, `${line}\n`);
}

/** @throws `invalid_value` */
export function pickShape(name: string): ShapeName {
  return pick("--shape", Object.keys(BENCH_SHAPES) as ShapeName[], name);
}

function pick<T extends string>(flag: string, known: readonly T[], name: string): T {
  const found = known.find((candidate) => candidate === name);
  if (found !== undefined) return found;
  throw new DenseMambaError("invalid_value", `${flag} must be one of ${known.join(", ")}, ${name} given`);
}

/** @throws `invalid_value` */
export function parseRates(text: string): number[] {
  const rates = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (rates.every((rate) => rate > 0 && rate <= 1e6)) return rates;
  throw new DenseMambaError(
    "invalid_value",
    `--rates must be numbers above 0 and up to 1000000, separated by commas; ${text} given`,
  );
}
