/** Of random cases, or of rounds of a race: `npm test` takes a fourth of those that CI takes. */
export function numCases(inCi: number): number {
  return process.env.CI ? inCi : Math.ceil(inCi / 4);
}
