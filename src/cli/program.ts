/**
 * The command line: which commands there are and what they take. A command's implementation is
 * loaded when it runs, so that `--help` and mistakes answer at once, and `serve` starts without
 * what it does not need.
 */
import { Command, Option } from "commander";
import type { SignalSource } from "../app/shutdown.ts";
import { type Config, type ConfigKey, configOptions } from "../config/schema.ts";
import { PRECISIONS } from "../model/artifact.ts";
import { addConfigOptions, collect, configFrom, numberBetween } from "./flags.ts";
import { showProgress, type Terminal } from "./terminal.ts";

const ALL_KEYS = configOptions.map(({ key }) => key);
const SOURCE_KEYS: readonly ConfigKey[] = ["model", "device", "precision", "statePrecision", "allowNonFinite"];
const KERNEL_KEYS: readonly ConfigKey[] = ["kernels", "kernelLibrary", "cCompiler", "nvcc", "cacheDir"];
const RUN_KEYS: readonly ConfigKey[] = ["runtime", "threads", ...KERNEL_KEYS];
const MODEL_KEYS: readonly ConfigKey[] = [...SOURCE_KEYS, ...RUN_KEYS];
const MAX_INTEGER = 2 ** 31 - 1;

export interface ProgramParts {
  readonly version: string;
  readonly terminal: Terminal;
  readonly signals: SignalSource;
}

export function createProgram({ version, terminal, signals }: ProgramParts): Command {
  const program = new Command("densemamba")
    .description("OpenAI-compatible inference server for state-space language models with dense hidden connections")
    .version(version)
    .showHelpAfterError("(add --help for the options)")
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      writeErr: (text) => terminal.stderr.write(text),
    })
    .exitOverride();

  /** `--model` and `--tokenizer` may name models on the hub; commands get folders. */
  const configOf = async (options: Readonly<Record<string, unknown>>): Promise<Config> => {
    const config = configFrom(options);
    const { requireSingleModel, withModelFolders } = await import("../app/model-folder.ts");
    return requireSingleModel(await withModelFolders(config, showProgress(terminal)));
  };

  const serve = program.command("serve").description("serve models over HTTP and WebSocket");
  serve.option("--print-config", "print each option's value and source as JSON, without secrets, and end");
  addConfigOptions(serve, ALL_KEYS).action(async (options) => {
    const { serve: run } = await import("./serve.ts");
    await run(options, terminal, signals);
  });

  const generate = program.command("generate").description("continue a prompt on the terminal");
  generate
    .requiredOption("--prompt <text>", "what to continue; - reads standard input")
    .option("--max-tokens <n>", "most tokens to generate", integerFrom(1), 256)
    .option("--temperature <t>", "0 is greedy", numberBetween(0, 2), 0.8)
    .option("--top-k <n>", "sample from the n likeliest tokens; 0 for all", integerFrom(0), 0)
    .option("--top-p <p>", "sample from the likeliest tokens that add up to p", numberBetween(0, 1), 1)
    .option("--min-p <p>", "drop tokens less likely than p times the likeliest", numberBetween(0, 1), 0)
    .option("--repetition-penalty <x>", "above 1 avoids tokens seen before", numberBetween(0.01, 2), 1)
    .option("--seed <n>", "the same seed gives the same text", numberBetween(0, Number.MAX_SAFE_INTEGER, "integer"))
    .option("--stop <text>", "end before this text; may be repeated", collect, [])
    .option("--echo", "write the prompt first", false);
  addConfigOptions(generate, [...MODEL_KEYS, "tokenizer"]).action(async (options) => {
    const config = await configOf(options);
    const { generate: run } = await import("./generate.ts");
    const { untilSignal } = await import("../app/shutdown.ts");
    const abort = new AbortController();
    void untilSignal(signals).then(() => abort.abort());
    await run(config, { ...options, signal: abort.signal }, terminal);
  });

  const compile = program.command("compile").description("compile a checkpoint ahead of time");
  compile.option("--out <dir>", "folder of the artifact; default: the cache");
  addConfigOptions(compile, [...SOURCE_KEYS, ...KERNEL_KEYS]).action(async (options) => {
    const config = await configOf(options);
    const { compile: run } = await import("./prepare.ts");
    await run(config, options.out, terminal);
  });

  const kernels = program.command("kernels").description("build our own operators ahead of time");
  kernels.option("--out <file>", "where to write the library (default: the cache)");
  addConfigOptions(kernels, ["device", "cCompiler", "nvcc", "cacheDir"]).action(async (options) => {
    const { buildKernels } = await import("./prepare.ts");
    await buildKernels(configFrom(options), options.out, terminal);
  });

  program
    .command("pull")
    .description("download a model from the Hugging Face hub; prints its folder")
    .argument("<model>", "org/name or org/name@revision")
    .action(async (name: string) => {
      const { pull } = await import("./prepare.ts");
      await pull(name, terminal);
    });

  const doctor = program.command("doctor").description("show what a server would find here, and what to do");
  doctor.option("--json", "as JSON", false);
  addConfigOptions(doctor, ["device", "storeDir", "valkeyUrl", "valkeyTimeoutMs", ...KERNEL_KEYS]).action(
    async (options) => {
      const { doctor: run } = await import("./doctor.ts");
      await run(configFrom(options), options, terminal);
    },
  );

  const inspect = program.command("inspect").description("show what a model is and what a session of it costs");
  inspect.option("--json", "as JSON", false);
  addConfigOptions(inspect, ["model", "device", "precision", "statePrecision"]).action(async (options) => {
    const config = await configOf(options);
    const { inspect: run } = await import("./inspect.ts");
    await run(config, options, terminal);
  });

  const score = program.command("score").description("print the log-probabilities of given token ids as JSON");
  score
    .requiredOption("--token-ids <ids>", "1,2,3; - reads standard input")
    .option("--top <k>", "list the k likeliest tokens too", integerFrom(0), 0);
  addConfigOptions(score, [...MODEL_KEYS, "prefillChunk"]).action(async (options) => {
    const config = await configOf(options);
    const { score: run } = await import("./score.ts");
    await run(config, options, terminal);
  });

  const evaluation = program.command("eval").description("perplexity and bits per byte of a text; a table, then JSON");
  evaluation
    .requiredOption("--text <file>", "documents separated by lines <|endoftext|>; - reads standard input")
    .addOption(new Option("--against <precision>", "compare with the model in this precision").choices(PRECISIONS));
  addConfigOptions(evaluation, [...MODEL_KEYS, "prefillChunk"]).action(async (options) => {
    const config = await configOf(options);
    const { evalText } = await import("./eval.ts");
    await evalText(config, options, terminal);
  });

  const bench = program.command("bench").description("measure what this machine reaches; tables, then one JSON line");
  bench
    .option("--suite <name>", "run one suite only; may be repeated", collect)
    .option("--shape <name>", "shape of the random weights in the suites `shape` and `state`", "mamba-130m")
    .option("--session-tokens <n>", "length of the long session", integerFrom(20), 100_000);
  addConfigOptions(bench, ["model", "precision", "statePrecision", ...RUN_KEYS]).action(async (options) => {
    const config = await configOf(options);
    const { bench: run } = await import("./bench.ts");
    await run(config, options, terminal);
  });

  const server = program.command("bench-server").description("load a server with Poisson arrivals; latencies, goodput");
  server
    .option("--url <url>", "a running server; may be repeated (default: starts our own)", collect)
    .option("--shape <name>", "serve random weights of this shape in place of the model")
    .option("--rates <list>", "requests per second, one run each, separated by commas", "1,2,4,8")
    .option("--requests <n>", "requests per run", integerFrom(2), 100)
    .option("--prompt-tokens <n>", "length of each prompt", integerFrom(1), 128)
    .option("--output-tokens <n>", "length of each output", integerFrom(1), 64)
    .option("--slo-ttft <ms>", "longest time to the first token of a good request", numberBetween(0, MAX_INTEGER), 1000)
    .option("--slo-tpot <ms>", "longest time per output token of a good request", numberBetween(0, MAX_INTEGER), 100)
    .option("--seed <n>", "seed of arrivals and prompts", integerFrom(0), 1)
    .option("--timeout-ms <ms>", "silence after which a request has failed", numberBetween(1, MAX_INTEGER), 120_000);
  const loadKeys: readonly ConfigKey[] = ["model", "maxBatch", "prefillChunk", "prefillStall", "apiKeys", ...RUN_KEYS];
  addConfigOptions(server, loadKeys).action(async (options) => {
    const config = await configOf(options);
    const { benchServer } = await import("./bench.ts");
    await benchServer(config, options, terminal);
  });

  return program;
}

function integerFrom(min: number) {
  return numberBetween(min, MAX_INTEGER, "integer");
}
