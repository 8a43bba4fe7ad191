/**
 * `npm run bench:peers`: llama.cpp and node-llama-cpp beside us, on the same weights with the same
 * threads, in turns within one run. What counts are the ratios. With `--load` both servers get the
 * load of `bench-server` instead.
 */
import { availableParallelism } from "node:os";
import { Command, Option } from "commander";
import { withReadBandwidth } from "../../src/bench/bandwidth.ts";
import { BENCH_PRECISIONS, type BenchPrecision, MAX_BATCH } from "../../src/bench/config.ts";
import { runServerBench } from "../../src/bench/load/server-bench.ts";
import { startOwnTarget } from "../../src/bench/load/targets.ts";
import { describeMachine, formatMachine } from "../../src/bench/machine.ts";
import type { ShapeName } from "../../src/bench/random-model.ts";
import { benchConfig } from "../../src/cli/bench.ts";
import { addConfigOptions, configFrom, numberBetween } from "../../src/cli/flags.ts";
import { programVersion } from "../../src/config/process.ts";
import { checkSameModel, measureBare, measureServed, type PeersConfig } from "./contenders.ts";
import { installLlamaCpp, installNodeLlamaCpp, LLAMA_CPP_PYTHON, NODE_LLAMA_CPP, toolsIn } from "./install.ts";
import { readsPromptsRepacked, startLlamaServer } from "./llama-cpp.ts";
import {
  BARE_TESTS,
  formatRow,
  PEER_TESTS,
  type PeerRow,
  type PeersResult,
  type PeerTest,
  peersSection,
} from "./report.ts";
import { peersDir, prepareModel } from "./same-weights.ts";

/** Those that llama.cpp has. */
const PEER_SHAPES = ["mamba-130m", "mamba-4m", "mamba2-130m", "rwkv7-0.4b"] as const satisfies readonly ShapeName[];

interface Options {
  readonly shape: readonly ShapeName[];
  readonly test: readonly PeerTest[];
  readonly weights: readonly BenchPrecision[];
  readonly rounds: number;
  readonly jobs: number;
  readonly load: boolean;
  readonly installOnly: boolean;
  readonly llamaCpp?: string;
}

const print = (line: string) => console.log(line);
const positive = numberBetween(1, 1024, "integer");
const program = new Command("bench:peers");
program
  .addOption(choice("--shape <name...>", "of the random weights", PEER_SHAPES))
  .addOption(choice("--test <name...>", "what is measured", PEER_TESTS))
  .addOption(
    choice("--weights <precision...>", "in the tests without a server; the one with it is in int8", BENCH_PRECISIONS),
  )
  .option("--rounds <n>", "turns that each program takes", positive, 5)
  .option("--jobs <n>", "compilers at once while llama.cpp is built", positive, availableParallelism())
  .option("--llama-cpp <folder>", "llama.cpp's programs, in place of those that are built here")
  .option("--load", "load both servers as `densemamba bench-server` does, in place of the tests", false)
  .option("--install-only", "build and install the peers, measure nothing", false);
addConfigOptions(program, ["runtime", "threads", "kernels", "kernelLibrary", "cCompiler", "cacheDir"]);
program.action(async (options: Options) => {
  const config = await benchConfig(configFrom({ ...options }), print);
  const install = { peersDir: peersDir(config.cacheDir), jobs: options.jobs, print };
  const nodeLlama = await installNodeLlamaCpp(install).catch((error: unknown) => {
    print(`without node-llama-cpp: ${String(error)}`);
    return undefined;
  });
  const { llamaCpp } = options;
  const tools = llamaCpp === undefined ? await installLlamaCpp(install) : toolsIn(llamaCpp);
  print(`the peers are in ${llamaCpp ?? install.peersDir}`);
  if (options.installOnly) return;
  const peers: PeersConfig = { ...config, tools, nodeLlama, numRounds: options.rounds };
  if (options.load) await loadBoth(peers, options.shape[0]!);
  else await comparePeers(peers, options);
});

function choice(flags: string, description: string, known: readonly string[]): Option {
  return new Option(flags, description).choices(known).default(known);
}

async function comparePeers(config: PeersConfig, { shape: shapes, test: tests, weights: precisions }: Options) {
  const { tools, threads, numRounds } = config;
  const prepared = [];
  for (const shape of shapes) prepared.push({ shape, weights: await prepareModel(config.cacheDir, shape, tools) });
  const versions = { ...versionsOf(), "node-llama-cpp": NODE_LLAMA_CPP };
  const machine = await describeMachine({ threads, versions });
  const bandwidth = await withReadBandwidth(threads, (memory) => memory.measureBest());
  print(`${formatMachine(machine)}; memory reads ${(bandwidth / 1e9).toFixed(1)} GB/s`);

  const rows: PeerRow[] = [];
  const differences: Record<string, number> = {};
  const add = (row: PeerRow) => {
    rows.push(row);
    print(formatRow(row));
  };
  const bare = BARE_TESTS.filter((test) => tests.includes(test));
  for (const { shape, weights } of prepared) {
    differences[shape] = await checkSameModel(config, weights);
    print(`${shape}: in f32 both servers' log-probabilities differ by at most ${differences[shape].toPrecision(2)}`);
    for (const precision of bare.length > 0 ? precisions : []) {
      if (!(await readsPromptsRepacked({ tools, ggufPath: weights.gguf[precision], threads }))) {
        print(`${shape} in ${precision}: llama.cpp crashes on prompts with repacked weights; only tg128 uses them`);
      }
      await measureBare(config, { shape, weights, precision, tests: bare, onRow: add, print });
    }
    if (tests.includes("served32")) add(await measureServed(config, shape, weights, "int8"));
  }
  const result: PeersResult = { machine, numRounds, bandwidth, rows, differences };
  print(`\n${peersSection(result).markdown}\n\n${JSON.stringify(result)}`);
}

/** With the defaults of `bench-server`. */
async function loadBoth(config: PeersConfig, shape: ShapeName): Promise<void> {
  const { gguf } = await prepareModel(config.cacheDir, shape, config.tools);
  const ours = await startOwnTarget({ config, modelDir: "", shape, maxBatch: MAX_BATCH, version: programVersion() });
  try {
    const llama = { tools: config.tools, ggufPath: gguf.int8, threads: config.threads };
    const theirs = await startLlamaServer(llama, MAX_BATCH);
    try {
      await runServerBench({
        targets: [...ours.targets, { name: "llama-server", baseUrl: theirs.baseUrl }],
        modelName: ours.modelName,
        versions: versionsOf(),
        threads: config.threads,
        rates: [1, 2, 4, 8],
        numRequests: 100,
        promptTokens: 128,
        outputTokens: 64,
        objective: { ttftMs: 1000, tpotMs: 100 },
        seed: 1,
        timeoutMs: 120_000,
        print,
      });
    } finally {
      await theirs.stop();
    }
  } finally {
    await ours.close();
  }
}

function versionsOf(): Record<string, string> {
  return { densemamba: programVersion(), "llama.cpp": `of llama-cpp-python ${LLAMA_CPP_PYTHON}` };
}

await program.parseAsync();
