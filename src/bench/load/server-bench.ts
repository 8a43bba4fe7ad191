/**
 * `densemamba bench-server`: an open-loop load at several rates against a server over SSE. Several
 * servers take turns, with the same arrivals and prompts.
 */
import { formatNumber, markdownTable } from "../figures.ts";
import { describeMachine, formatMachine, type Machine } from "../machine.ts";
import { randomPrompt } from "../random-model.ts";
import { type LoadFigures, type Objective, type Spread, summarize } from "./latency.ts";
import { type Load, runOpenLoop } from "./load.ts";
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
  /** The rate asked for; `offeredPerSecond` is the arrivals' own mean. */
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

const NUM_WARM_UPS = 3;

/**
 * Prints each run as it ends, then a table and one line of JSON. @throws Error if a server cannot
 * do the warm-up
 */
export async function runServerBench(options: ServerBenchOptions): Promise<void> {
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
  const result: ServerBenchResult = { machine, modelName, promptTokens, outputTokens, numRequests, objective, rows };
  print(`\n${describeLoad(result)}\n\n${loadTable(rows)}\n\n${JSON.stringify(result)}`);
}

async function warmUp(target: NamedTarget, { promptTokens, outputTokens, timeoutMs }: Omit<Load, "perSecond">) {
  for (let i = 0; i < NUM_WARM_UPS; i++) {
    const request = { promptIds: randomPrompt(promptTokens, -1 - i), maxTokens: outputTokens, timeoutMs };
    const { error } = await streamCompletion(target, request);
    if (error !== undefined) throw new Error(`${target.name} at ${target.baseUrl}: ${error}`);
  }
}

function formatLoadRow(row: LoadRow): string {
  const figures = [
    `TTFT p50 ${formatNumber(row.ttft.p50)} p99 ${formatNumber(row.ttft.p99)} ms`,
    `TPOT p50 ${formatNumber(row.tpot.p50)} ms`,
    `${formatNumber(row.tokensPerSecond)} tokens/s`,
    `goodput ${formatNumber(row.goodputPerSecond)}/s`,
    ...(row.numErrors === 0 ? [] : [`${row.numErrors} errors (${row.firstError ?? "no text"})`]),
  ];
  return `${row.target} at ${row.perSecond}/s: ${figures.join(", ")}`;
}

/** One paragraph: where the table comes from and how to read it. */
export function describeLoad(result: Omit<ServerBenchResult, "rows">): string {
  const { machine, objective, modelName, numRequests, promptTokens, outputTokens } = result;
  return [
    `${formatMachine(machine)}.`,
    `${modelName}; ${numRequests} requests a run, Poisson arrivals, prompts of ${promptTokens} random tokens,`,
    `${outputTokens} tokens out. Latencies are p50 / p90 / p99, from when a request was due.`,
    `Goodput counts requests with TTFT <= ${objective.ttftMs} ms and TPOT <= ${objective.tpotMs} ms.`,
    "The client shares the processors with the server.",
  ].join(" ");
}

export function loadTable(rows: readonly LoadRow[]): string {
  const header = ["server", "requests/s", "tokens/s", "TTFT ms", "TPOT ms", "ITL ms", "E2E ms", "goodput", "errors"];
  const spread = ({ p50, p90, p99 }: Spread) => [p50, p90, p99].map(formatNumber).join(" / ");
  const cells = rows.map((row) => [
    row.target,
    formatNumber(row.perSecond),
    formatNumber(row.tokensPerSecond),
    ...[row.ttft, row.tpot, row.itl, row.e2e].map(spread),
    `${formatNumber(row.goodputPerSecond)}/s (${Math.round(row.goodShare * 100)}%)`,
    `${row.numErrors} of ${row.numRequests}`,
  ]);
  return markdownTable(header, cells);
}
