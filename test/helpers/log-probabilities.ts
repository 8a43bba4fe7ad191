/** Logits as what they mean: an offset of a whole row is none. */
import { expect } from "vitest";

export function logProbabilities(logits: ArrayLike<number>): Float64Array {
  const row = Float64Array.from(logits);
  const max = row.reduce((a, b) => Math.max(a, b));
  const logSumExp = max + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
  return row.map((logit) => logit - logSumExp);
}

/** At every position: each log-probability, and which is the largest. */
export function expectSameDistributions(
  actual: readonly ArrayLike<number>[],
  expected: readonly ArrayLike<number>[],
  tolerance: number,
): void {
  expect(actual).toHaveLength(expected.length);
  for (const [t, row] of expected.entries()) {
    const [mine, theirs] = [logProbabilities(actual[t]!), logProbabilities(row)];
    const difference = mine.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)), 0);
    expect(difference, `position ${t}`).toBeLessThan(tolerance);
    expect(mine.indexOf(Math.max(...mine)), `position ${t}`).toBe(theirs.indexOf(Math.max(...theirs)));
  }
}
