/**
 * The size of chunks beside running streams, on machines whose steps take so long for so many
 * tokens.
 */
import { describe, expect, it } from "vitest";
import { AdaptiveChunkSize } from "../../src/engine/adaptive-chunk-size.ts";

const DECODE_MS = 2;
const NUM_DECODING = 4;

/** A step as `pace` wants it, taking `chunkMs` longer than decoding alone. @returns what it read */
function step(pace: AdaptiveChunkSize, chunkMs: (numTokens: number) => number, numDecoding = NUM_DECODING): number {
  const numPromptTokens = pace.size(numDecoding);
  const readingMs = numPromptTokens === 0 ? 0 : chunkMs(numPromptTokens);
  pace.record({ numDecoding, numPromptTokens, durationMs: DECODE_MS + readingMs });
  return numPromptTokens;
}

/** Reads with it for a while. @returns the last sizes, without looks */
function settle(pace: AdaptiveChunkSize, chunkMs: (numTokens: number) => number, numSteps = 100): number[] {
  const sizes = Array.from({ length: numSteps }, () => step(pace, chunkMs));
  return sizes.slice(-20).filter((size) => size > 0);
}

describe("a stall limit of 1.5 steps", () => {
  const pace = () => new AdaptiveChunkSize({ maxChunk: 128, maxStall: 1.5 });

  it.each([
    { machine: "where a token takes 0.1 ms", chunkMs: (n: number) => 0.1 * n, least: 20, most: 32 },
    {
      machine: "where a run takes 1 ms before the first token",
      chunkMs: (n: number) => 1 + 0.05 * n,
      least: 30,
      most: 45,
    },
    { machine: "where even one token takes too long", chunkMs: (n: number) => 5 + n, least: 1, most: 1 },
    { machine: "where chunks cost next to nothing", chunkMs: () => 0.01, least: 128, most: 128 },
  ])("settles at chunks that take as long, $machine", ({ chunkMs, least, most }) => {
    for (const size of settle(pace(), chunkMs)) {
      expect(size).toBeGreaterThanOrEqual(least);
      expect(size).toBeLessThanOrEqual(most);
    }
  });

  it("follows a machine that becomes slower", () => {
    const one = pace();
    const before = settle(one, (n) => 0.1 * n).at(-1)!;
    expect(settle(one, (n) => 0.5 * n).at(-1)!).toBeLessThan(before / 3);
  });

  it("hardly changes with a single outlier or the short end of a prompt", () => {
    const one = pace();
    const before = settle(one, (n) => 0.1 * n).at(-1)!;
    one.record({ numDecoding: NUM_DECODING, numPromptTokens: 0, durationMs: 500 });
    step(one, (n) => 0.1 * n);
    expect(one.size(NUM_DECODING)).toBeLessThan(before * 1.5);
    step(one, () => 500);
    expect(one.size(NUM_DECODING)).toBeGreaterThan(before / 2);
    const after = one.size(NUM_DECODING);
    one.record({ numDecoding: NUM_DECODING, numPromptTokens: 1, durationMs: 0.01 });
    expect(one.size(NUM_DECODING)).toBe(after);
  });

  it("probes the duration of decoding before it reads prompts, and again from time to time", () => {
    const one = pace();
    const isLook = (numDecoding: number) => step(one, (n) => 0.1 * n, numDecoding) === 0;
    expect([1, 2, 1, 2, 1, 2].map(isLook)).toEqual([true, true, true, true, false, false]);
    expect(Array.from({ length: 200 }, () => isLook(3)).filter((look) => look)).toHaveLength(5);
  });

  it("does not trust a shape's first step", () => {
    const one = pace();
    for (const durationMs of [10 * DECODE_MS, DECODE_MS]) {
      one.record({ numDecoding: NUM_DECODING, numPromptTokens: 0, durationMs });
    }
    expect(settle(one, (n) => 0.1 * n, 40).at(-1)).toBeLessThan(40);
  });

  it("reads less with fewer sequences, whose steps are shorter", () => {
    const one = pace();
    const durations = new Map([
      [1, 1],
      [32, 10],
    ]);
    const settled = [32, 1, 32].map((numDecoding) => {
      let size = 0;
      for (let i = 0; i < 40; i++) {
        const numPromptTokens = one.size(numDecoding);
        one.record({ numDecoding, numPromptTokens, durationMs: durations.get(numDecoding)! + 0.1 * numPromptTokens });
        if (numPromptTokens > 0) size = numPromptTokens;
      }
      return size;
    });
    expect(settled).toEqual([128, expect.toSatisfy((size: number) => size >= 8 && size <= 16), 128]);
  });
});

it("reads whole chunks without a limit on stalls", () => {
  const pace = new AdaptiveChunkSize({ maxChunk: 128, maxStall: Number.POSITIVE_INFINITY });
  expect(pace.size(NUM_DECODING)).toBe(128);
  expect(settle(pace, (n) => n * 10).at(-1)).toBe(128);
});

it("never asks for more than the largest chunk", () => {
  const pace = new AdaptiveChunkSize({ maxChunk: 3, maxStall: 2 });
  expect(settle(pace, () => 0.01).at(-1)).toBe(3);
});
