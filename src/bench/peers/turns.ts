/**
 * Contenders take turns, round after round, and ratios are formed within a round: a machine whose speed drifts, or that
 * others use too, slows all of them alike.
 */
import { median } from "../report.ts";

export interface Contender {
  readonly name: string;
  /** One turn. Higher is better. */
  measure(): Promise<number>;
}

export interface Samples {
  readonly name: string;
  /** One for each round. */
  readonly values: readonly number[];
}

/** In the contenders' order. Every other round goes backwards, so that being first is no advantage. */
export async function takeTurns(contenders: readonly Contender[], numRounds: number): Promise<Samples[]> {
  const values = contenders.map((): number[] => []);
  for (let round = 0; round < numRounds; round++) {
    const order = [...contenders.keys()];
    if (round % 2 === 1) order.reverse();
    for (const i of order) values[i]!.push(await contenders[i]!.measure());
  }
  return contenders.map(({ name }, i) => ({ name, values: values[i]! }));
}

export interface Ratio {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** Of `a` to `b`, round by round. */
export function ratioOf(a: Samples, b: Samples): Ratio {
  const ratios = a.values.map((value, round) => value / b.values[round]!);
  return { median: median(ratios), lowest: Math.min(...ratios), highest: Math.max(...ratios) };
}
