/** `densemamba bench-server`: an open-loop load against servers that run, or that this starts; done by `bench/load/`. */
import { loadSection } from "../bench/load/report.ts";
import { runServerBench } from "../bench/load/server-bench.ts";
import { type OpenTargets, openTargets } from "../bench/load/targets.ts";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import { openRig, pickShape, printTo } from "./bench.ts";
import { writePage } from "./performance-page.ts";
import type { Terminal } from "./terminal.ts";
import { programVersion } from "./version.ts";

export interface BenchServerOptions {
  /** Running servers; none starts our own. */
  readonly url?: readonly string[];
  /** Random weights for the servers that are started, in place of the model. */
  readonly shape?: string;
  /** Start llama.cpp's server beside ours. */
  readonly peer: boolean;
  /** Requests per second, separated by commas. */
  readonly rates: string;
  readonly requests: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly sloTtft: number;
  readonly sloTpot: number;
  readonly seed: number;
  readonly timeoutMs: number;
  readonly write: boolean;
}

/** @throws `invalid_value` for rates that are none, a shape that there is not, or a server that does not answer */
export async function benchServer(config: Config, options: BenchServerOptions, terminal: Terminal): Promise<void> {
  const print = printTo(terminal);
  const rates = parseRates(options.rates);
  const rig = await openRig(config, print);
  const opened: OpenTargets = await openTargets({
    rig,
    urls: options.url ?? [],
    apiKey: config.apiKeys[0],
    modelDir: config.model,
    maxBatch: config.maxBatch,
    shape: options.shape === undefined ? undefined : pickShape(options.shape),
    withPeer: options.peer,
    version: programVersion(),
  });
  try {
    const result = await runServerBench({
      targets: opened.targets,
      modelName: opened.modelName,
      versions: opened.versions,
      threads: rig.threads,
      rates,
      numRequests: options.requests,
      promptTokens: options.promptTokens,
      outputTokens: options.outputTokens,
      objective: { ttftMs: options.sloTtft, tpotMs: options.sloTpot },
      seed: options.seed,
      timeoutMs: options.timeoutMs,
      print,
    });
    const section = loadSection(result);
    print(`\n${section.markdown}\n\n${JSON.stringify(result)}`);
    if (options.write) await writePage(section);
  } finally {
    await opened.close();
  }
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
