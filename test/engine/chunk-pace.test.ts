/** The size of chunks beside running streams, on machines whose chunks take so long for so many tokens. */
import { describe, expect, it } from "vitest";
import { ChunkPace } from "../../src/engine/chunk-pace.ts";

const DECODE_MS = 2;

/** Reads with it for a while. @returns the last sizes */
function settle(pace: ChunkPace, chunkMs: (numTokens: number) => number, numSteps = 100): number[] {
  const sizes: number[] = [];
  for (let step = 0; step < numSteps; step++) {
    pace.recordDecode(DECODE_MS);
    pace.recordChunk(pace.size, chunkMs(pace.size));
    sizes.push(pace.size);
  }
  return sizes.slice(-20);
}

describe("a pace of 1.5 steps", () => {
  const pace = () => new ChunkPace({ maxChunk: 128, maxStall: 1.5 });

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

  it("is hardly moved by a single accident, nor by a prompt's short end", () => {
    const one = pace();
    const before = settle(one, (n) => 0.1 * n).at(-1)!;
    one.recordDecode(500);
    one.recordChunk(one.size, 0.1 * one.size);
    expect(one.size).toBeLessThan(before * 1.5);
    one.recordChunk(one.size, 500);
    expect(one.size).toBeGreaterThan(before / 2);
    const after = one.size;
    one.recordChunk(1, 0.01);
    expect(one.size).toBe(after);
  });
});

it("reads as much as it may where no pace is asked for", () => {
  const pace = new ChunkPace({ maxChunk: 128, maxStall: Number.POSITIVE_INFINITY });
  expect(pace.size).toBe(128);
  expect(settle(pace, (n) => n * 10).at(-1)).toBe(128);
});

it("never asks for more than the largest chunk", () => {
  expect(new ChunkPace({ maxChunk: 3, maxStall: 2 }).size).toBe(3);
});
