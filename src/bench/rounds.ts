/**
 * Measurements take turns, round after round, and ratios are taken within a round: a machine that
 * changes speed, or that other programs use too, then slows all of them alike.
 */

/** By name of the measurement, one value per round. */
export type Samples<Name extends string> = Readonly<Record<Name, readonly number[]>>;

export interface RoundsOptions {
  readonly numRounds: number;
  /** Rounds that come first and do not count. Default: 1. */
  readonly numWarmUps?: number;
}

/** Every other round runs backwards, so that it is no advantage to be first. */
export async function inTurns<Name extends string>(
  measurements: Readonly<Record<Name, () => Promise<number>>>,
  { numRounds, numWarmUps = 1 }: RoundsOptions,
): Promise<Samples<Name>> {
  const names = Object.keys(measurements) as Name[];
  const samples = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, number[]>;
  for (let round = -numWarmUps; round < numRounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const value = await measurements[name]();
      if (round >= 0) samples[name].push(value);
    }
  }
  return samples;
}

/** Of `a` to `b`, round by round. */
export function ratios(a: readonly number[], b: readonly number[]): number[] {
  return a.map((value, round) => value / b[round]!);
}
