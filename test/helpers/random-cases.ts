/** How many random cases a property is tried with: `npm test` takes every fourth of CI's. */
export function numCases(inCi: number): number {
  return process.env.CI ? inCi : Math.ceil(inCi / 4);
}
