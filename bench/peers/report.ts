/**
 * What a run of `npm run bench:peers` results in, and how it is shown: tables of ratios, and charts
 * of the rates.
 */

import type { BenchPrecision } from "../../src/bench/config.ts";
import { formatNumber, markdownTable, median } from "../../src/bench/figures.ts";
import { formatMachine, type Machine } from "../../src/bench/machine.ts";
import type { ShapeName } from "../../src/bench/random-model.ts";
import { ratios } from "../../src/bench/rounds.ts";
import { barChart } from "../svg.ts";

/** Tests without a server; with llama-bench's names where it has them. */
export const BARE_TESTS = ["tg128", "pp512", "batch32"] as const;
export type BareTest = (typeof BARE_TESTS)[number];
export const PEER_TESTS = [...BARE_TESTS, "served32"] as const;
export type PeerTest = (typeof PEER_TESTS)[number];

export const OURS = "densemamba";
export const LLAMA_CPP = "llama.cpp";
export const NODE_LLAMA = "node-llama-cpp";

/**
 * Which of llama.cpp's types is compared with which of our precisions. Q4_0 is its fastest with
 * four bits on a CPU.
 */
export const PEER_TYPES = { f32: "F32", int8: "Q8_0", int4: "Q4_0" } as const satisfies Record<BenchPrecision, string>;

export interface PeerRow {
  readonly shape: ShapeName;
  readonly test: PeerTest;
  readonly precision: BenchPrecision;
  /** Tokens per second, one value per round, ours first. */
  readonly samples: readonly { readonly name: string; readonly values: readonly number[] }[];
}

export interface PeersResult {
  readonly machine: Machine;
  readonly numRounds: number;
  /** Bytes per second. */
  readonly bandwidth: number;
  readonly rows: readonly PeerRow[];
  /**
   * Per shape, the largest difference between our server's log-probabilities and llama.cpp's in
   * f32.
   */
  readonly differences: Readonly<Record<string, number>>;
}

const TEST_NAMES: Readonly<Record<PeerTest, string>> = {
  tg128: "1 sequence (tg128)",
  pp512: "prompt of 512 (pp512)",
  batch32: "32 sequences",
  served32: "32 streams over HTTP",
};

/** Of the ratio to llama.cpp, in int8. */
const TARGETS: Partial<Readonly<Record<ShapeName, Partial<Readonly<Record<PeerTest, number>>>>>> = {
  "mamba-130m": { tg128: 4, pp512: 4.5, served32: 12 },
  "mamba2-130m": { tg128: 1.5, pp512: 3.5, batch32: 2.2 },
  "rwkv7-0.4b": { tg128: 1.5, pp512: 3, batch32: 3.5 },
};

/** One line, for the terminal while the run goes on. */
export function formatRow(row: PeerRow): string {
  const rates = row.samples.map(({ name, values }) => `${name} ${formatNumber(median(values))}`);
  const what = [row.shape, TEST_NAMES[row.test], precisionName(row)].join(", ");
  return `${what}: ${rates.join(", ")} tokens/s; ${ratioText(row)}`;
}

/** Of one shape. */
export function peersTable(rows: readonly PeerRow[], shape: string): string {
  const header = [shape, "precision", `${OURS}, tokens/s`, LLAMA_CPP, NODE_LLAMA, "ratio to llama.cpp", "target"];
  const cells = rows
    .filter((row) => row.shape === shape)
    .map((row) => [
      TEST_NAMES[row.test],
      precisionName(row),
      ...[OURS, LLAMA_CPP, NODE_LLAMA].map((name) => {
        const values = valuesOf(row, name);
        return values === undefined ? "" : formatNumber(median(values));
      }),
      ratioText(row),
      targetText(row),
    ]);
  return markdownTable(header, cells);
}

export function peersSection(result: PeersResult) {
  const shapes = [...new Set(result.rows.map(({ shape }) => shape))];
  const intro = [
    `${formatMachine(result.machine)}; memory reads ${formatNumber(result.bandwidth / 1e9)} GB/s.`,
    `Medians of ${result.numRounds} rounds taken in turns; a ratio is the median of the rounds' ratios, with the lowest and`,
    "the highest.",
  ];
  const parts = shapes.flatMap((shape) => [
    `![Tokens per second, ${shape}](performance/peers-${shape}.svg)`,
    peersTable(result.rows, shape),
    `In f32 the log-probabilities of both servers differ by at most ${result.differences[shape]?.toPrecision(2)}.`,
  ]);
  const charts = shapes.map((shape) => [`peers-${shape}.svg`, peersChart(result.rows, shape)] as const);
  return { markdown: [intro.join(" "), ...parts].join("\n\n"), charts: Object.fromEntries(charts) };
}

function peersChart(rows: readonly PeerRow[], shape: string): string {
  const groups = rows
    .filter((row) => row.shape === shape)
    .map(({ test, precision, samples }) => ({
      label: `${TEST_NAMES[test]}, ${precision}`,
      bars: samples.map(({ name, values }) => {
        const value = median(values);
        return { series: name, value, label: formatNumber(value) };
      }),
    }));
  return barChart({ title: `${shape}: tokens per second, each group on its own scale`, groups });
}

function ratioText(row: PeerRow): string {
  const all = ratiosOf(row);
  const [lowest, highest] = [Math.min(...all), Math.max(...all)];
  return all.length === 0 ? "" : `${median(all).toFixed(2)} x (${lowest.toFixed(2)}–${highest.toFixed(2)})`;
}

function targetText(row: PeerRow): string {
  const target = row.precision === "int8" ? TARGETS[row.shape]?.[row.test] : undefined;
  const all = ratiosOf(row);
  if (target === undefined || all.length === 0) return "";
  return `>= ${target} x: ${median(all) >= target ? "met" : "not met"}`;
}

/** To llama.cpp, round by round; empty if it was not measured. */
function ratiosOf(row: PeerRow): number[] {
  const theirs = valuesOf(row, LLAMA_CPP);
  return theirs === undefined ? [] : ratios(valuesOf(row, OURS) ?? [], theirs);
}

function valuesOf(row: PeerRow, name: string): readonly number[] | undefined {
  return row.samples.find((samples) => samples.name === name)?.values;
}

/** `int8 / Q8_0` */
function precisionName({ precision }: PeerRow): string {
  return `${precision} / ${PEER_TYPES[precision]}`;
}
