import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { MemoryStore } from "../../../src/sessions/stores/memory-store.ts";
import { openStore } from "../../../src/sessions/stores/open-store.ts";
import type { TierEvent } from "../../../src/sessions/stores/tier.ts";
import { TieredStore } from "../../../src/sessions/stores/tiered-store.ts";
import { BreakableStore } from "../../helpers/breakable-store.ts";
import { FakeClock } from "../../helpers/clock.ts";
import { gate } from "../../helpers/gate.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../../helpers/valkey-server.ts";
import { describesAStateStore, keysOf, MODEL, snapshot } from "./store-contract.ts";

const cleanups: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** One replica, with a memory and a disk of its own, and a shared store. */
function replica(options: ReplicaOptions = {}) {
  const { clock = new FakeClock(), shared, memoryBytes = 1e8, hasDisk = true, isSharedRequired = false } = options;
  const events: TierEvent[] = [];
  const memory = new MemoryStore({ maxBytes: memoryBytes, nowMs: clock.nowMs });
  const disk = new BreakableStore({ nowMs: clock.nowMs });
  const store = new TieredStore({
    memory,
    ...(hasDisk && { disk }),
    ...(shared && { shared }),
    isSharedRequired,
    nowMs: clock.nowMs,
    observer: { onTier: (event) => events.push(event) },
  });
  return { clock, memory, disk, store, events };
}

interface ReplicaOptions {
  clock?: FakeClock;
  shared?: BreakableStore;
  memoryBytes?: number;
  hasDisk?: boolean;
  isSharedRequired?: boolean;
}

const CACHE = { isCache: true };

/** Background work on stores in memory ends within this turn of the event loop. */
const backgroundWork = () => setImmediate();
const textOf = async (store: TieredStore, key = "a") =>
  ((await store.get(key))?.conversation as { text: string })?.text;

describe("memory alone", () => {
  describesAStateStore(async () => {
    const { store, clock } = replica({ hasDisk: false });
    return { store, advance: async (ms) => clock.advance(ms), isRealTime: false };
  });
});

describe("memory and disk", () => {
  describesAStateStore(async () => {
    const { store, clock } = replica();
    return { store, advance: async (ms) => clock.advance(ms), isRealTime: false };
  });
});

describe("memory, disk and a shared store", () => {
  describesAStateStore(async () => {
    const clock = new FakeClock();
    const { store } = replica({ clock, shared: new BreakableStore({ nowMs: clock.nowMs }) });
    return { store, advance: async (ms) => clock.advance(ms), isRealTime: false };
  });
});

describe.skipIf(WITHOUT_VALKEY !== "")(`memory, a folder and a real server${WITHOUT_VALKEY}`, () => {
  let server: ValkeyServer;
  beforeAll(async () => {
    server = await ValkeyServer.start();
  });
  afterAll(() => server.stop());

  describesAStateStore(async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "densemamba-tiers-"));
    const store = await openStore({
      memoryBytes: 1e6,
      disk: { dir, maxBytes: 1e6 },
      valkey: { url: server.url, keyPrefix: `${dir}:`, timeoutMs: 2000 },
      model: MODEL,
      nowMs: Date.now,
      observer: { onTier: () => undefined, onDamage: () => undefined },
    });
    cleanups.push(async () => {
      await store.close();
      await rm(dir, { recursive: true });
    });
    return { store, advance: (ms) => server.passTime(ms), isRealTime: true };
  });
});

describe("with a disk", () => {
  test("a put is in both; what memory has lost is read from the disk, with its expiry", async () => {
    const { store, memory, disk, clock } = replica();
    const expiresAtMs = clock.nowMs() + 1000;
    await store.put("a", snapshot("x"), { expiresAtMs });
    expect([await memory.has("a"), await disk.has("a")]).toEqual([true, true]);
    await memory.delete("a");
    expect(await store.get("a")).toMatchObject({ ...snapshot("x"), expiresAtMs });
    expect(await memory.has("a")).toBe(true);
    const { numAsked } = disk;
    expect(await textOf(store)).toBe("x");
    expect(disk.numAsked).toBe(numAsked);
    clock.advance(1001);
    expect(await store.get("a")).toBeUndefined();
  });

  test("what is too large for memory is on the disk, and no older copy stays in memory", async () => {
    const { store, memory } = replica({ memoryBytes: 2000 });
    await store.put("a", snapshot("small"));
    await store.put("a", snapshot("x".repeat(3000)));
    expect(await memory.has("a")).toBe(false);
    expect(await textOf(store)).toHaveLength(3000);
    await expect(replica({ memoryBytes: 100, hasDisk: false }).store.put("a", snapshot())).rejects.toThrow(
      /at most 100/,
    );
  });

  test("a full disk: puts fail and change nothing, and deleting makes room at once", async () => {
    const { store, memory, disk } = replica();
    for (const key of ["a", "b"]) await store.put(key, snapshot("old"));
    disk.broken = "putting";
    for (let i = 0; i < 2; i++) {
      await expect(store.put("a", snapshot("new"))).rejects.toMatchObject({ code: "store_unavailable" });
      await expect(store.put("c", snapshot("new"))).rejects.toMatchObject({ code: "store_unavailable" });
    }
    expect([await textOf(store, "a"), await textOf(store, "c")]).toEqual(["old", undefined]);
    await memory.delete("a");
    expect(await textOf(store, "a")).toBe("old");
    expect(await store.delete("a")).toBe(true);
    expect(await disk.has("a")).toBe(false);
    disk.broken = "nothing";
    await store.put("c", snapshot("new"));
    expect([await memory.has("c"), await disk.has("c")]).toEqual([true, true]);
  });

  test("of two concurrent puts memory has the one that the disk has", async () => {
    const { store, memory, disk } = replica();
    const gates = [gate(), gate()];
    let numPuts = 0;
    disk.delay = () => gates[numPuts++]!.held;
    const first = store.put("a", snapshot("first"));
    const second = store.put("a", snapshot("second"));
    gates[1]!.release();
    await second;
    gates[0]!.release();
    await first;
    disk.delay = async () => undefined;
    const kept = (await disk.get("a"))!.conversation as { text: string };
    expect((await memory.get("a"))?.conversation ?? kept).toEqual(kept);
    expect(await textOf(store)).toBe(kept.text);
  });

  test("a disk that cannot be written is reported once, is still read, and gets later what it missed", async () => {
    const { store, memory, disk, clock, events } = replica();
    await store.put("a", snapshot("old"));
    await store.put("c", snapshot("c"));
    disk.broken = "writing";
    for (const key of ["a", "b"]) await store.put(key, snapshot("new"), CACHE);
    await store.put("b", snapshot("newer"), CACHE);
    expect(events).toEqual([
      {
        name: "disk",
        way: "write",
        isAvailable: false,
        message: "the disk tier of stored states cannot be written; continuing without it: broken by the test",
      },
    ]);
    expect(store.stats().tiers.map(({ name, isAvailable }) => [name, isAvailable])).toEqual([
      ["memory", true],
      ["disk", false],
    ]);
    expect([await textOf(store, "a"), await textOf(store, "b")]).toEqual(["new", "newer"]);
    await memory.delete("c");
    expect(await textOf(store, "c")).toBe("c");
    // The disk has only an outdated copy, which is not used.
    await memory.delete("a");
    expect(await store.get("a")).toBeUndefined();
    expect(await keysOf(store, "")).toEqual(["b", "c"]);

    disk.broken = "nothing";
    const { numAsked } = disk;
    await store.put("d", snapshot(), CACHE);
    expect(disk.numAsked, "it is not tried early").toBeLessThanOrEqual(numAsked + 1);
    clock.advance(60_000);
    await store.put("e", snapshot());
    await backgroundWork();
    expect(events.at(-1)).toMatchObject({ name: "disk", way: "write", isAvailable: true });
    expect(await keysOf(disk, "")).toEqual(["b", "c", "d", "e"]);
    for (const key of ["b", "d"]) await memory.delete(key);
    expect(await textOf(store, "b")).toBe("newer");
    expect(await textOf(store, "d")).toBe("hello");
  });

  test("what the disk refuses when it works again is not offered forever", async () => {
    const { store, memory, disk, clock, events } = replica();
    disk.broken = "writing";
    await store.put("large", snapshot("x".repeat(3000)), CACHE);
    await store.put("small", snapshot(), CACHE);
    disk.broken = "nothing";
    disk.maxBytes = 2000;
    clock.advance(60_000);
    await store.put("other", snapshot());
    await backgroundWork();
    expect(events.at(-1)).toMatchObject({ isAvailable: true });
    expect(await keysOf(disk, "")).toEqual(["other", "small"]);
    expect(await textOf(store, "large")).toHaveLength(3000);
    await memory.delete("large");
    expect(await store.get("large")).toBeUndefined();
  });

  test("when no tier can store it, the error says why", async () => {
    const { store, disk, clock } = replica({ memoryBytes: 100 });
    await store.put("a", snapshot("old"));
    disk.broken = "everything";
    await expect(store.put("a", snapshot())).rejects.toMatchObject({ code: "store_unavailable" });
    // It may be there, so it is not "not found".
    await expect(store.get("a")).rejects.toMatchObject({ code: "store_unavailable" });
    await expect(store.has("b")).rejects.toMatchObject({ code: "store_unavailable" });
    disk.broken = "nothing";
    clock.advance(60_000);
    expect(await textOf(store)).toBe("old");
  });

  test("a deletion that fails on the disk is an error, and changes nothing", async () => {
    const { store, memory, disk } = replica();
    await store.put("a", snapshot());
    disk.broken = "writing";
    for (let i = 0; i < 2; i++) await expect(store.delete("a")).rejects.toMatchObject({ code: "store_unavailable" });
    expect(await keysOf(store, "")).toEqual(["a"]);
    await memory.delete("a");
    expect(await textOf(store)).toBe("hello");
    disk.broken = "nothing";
    expect(await store.delete("a")).toBe(true);
    expect([await disk.has("a"), await store.has("a")]).toEqual([false, false]);
  });

  test.each([
    ["disk: each second", "disk", 302],
    ["server: more and more rarely", "shared", 20],
  ] as const)("a broken %s is tried again, by one request at a time", async (_, name, maxTries) => {
    const clock = new FakeClock();
    const shared = new BreakableStore({ nowMs: clock.nowMs });
    const isDisk = name === "disk";
    const { store, memory, disk } = replica({ clock, hasDisk: isDisk, ...(!isDisk && { shared }) });
    const broken = isDisk ? disk : shared;
    await store.put("a", snapshot());
    await memory.delete("a");
    broken.broken = "everything";
    const ask = () => store.get("a").catch(() => undefined);
    await ask();
    const { numAsked } = broken;
    for (let i = 0; i < 10; i++) await ask();
    expect(broken.numAsked).toBe(numAsked);
    clock.advance(1001);
    await Promise.all([ask(), ask(), ask()]);
    expect(broken.numAsked).toBe(numAsked + 1);
    for (let second = 0; second < 300; second++) {
      clock.advance(1000);
      await ask();
    }
    expect(broken.numAsked).toBeLessThan(numAsked + maxTries);
    // A clock that is set back does not make it wait forever.
    clock.advance(-86_400_000);
    broken.broken = "nothing";
    expect(await textOf(store)).toBe("hello");
  });

  test("a put or deletion during a read from the disk is not undone by it", async () => {
    for (const change of ["put", "delete"] as const) {
      const { store, memory, disk } = replica();
      await store.put("a", snapshot("old"));
      await memory.delete("a");
      let letGo = () => {};
      const gate = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      disk.delay = () => gate;
      const reading = store.get("a");
      await Promise.resolve();
      const changing = change === "put" ? store.put("a", snapshot("new")) : store.delete("a");
      letGo();
      await Promise.all([reading, changing]);
      expect(await textOf(store)).toBe(change === "put" ? "new" : undefined);
      expect((await memory.get("a"))?.conversation).toEqual(change === "put" ? { text: "new" } : undefined);
    }
  });
});

describe("replicas that share a store", () => {
  function replicas(count = 2) {
    const clock = new FakeClock();
    const shared = new BreakableStore({ nowMs: clock.nowMs });
    return { clock, shared, all: Array.from({ length: count }, () => replica({ clock, shared })) };
  }

  test("with each turn on another replica, all see the last turn", async () => {
    const { all } = replicas(3);
    for (let turn = 0; turn < 12; turn++) {
      const { store } = all[turn % 3]!;
      expect(await textOf(store)).toBe(turn === 0 ? undefined : `turn ${turn - 1}`);
      const claim = (await store.claim("a", { ttlMs: 1000 }))!;
      await store.put("a", snapshot(`turn ${turn}`), { fence: claim.fence });
      await claim.release();
    }
  });

  test("a current copy is not fetched again", async () => {
    const { all, shared } = replicas();
    await all[0]!.store.put("a", snapshot());
    await all[1]!.store.get("a");
    shared.get = async () => expect.fail("it was fetched");
    for (const { store } of all) expect(await textOf(store)).toBe("hello");
  });

  test("a full shared store can be deleted from", async () => {
    const clock = new FakeClock();
    const shared = new BreakableStore({ nowMs: clock.nowMs });
    const { store } = replica({ clock, shared });
    await store.put("a", snapshot());
    shared.broken = "putting";
    await store.put("b", snapshot());
    expect(await store.delete("a")).toBe(true);
    expect([await shared.has("a"), await store.has("a")]).toEqual([false, false]);
  });

  test("what one replica has deleted, no other finds or lists", async () => {
    const { all, shared } = replicas();
    const [a, b] = [all[0]!, all[1]!];
    await a.store.put("a", snapshot());
    await b.store.get("a");
    expect(await a.store.delete("a")).toBe(true);
    expect(await b.store.has("a")).toBe(false);
    expect(await keysOf(b.store, "")).toEqual([]);
    expect(await b.store.get("a")).toBeUndefined();
    expect(await b.memory.has("a")).toBe(false);
    expect(await b.store.delete("a")).toBe(false);
    // The key can be used again.
    await b.store.put("a", snapshot("again"));
    expect(await textOf(a.store)).toBe("again");
    expect(await shared.revisionOf("a")).toMatchObject({ exists: true });
  });

  test("one replica at a time advances a session, and a late put is refused everywhere", async () => {
    const { all, clock } = replicas();
    const [a, b] = [all[0]!.store, all[1]!.store];
    const first = (await a.claim("a", { ttlMs: 1000 }))!;
    expect(await b.claim("a", { ttlMs: 1000 })).toBeUndefined();
    clock.advance(1001);
    const second = (await b.claim("a", { ttlMs: 1000 }))!;
    await b.put("a", snapshot("second"), { fence: second.fence });
    expect(await first.renew()).toBe(false);
    await expect(a.put("a", snapshot("late"), { fence: first.fence })).rejects.toMatchObject({
      code: "session_conflict",
    });
    expect([await textOf(a), await textOf(b)]).toEqual(["second", "second"]);
    expect(await all[0]!.disk.get("a")).toBeUndefined();
  });

  test("what the shared store has evicted is read from a copy, and written back", async () => {
    const { all, shared, clock } = replicas();
    const expiresAtMs = clock.nowMs() + 5000;
    await all[0]!.store.put("a", snapshot(), { expiresAtMs });
    await shared.evict("a");
    expect(await keysOf(all[0]!.store, "")).toEqual(["a"]);
    expect(await textOf(all[0]!.store)).toBe("hello");
    await backgroundWork();
    expect(await all[1]!.store.get("a")).toMatchObject({ ...snapshot(), expiresAtMs });
    clock.advance(5001);
    for (const { store } of all) expect(await store.get("a")).toBeUndefined();
  });

  test("an older copy is not used instead of a newer one that was evicted", async () => {
    const { all, shared } = replicas();
    const [a, b] = [all[0]!, all[1]!];
    await a.store.put("a", snapshot("old"));
    await b.store.get("a");
    await b.store.put("a", snapshot("new"));
    await shared.evict("a");
    await expect(a.store.get("a")).rejects.toMatchObject({
      code: "state_lost",
      message: expect.stringMatching(/older/),
    });
    expect(await a.store.has("a")).toBe(false);
    expect(await keysOf(a.store, "")).toEqual([]);
    // The other replica has the newest copy, and writes it back.
    expect(await textOf(b.store)).toBe("new");
    await backgroundWork();
    expect(await textOf(a.store)).toBe("new");
    // The copy that was read from there is as good.
    await shared.evict("a");
    expect(await textOf(a.store)).toBe("new");
  });

  test("when the shared store has lost everything, no copy is known to be the newest, and none is used", async () => {
    const { all, shared, clock } = replicas();
    const [a, b] = [all[0]!, all[1]!];
    await a.store.put("a", snapshot("old"));
    await b.store.get("a");
    await b.store.put("a", snapshot("new"));
    await shared.forget();
    for (const { store, memory } of [a, b]) {
      await expect(store.get("a")).rejects.toMatchObject({ code: "state_lost" });
      // Nor from the disk.
      await memory.delete("a");
      expect(await store.has("a")).toBe(false);
    }
    clock.advance(1);
    await a.store.put("a", snapshot("made again"));
    expect([await textOf(a.store), await textOf(b.store)]).toEqual(["made again", "made again"]);
  });

  test("what was put while it could not be reached is used, until the shared store has had it", async () => {
    const { all, shared, clock } = replicas();
    const [a, b] = [all[0]!, all[1]!];
    shared.broken = "everything";
    await a.store.put("a", snapshot("alone"));
    shared.broken = "nothing";
    await shared.forget();
    expect(await textOf(a.store)).toBe("alone");
    clock.advance(60_000);
    await a.store.put("other", snapshot());
    await backgroundWork();
    expect(await textOf(b.store)).toBe("alone");
    await b.store.put("a", snapshot("newer"));
    await shared.forget();
    await expect(a.store.get("a")).rejects.toMatchObject({ code: "state_lost" });
  });

  test("while it cannot be reached each replica uses its own, and writes it later", async () => {
    const { all, shared, clock } = replicas();
    const [a, b] = [all[0]!, all[1]!];
    await a.store.put("a", snapshot("old"));
    await b.store.get("a");
    shared.broken = "everything";
    const claim = (await a.store.claim("a", { ttlMs: 60_000 }))!;
    expect(await a.store.claim("a", { ttlMs: 60_000 }), "it still excludes this server's requests").toBeUndefined();
    expect(await claim.renew()).toBe(true);
    await a.store.put("a", snapshot("new"), { fence: claim.fence });
    await claim.release();
    expect(await textOf(a.store)).toBe("new");
    expect(a.events.map(({ name, isAvailable }) => [name, isAvailable])).toContainEqual(["shared", false]);
    await expect(a.store.get("unknown here")).rejects.toMatchObject({ code: "store_unavailable" });
    await expect(a.store.delete("unknown here")).rejects.toMatchObject({ code: "store_unavailable" });

    shared.broken = "nothing";
    clock.advance(60_000);
    await a.store.put("other", snapshot());
    await backgroundWork();
    expect(await textOf(b.store)).toBe("new");
    expect(a.events.at(-1)).toMatchObject({ isAvailable: true });
  });

  test("a put that was missed does not replace a newer one of another replica", async () => {
    const { all, shared, clock } = replicas();
    const [a, b] = [all[0]!, all[1]!];
    shared.broken = "everything";
    await a.store.put("a", snapshot("cut off"));
    shared.broken = "nothing";
    clock.advance(500);
    await b.store.put("a", snapshot("later"));
    clock.advance(60_000);
    await a.store.put("other", snapshot());
    await backgroundWork();
    expect([await textOf(a.store), await textOf(b.store)]).toEqual(["later", "later"]);
  });

  test("a deletion after an eviction is not undone by another replica's copy", async () => {
    const { all, shared } = replicas();
    await all[0]!.store.put("a", snapshot());
    await all[1]!.store.get("a");
    await shared.evict("a");
    expect(await all[0]!.store.delete("a")).toBe(true);
    expect(await all[1]!.store.get("a")).toBeUndefined();
    expect(await all[1]!.store.has("a")).toBe(false);
  });

  test("a claim made without the shared store does not replace what another replica advances", async () => {
    const { all, shared, clock } = replicas();
    shared.broken = "everything";
    const blind = (await all[0]!.store.claim("a", { ttlMs: 60_000 }))!;
    shared.broken = "nothing";
    clock.advance(5000);
    const claim = (await all[1]!.store.claim("a", { ttlMs: 60_000 }))!;
    await expect(all[0]!.store.put("a", snapshot("blind"), { fence: blind.fence })).rejects.toThrow(
      /has been advanced/,
    );
    await all[1]!.store.put("a", snapshot("seeing"), { fence: claim.fence });
    expect(await textOf(all[0]!.store)).toBe("seeing");
  });

  test("a key can be claimed while a copy that the shared store evicted is written back", async () => {
    const { all, shared } = replicas();
    await all[0]!.store.put("a", snapshot("x"));
    for (const { store } of all) {
      await shared.evict("a");
      expect(await textOf(all[0]!.store)).toBe("x");
      const claim = await store.claim("a", { ttlMs: 1000 });
      expect(claim).toBeDefined();
      await claim!.release();
    }
  });

  test("after any operations a replica never returns what was replaced or deleted before", async () => {
    const step = fc.record({
      type: fc.constantFrom("put", "get", "delete", "forget", "advance", "evict", "wipe"),
      replica: fc.nat(2),
      key: fc.constantFrom("a", "b"),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const { all, clock, shared } = replicas(3);
        const expected = new Map<string, string | undefined>();
        let isLossy = false;
        for (const [i, { type, replica, key }] of steps.entries()) {
          const { store, memory } = all[replica]!;
          if (type === "put") {
            const claim = (await store.claim(key, { ttlMs: 1000 }))!;
            await store.put(key, snapshot(`${i}`), { fence: claim.fence });
            await claim.release();
            expected.set(key, `${i}`);
          } else if (type === "delete") {
            const wasThere = await store.delete(key);
            if (!isLossy) expect(wasThere).toBe(expected.get(key) !== undefined);
            // If there is nothing to delete here, others may still have the newest.
            if (wasThere) expected.set(key, undefined);
          } else if (type === "get") {
            const found = await textOf(store, key).catch((error) => {
              expect(error).toMatchObject({ code: "state_lost" });
              return undefined;
            });
            expect(isLossy ? [expected.get(key), undefined] : [expected.get(key)]).toContain(found);
          } else if (type === "forget") await memory.delete(key);
          else if (type === "evict") {
            isLossy = true;
            await shared.evict(key);
          } else if (type === "wipe") {
            isLossy = true;
            await shared.forget();
          } else clock.advance(1);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("a shared store that is required", () => {
  const UNAVAILABLE = { code: "store_unavailable" };

  test("while it cannot be used nothing is read, claimed or stored, and a second later it is tried again", async () => {
    const clock = new FakeClock();
    const shared = new BreakableStore({ nowMs: clock.nowMs });
    const { store, memory } = replica({ clock, shared, isSharedRequired: true });
    await store.put("a", snapshot("x"));
    await store.check();
    for (const broken of ["everything", "writing"] as const) {
      shared.broken = broken;
      await expect(store.check()).rejects.toMatchObject(UNAVAILABLE);
      await expect(store.claim("a", { ttlMs: 1000 })).rejects.toMatchObject(UNAVAILABLE);
      await expect(store.put("a", snapshot("y"))).rejects.toMatchObject(UNAVAILABLE);
      expect((await memory.get("a"))?.conversation).toEqual({ text: "x" });
      shared.broken = "nothing";
      clock.advance(1000);
      await store.check();
      const claim = await store.claim("a", { ttlMs: 1000 });
      expect(claim).toBeDefined();
      await claim!.release();
    }
    shared.broken = "everything";
    await expect(store.get("a")).rejects.toMatchObject(UNAVAILABLE);
    await expect(store.has("a")).rejects.toMatchObject(UNAVAILABLE);
    await expect(store.get("never put")).rejects.toMatchObject(UNAVAILABLE);
    // However long it was away.
    for (let i = 0; i < 10; i++) {
      clock.advance(1000);
      await expect(store.check()).rejects.toMatchObject(UNAVAILABLE);
    }
    shared.broken = "nothing";
    clock.advance(1000);
    await store.check();
    expect(await textOf(store)).toBe("x");
  });

  test("that several servers check at the same time is available to each", async () => {
    const clock = new FakeClock();
    const shared = new BreakableStore({ nowMs: clock.nowMs });
    const stores = [1, 2].map(() => replica({ clock, shared, isSharedRequired: true }).store);
    await Promise.all(stores.flatMap((store) => [store.check(), store.check()]));
  });
});

describe.skipIf(WITHOUT_VALKEY !== "")(`two replicas on a real server that evicts${WITHOUT_VALKEY}`, () => {
  /** With a disk each; states of 100 kB. */
  async function start(server: ValkeyServer, options: { readonly expiresAtMs?: number } = {}) {
    const model = { modelHash: "m", stateBytes: 100_000 };
    const replicas = await Promise.all(
      [0, 1].map(async () => {
        const dir = await mkdtemp(path.join(tmpdir(), "densemamba-evicting-"));
        const store = await openStore({
          memoryBytes: 1e6,
          disk: { dir, maxBytes: 1e9 },
          valkey: { url: server.url, keyPrefix: "t:", timeoutMs: 2000 },
          model,
          nowMs: Date.now,
          observer: { onTier: () => undefined, onDamage: () => undefined },
        });
        cleanups.push(async () => {
          await store.close();
          await rm(dir, { recursive: true });
        });
        return store;
      }),
    );
    const turn = async (store: TieredStore, key: string, text: string) => {
      // The other replica may be writing back what was evicted.
      const claim = await vi.waitFor(
        async () => (await store.claim(key, { ttlMs: 10_000 })) ?? expect.fail("claimed"),
        { interval: 2 },
      );
      const state = new Uint8Array(model.stateBytes).fill(text.length);
      await store.put(key, snapshot(text, { state }), { ...options, fence: claim.fence }).finally(claim.release);
    };
    return { replicas, turn };
  }

  test.each(["allkeys-lru", "allkeys-random", "volatile-lru"])("%s: the newest or nothing", async (policy) => {
    const server = await ValkeyServer.start("--maxmemory", "4mb", "--maxmemory-policy", policy);
    cleanups.push(() => server.stop());
    // Some policies evict only what expires.
    const isVolatile = policy.startsWith("volatile");
    const { replicas, turn } = await start(server, isVolatile ? { expiresAtMs: Date.now() + 600_000 } : {});
    const last = new Map<string, string>();
    const numFound = { newest: 0, lost: 0 };
    for (let i = 0; i < 240; i++) {
      const key = `session::${i % 40}`;
      const store = replicas[Math.floor(i / 40) % 2]!;
      try {
        await turn(store, key, `turn ${i}`);
        last.set(key, `turn ${i}`);
      } catch (error) {
        // Claims may be evicted too; then the turn is refused.
        expect(error).toMatchObject({ code: "session_conflict" });
        expect(isVolatile).toBe(false);
      }
      const asked = `session::${(i * 7) % 40}`;
      const expected = last.get(asked);
      try {
        const found = await textOf(replicas[i % 2]!, asked);
        if (found !== undefined) expect(found).toBe(expected);
        numFound.newest += found === expected ? 1 : 0;
      } catch (error) {
        expect(error).toMatchObject({ code: "state_lost" });
        numFound.lost++;
      }
    }
    expect(numFound.newest).toBeGreaterThan(50);
  });

  test("a key deleted on the server, and a server that has lost everything", async () => {
    const server = await ValkeyServer.start();
    cleanups.push(() => server.stop());
    const redis = new Redis(server.port);
    cleanups.push(() => redis.disconnect());
    const {
      replicas: [a, b],
      turn,
    } = await start(server);
    await turn(a!, "session::x", "old");
    expect(await textOf(b!, "session::x")).toBe("old");
    await turn(b!, "session::x", "new");
    await redis.del("t:state:session::x");
    await expect(a!.get("session::x")).rejects.toMatchObject({ code: "state_lost" });
    expect(await textOf(b!, "session::x")).toBe("new");
    await redis.flushall();
    for (const store of [a!, b!]) {
      await expect(store.get("session::x")).rejects.toMatchObject({ code: "state_lost" });
      expect(await store.has("session::x")).toBe(false);
    }
    await turn(a!, "session::x", "made again");
    expect(await textOf(b!, "session::x")).toBe("made again");
  });
});
