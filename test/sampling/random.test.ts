import { expect, test } from "vitest";
import { SeededRandom } from "../../src/sampling/random.ts";

function take(seed: number | bigint, count: number): number[] {
  const random = new SeededRandom(seed);
  return Array.from({ length: count }, () => random.next());
}

test("the random numbers of a seed never change", () => {
  expect(take(42, 3)).toEqual([0.8029528514623244, 0.38803304175865116, 0.6673172517838049]);
});

test("seeds that differ anywhere in 64 bits, or in sign, give different streams", () => {
  const seeds = [0, 1, -1, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 53, -(2 ** 40), 2 ** 63];
  const huge = [2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n) + 1n];
  expect(new Set([...seeds, ...huge].map((seed) => take(seed, 2).join())).size).toBe(seeds.length + huge.length);
  expect(take(42n, 3)).toEqual(take(42, 3));
  expect(take(-1n, 3)).toEqual(take(-1, 3));
});

test("numbers are uniform in [0, 1), also the first of consecutive seeds", () => {
  for (const numbers of [take(1, 20_000), Array.from({ length: 20_000 }, (_, seed) => take(seed, 1)[0]!)]) {
    const bins = new Array<number>(20).fill(0);
    expect(numbers.every((number) => number >= 0 && number < 1)).toBe(true);
    for (const number of numbers) {
      bins[Math.floor(number * 20)]!++;
    }
    const statistic = bins.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
    expect(statistic).toBeLessThan(50); // 19 degrees of freedom: p < 0.0002 beyond
  }
});
