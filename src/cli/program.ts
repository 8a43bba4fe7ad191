/**
 * The command line: which commands there are and what they take. Their implementations are loaded when they run, so that
 * `--help` and mistakes answer at once and `serve` starts without what it does not need.
 */
import { Command, Option } from "commander";
import { type Config, type ConfigKey, configOptions } from "../config.ts";
import { PRECISIONS } from "../model/artifact.ts";
import { addBenchCommands } from "./bench-commands.ts";
import { addConfigOptions, configFrom } from "./config-options.ts";
import { numberBetween } from "./numbers.ts";
import type { SignalSource } from "./shutdown.ts";
import type { Terminal } from "./terminal.ts";

const SOURCE_KEYS: readonly ConfigKey[] = ["model", "device", "precision", "allowNonFinite"];
const KERNEL_KEYS: readonly ConfigKey[] = ["kernels", "kernelLibrary", "cCompiler", "nvcc", "cacheDir"];
const MODEL_KEYS: readonly ConfigKey[] = [...SOURCE_KEYS, ...KERNEL_KEYS, "runtime", "threads"];
const ALL_KEYS = configOptions.map(({ key }) => key);
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

  /** `--model` and `--tokenizer` may name models on the hub. Commands see folders. */
  const configOf = async (options: Readonly<Record<string, unknown>>): Promise<Config> => {
    const config = configFrom(options);
    const { withFolders } = await import("./model-folder.ts");
    return withFolders(config, terminal);
  };

  const serve = program.command("serve").description("serve a model over HTTP and WebSocket");
  addConfigOptions(serve, ALL_KEYS).action(async (options) => {
    const { checkAddress, serve: run } = await import("./serve.ts");
    await checkAddress(configFrom(options));
    await run(await configOf(options), terminal, signals);
  });

  const generate = program.command("generate").description("continue a prompt on the terminal");
  generate
    .requiredOption("--prompt <text>", "what to continue; - reads standard input")
    .option("--max-tokens <n>", "tokens to generate", numberBetween(1, MAX_INTEGER, "integer"), 256)
    .option("--temperature <t>", "0 is greedy", numberBetween(0, 2), 0.8)
    .option("--top-k <n>", "choose among the n likeliest tokens; 0 is all", numberBetween(0, MAX_INTEGER, "integer"), 0)
    .option("--top-p <p>", "choose among the likeliest tokens that make up p", numberBetween(0, 1), 1)
    .option("--min-p <p>", "drop tokens less likely than p times the likeliest", numberBetween(0, 1), 0)
    .option("--repetition-penalty <x>", "above 1 avoids tokens seen before", numberBetween(0.01, 2), 1)
    .option("--seed <n>", "same seed, same text", numberBetween(0, Number.MAX_SAFE_INTEGER, "integer"))
    .option(
      "--stop <text>",
      "end before this text, may be repeated",
      (text: string, all: string[]) => [...all, text],
      [],
    )
    .option("--echo", "write the prompt first", false);
  addConfigOptions(generate, [...MODEL_KEYS, "tokenizer"]).action(async (options) => {
    const config = await configOf(options);
    const [{ generate: run }, { untilSignal }] = await Promise.all([import("./generate.ts"), import("./shutdown.ts")]);
    const abort = new AbortController();
    void untilSignal(signals).then(() => abort.abort());
    await run(config, { ...options, signal: abort.signal }, terminal);
  });

  const compile = program.command("compile").description("compile a checkpoint ahead of time");
  compile.requiredOption("--out <dir>", "folder of the artifact");
  addConfigOptions(compile, [...SOURCE_KEYS, ...KERNEL_KEYS]).action(async (options) => {
    const config = await configOf(options);
    const { compile: run } = await import("./compile.ts");
    await run(config, options.out, terminal);
  });

  const kernels = program.command("kernels").description("build the operators of our own ahead of time");
  kernels.option("--out <file>", "where to put the library; default: the cache");
  addConfigOptions(kernels, ["device", "cCompiler", "nvcc", "cacheDir"]).action(async (options) => {
    const { kernels: run } = await import("./kernels.ts");
    await run(configFrom(options), options.out, terminal);
  });

  program
    .command("pull")
    .description("download a model from the Hugging Face hub; prints its folder")
    .argument("<model>", "org/name or org/name@revision")
    .action(async (name: string) => {
      const { pull } = await import("./model-folder.ts");
      await pull(name, terminal);
    });

  const inspect = program.command("inspect").description("say what a model is and what a session of it costs");
  inspect.option("--json", "as JSON", false);
  addConfigOptions(inspect, ["model", "device", "precision"]).action(async (options) => {
    const config = await configOf(options);
    const { inspect: run } = await import("./inspect.ts");
    await run(config, options, terminal);
  });

  const score = program.command("score").description("log-probabilities of given token ids, as JSON");
  score
    .requiredOption("--token-ids <ids>", "1,2,3; - reads standard input")
    .option("--top <k>", "list the k likeliest tokens too", numberBetween(0, MAX_INTEGER, "integer"), 0);
  addConfigOptions(score, [...MODEL_KEYS, "prefillChunk"]).action(async (options) => {
    const config = await configOf(options);
    const { score: run } = await import("./score.ts");
    await run(config, options, terminal);
  });

  const evaluation = program.command("eval").description("perplexity and bits per byte of a text; a table, then JSON");
  evaluation
    .requiredOption("--text <file>", "documents separated by a line <|endoftext|>; - reads standard input")
    .addOption(new Option("--against <precision>", "compare with the model in this one").choices(PRECISIONS));
  addConfigOptions(evaluation, [...MODEL_KEYS, "prefillChunk"]).action(async (options) => {
    const config = await configOf(options);
    const { evalText } = await import("./eval.ts");
    await evalText(config, options, terminal);
  });

  addBenchCommands(program, { terminal, configOf, runKeys: ["runtime", "threads", ...KERNEL_KEYS] });

  return program;
}
