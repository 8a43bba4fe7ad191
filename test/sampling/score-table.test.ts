import fc from "fast-check";
import { expect, test } from "vitest";
import { ScoreTable } from "../../src/sampling/score-table.ts";

const MAX_TOP = 5;
const score = fc.record({ tokenId: fc.nat(2 ** 31 - 1), logprob: fc.float({ noNaN: true }) });
const scored = fc.tuple(score, fc.array(score, { maxLength: MAX_TOP })).map(([own, top]) => ({ ...own, top }));

test("holds every number as it was given, and where there is none", () => {
  fc.assert(
    fc.property(fc.array(fc.option(scored), { maxLength: 60 }), (given) => {
      const table = new ScoreTable(MAX_TOP);
      for (const row of given) table.push(row);
      expect(table.length).toBe(given.length);
      expect([...table]).toEqual(given);
    }),
  );
});
