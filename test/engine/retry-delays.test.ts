import { expect, test } from "vitest";
import { backoffMs, CompletionRate } from "../../src/engine/retry-delays.ts";

test("there is no delay after the first fault; later delays double up to a bound", () => {
  expect([0, 1, 2, 3, 4].map(backoffMs)).toEqual([0, 100, 200, 400, 800]);
  expect(backoffMs(1000)).toBe(30_000);
});

test("the estimated wait follows the recent rate of completions, within bounds", () => {
  const rate = new CompletionRate();
  expect(rate.estimateMs(1)).toBe(100);
  for (let i = 0; i < 20; i++) {
    rate.onBusy(500);
    rate.onEnd();
  }
  expect(rate.estimateMs(1)).toBe(500);
  expect(rate.estimateMs(3)).toBe(1500);
  rate.onBusy(4000); // Nobody has ended for longer than usual.
  expect(rate.estimateMs(1)).toBe(4000);
  rate.onBusy(1e9);
  expect(rate.estimateMs(1)).toBe(60_000);
});
