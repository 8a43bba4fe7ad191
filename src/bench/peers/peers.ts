/**
 * `npm run bench:peers`: llama.cpp and node-llama-cpp beside us, on the same weights with the same threads, in one run in
 * turns. What counts are the ratios.
 */
import { withReadBandwidth } from "../bandwidth.ts";
import { describeMachine, formatMachine } from "../machine.ts";
import type { BenchPrecision, Rig, ShapeName } from "../rig.ts";
import { checkSameModel, measureBare, measureServed, peersDir } from "./contenders.ts";
import { installLlamaCpp, installNodeLlamaCpp, LLAMA_CPP_PYTHON, NODE_LLAMA_CPP } from "./install.ts";
import { readsPromptsRepacked } from "./llama-cpp.ts";
import { formatRow } from "./report.ts";
import { BARE_TESTS, type PeerRow, type PeersResult, type PeerTest } from "./result.ts";
import { prepareModel } from "./same-weights.ts";

/** Shapes that llama.cpp has: plain Mamba. */
export const PEER_SHAPES = ["mamba-130m", "mamba-4m"] as const satisfies readonly ShapeName[];

export interface PeersOptions extends Rig {
  readonly shapes: readonly ShapeName[];
  readonly tests: readonly PeerTest[];
  /** For tests without a server; that one is in eight bits. */
  readonly precisions: readonly BenchPrecision[];
  readonly numRounds: number;
  /** Compilers at once while llama.cpp is built. */
  readonly jobs: number;
  /** Build and install only. */
  readonly installOnly: boolean;
  readonly version: string;
  readonly print: (line: string) => void;
}

/** @returns undefined with `installOnly` */
export async function runPeers(options: PeersOptions): Promise<PeersResult | undefined> {
  const { print } = options;
  const install = { peersDir: peersDir(options.cacheDir), jobs: options.jobs, print };
  const nodeLlama = await installNodeLlamaCpp(install).catch((error: unknown) => {
    print(`without node-llama-cpp: ${String(error)}`);
    return undefined;
  });
  const tools = await installLlamaCpp(install);
  print(`the peers are in ${install.peersDir}`);
  if (options.installOnly) return undefined;

  const rig = { ...options, tools, nodeLlama };
  const prepared = [];
  for (const shape of options.shapes) {
    prepared.push({ shape, weights: await prepareModel(options.cacheDir, shape, tools) });
  }
  const versions = {
    densemamba: options.version,
    "llama.cpp": `of llama-cpp-python ${LLAMA_CPP_PYTHON}`,
    "node-llama-cpp": NODE_LLAMA_CPP,
  };
  const machine = await describeMachine({ threads: options.threads, versions });
  const bandwidth = await withReadBandwidth(options.threads, (memory) => memory.measureBest());
  print(`${formatMachine(machine)}; memory reads ${(bandwidth / 1e9).toFixed(1)} GB/s`);

  const rows: PeerRow[] = [];
  const differences: Record<string, number> = {};
  const add = (row: PeerRow) => {
    rows.push(row);
    print(formatRow(row));
  };
  for (const { shape, weights } of prepared) {
    differences[shape] = await checkSameModel(rig, weights);
    print(`${shape}: in f32 both servers' log-probabilities differ by at most ${differences[shape].toPrecision(2)}`);
    const bare = BARE_TESTS.filter((test) => options.tests.includes(test));
    for (const precision of bare.length > 0 ? options.precisions : []) {
      const model = { tools, ggufPath: weights.gguf[precision], threads: options.threads };
      if (!(await readsPromptsRepacked(model))) print(withoutRepacking(shape, precision));
      await measureBare(rig, shape, weights, precision, bare, add, print);
    }
    if (options.tests.includes("served32")) add(await measureServed(rig, shape, weights, "int8"));
  }
  return { machine, numRounds: options.numRounds, bandwidth, rows, differences };
}

function withoutRepacking(shape: ShapeName, precision: BenchPrecision): string {
  return `${shape} in ${precision}: llama.cpp dies of a prompt with the weights laid out for this CPU; without that but for tg128`;
}
