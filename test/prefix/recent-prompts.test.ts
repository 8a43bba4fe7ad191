import fc from "fast-check";
import { expect, test } from "vitest";
import { RecentPrompts } from "../../src/prefix/recent-prompts.ts";

function sharedLength(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

const prompt = fc
  .array(fc.tuple(fc.nat(2), fc.integer({ min: 1, max: 20 })), { maxLength: 5 })
  .map((runs) => runs.flatMap(([tokenId, length]) => Array<number>(length).fill(tokenId)));

test("the shared length equals that of a comparison with every earlier prompt", () => {
  fc.assert(
    fc.property(fc.array(prompt, { maxLength: 30 }), (prompts) => {
      const recent = new RecentPrompts({ maxTokens: 1e6 });
      for (const [i, tokenIds] of prompts.entries()) {
        const expected = Math.max(0, ...prompts.slice(0, i).map((other) => sharedLength(other, tokenIds)));
        expect(recent.add("", tokenIds)).toBe(expected);
      }
    }),
  );
});

test("within its bound it never reports more than a prompt shares with an earlier one", () => {
  fc.assert(
    fc.property(fc.array(prompt, { maxLength: 60 }), fc.integer({ min: 400, max: 1200 }), (prompts, maxTokens) => {
      const recent = new RecentPrompts({ maxTokens });
      for (const [i, tokenIds] of prompts.entries()) {
        const most = Math.max(0, ...prompts.slice(0, i).map((other) => sharedLength(other, tokenIds)));
        expect(recent.add(`${i % 3}`, tokenIds)).toBeLessThanOrEqual(most);
        expect(recent.cost).toBeLessThanOrEqual(maxTokens);
      }
    }),
  );
});

test("the least recently seen prompt is forgotten first", () => {
  const recent = new RecentPrompts({ maxTokens: 1000 });
  const of = (tokenId: number) => Array<number>(200).fill(tokenId);
  for (const tokenId of [1, 2, 3]) recent.add("", of(tokenId));
  expect(recent.add("", of(1))).toBe(200);
  recent.add("", of(4));
  expect(recent.add("", of(2))).toBe(0);
  expect(recent.add("", of(1))).toBe(200);
});

test("only the beginning of a prompt beyond the bound is stored", () => {
  const recent = new RecentPrompts({ maxTokens: 1000 });
  const long = Array.from({ length: 5000 }, (_, i) => i);
  recent.add("", long);
  expect(recent.add("", long)).toBe(500);
  expect(recent.cost).toBeLessThanOrEqual(1000);
});

test("forgotten prompts cost nothing", () => {
  const recent = new RecentPrompts({ maxTokens: 1000 });
  for (let i = 0; i < 5000; i++) recent.add(`scope ${i}`, [i, i + 1, i + 2]);
  expect(recent.cost).toBeLessThanOrEqual(1000);
});

test("a shared prefix counts once", () => {
  const recent = new RecentPrompts({ maxTokens: 10_000 });
  recent.add("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  recent.add("", [1, 2, 3, 4, 5, 99]);
  // A root, the shared prefix and two ends: 64 each, besides their tokens.
  expect(recent.cost).toBe(4 * 64 + 5 + 5 + 1);
});
