/**
 * docs/performance.md: its sections and charts come from the results beside it, those of the peers
 * among them.
 */
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { replaceSection, writePage } from "../../bench/page.ts";
import { parseBatchedBench, parseLlamaBench } from "../../bench/peers/llama-cpp.ts";
import { type PeerRow, peersTable } from "../../bench/peers/report.ts";
import { largestDifference, parseSteps } from "../../bench/peers/same-model.ts";
import { barChart, lineChart } from "../../bench/svg.ts";

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
  it("gives medians, ratios with their range, and whether the target is met", () => {
    const table = peersTable([row(), row({ shape: "mamba-4m" })], "mamba-130m");
    expect(table.split("\n")).toHaveLength(3);
    expect(table).toContain("| int8 / Q8_0 | 220 ");
    expect(table).toContain("5.00 x (5.00–6.00)");
    expect(table).toContain(">= 4 x: met");
  });

  it("has no target for other precisions and shapes", () => {
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
  const PAGE = "intro\n<!-- begin peers: written by npm run bench:page -->\nold\n<!-- end peers -->\nrest\n";

  it("gets a section replaced and nothing else", () => {
    const once = replaceSection(PAGE, "peers", "new");
    expect(once).toBe(
      "intro\n<!-- begin peers: written by npm run bench:page -->\n\nnew\n\n<!-- end peers -->\nrest\n",
    );
    expect(replaceSection(once, "peers", "new")).toBe(once);
    expect(() => replaceSection(PAGE, "server", "new")).toThrow("no section <!-- begin server");
  });

  it("is what the results beside it say, and so are its charts: else npm run bench:page", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "page-"));
    try {
      await cp("docs/performance.md", path.join(dir, "performance.md"));
      await cp("docs/performance", path.join(dir, "performance"), { recursive: true });
      await writePage(path.join(dir, "performance.md"));
      const text = await readFile(path.join(dir, "performance.md"), "utf8");
      expect(text).toBe(await readFile("docs/performance.md", "utf8"));
      const files = await readdir("docs/performance");
      expect(await readdir(path.join(dir, "performance"))).toEqual(files);
      for (const file of files.filter((name) => name.endsWith(".svg"))) {
        const chart = await readFile(path.join(dir, "performance", file), "utf8");
        expectWellFormed(chart);
        expect(chart, file).toBe(await readFile(path.join("docs/performance", file), "utf8"));
        expect(text).toContain(`](performance/${file})`);
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
