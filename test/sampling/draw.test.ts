import fc from "fast-check";
import { expect, test } from "vitest";
import type { LogitRows } from "../../src/model/logits.ts";
import { drawFromCandidates } from "../../src/sampling/candidates.ts";
import { drawFromFullRow, RowRanking } from "../../src/sampling/full-row.ts";
import { SeededRandom } from "../../src/sampling/random.ts";
import { type DrawParams, type RowMass, weightOf } from "../../src/sampling/weights.ts";
import { logitRows, rankIds } from "../helpers/logit-rows.ts";

const cumulative = new Float64Array(64);
const ranking = new RowRanking();

const unfiltered: DrawParams = { temperature: 1, topK: 0, topP: 1, minP: 0 };

/**
 * From peaked to flat, with ties and impossible tokens, below and above the number of candidates.
 */
const rowArbitrary = fc
  .record({
    size: fc.oneof(fc.integer({ min: 1, max: 80 }), fc.constant(1000)),
    seed: fc.integer(),
    spread: fc.constantFrom(0, 0.01, 1, 4, 20, 200),
    step: fc.constantFrom(0, 0.5),
    masked: fc.constantFrom(0, 0.3),
  })
  .map(({ size, seed, spread, step, masked }) => {
    const random = new SeededRandom(seed);
    return Float32Array.from({ length: size }, (_, id) => {
      const logit = (random.next() + random.next() - 1) * spread;
      if (id > 0 && random.next() < masked) return Number.NEGATIVE_INFINITY;
      return step > 0 ? Math.round(logit / step) * step : logit;
    });
  });

const paramsArbitrary: fc.Arbitrary<DrawParams> = fc.record({
  temperature: fc.constantFrom(1e-5, 0.01, 0.3, 0.7, 1, 2),
  topK: fc.constantFrom(0, 0, 1, 5, 64, 65, 100),
  topP: fc.constantFrom(1, 1, 0, 0.1, 0.5, 0.9, 0.999),
  minP: fc.constantFrom(0, 0, 0.001, 0.1, 1),
});

const uArbitrary = fc.oneof(
  fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  fc.constantFrom(0, 1 - 2 ** -53, 1 - 2 ** -20),
);

/** The definition in `weights.ts`, word for word, on a full sort. */
function keptTokens(logits: Float32Array, params: DrawParams, nucleusMass?: number): number[] {
  const max = Math.max(...logits);
  const exponent = (id: number) => (logits[id]! - max) * (1 / params.temperature);
  let kept = rankIds(logits).filter((id) => exponent(id) >= Math.log(params.minP));
  if (params.topK > 0) kept = kept.slice(0, params.topK);
  if (params.topP < 1) {
    const isFiltered = params.topK > 0 || params.minP > 0;
    const own = kept.reduce((sum, id) => sum + weightOf(exponent(id)), 0);
    const goal = params.topP * (isFiltered ? own : (nucleusMass ?? own));
    let mass = 0;
    kept = kept.filter((id) => {
      const isKept = mass < goal || mass === 0;
      mass += weightOf(exponent(id));
      return isKept;
    });
  }
  return kept;
}

function drawByDefinition(logits: Float32Array, params: DrawParams, u: number): number {
  const max = Math.max(...logits);
  const weights = keptTokens(logits, params).map((id) => ({
    id,
    weight: weightOf((logits[id]! - max) * (1 / params.temperature)),
  }));
  let remaining = u * weights.reduce((sum, { weight }) => sum + weight, 0);
  for (const { id, weight } of weights) {
    if (remaining < weight) return id;
    remaining -= weight;
  }
  throw new Error("no token drawn");
}

/** What the candidates hand over with a draw they cannot make: here one of the top 65. */
function massOf(rows: LogitRows, params: DrawParams): RowMass | undefined {
  const draw = drawFromCandidates(rows, 0, { ...params, topK: 65, topP: 1, minP: 0 }, 0, cumulative);
  return draw.type === "full row" ? draw.mass : undefined;
}

function drawEitherWay(rows: LogitRows, params: DrawParams, u: number): number {
  const draw = drawFromCandidates(rows, 0, params, u, cumulative);
  if (draw.type === "token") return draw.tokenId;
  return drawFromFullRow(ranking, rows.logitsOf(0), rows.topLogits[0]!, params, u, draw.mass);
}

test("the candidates choose the same token as the full row, if they can decide", () => {
  let numDecided = 0;
  let numUndecided = 0;
  fc.assert(
    fc.property(rowArbitrary, paramsArbitrary, uArbitrary, (logits, params, u) => {
      const rows = logitRows([logits], [params.temperature]);
      const draw = drawFromCandidates(rows, 0, params, u, cumulative);
      if (draw.type === "full row") {
        numUndecided++;
        expect(logits.length).toBeGreaterThan(64);
        return;
      }
      numDecided++;
      const mass = massOf(rows, params);
      expect(drawFromFullRow(ranking, logits, Math.max(...logits), params, u, mass)).toBe(draw.tokenId);
    }),
    { numRuns: 800 },
  );
  expect(numDecided).toBeGreaterThan(200);
  expect(numUndecided).toBeGreaterThan(50);
});

test("the full row's draw is the one defined on a full sort", () => {
  fc.assert(
    fc.property(rowArbitrary, paramsArbitrary, uArbitrary, (logits, params, u) => {
      const max = Math.max(...logits);
      expect(drawFromFullRow(ranking, logits, max, params, u)).toBe(drawByDefinition(logits, params, u));
    }),
    { numRuns: 800 },
  );
});

test("on either path the token is within top-k, top-p and min-p", () => {
  fc.assert(
    fc.property(rowArbitrary, paramsArbitrary, uArbitrary, (logits, params, u) => {
      const rows = logitRows([logits], [params.temperature]);
      const token = drawEitherWay(rows, params, u);
      expect(keptTokens(logits, params, massOf(rows, params)?.nucleus)).toContain(token);
      expect(logits[token]).toBeGreaterThan(Number.NEGATIVE_INFINITY);
    }),
    { numRuns: 400 },
  );
});

test.each([
  ["peaked", 6, 1],
  ["flat: most draws leave the candidates", 0.3, 1],
  ["cold", 6, 0.3],
])("tokens are drawn as often as the softmax says (%s)", (_, spread, temperature) => {
  const random = new SeededRandom(7);
  const logits = Float32Array.from({ length: 300 }, () => (random.next() - 0.5) * spread * 2);
  const rows = logitRows([logits], [temperature]);
  // A graph's sum may be off: the distribution must not be.
  rows.temperedLogSumExp[0]! -= 3e-6;
  const params = { ...unfiltered, temperature };
  const counts = new Float64Array(logits.length);
  const numDraws = 30_000;
  for (let i = 0; i < numDraws; i++) {
    counts[drawEitherWay(rows, params, random.next())]!++;
  }
  const weights = Array.from(logits, (logit) => Math.exp((logit - rows.topLogits[0]!) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  // Pearson's statistic over tokens expected at least 5 times; the rest is pooled.
  let statistic = 0;
  let freedom = -1;
  let pooled = { expected: 0, count: 0 };
  weights.forEach((weight, id) => {
    const expected = (weight / total) * numDraws;
    if (expected < 5) {
      pooled = { expected: pooled.expected + expected, count: pooled.count + counts[id]! };
      return;
    }
    statistic += (counts[id]! - expected) ** 2 / expected;
    freedom++;
  });
  if (pooled.expected > 1) statistic += (pooled.count - pooled.expected) ** 2 / pooled.expected;
  expect(statistic).toBeLessThan(freedom + 1 + 5 * Math.sqrt(2 * (freedom + 1)));
});

test("at a low temperature an inexact f32 sum does not leak mass to unlikely tokens", () => {
  const logits = Float32Array.from({ length: 5000 }, (_, id) => (id === 0 ? 30 : 20 - id / 5000));
  const temperature = 1e-4;
  const rows = logitRows([logits], [temperature]);
  rows.temperedLogSumExp[0]! += 0.5; // about the resolution of f32 at 300,000
  const draw = drawFromCandidates(rows, 0, { ...unfiltered, temperature }, 1 - 2 ** -53, cumulative);
  expect(draw).toEqual({ type: "token", tokenId: 0 });
});

test("the tail beyond the candidates is reached by a large random number", () => {
  const logits = new Float32Array(200);
  const rows = logitRows([logits]);
  const draw = drawFromCandidates(rows, 0, unfiltered, 0.999, cumulative);
  if (draw.type !== "full row") throw new Error("64 of 200 equal tokens cannot hold 0.999 of the mass");
  expect(drawFromFullRow(ranking, logits, 0, unfiltered, 0.999, draw.mass)).toBe(199);
});
