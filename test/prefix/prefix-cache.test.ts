import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PrefixCache, type PrefixCacheOptions } from "../../src/prefix/prefix-cache.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { FakeClock } from "../helpers/clock.ts";
import { keysOf, MODEL } from "../sessions/stores/store-contract.ts";

function open(options: Partial<PrefixCacheOptions> = {}) {
  const clock = new FakeClock();
  const store = new MemoryStore({ maxBytes: 1e8, nowMs: clock.nowMs });
  return { clock, store, cache: new PrefixCache({ store, model: MODEL, nowMs: clock.nowMs, ...options }) };
}

/** A recognisable state. */
const state = (mark: number) => new Uint8Array(MODEL.stateBytes).fill(mark % 256);
const range = (length: number, first = 0) => Array.from({ length }, (_, i) => first + i);

test("finds the longest cached prefix, whatever its length", async () => {
  const { cache } = open();
  const prompt = range(20_000);
  for (const length of [1, 63, 64, 65, 4095, 4096, 4097, 16_384, 16_385, 19_999]) {
    await cache.insert("", prompt.slice(0, length), state(length));
    expect(await cache.lookup("", prompt)).toEqual({ length, state: state(length) });
  }
  expect(await cache.lookup("", prompt, { maxLength: 4096 })).toMatchObject({ length: 4096 });
  expect(await cache.lookup("", prompt.slice(0, 4095))).toMatchObject({ length: 4095 });
  expect(await cache.lookup("", prompt, { maxLength: 0 })).toBeUndefined();
  expect(await cache.lookup("", range(100, 1))).toBeUndefined();
});

test("finds what a linear search through all cached prefixes finds", async () => {
  // Few ids and long repetitions, so that prompts share much, and lengths on both sides of the
  // anchors.
  const prompt = fc
    .array(fc.tuple(fc.nat(1), fc.constantFrom(1, 2, 30, 63, 64, 65)), { maxLength: 6 })
    .map((runs) => runs.flatMap(([tokenId, length]) => Array<number>(length).fill(tokenId)));
  const step = fc.record({
    type: fc.constantFrom("insert", "lookup"),
    scope: fc.constantFrom("a", "b"),
    prompt,
    cut: fc.nat(20),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const { cache } = open();
      const cached: { scope: string; prompt: number[]; mark: number }[] = [];
      for (const [mark, { type, scope, prompt, cut }] of steps.entries()) {
        const known = cached.find((other) => other.scope === scope && String(other.prompt) === String(prompt));
        if (type === "insert" && prompt.length > 0) {
          await cache.insert(scope, prompt, state(known?.mark ?? mark));
          if (known === undefined) cached.push({ scope, prompt, mark });
          continue;
        }
        const maxLength = Math.max(0, prompt.length - cut);
        const best = cached
          .filter((other) => other.scope === scope && other.prompt.length <= maxLength)
          .filter((other) => other.prompt.every((tokenId, i) => tokenId === prompt[i]))
          .sort((a, b) => b.prompt.length - a.prompt.length)[0];
        const expected = best && { length: best.prompt.length, state: state(best.mark) };
        expect(await cache.lookup(scope, prompt, { maxLength })).toEqual(expected);
      }
    }),
  );
});

test("other scopes and other models find nothing", async () => {
  const { cache, store, clock } = open();
  await cache.insert("a", range(100), state(1));
  expect(await cache.lookup("b", range(100))).toBeUndefined();
  const other = new PrefixCache({ store, model: { ...MODEL, modelHash: "other" }, nowMs: clock.nowMs });
  expect(await other.lookup("a", range(100))).toBeUndefined();
  expect(await cache.lookup("a", range(100))).toBeDefined();
});

test("another cache on the same store finds it, as after a restart or on another replica", async () => {
  const { cache, store, clock } = open();
  await cache.insert("", range(500), state(1));
  const other = new PrefixCache({ store, model: MODEL, nowMs: clock.nowMs });
  expect(await other.lookup("", range(600))).toEqual({ length: 500, state: state(1) });
});

test("states cached concurrently under one anchor are all found", async () => {
  const { cache } = open();
  await Promise.all(range(60).map((i) => cache.insert("", [7, ...range(i, 100)], state(i))));
  for (const i of range(60)) expect(await cache.lookup("", [7, ...range(i, 100), 9])).toMatchObject({ length: i + 1 });
});

test("an evicted state is skipped in favour of a shorter one", async () => {
  const { cache, store } = open();
  for (const length of [100, 110, 120]) await cache.insert("", range(length), state(length));
  const longest = (await keysOf(store, "prefix:")).find((key) => key.includes(":120:"))!;
  await store.delete(longest);
  expect(await cache.lookup("", range(200))).toEqual({ length: 110, state: state(110) });
  // It is cached again when it is inserted again.
  await cache.insert("", range(120), state(120));
  expect(await cache.lookup("", range(200))).toMatchObject({ length: 120 });
});

test("the least recently used states are evicted first, within the bound", async () => {
  const store = new MemoryStore({ maxBytes: 12_000 });
  const { cache } = open({ store });
  await cache.insert("", [1, 1], state(1));
  for (let i = 0; i < 100; i++) {
    expect(await cache.lookup("", [1, 1, 1])).toMatchObject({ length: 2 });
    await cache.insert("", [2, i], state(2));
    expect(store.stats().bytes).toBeLessThanOrEqual(12_000);
  }
  expect(store.stats().numEvicted).toBeGreaterThan(50);
  expect(await cache.lookup("", [2, 0])).toBeUndefined();
});

test("a state expires after its ttl and not before", async () => {
  const { cache, store, clock } = open({ ttlMs: 1000 });
  await cache.insert("", range(10), state(1));
  for (let i = 0; i < 5; i++) {
    clock.advance(900);
    expect(await cache.lookup("", range(10))).toBeDefined();
    clock.advance(200);
    expect(await cache.lookup("", range(10))).toBeUndefined();
    await cache.insert("", range(10), state(1));
  }
  clock.advance(3000);
  expect(await keysOf(store, "")).toEqual([]);
});

test("a state outlives an older one of the same length", async () => {
  const { cache, clock } = open({ ttlMs: 1000 });
  await cache.insert("", range(10), state(1));
  clock.advance(900);
  await cache.insert("", [0, ...range(9, 50)], state(2));
  clock.advance(600);
  expect(await cache.lookup("", range(10))).toBeUndefined();
  expect(await cache.lookup("", [0, ...range(9, 50)])).toMatchObject({ length: 10 });
});

test("a store failure is a miss, and an insert is ignored", async () => {
  const { DenseMambaError } = await import("../../src/errors.ts");
  const broken = new MemoryStore({ maxBytes: 1e6 });
  broken.get = async () => {
    throw new DenseMambaError("store_unavailable", "gone");
  };
  const { cache } = open({ store: broken });
  await cache.insert("", range(10), state(1));
  expect(await cache.lookup("", range(10))).toBeUndefined();
  const tooSmall = open({ store: new MemoryStore({ maxBytes: 10 }) }).cache;
  await tooSmall.insert("", range(10), state(1));
  expect(await tooSmall.lookup("", range(10))).toBeUndefined();
});

test("a snapshot without a state is not a hit", async () => {
  const { cache, store } = open();
  await cache.insert("", range(10), state(1));
  const [key] = await keysOf(store, "prefix:");
  await store.put(key!, { ...(await store.get(key!))!, state: new Uint8Array(0) });
  expect(await cache.lookup("", range(10))).toBeUndefined();
});

test("queries and hits are counted, in tokens too", async () => {
  const { cache, store } = open();
  await cache.lookup("", range(10));
  await cache.insert("", range(10), state(1));
  await cache.lookup("", range(30));
  const { bytes } = store.stats();
  expect(cache.stats()).toEqual({ queries: 2, hits: 1, queryTokens: 40, hitTokens: 10, bytes });
});

test("a hundred thousand tokens are looked up in milliseconds", async () => {
  const { cache } = open();
  const prompt = range(100_000);
  for (let i = 0; i < 200; i++) await cache.insert("", prompt.slice(0, 500 * i + 1), state(i));
  const times: number[] = [];
  for (let i = 0; i < 7; i++) {
    const startedAt = performance.now();
    expect(await cache.lookup("", prompt)).toMatchObject({ length: 99_501 });
    times.push(performance.now() - startedAt);
  }
  // A few on an idle machine; the best of them is little disturbed by others.
  expect(Math.min(...times)).toBeLessThan(30);
});

describe("the branch point from earlier prompts", () => {
  test("is the end of the longest prefix shared within the scope", () => {
    const { cache } = open();
    expect(cache.sharedLength("", [1, 2, 3, 4])).toBe(0);
    expect(cache.sharedLength("", [1, 2, 3, 4])).toBe(4);
    expect(cache.sharedLength("", [1, 2, 9])).toBe(2);
    expect(cache.sharedLength("", [1, 2, 3, 4, 5])).toBe(4);
    expect(cache.sharedLength("", [1, 2, 9, 9])).toBe(3);
    expect(cache.sharedLength("", [1])).toBe(1);
    expect(cache.sharedLength("", [])).toBe(0);
    expect(cache.sharedLength("other", [1, 2])).toBe(0);
  });
});
