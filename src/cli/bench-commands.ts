/** The options of `bench` and `bench-server`. */
import type { Command } from "commander";
import type { Config, ConfigKey } from "../config.ts";
import { addConfigOptions } from "./config-options.ts";
import { numberBetween } from "./numbers.ts";
import type { Terminal } from "./terminal.ts";

const MAX_INTEGER = 2 ** 31 - 1;

export interface BenchCommandParts {
  readonly terminal: Terminal;
  readonly configOf: (options: Readonly<Record<string, unknown>>) => Promise<Config>;
  /** How a model is run, which both share. */
  readonly runKeys: readonly ConfigKey[];
}

export function addBenchCommands(program: Command, { terminal, configOf, runKeys }: BenchCommandParts): void {
  const several = (name: string, all: readonly string[] = []) => [...all, name];

  const bench = program.command("bench").description("measure what this machine reaches; tables, then one JSON line");
  bench
    .option("--suite <name>", "one part only, may be repeated", several)
    .option("--shape <name>", "of the random weights in the suites `shape` and `state`", "mamba-130m")
    .option("--session-tokens <n>", "length of the long session", numberBetween(20, MAX_INTEGER, "integer"), 100_000);
  addConfigOptions(bench, ["model", ...runKeys]).action(async (options) => {
    const config = await configOf(options);
    const { bench: run } = await import("./bench.ts");
    await run(config, options, terminal);
  });

  const server = program.command("bench-server").description("load a server with Poisson arrivals; latencies, goodput");
  server
    .option("--url <url>", "of a running server, may be repeated; default: starts our own", several)
    .option("--shape <name>", "serve random weights of this shape in place of the model")
    .option("--rates <list>", "requests per second, one run each, separated by commas", "1,2,4,8")
    .option("--requests <n>", "requests of a run", numberBetween(2, MAX_INTEGER, "integer"), 100)
    .option("--prompt-tokens <n>", "length of each prompt", numberBetween(1, MAX_INTEGER, "integer"), 128)
    .option("--output-tokens <n>", "length of each output", numberBetween(1, MAX_INTEGER, "integer"), 64)
    .option("--slo-ttft <ms>", "time to the first token of a good request", numberBetween(0, MAX_INTEGER), 1000)
    .option("--slo-tpot <ms>", "time per output token of a good request", numberBetween(0, MAX_INTEGER), 100)
    .option("--seed <n>", "of arrivals and prompts", numberBetween(0, MAX_INTEGER, "integer"), 1)
    .option("--timeout-ms <ms>", "silence after which a request failed", numberBetween(1, MAX_INTEGER), 120_000);
  addConfigOptions(server, ["model", "maxBatch", "prefillChunk", "prefillStall", "apiKeys", ...runKeys]).action(
    async (options) => {
      const config = await configOf(options);
      const { benchServer } = await import("./bench.ts");
      await benchServer(config, options, terminal);
    },
  );
}
