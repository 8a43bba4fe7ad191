/**
 * Draws from the graph's candidates (the 64 largest logits of a row), which nearly always suffice:
 * 64 exponentials instead of a vocabulary of them. If they cannot decide, it says so, and
 * `full-row.ts` gives the same answer from all logits.
 */
import type { LogitRows } from "../model/logits.ts";
import { numCandidatesOf } from "./rows.ts";
import { type DrawParams, MAX_WEIGHT, type RowMass, weightOf } from "./weights.ts";

/**
 * Relative error allowed to the graph's f32 sum, which may add a vocabulary of terms one by one:
 * each addition rounds, and terms below the sum's resolution are lost.
 */
const SUM_ERROR_PER_TOKEN = 2 ** -24;
/** Relative error of a log-sum-exp in f32 after the division by the temperature. */
const LOG_ERROR = 2 ** -22;

export type CandidateDraw =
  | { readonly type: "token"; readonly tokenId: number }
  /** The candidates cannot decide. */
  | { readonly type: "full row"; readonly mass: RowMass };

/**
 * @param u uniform in [0, 1)
 * @param cumulative scratch of at least K elements, overwritten
 */
export function drawFromCandidates(
  rows: LogitRows,
  row: number,
  params: DrawParams,
  u: number,
  cumulative: Float64Array,
): CandidateDraw {
  const numCandidates = numCandidatesOf(rows);
  const numTail = rows.vocabSize - numCandidates;
  const first = row * numCandidates;
  const max = rows.topLogits[first]!;
  const inverseTemperature = 1 / params.temperature;
  const minExponent = Math.log(params.minP);

  let sum = 0;
  let weight = 0;
  let numPastMinP = 0;
  for (let i = 0; i < numCandidates; i++) {
    const exponent = (rows.topLogits[first + i]! - max) * inverseTemperature;
    weight = weightOf(exponent);
    sum += weight;
    cumulative[i] = sum;
    if (exponent >= minExponent) numPastMinP++;
  }
  const mass = estimateMass(rows, row, inverseTemperature, sum, numTail * weight);

  const isTopKDecided = params.topK > 0 && params.topK <= numCandidates;
  const isFiltered = params.topK > 0 || params.minP > 0;
  if (isFiltered && !isTopKDecided && numPastMinP === numCandidates && numTail > 0) return { type: "full row", mass };

  // With a filter the first `numKept` candidates remain; without one, the whole row.
  const numKept = isTopKDecided ? Math.min(params.topK, numPastMinP) : numPastMinP;
  let target: number;
  if (params.topP < 1) {
    const goal = params.topP * (isFiltered ? cumulative[numKept - 1]! : mass.nucleus);
    const numNucleus = 1 + firstAtLeast(cumulative, isFiltered ? numKept : numCandidates, goal);
    if (numNucleus > numCandidates) return { type: "full row", mass };
    target = u * cumulative[numNucleus - 1]!;
  } else {
    target = u * (isFiltered ? cumulative[numKept - 1]! : mass.bound);
    if (target >= sum) return { type: "full row", mass };
  }
  let index = 0;
  while (cumulative[index]! <= target) index++;
  return { type: "token", tokenId: Number(rows.topIds[first + index]) };
}

/** Index of the first element ≥ goal among the first `length`, else `length`. */
function firstAtLeast(cumulative: Float64Array, length: number, goal: number): number {
  let index = 0;
  while (index < length && cumulative[index]! < goal) index++;
  return index;
}

/**
 * The row's mass from the graph's f32 sum, clamped between the candidates' mass and what the row
 * weighs if every other token is as likely as the last candidate. At low temperatures, where the
 * f32 sum is inexact, these bounds meet.
 */
function estimateMass(
  rows: LogitRows,
  row: number,
  inverseTemperature: number,
  candidateMass: number,
  maxTailMass: number,
): RowMass {
  const numCandidates = numCandidatesOf(rows);
  const tempered = rows.temperedLogSumExp[row]!;
  const temperedMax = rows.topLogits[row * numCandidates]! * inverseTemperature;
  const estimate = Math.exp(tempered - temperedMax) * MAX_WEIGHT;
  const logError = (Math.abs(tempered) + Math.abs(temperedMax) + 1) * LOG_ERROR;
  const error = rows.vocabSize * SUM_ERROR_PER_TOKEN + Math.expm1(logError);
  const upper = candidateMass + maxTailMass;
  return {
    nucleus: Math.min(Math.max(estimate, candidateMass), upper),
    bound: Math.min(Math.max(estimate * (1 + error), candidateMass), upper),
  };
}
