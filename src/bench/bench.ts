/**
 * `densemamba bench`: what this machine reaches, as tables and one last JSON line. Opens with the physics (the memory's
 * read bandwidth: a decode step reads every weight once) and compares within the run, since machines drift.
 */
import { availableParallelism } from "node:os";
import { withReadBandwidth } from "./bandwidth.ts";
import type { BenchContext } from "./context.ts";
import { describeMachine, formatMachine, type Machine } from "./machine.ts";
import { type Figure, formatTable, holds } from "./report.ts";
import { MAX_BATCH, randomCheckpoint, withEngine } from "./rig.ts";
import { benchBurst, benchInterference, benchStall } from "./suites/interference.ts";
import { benchLength } from "./suites/length.ts";
import { benchSession } from "./suites/session.ts";
import { benchLinks, benchLowerings, benchShape } from "./suites/shape.ts";
import { benchSoak } from "./suites/soak.ts";
import { benchState } from "./suites/state.ts";
import { benchStreams } from "./suites/streams.ts";

/** Those that take many minutes, run only when they are named. `million` is the session suite with a million tokens. */
const LONG_SUITES = ["million", "length", "state", "soak"] as const;
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

export interface BenchOptions extends Omit<BenchContext, "bandwidth" | "memory"> {
  readonly suites: readonly Suite[];
  /** Of this program. */
  readonly version: string;
}

export interface BenchResult {
  readonly machine: Machine;
  readonly suites: Readonly<Record<string, readonly Figure[]>>;
}

const MILLION = 1_000_000;
const GIGA = 1e9;

export async function runBench(options: BenchOptions): Promise<BenchResult> {
  const threads = options.threads === 0 ? availableParallelism() : options.threads;
  const machine = await describeMachine({ threads, versions: { densemamba: options.version } });
  options.print(formatMachine(machine));

  const suites: Record<string, readonly Figure[]> = {};
  const add = (suite: string, figures: readonly Figure[]) => {
    suites[suite] = figures;
    options.print(`\n${formatTable(suite, figures)}`);
  };
  await withReadBandwidth(threads, async (memory) => {
    const bandwidth = await memory.measureBest();
    add("machine", [{ name: "memory read bandwidth", value: bandwidth / GIGA, unit: "GB/s" }]);
    const context = { ...options, threads, bandwidth, memory };
    for (const suite of options.suites) add(suite, await runSuite(suite, context));
  });

  const figures = Object.entries(suites).flatMap(([suite, rows]) =>
    rows.map((row) => ({ suite, name: row.name, value: row.value, unit: row.unit, kept: holds(row) })),
  );
  options.print(`\n${JSON.stringify({ date: machine.date, machine, figures })}`);
  return { machine, suites };
}

async function runSuite(suite: Suite, context: BenchContext): Promise<Figure[]> {
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
    case "soak":
      return benchSoak(context);
  }
}
