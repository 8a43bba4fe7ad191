/**
 * Whatever the schema lets through, and whatever finite logits a model gives, a token comes out.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { graphTemperature, Sampler, SamplingScratch } from "../../src/sampling/sampler.ts";
import { logitRows } from "../helpers/logit-rows.ts";

const VOCAB_SIZE = 80;
const scratch = new SamplingScratch();

/** Its bounds, what is next to them, the smallest numbers that there are, and anything between. */
function within(min: number, max: number, exclusiveMin = false) {
  const edges = [min, min + 1e-39, 5e-324, 1e-300, 1e-45, 1e-38, 1e-5, max].filter(
    (value) => value <= max && (exclusiveMin ? value > min : value >= min),
  );
  return fc.oneof(fc.constantFrom(...edges), fc.double({ min, max, noNaN: true, minExcluded: exclusiveMin }));
}

const params = fc.record({
  temperature: within(0, 2),
  topP: within(0, 1),
  topK: fc.constantFrom(0, 1, 2, 79),
  minP: within(0, 1),
  repetitionPenalty: within(0, 10, true),
  presencePenalty: within(-2, 2),
  frequencyPenalty: within(-2, 2),
  logitBias: fc
    .array(fc.tuple(fc.nat(VOCAB_SIZE - 1), fc.constantFrom(-100, 100, 0, -1e-300)), { maxLength: VOCAB_SIZE })
    .map((entries) => new Map(entries)),
  seed: fc.oneof(fc.constant(undefined), fc.maxSafeInteger(), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)),
});
const logit = fc.oneof(
  fc.constantFrom(0, -0, 1e-45, 30, -30, 1e4, -1e4, 1e30, -1e30, Number.NEGATIVE_INFINITY),
  fc.float({ noNaN: true, min: -100, max: 100 }),
);

test("every admitted parameter draws a token, from rows of any finite logits", () => {
  fc.assert(
    fc.property(
      params,
      fc.array(logit, { minLength: VOCAB_SIZE, maxLength: VOCAB_SIZE }).filter((row) => row.some(Number.isFinite)),
      fc.record({ vocabSize: fc.constantFrom(1, 40, VOCAB_SIZE), minTokens: fc.nat(2), stop: fc.subarray([0, 5, 41]) }),
      (given, row, { vocabSize, minTokens, stop }) => {
        const temperature = graphTemperature(given);
        const rows = logitRows([row], [temperature]);
        // Logits that no temperature fits are the model's fault, and said to be.
        fc.pre(Number.isFinite(rows.temperedLogSumExp[0]));
        const isLeft = row.some(
          (value, id) => id < vocabSize && value > -Infinity && !(minTokens > 0 && stop.includes(id)),
        );
        fc.pre(isLeft);
        const sampler = new Sampler({
          params: given,
          context: [[...row.keys()]],
          minTokens,
          stopTokenIds: new Set(stop),
          seed: given.seed ?? 1,
          scratch,
          vocabSize,
        });
        for (let i = 0; i < 3; i++) {
          const tokenId = sampler.sample(rows, 0);
          expect(tokenId).toBeGreaterThanOrEqual(0);
          expect(tokenId).toBeLessThan(vocabSize);
        }
      },
    ),
    { numRuns: 3000 },
  );
});
