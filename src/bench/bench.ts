/**
 * `densemamba bench`: what this machine reaches, as tables and one last line of JSON. Opens with
 * the memory's read bandwidth, the physical limit, and compares within the run, since machines
 * drift.
 */
import { availableParallelism } from "node:os";
import { withReadBandwidth } from "./bandwidth.ts";
import { MAX_BATCH, type SuiteContext, withEngine } from "./config.ts";
import { type Figure, formatTable, isMet } from "./figures.ts";
import { describeMachine, formatMachine, type Machine } from "./machine.ts";
import { randomCheckpoint } from "./random-model.ts";
import { benchBurst, benchInterference, benchStall } from "./suites/interference.ts";
import { benchLength } from "./suites/length.ts";
import { benchSession } from "./suites/session.ts";
import { benchLinks, benchLowerings, benchShape } from "./suites/shape.ts";
import { benchState } from "./suites/state.ts";
import { benchStreams } from "./suites/streams.ts";

/**
 * They take many minutes and run only when they are named. `million` is the session suite with a
 * million tokens.
 */
const LONG_SUITES = ["million", "length", "state"] as const;
export const SUITES = [
  "streams",
  "interference",
  "stall",
  "session",
  "shape",
  "links",
  "lowerings",
  ...LONG_SUITES,
] as const;
export type Suite = (typeof SUITES)[number];
export const DEFAULT_SUITES: readonly Suite[] = SUITES.filter((suite) => !LONG_SUITES.some((long) => long === suite));

export interface BenchOptions extends Omit<SuiteContext, "bandwidth" | "memory"> {
  readonly suites: readonly Suite[];
  /** Of this program. */
  readonly version: string;
}

/** The last line of the output. */
export interface BenchResult {
  readonly date: string;
  readonly machine: Machine;
  readonly figures: readonly (Figure & { readonly suite: string; readonly met: boolean | undefined })[];
}

const MILLION = 1_000_000;
const GIGA = 1e9;

export async function runBench(options: BenchOptions): Promise<BenchResult> {
  const threads = options.threads === 0 ? availableParallelism() : options.threads;
  const machine = await describeMachine({ threads, versions: { densemamba: options.version } });
  options.print(formatMachine(machine));

  const figures: BenchResult["figures"][number][] = [];
  const add = (suite: string, measured: readonly Figure[]) => {
    figures.push(...measured.map((figure) => ({ suite, ...figure, met: isMet(figure) })));
    options.print(`\n${formatTable(suite, measured)}`);
  };
  await withReadBandwidth(threads, async (memory) => {
    const bandwidth = await memory.measureBest();
    add("machine", [{ name: "memory read bandwidth", value: bandwidth / GIGA, unit: "GB/s" }]);
    const context = { ...options, threads, bandwidth, memory };
    for (const suite of options.suites) add(suite, await runSuite(suite, context));
  });

  const result = { date: machine.date, machine, figures };
  options.print(`\n${JSON.stringify(result)}`);
  return result;
}

async function runSuite(suite: Suite, context: SuiteContext): Promise<Figure[]> {
  switch (suite) {
    case "streams":
      return benchStreams(context);
    case "interference":
      return [
        ...(await withEngine(context, context.modelDir, (engine) => benchInterference(engine, MAX_BATCH - 1))),
        ...(await withEngine(context, await randomCheckpoint(context.cacheDir, context.shape), benchBurst)),
      ];
    case "stall":
      return withEngine(context, context.modelDir, benchStall);
    case "session":
      return withEngine(context, context.modelDir, (engine) => benchSession(engine, context.sessionTokens, 0.97));
    case "million":
      return withEngine(context, context.modelDir, (engine) => benchSession(engine, MILLION, 0.99));
    case "length":
      return benchLength(context);
    case "shape":
      return benchShape(context);
    case "links":
      return benchLinks(context);
    case "lowerings":
      return benchLowerings(context);
    case "state":
      return benchState(context);
  }
}
