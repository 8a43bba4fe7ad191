/** What `bench:server` prints and writes into docs/performance.md: a table of every run, and charts over the rate. */
import { formatMachine } from "../machine.ts";
import type { Section } from "../page/sections.ts";
import { lineChart } from "../page/svg.ts";
import { formatNumber, markdownTable } from "../report.ts";
import type { Spread } from "./latency.ts";
import type { LoadRow, ServerBenchResult } from "./server-bench.ts";

/** One line, for the terminal while the run goes on. */
export function formatLoadRow(row: LoadRow): string {
  const errors = row.numErrors === 0 ? "" : `, ${row.numErrors} errors (${row.firstError ?? "no text"})`;
  const figures = [
    `TTFT p50 ${formatNumber(row.ttft.p50)} p99 ${formatNumber(row.ttft.p99)} ms`,
    `TPOT p50 ${formatNumber(row.tpot.p50)} ms`,
    `${formatNumber(row.tokensPerSecond)} tokens/s`,
    `goodput ${formatNumber(row.goodputPerSecond)}/s${errors}`,
  ];
  return `${row.target} at ${row.perSecond}/s: ${figures.join(", ")}`;
}

export function loadTable(rows: readonly LoadRow[]): string {
  const header = ["server", "requests/s", "tokens/s", "TTFT ms", "TPOT ms", "ITL ms", "E2E ms", "goodput", "errors"];
  const cells = rows.map((row) => [
    row.target,
    formatNumber(row.perSecond),
    formatNumber(row.tokensPerSecond),
    ...[row.ttft, row.tpot, row.itl, row.e2e].map(spreadText),
    `${formatNumber(row.goodputPerSecond)}/s (${Math.round(row.goodShare * 100)}%)`,
    `${row.numErrors} of ${row.numRequests}`,
  ]);
  return markdownTable(header, cells);
}

export function loadSection(result: ServerBenchResult): Section {
  const { objective, modelName, numRequests, promptTokens, outputTokens } = result;
  const notes = [
    `${formatMachine(result.machine)}.`,
    `${modelName}; ${numRequests} requests a run, Poisson arrivals, prompts of ${promptTokens} random tokens,`,
    `${outputTokens} tokens out. Latencies are p50 / p90 / p99, from when a request was due.`,
    `Goodput counts requests with TTFT <= ${objective.ttftMs} ms and TPOT <= ${objective.tpotMs} ms.`,
    "The client shares the processors with the server.",
  ];
  const parts = [
    notes.join(" "),
    loadTable(result.rows),
    "![Time to first token over the rate](performance/server-ttft.svg)",
    "![Time per output token over the rate](performance/server-tpot.svg)",
  ];
  return {
    name: "server",
    markdown: parts.join("\n\n"),
    files: {
      "ttft.svg": latencyChart("Time to first token", result.rows, (row) => row.ttft),
      "tpot.svg": latencyChart("Time per output token", result.rows, (row) => row.tpot),
      "result.json": `${JSON.stringify(result, null, 1)}\n`,
    },
  };
}

function latencyChart(title: string, rows: readonly LoadRow[], of: (row: LoadRow) => Spread): string {
  const targets = [...new Set(rows.map(({ target }) => target))];
  const series = targets.flatMap((target) =>
    (["p50", "p99"] as const).map((rank) => ({
      name: `${target} ${rank}`,
      group: target,
      dashed: rank === "p99",
      points: rows.filter((row) => row.target === target).map((row) => ({ x: row.perSecond, y: of(row)[rank] })),
    })),
  );
  return lineChart({ title, xLabel: "requests per second", yLabel: "ms", series });
}

function spreadText({ p50, p90, p99 }: Spread): string {
  return [p50, p90, p99].map(formatNumber).join(" / ");
}
