import fc from "fast-check";
import { expect, test } from "vitest";
import { ScoreTable, scoreToken } from "../../src/sampling/logprobs.ts";
import { logitRows } from "../helpers/logit-rows.ts";

const rowArbitrary = fc.array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 2, maxLength: 100 });

test("a token has bit for bit the same log-probability alone and among the likeliest, and these start with the argmax", () => {
  fc.assert(
    fc.property(rowArbitrary, fc.integer({ min: 1, max: 64 }), fc.nat(), (logits, k, pick) => {
      const rows = logitRows([logits]);
      const tokenId = pick % logits.length;
      const scored = scoreToken(rows, 0, tokenId, k);
      expect(scored.top).toHaveLength(Math.min(k, logits.length, 64));
      expect(scored.top[0]!.tokenId).toBe(rows.logitsOf(0).indexOf(Math.max(...rows.logitsOf(0))));
      for (const { tokenId: id, logprob } of scored.top) {
        expect(scoreToken(rows, 0, id, 0).logprob).toBe(logprob);
        if (id === tokenId) expect(scored.logprob).toBe(logprob);
      }
    }),
  );
});

test("a token's rank is its place among all tokens, whether it is a candidate or not", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 2, maxLength: 200 }),
      fc.nat(),
      (logits, pick) => {
        const tokenId = pick % logits.length;
        const places = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
        expect(scoreToken(logitRows([logits]), 0, tokenId, 3, true).rank).toBe(places.indexOf(tokenId) + 1);
      },
    ),
  );
});

test("log-probabilities are those of the raw logits, in f32", () => {
  const rows = logitRows([[0, Math.log(3)]], [0.1]);
  const scored = scoreToken(rows, 0, 0, 2);
  expect(scored.logprob).toBeCloseTo(Math.log(0.25), 6);
  expect(scored.top.map(({ tokenId }) => tokenId)).toEqual([1, 0]);
  expect(Math.fround(scored.logprob)).toBe(scored.logprob);
});

const MAX_TOP = 5;
const score = fc.record({ tokenId: fc.nat(2 ** 31 - 1), logprob: fc.float({ noNaN: true }) });
const scored = fc
  .tuple(score, fc.array(score, { maxLength: MAX_TOP }), fc.option(fc.nat()))
  .map(([own, top, rank]) => ({ ...own, top, ...(rank !== null && { rank }) }));

test("a score table returns every number as it was pushed, and null where there was none", () => {
  fc.assert(
    fc.property(fc.array(fc.option(scored), { maxLength: 60 }), (given) => {
      const table = new ScoreTable(MAX_TOP);
      for (const row of given) table.push(row);
      expect(table.length).toBe(given.length);
      expect([...table]).toEqual(given);
    }),
  );
});
