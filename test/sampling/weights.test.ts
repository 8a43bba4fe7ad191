import fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_WEIGHT, MIN_EXPONENT, weightOf } from "../../src/sampling/weights.ts";

test("a weight is the rounded exponential", () => {
  fc.assert(
    fc.property(fc.double({ min: MIN_EXPONENT, max: 0, noNaN: true }), (exponent) => {
      const weight = weightOf(exponent);
      expect(Number.isInteger(weight)).toBe(true);
      expect(Math.abs(weight - Math.exp(exponent) * MAX_WEIGHT)).toBeLessThan(0.501);
    }),
    { numRuns: 2000 },
  );
});

test("the likeliest token has the largest weight, very unlikely ones none", () => {
  expect(weightOf(0)).toBe(MAX_WEIGHT);
  expect(weightOf(-0)).toBe(MAX_WEIGHT);
  for (const exponent of [MIN_EXPONENT * 1.0001, -1e300, Number.NEGATIVE_INFINITY]) expect(weightOf(exponent)).toBe(0);
});
