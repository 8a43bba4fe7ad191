/** What the benches print and write: figures, ratios, tables, charts, and the page's sections. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { loadSection } from "../../src/bench/load/report.ts";
import { busyShare, formatMachine, instructionsOf, isQuiet, type Machine } from "../../src/bench/machine.ts";
import { replaceSection, writeSection } from "../../src/bench/page/sections.ts";
import { barChart, lineChart } from "../../src/bench/page/svg.ts";
import { parseBatchedBench, parseLlamaBench } from "../../src/bench/peers/llama-cpp.ts";
import { peersSection, peersTable } from "../../src/bench/peers/report.ts";
import type { PeerRow } from "../../src/bench/peers/result.ts";
import { largestDifference, parseSteps } from "../../src/bench/peers/same-model.ts";
import { ratioOf, takeTurns } from "../../src/bench/peers/turns.ts";
import {
  atLeast,
  atMost,
  formatTable,
  holds,
  markdownTable,
  median,
  percentile,
  slope,
} from "../../src/bench/report.ts";

describe("percentiles", () => {
  it("are always one of the values, and grow with p", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ noNaN: true }), { minLength: 1 }), fc.nat(100), fc.nat(100), (values, a, b) => {
        const [low, high] = [percentile(values, Math.min(a, b)), percentile(values, Math.max(a, b))];
        expect(values).toContain(low);
        expect(low).toBeLessThanOrEqual(high);
        // At least p percent of the values are no larger.
        expect(values.filter((value) => value <= low).length).toBeGreaterThanOrEqual(
          (Math.min(a, b) / 100) * values.length,
        );
      }),
    );
  });

  it("of a known row are by nearest rank", () => {
    const values = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect([0, 50, 90, 99, 100].map((p) => percentile(values, p))).toEqual([1, 50, 90, 99, 100]);
    expect(median([3, 1, 2])).toBe(2);
    expect(percentile([], 50)).toBeNaN();
  });

  it("stand beside a slope that finds the line through points", () => {
    expect(slope([1, 2, 5].map((x) => ({ x, y: 3 * x + 1 })))).toBeCloseTo(3);
    expect(slope([{ x: 1, y: 5 }])).toBe(0);
  });
});

describe("a table of figures", () => {
  it("says what was promised and whether it was kept, the bound included", () => {
    const figures = [
      { name: "fast", value: 4, unit: "x", ...atLeast(4) },
      { name: "slow", value: 3.01, unit: "x", ...atMost(3) },
      { name: "plain", value: 0.012345, unit: "ms" },
    ];
    expect(figures.map(holds)).toEqual([true, false, undefined]);
    expect(formatTable("suite", figures)).toBe(
      [
        "| suite | measured  | promised | kept |",
        "| ----- | --------- | -------- | ---- |",
        "| fast  | 4.00 x    | >= 4.00  | yes  |",
        "| slow  | 3.01 x    | <= 3.00  | no   |",
        "| plain | 0.0123 ms |          |      |",
      ].join("\n"),
    );
  });

  it("has as many cells in every line", () => {
    const lines = markdownTable(["a", "b"], [["1", "long text"]]).split("\n");
    expect(new Set(lines.map((line) => line.split("|").length))).toEqual(new Set([4]));
  });
});

describe("turns", () => {
  it("go round and back, so that nobody is always first", async () => {
    const order: string[] = [];
    const contender = (name: string, values: number[]) => ({
      name,
      measure: async () => {
        order.push(name);
        return values.shift()!;
      },
    });
    const samples = await takeTurns([contender("a", [4, 6, 8]), contender("b", [1, 3, 2])], 3);
    expect(order.join("")).toBe("abbaab");
    expect(samples).toEqual([
      { name: "a", values: [4, 6, 8] },
      { name: "b", values: [1, 3, 2] },
    ]);
  });

  it("give ratios within a round: a machine that slows down for both changes none of them", () => {
    const drift = [1, 0.5, 0.1];
    const a = { name: "a", values: drift.map((speed) => 100 * speed) };
    const b = { name: "b", values: drift.map((speed) => 25 * speed) };
    const ratio = ratioOf(a, b);
    for (const value of Object.values(ratio)) expect(value).toBeCloseTo(4);
  });
});

const MACHINE: Machine = {
  date: "2026-01-02T03:04:05.678Z",
  cpu: "Some CPU",
  numCpus: 2,
  instructions: "AVX2",
  memoryGiB: 16,
  os: "Linux 6.1",
  threads: 2,
  versions: { Node: "v20.0.0", densemamba: "0.1.0" },
  busyShare: 0.01,
};

describe("the machine", () => {
  it("is named with date, versions and threads, and calls figures preliminary unless it was quiet", () => {
    expect(formatMachine(MACHINE)).toBe(
      "Some CPU, 2 logical processors (AVX2), 16 GiB, Linux 6.1; 2 threads each; Node v20.0.0, densemamba 0.1.0; 2026-01-02 03:04 UTC",
    );
    const busy = { ...MACHINE, busyShare: 0.42 };
    expect([isQuiet(MACHINE), isQuiet(busy)]).toEqual([true, false]);
    expect(formatMachine(busy)).toMatch("preliminary: others used 42%");
  });

  it("knows how busy it was from two readings of its processors' clocks", () => {
    const reading = (user: number, idle: number) => ({
      model: "",
      speed: 0,
      times: { user, nice: 0, sys: 0, idle, irq: 0 },
    });
    expect(busyShare([reading(100, 100), reading(0, 0)], [reading(150, 150), reading(0, 100)])).toBeCloseTo(0.25);
    expect(busyShare([reading(1, 1)], [reading(1, 1)])).toBe(0);
  });

  it("tells the best vector instructions that it has", () => {
    expect(instructionsOf(new Set(["avx", "avx2", "avx512f", "avx512_vnni"]))).toBe("AVX-512 VNNI");
    expect(instructionsOf(new Set(["avx", "avx2"]))).toBe("AVX2");
    expect(instructionsOf(new Set(["asimd", "asimddp"]))).toBe("NEON DotProd");
    expect(instructionsOf(new Set())).toBe("");
  });
});

describe("the peers' reports", () => {
  it("are read from llama.cpp's own formats, and refused when they are something else", () => {
    expect(parseLlamaBench('[{"n_gen":128,"avg_ts":61.5,"samples_ts":[61.5]}]')).toBe(61.5);
    expect(() => parseLlamaBench("[]")).toThrow("llama-bench reported");
    expect(parseBatchedBench('noise\n{"pp":8,"speed_pp":100.5,"speed_tg":72.25,"speed":80}\n')).toBe(72.25);
    expect(() => parseBatchedBench("failed to load")).toThrow("failed to load");
  });
});

describe("the check that two servers run one model", () => {
  const list = (...tops: Record<string, number>[]) =>
    JSON.stringify({ choices: [{ logprobs: { top_logprobs: tops } }] });
  const objects = (...tops: Record<string, number>[]) => {
    const content = tops.map((top) => ({
      top_logprobs: Object.entries(top).map(([token, logprob]) => ({ token, logprob })),
    }));
    return JSON.stringify({ choices: [{ logprobs: { content } }] });
  };

  it("reads both ways of writing log-probabilities, and compares tokens by name", () => {
    const ours = parseSteps(list({ a: -1, b: -2 }, { c: -1.5, d: -3 }));
    const theirs = parseSteps(objects({ b: -2.25, a: -1 }, { c: -1.5, e: -3.0625 }));
    expect(largestDifference(ours, theirs)).toBe(0.25);
    expect(largestDifference(ours, ours)).toBe(0);
  });

  it("fails where the likeliest token differs or one of them stops early", () => {
    const ours = parseSteps(list({ a: -1, b: -2 }));
    expect(largestDifference(ours, parseSteps(objects({ b: -1, a: -2 })))).toBe(Number.POSITIVE_INFINITY);
    expect(largestDifference(ours, parseSteps(objects()))).toBe(Number.POSITIVE_INFINITY);
  });
});

function row(overrides: Partial<PeerRow> = {}): PeerRow {
  const samples = [
    { name: "densemamba", values: [200, 300, 220] },
    { name: "llama.cpp", values: [40, 50, 44] },
  ];
  return { shape: "mamba-130m", test: "tg128", precision: "int8", samples, ...overrides };
}

describe("the table of peers", () => {
  it("gives medians, ratios with their range, and whether the promise is kept", () => {
    const table = peersTable([row(), row({ shape: "mamba-4m" })], "mamba-130m");
    expect(table.split("\n")).toHaveLength(3);
    expect(table).toContain("| int8 / Q8_0 | 220 ");
    expect(table).toContain("5.00 x (5.00–6.00)");
    expect(table).toContain(">= 4 x: kept");
  });

  it("promises nothing of other precisions and shapes", () => {
    expect(peersTable([row({ precision: "f32" })], "mamba-130m")).not.toContain(">=");
    expect(peersTable([row({ shape: "mamba-4m" })], "mamba-4m")).not.toContain(">=");
  });
});

/** Every tag closed in order, attributes quoted, no bare ampersand. */
function expectWellFormed(svg: string): void {
  const open: string[] = [];
  for (const [, closing, name, attributes, selfClosing] of svg.matchAll(
    /<(\/?)([a-z]+)((?: [\w:-]+="[^"<]*")*)(\/?)>/g,
  )) {
    if (closing) expect(open.pop()).toBe(name);
    else if (!selfClosing) open.push(name!);
    expect(attributes).not.toMatch(/NaN|Infinity|undefined/);
  }
  expect(open).toEqual([]);
  expect(svg.replaceAll(/<\/?[a-z]+(?: [\w:-]+="[^"<]*")*\/?>/g, "")).not.toMatch(/[<]|&(?!amp;|lt;|gt;|quot;)/);
}

describe("charts", () => {
  it("draw a bar as long as its value within its group, and say it", () => {
    const bars = (...values: number[]) => values.map((value, i) => ({ series: `s${i}`, value, label: `${value} <&>` }));
    const svg = barChart({
      title: 'A "title" & more',
      groups: [
        { label: "one", bars: bars(100, 50) },
        { label: "two", bars: bars(3) },
      ],
    });
    expectWellFormed(svg);
    const widths = [...svg.matchAll(/<rect x="230"[^>]* width="([\d.]+)"/g)].map(([, width]) => Number(width));
    expect(widths[1]! / widths[0]!).toBeCloseTo(0.5);
    expect(widths[2]).toBe(widths[0]);
    expect(svg).toContain("50 &lt;&amp;&gt;");
  });

  it("draw lines over a logarithmic axis and leave out what is not a number", () => {
    const svg = lineChart({
      title: "t",
      xLabel: "x",
      yLabel: "y",
      series: [
        {
          name: "a",
          group: "a",
          points: [
            { x: 1, y: 1 },
            { x: 2, y: 10 },
            { x: 3, y: Number.NaN },
            { x: 4, y: 100 },
          ],
        },
        { name: "none", group: "b", points: [] },
      ],
    });
    expectWellFormed(svg);
    const heights = [...svg.matchAll(/<circle cx="[\d.]+" cy="([\d.]+)"/g)].map(([, y]) => Number(y));
    expect(heights).toHaveLength(3);
    expect(heights[0]! - heights[1]!).toBeCloseTo(heights[1]! - heights[2]!);
  });
});

describe("the page", () => {
  const PAGE = "intro\n<!-- begin peers: written by the bench -->\nold\n<!-- end peers -->\nrest\n";

  it("gets a section replaced and nothing else", () => {
    const once = replaceSection(PAGE, "peers", "new");
    expect(once).toBe("intro\n<!-- begin peers: written by the bench -->\n\nnew\n\n<!-- end peers -->\nrest\n");
    expect(replaceSection(once!, "peers", "new")).toBe(once);
    expect(replaceSection(PAGE, "server", "new")).toBeUndefined();
  });

  it("has a place for every section, whose links lead to the files that are written with it", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "page-"));
    try {
      const page = path.join(dir, "docs", "performance.md");
      await mkdir(path.dirname(page));
      await writeFile(page, await readFile("docs/performance.md", "utf8"));
      const spread = { p50: 1, p90: 2, p99: 3 };
      const figures = { ttft: spread, tpot: spread, itl: spread, e2e: spread, numRequests: 9, numErrors: 1 };
      const rates = {
        offeredPerSecond: 1,
        completedPerSecond: 1,
        goodputPerSecond: 1,
        goodShare: 1,
        tokensPerSecond: 1,
      };
      const load = { promptTokens: 8, outputTokens: 8, numRequests: 9, objective: { ttftMs: 1, tpotMs: 1 } };
      const sections = [
        peersSection({
          machine: MACHINE,
          numRounds: 3,
          bandwidth: 1e10,
          rows: [row()],
          differences: { "mamba-130m": 2e-6 },
        }),
        loadSection({
          ...load,
          machine: MACHINE,
          modelName: "m",
          rows: [{ target: "a", perSecond: 2, ...figures, ...rates }],
        }),
      ];
      for (const section of sections) await writeSection(page, section);
      const text = await readFile(page, "utf8");
      expect(text).toContain("1 of 9");
      for (const [, link] of text.matchAll(/\]\((performance\/[^)]+)\)/g)) {
        expectWellFormed(await readFile(path.join(dir, "docs", link!), "utf8"));
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it("is asked for in a checkout only", async () => {
    const section = { name: "peers", markdown: "", files: {} };
    await expect(writeSection("/nowhere/performance.md", section)).rejects.toThrow("run it in a checkout");
  });
});
