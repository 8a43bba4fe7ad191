/** The contract of `SnapshotStore` and `StateStore`, run against each implementation. */
import { expect, test } from "vitest";
import type { Snapshot } from "../../../src/sessions/stores/snapshot.ts";
import type { SnapshotStore, StateStore } from "../../../src/sessions/stores/store.ts";

/** The model of the contract's snapshots. */
export const MODEL = { modelHash: "m", stateBytes: 16 };

export function snapshot(text: unknown = "hello", overrides: Partial<Snapshot> = {}): Snapshot {
  return {
    modelHash: MODEL.modelHash,
    tokenIds: [1, 2, 3],
    position: 2,
    state: Uint8Array.from({ length: MODEL.stateBytes }, (_, i) => i),
    conversation: { text },
    ...overrides,
  };
}

/** Of so many bytes, and a few hundred, in any store that encodes it: token ids are not packed. */
export function snapshotOf(numBytes: number): Snapshot {
  return snapshot(`${numBytes} bytes`, { tokenIds: Array.from({ length: numBytes / 4 }, () => 1) });
}

export interface OpenStore<Store extends SnapshotStore = StateStore> {
  readonly store: Store;
  /** Advances the store's clock; waits where it is a real server's, possibly for longer. */
  advance(ms: number): Promise<void>;
  /** Whether the clock is a real server's. */
  readonly isRealTime: boolean;
}

export async function keysOf(store: SnapshotStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys.sort();
}

/** @param open returns a new, empty store for each test, and closes it afterwards */
export function describesAStateStore(open: () => Promise<OpenStore>): void {
  describesASnapshotStore(open);
  describesClaims(open);
}

export function describesASnapshotStore(open: () => Promise<OpenStore<SnapshotStore>>): void {
  test("get returns what was put, until it is replaced or deleted", async () => {
    const { store } = await open();
    expect(await store.get("session::a")).toBeUndefined();
    expect(await store.has("session::a")).toBe(false);
    const full = snapshot("é", { sampler: { seed: 7, numDraws: 3 } });
    await store.put("session::a", full);
    expect(await store.get("session::a")).toMatchObject(full);
    expect(await store.has("session::a")).toBe(true);
    await store.put("session::a", snapshot("second"));
    expect(await store.get("session::a")).toMatchObject(snapshot("second"));
    expect(await store.delete("session::a")).toBe(true);
    expect(await store.delete("session::a")).toBe(false);
    expect(await store.get("session::a")).toBeUndefined();
    expect(await store.has("session::a")).toBe(false);
  });

  test("a record without a state is stored like any other", async () => {
    const { store } = await open();
    const record = snapshot({ id: 1 }, { tokenIds: [], position: 0, state: new Uint8Array(0) });
    await store.put("record::r", record);
    expect(await store.get("record::r")).toMatchObject(record);
  });

  test("a list contains exactly the keys with the prefix", async () => {
    const { store } = await open();
    const keys = ["session:a:1", "session:a:2", "session:ab:3", "session:[a]*?:4", "response:a:1"];
    for (const key of keys) await store.put(key, snapshot());
    expect(await keysOf(store, "session:a:")).toEqual(["session:a:1", "session:a:2"]);
    expect(await keysOf(store, "session:[a]*?")).toEqual(["session:[a]*?:4"]);
    expect(await keysOf(store, "")).toEqual([...keys].sort());
    for await (const { bytes } of store.list("")) expect(bytes).toBeGreaterThan(MODEL.stateBytes);
  });

  test("names that mean something to a file system can be keys", async () => {
    const { store } = await open();
    const names = ["../../etc/passwd", "..", "/etc/x", "a/b", "CON", "a\u0000b", "A", "a", "é".repeat(100)];
    for (const name of names) await store.put(name, snapshot(name));
    for (const name of names) expect((await store.get(name))?.conversation).toEqual({ text: name });
    expect(await keysOf(store, "")).toEqual([...names].sort());
  });

  test("what has expired does not exist; a put replaces the expiry, or removes it", async () => {
    const { store, advance } = await open();
    const nowMs = Date.now();
    await store.put("short", snapshot(), { expiresAtMs: nowMs + 150 });
    await store.put("longer", snapshot(), { expiresAtMs: nowMs + 150 });
    await store.put("longer", snapshot(), { expiresAtMs: nowMs + 60_000 });
    await store.put("forever", snapshot(), { expiresAtMs: nowMs + 150 });
    await store.put("forever", snapshot());
    for await (const { key, expiresAtMs } of store.list("l")) {
      expect(key).toBe("longer");
      // The server's clock may differ a little.
      expect(Math.abs(expiresAtMs! - nowMs - 60_000)).toBeLessThan(100);
    }
    await advance(200);
    expect(await store.has("short")).toBe(false);
    expect(await store.get("short")).toBeUndefined();
    expect(await store.delete("short")).toBe(false);
    expect(await keysOf(store, "")).toEqual(["forever", "longer"]);
    expect(await store.get("longer")).toMatchObject(snapshot());
  });

  test("a put that has already expired deletes what was there", async () => {
    const { store } = await open();
    await store.put("a", snapshot());
    await store.put("a", snapshot(), { expiresAtMs: Date.now() - 1000 });
    expect(await store.get("a")).toBeUndefined();
    expect(await keysOf(store, "")).toEqual([]);
  });
}

function describesClaims(open: () => Promise<OpenStore>): void {
  test("one at a time holds a claim, until it is released", async () => {
    const { store } = await open();
    const first = await store.claim("session::a", { ttlMs: 60_000 });
    expect(first).toBeDefined();
    expect(await store.claim("session::a", { ttlMs: 60_000 })).toBeUndefined();
    expect(await store.claim("session::b", { ttlMs: 60_000 })).toBeDefined();
    await first?.release();
    await first?.release();
    const second = await store.claim("session::a", { ttlMs: 60_000 });
    expect(second!.fence).toBeGreaterThan(first!.fence);
    // Releasing the first claim again does not release the second.
    await first?.release();
    expect(await store.claim("session::a", { ttlMs: 60_000 })).toBeUndefined();
  });

  test("a claim lapses unless it is renewed, and cannot be renewed once another holds it", async () => {
    const { store, advance, isRealTime } = await open();
    const first = (await store.claim("a", { ttlMs: 150 }))!;
    await advance(100);
    expect(await first.renew()).toBe(true);
    await advance(100);
    if (!isRealTime) expect(await store.claim("a", { ttlMs: 150 })).toBeUndefined();
    await advance(100);
    const second = await store.claim("a", { ttlMs: 60_000 });
    expect(second).toBeDefined();
    expect(await first.renew()).toBe(false);
    await first.release();
    expect(await store.claim("a", { ttlMs: 60_000 })).toBeUndefined();
  });

  test("a put under a stale fence is refused, and changes nothing", async () => {
    const { store, advance } = await open();
    const first = (await store.claim("a", { ttlMs: 50 }))!;
    await store.put("a", snapshot("first"), { fence: first.fence });
    await advance(60);
    // The claim has lapsed, but nobody else has claimed the key.
    await store.put("a", snapshot("still first"), { fence: first.fence });
    const second = (await store.claim("a", { ttlMs: 60_000 }))!;
    const late = store.put("a", snapshot("late"), { fence: first.fence });
    await expect(late).rejects.toMatchObject({
      code: "session_conflict",
      message: expect.stringContaining("a has been"),
    });
    expect(await store.get("a")).toMatchObject(snapshot("still first"));
    await store.put("a", snapshot("second"), { fence: second.fence });
    await second.release();
    await expect(store.put("a", snapshot("late"), { fence: first.fence })).rejects.toThrow(/has been advanced/);
    expect(await store.get("a")).toMatchObject(snapshot("second"));
  });

  test("a put under a stale fence does not restore what was deleted", async () => {
    const { store, advance } = await open();
    const first = (await store.claim("a", { ttlMs: 50 }))!;
    await advance(60);
    const second = (await store.claim("a", { ttlMs: 60_000 }))!;
    await store.put("a", snapshot(), { fence: second.fence });
    await store.delete("a");
    await second.release();
    await expect(store.put("a", snapshot("late"), { fence: first.fence })).rejects.toThrow(/has been advanced/);
    expect(await store.has("a")).toBe(false);
  });
}
