/** What `bench:peers` prints and writes into docs/performance.md: tables of ratios, and charts of the rates behind them. */

import { formatMachine } from "../machine.ts";
import type { Section } from "../page/sections.ts";
import type { BarGroup } from "../page/svg.ts";
import { barChart } from "../page/svg.ts";
import { formatNumber, markdownTable, median } from "../report.ts";
import type { BenchPrecision } from "../rig.ts";
import { LLAMA_CPP, NODE_LLAMA, OURS, type PeerRow, type PeersResult, type PeerTest } from "./result.ts";
import { PEER_TYPES } from "./same-weights.ts";
import { ratioOf, type Samples } from "./turns.ts";

const TEST_NAMES: Readonly<Record<PeerTest, string>> = {
  tg128: "1 sequence (tg128)",
  pp512: "prompt of 512 (pp512)",
  batch32: "32 sequences",
  served32: "32 streams over HTTP",
};

/** What is promised of a ratio to llama.cpp; int8 of the mamba-130m shape. */
const PROMISED: Partial<Readonly<Record<PeerTest, number>>> = { tg128: 4, pp512: 4.5, served32: 12 };

/** One line, for the terminal while the run goes on. */
export function formatRow(row: PeerRow): string {
  const what = [row.shape, TEST_NAMES[row.test], pairName(row.precision)].join(", ");
  const rates = row.samples.map(({ name, values }) => `${name} ${formatNumber(median(values))}`);
  return `${what}: ${rates.join(", ")} tokens/s; ${ratioText(row, LLAMA_CPP)}`;
}

/** One table for each shape. */
export function peersTable(rows: readonly PeerRow[], shape: string): string {
  const header = [shape, "precision", `${OURS}, tokens/s`, LLAMA_CPP, NODE_LLAMA, "ratio to llama.cpp", "promised"];
  const cells = rows
    .filter((row) => row.shape === shape)
    .map((row) => [
      TEST_NAMES[row.test],
      pairName(row.precision),
      ...[OURS, LLAMA_CPP, NODE_LLAMA].map((name) => rateText(samplesOf(row, name))),
      ratioText(row, LLAMA_CPP),
      promiseText(row),
    ]);
  return markdownTable(header, cells);
}

export function peersSection(result: PeersResult): Section {
  const shapes = [...new Set(result.rows.map(({ shape }) => shape))];
  const notes = [
    `${formatMachine(result.machine)}; memory reads ${formatNumber(result.bandwidth / 1e9)} GB/s.`,
    `Medians of ${result.numRounds} rounds taken in turns; a ratio is the median of the rounds' ratios, with the lowest and`,
    "the highest.",
  ];
  const sameness = (shape: string) =>
    `In f32 the log-probabilities of both servers differ by at most ${result.differences[shape]?.toPrecision(2)}.`;
  const parts = [
    notes.join(" "),
    ...shapes.flatMap((shape) => [
      `![Tokens per second, ${shape}](performance/peers-${shape}.svg)`,
      peersTable(result.rows, shape),
      sameness(shape),
    ]),
  ];
  const charts = shapes.map((shape) => [`${shape}.svg`, peersChart(result.rows, shape)] as const);
  return {
    name: "peers",
    markdown: parts.join("\n\n"),
    files: { ...Object.fromEntries(charts), "result.json": `${JSON.stringify(result, null, 1)}\n` },
  };
}

function peersChart(rows: readonly PeerRow[], shape: string): string {
  const groups = rows
    .filter((row) => row.shape === shape)
    .map(
      (row): BarGroup => ({
        label: `${TEST_NAMES[row.test]}, ${row.precision}`,
        bars: row.samples.map(({ name, values }) => ({
          series: name,
          value: median(values),
          label: formatNumber(median(values)),
        })),
      }),
    );
  return barChart({ title: `${shape}: tokens per second, each group on its own scale`, groups });
}

function samplesOf(row: PeerRow, name: string): Samples | undefined {
  return row.samples.find((samples) => samples.name === name);
}

function rateText(samples: Samples | undefined): string {
  return samples === undefined ? "" : formatNumber(median(samples.values));
}

function ratioText(row: PeerRow, peer: string): string {
  const [ours, theirs] = [samplesOf(row, OURS), samplesOf(row, peer)];
  if (ours === undefined || theirs === undefined) return "";
  const ratio = ratioOf(ours, theirs);
  return `${ratio.median.toFixed(2)} x (${ratio.lowest.toFixed(2)}–${ratio.highest.toFixed(2)})`;
}

function promiseText(row: PeerRow): string {
  const least = row.shape === "mamba-130m" && row.precision === "int8" ? PROMISED[row.test] : undefined;
  const [ours, theirs] = [samplesOf(row, OURS), samplesOf(row, LLAMA_CPP)];
  if (least === undefined || ours === undefined || theirs === undefined) return "";
  return `>= ${least} x: ${ratioOf(ours, theirs).median >= least ? "kept" : "not kept"}`;
}

/** `int8 / Q8_0` */
function pairName(precision: BenchPrecision): string {
  return `${precision} / ${PEER_TYPES[precision]}`;
}
