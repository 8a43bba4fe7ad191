import { fork } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rename, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { DiskStore, type DiskStoreOptions } from "../../../src/sessions/stores/disk-store.ts";
import { LOCK_FILE } from "../../../src/sessions/stores/folder-lock.ts";
import type { Snapshot } from "../../../src/sessions/stores/snapshot.ts";
import { fileStem } from "../../../src/sessions/stores/snapshot-folder.ts";
import { FakeClock } from "../../helpers/clock.ts";
import { numCases } from "../../helpers/random-cases.ts";
import { describesASnapshotStore, keysOf, MODEL, snapshot, snapshotOf } from "./store-contract.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function newFolder(): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), "densemamba-disk-"));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function open(dir: string, options: Partial<DiskStoreOptions> = {}): Promise<DiskStore> {
  const store = await DiskStore.open({ dir, maxBytes: 1e8, model: MODEL, nowMs: Date.now, ...options });
  cleanups.push(() => store.close());
  return store;
}

const filesIn = async (dir: string) => (await readdir(dir)).filter((name) => name.endsWith(".dsm"));
const fileOf = async (dir: string) => path.join(dir, (await filesIn(dir))[0]!);

describesASnapshotStore(async () => {
  const clock = new FakeClock();
  const store = await open(await newFolder(), { nowMs: clock.nowMs });
  return { store, advance: async (ms) => clock.advance(ms), isRealTime: false };
});

describe("after a restart", () => {
  test("everything is restored, with expiry and bytes", async () => {
    const dir = await newFolder();
    const before = await open(dir);
    const expiresAtMs = Date.now() + 60_000;
    await before.put("session::a", snapshot("a", { sampler: { seed: 1, numDraws: 2 } }), { expiresAtMs });
    for (const text of ["b1", "b2"]) await before.put("session::b", snapshot(text));
    await before.put("session::c", snapshot());
    await before.delete("session::c");
    const stats = before.stats();
    await before.close();
    const after = await open(dir);
    expect(after.stats()).toEqual(stats);
    expect(await after.get("session::a")).toMatchObject(snapshot("a", { sampler: { seed: 1, numDraws: 2 } }));
    expect(await after.get("session::b")).toMatchObject(snapshot("b2"));
    expect(await keysOf(after, "")).toEqual(["session::a", "session::b"]);
    for await (const listed of after.list("session::a")) expect(listed.expiresAtMs).toBe(expiresAtMs);
    expect(await filesIn(dir)).toHaveLength(2);
  });

  test("expired snapshots are removed", async () => {
    const dir = await newFolder();
    const clock = new FakeClock();
    const before = await open(dir, { nowMs: clock.nowMs });
    await before.put("a", snapshot(), { expiresAtMs: clock.nowMs() + 1000 });
    await before.close();
    clock.advance(2000);
    const after = await open(dir, { nowMs: clock.nowMs });
    expect(after.stats()).toMatchObject({ numSnapshots: 0, bytes: 0 });
    await after.close();
    expect(await filesIn(dir)).toEqual([]);
  });

  test("the least recently used is evicted first, by uses before the restart too", async () => {
    const dir = await newFolder();
    const clock = new FakeClock();
    const before = await open(dir, { nowMs: clock.nowMs });
    for (const key of ["a", "b", "c"]) await before.put(key, snapshot());
    // File dates are the system's clock: as if they were written long ago.
    for (const name of await filesIn(dir)) await utimes(path.join(dir, name), 1e9, 1e9);
    clock.advance(3_600_000);
    await before.get("a");
    await before.get("c");
    await before.close();
    const after = await open(dir, { nowMs: clock.nowMs, maxBytes: 2 * 4096 });
    expect(await keysOf(after, "")).toEqual(["a", "c"]);
    expect(await filesIn(dir)).toHaveLength(2);
  });

  test("a clock that is set back loses nothing", async () => {
    const dir = await newFolder();
    const clock = new FakeClock();
    const before = await open(dir, { nowMs: clock.nowMs });
    await before.put("a", snapshot(), { expiresAtMs: clock.nowMs() + 1000 });
    clock.advance(-86_400_000);
    expect(await before.get("a")).toMatchObject(snapshot());
    await before.put("b", snapshot());
    await before.close();
    const after = await open(dir, { nowMs: clock.nowMs });
    expect(await keysOf(after, "")).toEqual(["a", "b"]);
  });
});

test("bytes stay within the bound, and the least recently used are evicted first", async () => {
  const dir = await newFolder();
  const store = await open(dir, { maxBytes: 3 * 4096 });
  for (const key of ["a", "b", "c"]) await store.put(key, snapshot());
  await store.get("a");
  await store.put("d", snapshot());
  expect(await keysOf(store, "")).toEqual(["a", "c", "d"]);
  expect(store.stats()).toEqual({ numSnapshots: 3, bytes: 3 * 4096, maxBytes: 3 * 4096, numEvicted: 1 });
  await store.close();
  expect(await filesIn(dir)).toHaveLength(3);
});

test("the owner with the most is evicted from, after a restart too", async () => {
  const dir = await newFolder();
  const options = { maxBytes: 6 * 4096, ownerOf: (key: string) => /^(.+):/.exec(key)?.[1] };
  const before = await open(dir, options);
  await before.put("b:1", snapshot());
  for (let i = 0; i < 5; i++) await before.put(`a:${i}`, snapshot());
  await before.close();
  const store = await open(dir, options);
  for (let i = 5; i < 40; i++) await store.put(`a:${i}`, snapshot(), { isCache: true });
  expect(await keysOf(store, "b:")).toEqual(["b:1"]);
  expect(await keysOf(store, "")).toHaveLength(6);
});

test("sweeps remove expired files", async () => {
  const dir = await newFolder();
  const clock = new FakeClock();
  const store = await open(dir, { nowMs: clock.nowMs });
  for (const key of ["a", "b"]) await store.put(key, snapshot(), { expiresAtMs: clock.nowMs() + 1000 });
  await store.put("c", snapshot());
  clock.advance(1001);
  expect(await filesIn(dir)).toHaveLength(3);
  store.sweep();
  expect(store.stats()).toMatchObject({ numSnapshots: 1, bytes: 4096 });
  await store.close();
  expect(await filesIn(dir)).toHaveLength(1);
});

test("after any operations the last puts of the most recently used are there", async () => {
  const step = fc.record({
    type: fc.constantFrom("put", "put", "get", "delete", "reopen"),
    key: fc.constantFrom("a", "b", "c", "d"),
    numBlocks: fc.integer({ min: 1, max: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const dir = await newFolder();
      const clock = new FakeClock();
      const options = { nowMs: clock.nowMs, maxBytes: 6 * 4096 };
      let store = await open(dir, options);
      /** Text and blocks by key, the least recently used first. */
      const expected = new Map<string, { given: Snapshot; numBlocks: number }>();
      for (const { type, key, numBlocks } of steps) {
        clock.advance(120_000);
        if (type === "reopen") {
          await store.close();
          store = await open(dir, options);
        } else if (type === "delete") expect(await store.delete(key)).toBe(expected.delete(key));
        else if (type === "get") {
          const kept = expected.get(key);
          expect((await store.get(key))?.tokenIds.length).toBe(kept?.given.tokenIds.length);
          if (kept !== undefined && expected.delete(key)) expected.set(key, kept);
        } else {
          const given = snapshotOf(numBlocks * 4096 - 1000);
          // While a snapshot is replaced, both count.
          const taken = () => [...expected.values()].reduce((sum, entry) => sum + entry.numBlocks, numBlocks);
          for (const oldest of [...expected.keys()]) if (taken() > 6 && oldest !== key) expected.delete(oldest);
          await store.put(key, given, { isCache: true });
          expected.delete(key);
          expected.set(key, { given, numBlocks });
          // File dates are the system's clock. The replaced file may just be being removed.
          for (const name of await filesIn(dir)) {
            if (!name.startsWith(fileStem(key))) continue;
            await utimes(path.join(dir, name), clock.nowMs() / 1000, clock.nowMs() / 1000).catch(() => undefined);
          }
        }
        expect(await keysOf(store, "")).toEqual([...expected.keys()].sort());
        expect(store.stats().bytes).toBeLessThanOrEqual(options.maxBytes);
      }
      await store.close();
      expect(await filesIn(dir)).toHaveLength(expected.size);
    }),
    { numRuns: numCases(25) },
  );
});

test("concurrent puts: the last of each key counts, and no other file is left", async () => {
  const dir = await newFolder();
  const store = await open(dir);
  await Promise.all(Array.from({ length: 40 }, (_, i) => store.put(`key ${i % 10}`, snapshot(i))));
  for (let key = 0; key < 10; key++) {
    expect((await store.get(`key ${key}`))?.conversation).toEqual({ text: 30 + key });
  }
  await store.close();
  expect(await filesIn(dir)).toHaveLength(10);
});

test("a read during a put returns the old snapshot or the new one", async () => {
  const store = await open(await newFolder());
  await store.put("a", snapshot(0));
  const writing = (async () => {
    for (let i = 1; i <= 20; i++) await store.put("a", snapshot(i));
  })();
  for (let i = 0; i < 200; i++) expect(await store.get("a")).toMatchObject({ position: 2 });
  await writing;
  expect((await store.get("a"))?.conversation).toEqual({ text: 20 });
});

test("a snapshot beyond the bound is refused with both numbers, and nothing changes", async () => {
  const store = await open(await newFolder(), { maxBytes: 4096 });
  await store.put("a", snapshot());
  const large = store.put("a", snapshotOf(5000));
  await expect(large).rejects.toThrow(
    "a snapshot of 8192 bytes cannot be stored: the disk store holds at most 4096 bytes",
  );
  expect(await store.get("a")).toMatchObject(snapshot());
  await expect(store.put("k".repeat(600), snapshot())).rejects.toThrow("a key of 600 characters");
});

describe("a damaged file", () => {
  const damages: readonly [string, (file: string) => Promise<void>][] = [
    ["torn at its end", async (file) => truncate(file, (await stat(file)).size - 10)],
    ["torn within its header", async (file) => truncate(file, 20)],
    ["empty", async (file) => truncate(file, 0)],
    ["ten gigabytes long", async (file) => truncate(file, 10 * 2 ** 30)],
    ["something else", async (file) => writeFile(file, "hello")],
    ["of another key", async (file) => flip(file, 30)],
    ["with another expiry", async (file) => flip(file, 17)],
  ];

  test.each(damages)("%s: reported and removed when the folder is opened", async (_, damage) => {
    const dir = await newFolder();
    const before = await open(dir);
    await before.put("a", snapshot());
    const file = await fileOf(dir);
    await before.put("b", snapshot());
    await before.close();
    await damage(file);
    const reported: string[] = [];
    const after = await open(dir, { onDamage: (message) => reported.push(message) });
    expect(reported).toEqual([expect.stringContaining("was damaged and has been removed")]);
    expect(await keysOf(after, "")).toEqual(["b"]);
    expect(await filesIn(dir)).toHaveLength(1);
  });

  test.each([...damages, ["with a flipped bit of its state", async (file: string) => flip(file, 150)] as const])(
    "%s: an error once, then it does not exist",
    async (_, damage) => {
      const dir = await newFolder();
      const reported: string[] = [];
      const store = await open(dir, { onDamage: (message) => reported.push(message) });
      await store.put("a", snapshot());
      await damage(await fileOf(dir));
      await expect(store.get("a")).rejects.toMatchObject({ code: "invalid_snapshot" });
      expect(reported).toHaveLength(1);
      expect(await store.get("a")).toBeUndefined();
      expect(store.stats()).toMatchObject({ numSnapshots: 0, bytes: 0 });
      expect(await filesIn(dir)).toEqual([]);
    },
  );

  test("the checksum finds a flipped bit of a state after a restart", async () => {
    const dir = await newFolder();
    const before = await open(dir);
    await before.put("a", snapshot());
    await before.close();
    await flip(await fileOf(dir), 150);
    const after = await open(dir);
    await expect(after.get("a")).rejects.toThrow(/checksum/);
    expect(await after.get("a")).toBeUndefined();
  });

  async function flip(file: string, at: number): Promise<void> {
    const bytes = await readFile(file);
    bytes[at]! ^= 0x40;
    await writeFile(file, bytes);
  }
});

test("a snapshot of another model is refused with its name, and stays", async () => {
  const dir = await newFolder();
  const before = await open(dir);
  await before.put("a", snapshot());
  await before.close();
  const after = await open(dir, { model: { ...MODEL, modelHash: "other" } });
  await expect(after.get("a")).rejects.toThrow("made by model m; this server runs other");
  expect(await after.has("a")).toBe(true);
});

test("a snapshot of another format version is refused with its number, and stays", async () => {
  const dir = await newFolder();
  const before = await open(dir);
  await before.put("a", snapshot());
  await before.close();
  const file = await fileOf(dir);
  const bytes = await readFile(file);
  bytes.writeUInt32LE(9, bytes.indexOf("DSMSTATE") + 8);
  await writeFile(file, bytes);
  const after = await open(dir);
  for (let i = 0; i < 2; i++) await expect(after.get("a")).rejects.toThrow("format version 9; this server reads 5");
  expect(await after.delete("a")).toBe(true);
});

test("of two files of one key, as a crash may leave them, the newer counts", async () => {
  const dir = await newFolder();
  const store = await open(dir);
  await store.put("a", snapshot("old"));
  const old = await fileOf(dir);
  await cp(old, `${old}.kept`);
  await store.put("a", snapshot("new"));
  await store.close();
  await cp(`${old}.kept`, old);
  await writeFile(`${old}.tmp`, "unfinished");
  const after = await open(dir);
  expect(await after.get("a")).toMatchObject(snapshot("new"));
  expect(await filesIn(dir)).toHaveLength(1);
  expect(await readdir(dir)).not.toContain(path.basename(`${old}.tmp`));
  // Generations are not used twice.
  await after.put("a", snapshot("newest"));
  expect(await after.get("a")).toMatchObject(snapshot("newest"));
});

test("a file that somebody removed does not exist; a missing folder is an error", async () => {
  const dir = await newFolder();
  const store = await open(path.join(dir, "store"));
  await store.put("a", snapshot());
  await rm(await fileOf(path.join(dir, "store")));
  await store.put("b", snapshot());
  expect(await store.get("a")).toBeUndefined();
  await rename(path.join(dir, "store"), path.join(dir, "away"));
  await expect(store.get("b")).rejects.toMatchObject({ code: "store_unavailable" });
  await expect(store.put("c", snapshot())).rejects.toMatchObject({
    code: "store_unavailable",
    message: expect.stringContaining("moved, removed or replaced"),
  });
  // It is back, as after a mount.
  await rename(path.join(dir, "away"), path.join(dir, "store"));
  expect(await store.get("b")).toMatchObject(snapshot());
  await store.put("c", snapshot());
  expect(await store.get("c")).toMatchObject(snapshot());
});

describe("one server per folder", () => {
  test("a second server learns who has it; the kernel unlocks it when the first is killed", async () => {
    const dir = await newFolder();
    const child = startWriter(dir);
    await once(child, "message");
    await expect(open(dir)).rejects.toMatchObject({
      code: "store_in_use",
      message: expect.stringContaining(`process id ${child.pid} on ${hostname()}`),
    });
    child.kill("SIGKILL");
    await once(child, "exit");
    await (await open(dir)).close();
    await open(dir);
  });

  test("a paused server still has it", async () => {
    const dir = await newFolder();
    const child = startWriter(dir);
    await once(child, "message");
    child.kill("SIGSTOP");
    // As it would be found an hour later.
    for (const name of await readdir(dir)) await utimes(path.join(dir, name), 1e9, 1e9).catch(() => undefined);
    await expect(open(dir)).rejects.toThrow(`process id ${child.pid}`);
    child.kill("SIGCONT");
    await once(child, "message");
    await expect(open(dir)).rejects.toThrow(`process id ${child.pid}`);
  });

  test("the file of a dead server is not a lock, whatever it contains", async () => {
    for (const left of [JSON.stringify({ pid: process.pid, host: hostname() }), "", '{"pid":1,"host":"another"}']) {
      const dir = await newFolder();
      await writeFile(path.join(dir, LOCK_FILE), left);
      await open(dir);
    }
  });

  test("of two servers that start at the same time one gets it, again and again", async () => {
    const dir = await newFolder();
    await writeFile(path.join(dir, LOCK_FILE), JSON.stringify({ pid: 1, host: "another" }));
    const starters = [startStarter(dir), startStarter(dir)];
    const outcomes = new Map<string, number>();
    const numRounds = numCases(200);
    for (let round = 0; round < numRounds; round++) {
      const answers = starters.map(async (starter) => (await once(starter, "message"))[0] as string);
      for (const starter of starters) starter.send("open");
      const outcome = (await Promise.all(answers)).sort().join();
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      const closed = starters.map((starter) => once(starter, "message"));
      for (const starter of starters) starter.send("close");
      await Promise.all(closed);
    }
    expect(Object.fromEntries(outcomes)).toEqual({ "opened,store_in_use": numRounds });
  });

  test("a server whose folder was replaced changes nothing in the new one, and reports it", async () => {
    const dir = path.join(await newFolder(), "store");
    const clock = new FakeClock();
    const store = await open(dir, { nowMs: clock.nowMs });
    await store.put("a", snapshot(), { expiresAtMs: clock.nowMs() + 1000 });
    await store.put("b", snapshot());
    await store.check();
    await rename(dir, `${dir}.away`);
    await cp(`${dir}.away`, dir, { recursive: true });
    const other = await open(dir);
    const before = await readdir(dir);
    await expect(store.check()).rejects.toThrow(/replaced.*until the folder is back or the server is restarted/);
    await expect(store.put("b", snapshot("new"))).rejects.toMatchObject({ code: "store_unavailable" });
    await expect(store.delete("b")).rejects.toMatchObject({ code: "store_unavailable" });
    clock.advance(3_600_000);
    expect(await store.get("a")).toBeUndefined();
    await store.close();
    expect(await readdir(dir)).toEqual(before);
    expect(await other.get("b")).toMatchObject(snapshot());
    await expect(open(dir)).rejects.toThrow(/in use/);
  });
});

test("kill -9 at any moment: what was acknowledged is there, complete", async () => {
  const dir = await newFolder();
  for (let round = 0; round < 4; round++) {
    const acknowledged = new Map<string, number>();
    const child = startWriter(dir);
    child.on("message", ({ key, value }: { key: string; value: number }) => acknowledged.set(key, value));
    await once(child, "message");
    for (let numPuts = 1; numPuts < 10 * (round + 1); numPuts++) await once(child, "message");
    child.kill("SIGKILL");
    await once(child, "exit");
    const reported: string[] = [];
    const store = await open(dir, { model: WRITERS_MODEL, onDamage: (message) => reported.push(message) });
    expect(acknowledged.size).toBeGreaterThan(0);
    for (const [key, value] of acknowledged) {
      const kept = (await store.get(key))!;
      // One more may have been written and not acknowledged.
      expect((kept.conversation as { value: number }).value).toBeGreaterThanOrEqual(value);
      expect(new Set(kept.state).size).toBe(1);
    }
    expect(reported).toEqual([]);
    await store.close();
    expect((await readdir(dir)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  }
});

test("a full disk: a clear error, nothing half-written, and existing snapshots can be read", async () => {
  const dir = await newFolder();
  // A limit on the size of files stands for a full disk: the write stops short likewise.
  const child = startWriter(dir, { maxFileBlocks: 64 });
  const [message] = (await once(child, "message")) as [{ error?: string; kept?: boolean }];
  await once(child, "exit");
  expect(message).toEqual({
    error: expect.stringMatching(/store_unavailable: the disk of .* is full: EFBIG/),
    kept: true,
  });
  expect(await filesIn(dir)).toHaveLength(1);
  expect((await readdir(dir)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
});

const WRITERS_MODEL = { modelHash: "m", stateBytes: 200_000 };

/** A process that puts without end, and reports what was acknowledged. */
function startWriter(dir: string, { maxFileBlocks }: { maxFileBlocks?: number } = {}) {
  const script = path.join(import.meta.dirname, "disk-writer.ts");
  const child = fork(script, [dir, String(maxFileBlocks !== undefined)], {
    execArgv: ["--import", "tsx"],
    ...(maxFileBlocks !== undefined && { execPath: path.join(import.meta.dirname, "with-file-limit.sh") }),
  });
  cleanups.push(async () => child.kill("SIGKILL"));
  return child;
}

/** A process that opens and closes a store on request. */
function startStarter(dir: string) {
  const child = fork(path.join(import.meta.dirname, "disk-starter.ts"), [dir], { execArgv: ["--import", "tsx"] });
  cleanups.push(async () => child.kill("SIGKILL"));
  return child;
}
