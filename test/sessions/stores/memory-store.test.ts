import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MemoryStore } from "../../../src/sessions/stores/memory-store.ts";
import type { Snapshot } from "../../../src/sessions/stores/snapshot.ts";
import { FakeClock } from "../../helpers/clock.ts";
import { describesAStateStore } from "./store-contract.ts";

describesAStateStore(async () => {
  const clock = new FakeClock();
  return {
    store: new MemoryStore({ maxBytes: 1e6, nowMs: clock.nowMs }),
    advance: async (ms) => clock.advance(ms),
    isRealTime: false,
  };
});

function snapshot(stateBytes: number, conversation?: unknown): Snapshot {
  return { modelHash: "m", tokenIds: [1, 2], position: 2, state: new Uint8Array(stateBytes), conversation };
}

/** Room for `count` snapshots of 10,000 bytes of state, not for one more. */
const room = (count: number) => count * 10_700;

test("a snapshot is stored without a copy, until it is deleted", async () => {
  const store = new MemoryStore({ maxBytes: room(2) });
  const kept = snapshot(10_000);
  await store.put("a", kept);
  expect(await store.get("a")).toBe(kept);
  expect(await store.get("b")).toBeUndefined();
  expect(await store.delete("a")).toBe(true);
  expect(await store.delete("a")).toBe(false);
  expect(store.stats()).toEqual({ numSnapshots: 0, bytes: 0, maxBytes: room(2), numEvicted: 0 });
});

test("the least recently used is evicted first; get and put are uses", async () => {
  const store = new MemoryStore({ maxBytes: room(3) });
  for (const key of ["a", "b", "c"]) await store.put(key, snapshot(10_000));
  await store.get("a");
  await store.put("b", snapshot(10_000));
  await store.put("d", snapshot(10_000));
  expect(await store.get("c")).toBeUndefined();
  for (const key of ["a", "b", "d"]) expect(await store.get(key)).toBeDefined();
  expect(store.stats().numEvicted).toBe(1);
});

describe("owners", () => {
  const ownerOf = (key: string) => /^(.+):/.exec(key)?.[1];

  test("an owner with many snapshots evicts only their own", async () => {
    const store = new MemoryStore({ maxBytes: room(20), ownerOf });
    const kept = ["b:1", "b:2", "c:1"];
    for (const key of kept) await store.put(key, snapshot(10_000));
    for (let i = 0; i < 4000; i++) await store.put(`a:${i}`, snapshot(10_000));
    for (const key of kept) expect(await store.has(key)).toBe(true);
    expect(store.stats()).toMatchObject({ numSnapshots: 20, numEvicted: 4003 - 20 });
    expect([await store.has("a:3982"), await store.has("a:3983")]).toEqual([false, true]);
  });

  test("the owner with the most loses what they used least recently, until all have the same", async () => {
    const store = new MemoryStore({ maxBytes: room(6), ownerOf });
    for (const key of ["b:1", "b:2", "b:3", "b:4", "b:5", "b:6"]) await store.put(key, snapshot(10_000));
    await store.get("b:1");
    for (let i = 1; i <= 9; i++) await store.put(`a:${i}`, snapshot(10_000));
    const left: string[] = [];
    for await (const { key } of store.list("")) left.push(key);
    expect(left.sort()).toEqual(["a:7", "a:8", "a:9", "b:1", "b:5", "b:6"]);
  });

  test("a list of one owner does not visit others", async () => {
    const store = new MemoryStore({ maxBytes: 1e6, ownerOf });
    for (const key of ["a:1", "ab:2", "b:3"]) await store.put(key, snapshot(1));
    for (const [prefix, keys] of [
      ["a:", ["a:1"]],
      ["a", ["a:1", "ab:2"]],
      ["c:", []],
    ] as const) {
      const listed: string[] = [];
      for await (const { key } of store.list(prefix)) listed.push(key);
      expect(listed).toEqual(keys);
    }
  });
});

test("sweeps remove what has expired, with bounded work", async () => {
  const clock = new FakeClock();
  const store = new MemoryStore({ maxBytes: 1e9, nowMs: clock.nowMs });
  for (let i = 0; i < 25_000; i++) {
    await store.put(`${i}`, snapshot(1), i % 25 === 0 ? { expiresAtMs: clock.nowMs() + 1000 } : {});
  }
  store.sweep();
  expect(store.stats().numSnapshots).toBe(25_000);
  clock.advance(1001);
  let numSweeps = 0;
  for (let before = 25_000; store.stats().numSnapshots > 24_000 && numSweeps < 20; numSweeps++) {
    store.sweep();
    expect(before - store.stats().numSnapshots).toBeLessThanOrEqual(200);
    before = store.stats().numSnapshots;
  }
  expect(store.stats().numSnapshots).toBe(24_000);
  expect(numSweeps).toBeGreaterThan(1);
});

test("replacing is not evicting, and counts only the new size", async () => {
  const store = new MemoryStore({ maxBytes: room(2) });
  await store.put("a", snapshot(10_000));
  const before = store.stats().bytes;
  await store.put("a", snapshot(9_000));
  expect(store.stats()).toMatchObject({ numSnapshots: 1, bytes: before - 1000, numEvicted: 0 });
});

test("a snapshot beyond the bound is refused with both numbers, and nothing changes", async () => {
  const store = new MemoryStore({ maxBytes: room(1) });
  const kept = snapshot(10_000);
  await store.put("a", kept);
  await expect(store.put("a", snapshot(20_000))).rejects.toThrow(/2\d{4} bytes .* at most 10700 bytes/);
  expect(await store.get("a")).toBe(kept);
});

test("the conversation's bytes count", async () => {
  const store = new MemoryStore({ maxBytes: room(1) });
  await expect(store.put("a", snapshot(10_000, "x".repeat(1000)))).rejects.toThrow(/at most/);
});

test("bytes never exceed the bound, and are zero when everything is deleted", async () => {
  const operation = fc.record({
    type: fc.constantFrom("put", "get", "delete"),
    key: fc.constantFrom("a", "b", "c", "d", "e"),
    stateBytes: fc.nat(3000),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
      const store = new MemoryStore({ maxBytes: 6000 });
      for (const { type, key, stateBytes } of operations) {
        if (type === "put") await store.put(key, snapshot(stateBytes));
        else if (type === "get") await store.get(key);
        else await store.delete(key);
        expect(store.stats().bytes).toBeLessThanOrEqual(6000);
      }
      for (const key of ["a", "b", "c", "d", "e"]) await store.delete(key);
      expect(store.stats()).toMatchObject({ numSnapshots: 0, bytes: 0 });
    }),
  );
});

test("a held claim is not forgotten, however many others are made", async () => {
  const store = new MemoryStore({ maxBytes: 0, nowMs: () => 0 });
  await store.claim("held", { ttlMs: 1000 });
  for (let i = 0; i < 100_010; i++) await (await store.claim(`other ${i}`, { ttlMs: 1000 }))!.release();
  expect(await store.claim("held", { ttlMs: 1000 })).toBeUndefined();
});
