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

test("what a prompt shares is what a comparison with every earlier one finds", () => {
  fc.assert(
    fc.property(fc.array(prompt, { maxLength: 30 }), (prompts) => {
      const recent = new RecentPrompts({ maxTokens: 1e6 });
      for (const [i, tokenIds] of prompts.entries()) {
        const expected = Math.max(0, ...prompts.slice(0, i).map((other) => sharedLength(other, tokenIds)));
        expect(recent.see("", tokenIds)).toBe(expected);
      }
    }),
  );
});

test("the bound holds, and what is said to be shared was shared with some earlier prompt", () => {
  fc.assert(
    fc.property(fc.array(prompt, { maxLength: 60 }), fc.integer({ min: 400, max: 1200 }), (prompts, maxTokens) => {
      const recent = new RecentPrompts({ maxTokens });
      for (const [i, tokenIds] of prompts.entries()) {
        const most = Math.max(0, ...prompts.slice(0, i).map((other) => sharedLength(other, tokenIds)));
        expect(recent.see(`${i % 3}`, tokenIds)).toBeLessThanOrEqual(most);
        expect(recent.cost).toBeLessThanOrEqual(maxTokens);
      }
    }),
  );
});

test("the prompt seen longest ago is forgotten first", () => {
  const recent = new RecentPrompts({ maxTokens: 1000 });
  const of = (tokenId: number) => Array<number>(200).fill(tokenId);
  for (const tokenId of [1, 2, 3]) recent.see("", of(tokenId));
  expect(recent.see("", of(1))).toBe(200);
  recent.see("", of(4));
  expect(recent.see("", of(2))).toBe(0);
  expect(recent.see("", of(1))).toBe(200);
});

test("of a prompt beyond the bound its beginning is remembered", () => {
  const recent = new RecentPrompts({ maxTokens: 1000 });
  const long = Array.from({ length: 5000 }, (_, i) => i);
  recent.see("", long);
  expect(recent.see("", long)).toBe(500);
  expect(recent.cost).toBeLessThanOrEqual(1000);
});

test("what is forgotten takes no room", () => {
  const recent = new RecentPrompts({ maxTokens: 1000 });
  for (let i = 0; i < 5000; i++) recent.see(`scope ${i}`, [i, i + 1, i + 2]);
  expect(recent.cost).toBeLessThanOrEqual(1000);
});

test("what prompts share counts once", () => {
  const recent = new RecentPrompts({ maxTokens: 10_000 });
  recent.see("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  recent.see("", [1, 2, 3, 4, 5, 99]);
  // A root, what is shared, and two ends; 64 for each, beside their tokens.
  expect(recent.cost).toBe(4 * 64 + 5 + 5 + 1);
});
