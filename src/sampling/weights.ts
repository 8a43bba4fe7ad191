/**
 * The definition of a draw, shared by its two implementations (from the candidates, from the full
 * row):
 *
 * 1. Tokens are ranked by logit, descending, equal logits by ascending id.
 * 2. A token's weight is round(exp((logit - max) / temperature) * 2^34). Weights are integers and
 *    their sum stays below 2^53, so sums are exact in f64 and do not depend on the order of
 *    addition: both ways find the same token.
 * 3. min-p, then top-k, then top-p each keep a prefix of the ranking (as in vLLM; top-p counts the
 *    mass that min-p and top-k left). min-p keeps logits with (logit - max) / temperature >=
 *    ln(minP); top-p the shortest prefix whose mass reaches topP of the mass before it.
 * 4. The drawn token is the first whose cumulative weight exceeds u * mass, for u in [0, 1).
 *
 * A token less likely than the likeliest by a factor 2^-35 is never drawn.
 */

/**
 * Weight of the likeliest token. The vocabulary may have up to 2^19 tokens before sums lose
 * exactness.
 */
export const MAX_WEIGHT = 2 ** 34;

/** (logit - max) / temperature below which a weight is 0. */
export const MIN_EXPONENT = -35 * Math.LN2;

const STEPS_PER_OCTAVE = 1024;
const STEP = Math.LN2 / STEPS_PER_OCTAVE;
/** 2^(-i / STEPS_PER_OCTAVE) */
const FRACTIONS = Float64Array.from({ length: STEPS_PER_OCTAVE }, (_, i) => 2 ** (-i / STEPS_PER_OCTAVE));
/** MAX_WEIGHT · 2^-octave */
const OCTAVES = Float64Array.from({ length: 36 }, (_, octave) => MAX_WEIGHT * 2 ** -octave);
/** Adding and subtracting it rounds a number below 2^51 to an integer. */
const ROUNDER = 2 ** 52;

/**
 * round(exp(exponent) · MAX_WEIGHT), exponent ≤ 0 or -Infinity. Table and polynomial, exact to
 * 1e-14 before rounding: several times faster than `Math.exp` and `Math.round`, which is what a
 * draw from a whole vocabulary costs.
 */
export function weightOf(exponent: number): number {
  if (exponent < MIN_EXPONENT) return 0;
  const scaled = exponent * (-1 / STEP);
  const step = scaled | 0;
  const rest = (scaled - step) * STEP;
  const fine = 1 - rest * (1 - rest * (0.5 - rest * (1 / 6)));
  return OCTAVES[step >> 10]! * FRACTIONS[step & (STEPS_PER_OCTAVE - 1)]! * fine + ROUNDER - ROUNDER;
}

/** The part of the sampling parameters that shapes a draw. Temperature is > 0. */
export interface DrawParams {
  readonly temperature: number;
  /** 0 means all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

/**
 * The mass of a whole row, in units of weight, as known from the graph's sum.
 *
 * `nucleus` is what top-p takes as 1. A draw without any filter aims at u * `bound` with `bound` ≥
 * the true mass; a draw between the true mass and the bound is spread over all tokens in
 * proportion, so its distribution is exact although the f32 sum is not.
 */
export interface RowMass {
  readonly nucleus: number;
  readonly bound: number;
}
