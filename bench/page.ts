/**
 * `npm run bench:page`: fills the sections of docs/performance.md from the results in
 * docs/performance/, each the last line of what a benchmark printed, and draws the charts beside
 * them.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { BenchResult } from "../src/bench/bench.ts";
import { formatTable } from "../src/bench/figures.ts";
import type { Spread } from "../src/bench/load/latency.ts";
import { describeLoad, type LoadRow, loadTable, type ServerBenchResult } from "../src/bench/load/server-bench.ts";
import { formatMachine } from "../src/bench/machine.ts";
import { peersSection } from "./peers/report.ts";
import { lineChart } from "./svg.ts";

export interface Section {
  readonly markdown: string;
  /** File name → contents. */
  readonly charts: Readonly<Record<string, string>>;
}

/**
 * Section of the page and name of the result → how it is drawn. Suites that run alone have sections
 * of their own.
 */
const SECTIONS: Readonly<Record<string, (result: never) => Section>> = {
  peers: peersSection,
  server: serverSection,
  bench: benchSection,
  million: benchSection,
  length: benchSection,
  state: benchSection,
};

/** @param page path of the Markdown file; results and charts are in the folder of the same name */
export async function writePage(page: string): Promise<void> {
  const folder = join(dirname(page), basename(page, ".md"));
  await mkdir(folder, { recursive: true });
  let text = await readFile(page, "utf8");
  for (const [name, section] of Object.entries(SECTIONS)) {
    const { markdown, charts } = section(JSON.parse(await readFile(join(folder, `${name}.json`), "utf8")) as never);
    text = replaceSection(text, name, markdown);
    for (const [fileName, chart] of Object.entries(charts)) await writeFile(join(folder, fileName), chart);
  }
  await writeFile(page, text);
}

/** @throws Error if the page has no such section */
export function replaceSection(page: string, name: string, markdown: string, command = "npm run bench:page"): string {
  const [begin, end] = [`<!-- begin ${name}: written by ${command} -->`, `<!-- end ${name} -->`];
  const from = page.indexOf(begin);
  const to = page.indexOf(end, from);
  if (from === -1 || to === -1) throw new Error(`the page has no section ${begin} … ${end}`);
  return `${page.slice(0, from + begin.length)}\n\n${markdown.trim()}\n\n${page.slice(to)}`;
}

export function benchSection({ machine, figures }: BenchResult): Section {
  const suites = [...new Set(figures.map(({ suite }) => suite))];
  const tables = suites.map((name) =>
    formatTable(
      name,
      figures.filter(({ suite }) => suite === name),
    ),
  );
  return { markdown: [`${formatMachine(machine)}.`, ...tables].join("\n\n"), charts: {} };
}

export function serverSection(result: ServerBenchResult): Section {
  const parts = [
    describeLoad(result),
    loadTable(result.rows),
    "![Time to first token over the rate](performance/server-ttft.svg)",
    "![Time per output token over the rate](performance/server-tpot.svg)",
  ];
  const charts = {
    "server-ttft.svg": latencyChart("Time to first token", result.rows, (row) => row.ttft),
    "server-tpot.svg": latencyChart("Time per output token", result.rows, (row) => row.tpot),
  };
  return { markdown: parts.join("\n\n"), charts };
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

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await writePage(join("docs", "performance.md"));
