/**
 * `npm run bench:server`: an open-loop load at several rates against a server over SSE, as its users see it. Several
 * servers are loaded in turns, with the same arrivals and prompts.
 */
import { describeMachine, formatMachine, type Machine } from "../machine.ts";
import { type LoadFigures, type Objective, summarize } from "./latency.ts";
import { type Load, runOpenLoop } from "./open-loop.ts";
import { formatLoadRow } from "./report.ts";
import { streamCompletion, type Target } from "./stream-client.ts";

export interface NamedTarget extends Target {
  readonly name: string;
}

export interface ServerBenchOptions extends Omit<Load, "perSecond"> {
  readonly targets: readonly NamedTarget[];
  /** Requests per second, one run each. */
  readonly rates: readonly number[];
  readonly objective: Objective;
  /** What the servers run, for the report. */
  readonly modelName: string;
  readonly threads: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly print: (line: string) => void;
}

export interface LoadRow extends LoadFigures {
  readonly target: string;
  /** Asked for; the arrivals' own mean is `offeredPerSecond`. */
  readonly perSecond: number;
}

export interface ServerBenchResult {
  readonly machine: Machine;
  readonly modelName: string;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly numRequests: number;
  readonly objective: Objective;
  readonly rows: readonly LoadRow[];
}

const WARM_UPS = 3;

/** @throws Error if a server does not answer the warm-up as asked */
export async function runServerBench(options: ServerBenchOptions): Promise<ServerBenchResult> {
  const { targets, rates, objective, print, threads, versions, modelName, ...load } = options;
  const { promptTokens, outputTokens, numRequests } = load;
  const machine = await describeMachine({ threads, versions });
  print(formatMachine(machine));
  for (const target of targets) await warmUp(target, load);
  const rows: LoadRow[] = [];
  for (const perSecond of rates) {
    for (const target of targets) {
      const records = await runOpenLoop(target, { ...load, perSecond });
      const row = { target: target.name, perSecond, ...summarize(records, objective) };
      rows.push(row);
      print(formatLoadRow(row));
    }
  }
  return { machine, modelName, promptTokens, outputTokens, numRequests, objective, rows };
}

async function warmUp(target: NamedTarget, { promptTokens, outputTokens, timeoutMs }: Omit<Load, "perSecond">) {
  const promptIds = Array.from({ length: promptTokens }, (_, i) => 3 + (i % 200));
  for (let i = 0; i < WARM_UPS; i++) {
    const { error } = await streamCompletion(target, { promptIds, maxTokens: outputTokens, timeoutMs });
    if (error !== undefined) throw new Error(`${target.name} at ${target.baseUrl}: ${error}`);
  }
}
