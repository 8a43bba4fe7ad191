import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { PrefixCache } from "../../../src/prefix/prefix-cache.ts";
import { type OpenStoreOptions, openStore } from "../../../src/sessions/stores/open-store.ts";
import type { TieredStore } from "../../../src/sessions/stores/tiered-store.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../../helpers/valkey-server.ts";
import { MODEL, snapshot } from "./store-contract.ts";

const cleanups: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function newFolder(): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), "densemamba-open-"));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function open(options: Partial<OpenStoreOptions> & { reported?: string[] } = {}): Promise<TieredStore> {
  const { reported = [], ...given } = options;
  const store = await openStore({
    memoryBytes: 1e7,
    model: MODEL,
    nowMs: Date.now,
    observer: { onTier: ({ message }) => reported.push(message), onDamage: (message) => reported.push(message) },
    ...given,
  });
  cleanups.push(() => store.close());
  return store;
}

const cacheOver = (store: TieredStore) => new PrefixCache({ store, model: MODEL, nowMs: Date.now });
const state = new Uint8Array(MODEL.stateBytes).fill(7);
const prompt = Array.from({ length: 5000 }, (_, i) => i);

test("memory alone needs nothing else, and ends with the process", async () => {
  const store = await open();
  await store.put("a", snapshot());
  expect(store.stats().tiers.map(({ name }) => name)).toEqual(["memory"]);
  expect(await (await open()).has("a")).toBe(false);
});

test("with a folder, sessions and prefixes are there after a restart", async () => {
  const disk = { dir: await newFolder(), maxBytes: 1e7 };
  const before = await open({ disk });
  await before.put("session::a", snapshot("a"), { expiresAtMs: Date.now() + 60_000 });
  await cacheOver(before).insert("scope", prompt.slice(0, 4321), state);
  await before.close();
  const after = await open({ disk });
  expect(await after.get("session::a")).toMatchObject(snapshot("a"));
  expect(await cacheOver(after).lookup("scope", prompt)).toEqual({ length: 4321, state });
  expect(await cacheOver(after).lookup("other", prompt)).toBeUndefined();
});

test("a put after a restart replaces a snapshot of the process before", async () => {
  const disk = { dir: await newFolder(), maxBytes: 1e7 };
  for (const text of ["first", "second", "third"]) {
    const store = await open({ disk });
    await store.put("a", snapshot(text));
    await store.close();
  }
  expect((await (await open({ disk })).get("a"))?.conversation).toEqual({ text: "third" });
});

test("damage is reported, and is not fatal", async () => {
  const disk = { dir: await newFolder(), maxBytes: 1e7 };
  const before = await open({ disk });
  await before.put("a", snapshot());
  await before.close();
  const name = (await readdir(disk.dir)).find((file) => file.endsWith(".dsm"))!;
  const bytes = await readFile(path.join(disk.dir, name));
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(path.join(disk.dir, name), bytes);
  const reported: string[] = [];
  const after = await open({ disk, reported });
  await expect(after.get("a")).rejects.toMatchObject({ code: "invalid_snapshot" });
  expect(reported).toEqual([expect.stringContaining("a was damaged on the disk and has been removed")]);
  expect(await after.get("a")).toBeUndefined();
});

test("a state that is f16 already is stored as it is, whatever the precision", async () => {
  const disk = { dir: await newFolder(), maxBytes: 1e7 };
  // As f32 these bytes would be numbers that lose digits.
  const exact = snapshot("a", { state: Uint8Array.from({ length: MODEL.stateBytes }, (_, i) => (i * 37) % 60) });
  const store = await open({ disk, precision: "f16", model: { ...MODEL, isHalf: true } });
  await store.put("a", exact);
  await store.close();
  expect(await (await open({ disk })).get("a")).toMatchObject(exact);
});

test("states can be stored in f16, and both precisions are read", async () => {
  const disk = { dir: await newFolder(), maxBytes: 1e7 };
  const floats = Float32Array.of(1, 0.5, -2, 1 / 3);
  const exact = snapshot("a", { state: new Uint8Array(floats.buffer) });
  const halves = await open({ disk, precision: "f16" });
  await halves.put("a", exact);
  await halves.close();
  const restored = (await (await open({ disk })).get("a"))!.state;
  expect(new Float32Array(new Uint8Array(restored).buffer)).toEqual(Float32Array.of(1, 0.5, -2, 0.333251953125));
});

test("a failed open does not keep the folder locked", async () => {
  const disk = { dir: await newFolder(), maxBytes: 1e7 };
  await expect(open({ disk, valkey: { url: "nonsense", keyPrefix: "", timeoutMs: 200 } })).rejects.toMatchObject({
    code: "invalid_config",
  });
  await open({ disk });
});

test("a folder that cannot be created is an error with its name", async () => {
  const file = path.join(await newFolder(), "file");
  await writeFile(file, "");
  await expect(open({ disk: { dir: path.join(file, "store"), maxBytes: 1 } })).rejects.toMatchObject({
    code: "store_unavailable",
    message: expect.stringContaining(file),
  });
});

test("a missing server is reported once, and memory is used", async () => {
  const reported: string[] = [];
  const store = await open({ reported, valkey: { url: "redis://127.0.0.1:1", keyPrefix: "", timeoutMs: 200 } });
  for (const key of ["a", "b"]) {
    await store.put(key, snapshot(key));
    expect(await store.get(key)).toMatchObject(snapshot(key));
  }
  expect(reported).toEqual([
    expect.stringMatching(/^the shared tier of stored states cannot be written; continuing without it: .*ECONNREFUSED/),
    expect.stringMatching(/^the shared tier of stored states cannot be read; continuing without it: .*ECONNREFUSED/),
  ]);
});

describe.skipIf(WITHOUT_VALKEY !== "")(`replicas with a real server${WITHOUT_VALKEY}`, () => {
  test("sessions and prefixes advance on alternating replicas, even when the server pauses", async () => {
    const server = await ValkeyServer.start();
    cleanups.push(() => server.stop());
    const valkey = { url: server.url, keyPrefix: "dm:", timeoutMs: 300 };
    const replicas = await Promise.all([open({ valkey }), open({ valkey })]);
    for (let turn = 0; turn < 6; turn++) {
      const store = replicas[turn % 2]!;
      const before = (await store.get("session::a"))?.conversation;
      expect(before).toEqual(turn === 0 ? undefined : { text: turn - 1 });
      const claim = (await store.claim("session::a", { ttlMs: 5000 }))!;
      await store.put("session::a", snapshot(turn), { fence: claim.fence });
      await claim.release();
      // The next turn's prompt begins with this one's, on the other replica.
      const length = 100 * (turn + 1);
      const hit = await cacheOver(store).lookup("", prompt.slice(0, length));
      expect(hit?.length).toBe(turn === 0 ? undefined : length - 100);
      await cacheOver(store).insert("", prompt.slice(0, length), state);
    }
    server.pause();
    const startedAt = performance.now();
    expect((await replicas[1]!.get("session::a"))?.conversation).toEqual({ text: 5 });
    await replicas[1]!.put("session::a", snapshot("alone"));
    expect((await replicas[1]!.get("session::a"))?.conversation).toEqual({ text: "alone" });
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    server.resume();
    // It is tried again after a second, and gets what it missed then.
    const seenElsewhere = async () => {
      await replicas[1]!.get("session::a");
      await replicas[1]!.put("tick", snapshot());
      return (await replicas[0]!.get("session::a").catch(() => undefined))?.conversation;
    };
    await expect.poll(seenElsewhere, { timeout: 10_000 }).toEqual({ text: "alone" });
  });
});
