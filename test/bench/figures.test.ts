/** What benchmarks print: statistics, tables, ratios, and the machine that they ran on. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DEFAULT_SUITES, SUITES } from "../../src/bench/bench.ts";
import {
  atLeast,
  atMost,
  formatTable,
  isMet,
  markdownTable,
  median,
  percentile,
  slope,
} from "../../src/bench/figures.ts";
import { busyShare, formatMachine, instructionsOf, type Machine } from "../../src/bench/machine.ts";
import { inTurns, ratios } from "../../src/bench/rounds.ts";

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

  it("have a slope beside them, that of the line through points", () => {
    expect(slope([1, 2, 5].map((x) => ({ x, y: 3 * x + 1 })))).toBeCloseTo(3);
    expect(slope([{ x: 1, y: 5 }])).toBe(0);
  });
});

describe("a table of figures", () => {
  it("shows the target and whether it is met, the bound included", () => {
    const figures = [
      { name: "fast", value: 4, unit: "x", ...atLeast(4) },
      { name: "slow", value: 3.01, unit: "x", ...atMost(3) },
      { name: "plain", value: 0.012345, unit: "ms" },
    ];
    expect(figures.map(isMet)).toEqual([true, false, undefined]);
    expect(formatTable("suite", figures)).toBe(
      [
        "| suite | measured  | target  | met |",
        "| ----- | --------- | ------- | --- |",
        "| fast  | 4.00 x    | >= 4.00 | yes |",
        "| slow  | 3.01 x    | <= 3.00 | no  |",
        "| plain | 0.0123 ms |         |     |",
      ].join("\n"),
    );
  });

  it("has as many cells in every line", () => {
    const lines = markdownTable(["a", "b"], [["1", "long text"]]).split("\n");
    expect(new Set(lines.map((line) => line.split("|").length))).toEqual(new Set([4]));
  });
});

describe("measurements in turns", () => {
  const measurements = () => {
    const order: string[] = [];
    const measurement = (name: string, values: number[]) => async () => {
      order.push(name);
      return values.shift()!;
    };
    return { order, a: measurement("a", [0, 4, 6, 8]), b: measurement("b", [0, 1, 3, 2]) };
  };

  it("run every other round backwards, so that none is always first, and leave the warm-up out", async () => {
    const { order, a, b } = measurements();
    const samples = await inTurns({ a, b }, { numRounds: 3 });
    expect(order.join("")).toBe("baabbaab");
    expect(samples).toEqual({ a: [4, 6, 8], b: [1, 3, 2] });
  });

  it("give ratios within a round: a machine that slows down for both changes none of them", () => {
    const drift = [1, 0.5, 0.1];
    const all = ratios(
      drift.map((speed) => 100 * speed),
      drift.map((speed) => 25 * speed),
    );
    for (const value of all) expect(value).toBeCloseTo(4);
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
    expect(formatMachine(busy)).toMatch("preliminary: others used 42%");
  });

  it("is as busy as two readings of its processors' clocks say", () => {
    const reading = (user: number, idle: number) => ({
      model: "",
      speed: 0,
      times: { user, nice: 0, sys: 0, idle, irq: 0 },
    });
    expect(busyShare([reading(100, 100), reading(0, 0)], [reading(150, 150), reading(0, 100)])).toBeCloseTo(0.25);
    expect(busyShare([reading(1, 1)], [reading(1, 1)])).toBe(0);
  });

  it("has its best vector instructions named", () => {
    expect(instructionsOf(new Set(["avx", "avx2", "avx512f", "avx512_vnni"]))).toBe("AVX-512 VNNI");
    expect(instructionsOf(new Set(["avx", "avx2"]))).toBe("AVX2");
    expect(instructionsOf(new Set(["asimd", "asimddp"]))).toBe("NEON DotProd");
    expect(instructionsOf(new Set())).toBe("");
  });
});

it("suites that take many minutes run only when they are named", () => {
  expect(SUITES.filter((suite) => !DEFAULT_SUITES.includes(suite))).toEqual(["million", "length", "state"]);
});
