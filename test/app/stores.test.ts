/** The stores that the configuration asks for, and what is logged of them. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { withinMemory } from "../../src/app/machine.ts";
import { openStores, retentionPolicy, type Stores } from "../../src/app/stores.ts";
import { readyBanner } from "../../src/cli/serve.ts";
import { loadConfig } from "../../src/config/load.ts";
import type { Snapshot } from "../../src/sessions/stores/snapshot.ts";
import { FakeClock } from "../helpers/clock.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const MANIFEST = { ...fakeManifest(8), state: [{ name: "ssm.0", shape: [4] }] };
const NOBODY = "valkey://user:secret@127.0.0.1:1";

let folder: string;
let opened: Stores[];
let logged: { level: string; fields: object; message: string }[];
let numDamaged: number;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-stores-"));
  opened = [];
  logged = [];
  numDamaged = 0;
});
afterEach(async () => {
  for (const stores of opened) await stores.close();
  await rm(folder, { recursive: true, force: true });
});

const ENOUGH = { limitBytes: 2 ** 40, modelBytes: 0, slotBytes: 0 };
const configOf = (flags: Record<string, unknown>) => withinMemory(loadConfig({ flags, env: {} }), ENOUGH);

async function openStoresWith(flags: Record<string, unknown>): Promise<Stores> {
  const tell = (level: string) => (fields: object, message: string) => void logged.push({ level, fields, message });
  const log = { debug: tell("debug"), info: tell("info"), warn: tell("warn"), error: tell("error") };
  const onDamage = () => void numDamaged++;
  const stores = await openStores(configOf(flags), { manifest: MANIFEST, log, onDamage, nowMs: Date.now });
  opened.push(stores);
  return stores;
}

async function reopen(flags: Record<string, unknown>): Promise<Stores> {
  await opened.pop()!.close();
  return openStoresWith(flags);
}

const STATE = new Uint8Array(new Float32Array([1, 2, 3, 1 / 3]).buffer);

function snapshot(tokenIds: readonly number[] = [1, 2]): Snapshot {
  return { modelHash: MANIFEST.modelHash, tokenIds, position: 2, state: STATE, conversation: null };
}

describe("by default", () => {
  it("everything is in memory, and gone after a restart", async () => {
    const stores = await openStoresWith({});
    await stores.conversations.put("session::a", snapshot());
    expect(stores.stats.conversations().tiers.map(({ name }) => name)).toEqual(["memory"]);
    expect(await (await reopen({})).conversations.get("session::a")).toBeUndefined();
    expect(logged).toEqual([]);
  });

  it("sessions have no bounds but memory's, and responses expire after thirty days", () => {
    const checkpoints = { maxCheckpoints: 100, maxCheckpointBytes: 64 * 2 ** 20 };
    expect(retentionPolicy(configOf({}))).toEqual({ responseTtlMs: 30 * 86_400_000, ...checkpoints });
    const given = { sessionTtlMs: "1h", responseTtlMs: 0, sessionsPerKey: 3, sessionBytesPerKey: "1MiB" };
    const bounds = { sessionTtlMs: 3_600_000, maxSessions: 3, maxBytes: 2 ** 20 };
    expect(retentionPolicy(configOf(given))).toEqual({ ...bounds, ...checkpoints });
  });

  it("there is a prefix cache, unless it gets no memory", async () => {
    expect((await openStoresWith({})).prefixCache).toBeDefined();
    expect((await openStoresWith({ prefixBytes: 0 })).prefixCache).toBeUndefined();
  });
});

describe("with a folder", () => {
  it("sessions survive a restart; unstored responses and prefixes are never written to it", async () => {
    const flags = { storeDir: path.join(folder, "made", "for", "it") };
    const stores = await openStoresWith(flags);
    await stores.conversations.put("session::a", snapshot());
    await stores.unstored.put("unstored::b", snapshot());
    await stores.prefixCache!.insert("", [1, 2, 3], STATE);
    const files = await readdir(flags.storeDir, { recursive: true, withFileTypes: true });
    expect(files.filter((entry) => entry.isFile() && entry.name !== "lock.json")).toHaveLength(1);
    const later = await reopen(flags);
    expect((await later.conversations.get("session::a"))?.state).toEqual(STATE);
    expect(await later.unstored.get("unstored::b")).toBeUndefined();
    expect(await later.prefixCache!.lookup("", [1, 2, 3, 4])).toBeUndefined();
  });

  it("prefixes survive too if they get disk space", async () => {
    const flags = { storeDir: folder, prefixDiskBytes: "1MiB" };
    const stores = await openStoresWith(flags);
    await stores.prefixCache!.insert("", [1, 2, 3], STATE);
    expect(await (await reopen(flags)).prefixCache!.lookup("", [1, 2, 3, 4])).toEqual({ length: 3, state: STATE });
  });

  it("states are rounded to f16 only on request", async () => {
    const flags = { storeDir: folder, storePrecision: "f16" };
    await (await openStoresWith(flags)).conversations.put("session::a", snapshot());
    const { state } = (await (await reopen(flags)).conversations.get("session::a"))!;
    const restored = new Float32Array(state.buffer, state.byteOffset, 4);
    expect([...restored.subarray(0, 3)]).toEqual([1, 2, 3]);
    expect(Math.abs(restored[3]! - 1 / 3)).toBeGreaterThan(1e-6);
    expect(Math.abs(restored[3]! - 1 / 3)).toBeLessThan(2e-4);
  });

  it("that another server uses prevents this one from starting", async () => {
    await openStoresWith({ storeDir: folder });
    await expect(openStoresWith({ storeDir: folder })).rejects.toMatchObject({
      code: "store_in_use",
      message: expect.stringContaining(`in use by the server with process id ${process.pid}`),
    });
  });

  it("that cannot be used for prefixes is left unlocked", async () => {
    await writeFile(path.join(folder, "prefixes"), "no folder");
    const flags = { storeDir: folder, prefixDiskBytes: "1MiB" };
    await expect(openStoresWith(flags)).rejects.toMatchObject({ code: "store_unavailable" });
    await openStoresWith({ storeDir: folder });
  });

  it("that cannot be written prevents the server from starting, and is named", async () => {
    await writeFile(path.join(folder, "file"), "");
    const stores = openStoresWith({ storeDir: path.join(folder, "file") });
    await expect(stores).rejects.toMatchObject({ code: "store_unavailable", message: expect.stringContaining(folder) });
  });

  it("damage is logged and counted", async () => {
    const flags = { storeDir: folder };
    await (await openStoresWith(flags)).conversations.put("session::a", snapshot());
    await opened.pop()!.close();
    const dir = path.join(folder, "conversations");
    const names = await readdir(dir, { recursive: true, withFileTypes: true });
    const { parentPath, name } = names.find((entry) => entry.isFile())!;
    const file = path.join(parentPath, name);
    const bytes = await readFile(file);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(file, bytes);
    await expect((await openStoresWith(flags)).conversations.get("session::a")).rejects.toMatchObject({
      code: "invalid_snapshot",
    });
    expect(logged).toMatchObject([{ level: "warn", fields: { store: "conversations" }, message: /damaged/ }]);
    expect(numDamaged).toBe(1);
  });
});

describe("what is stored", () => {
  it("leaves memory and disk when it has expired, even if no client asks for it", async () => {
    const tasks: (() => void)[] = [];
    const repeat = (_ms: number, task: () => void) => {
      tasks.push(task);
      return () => void tasks.splice(tasks.indexOf(task), 1);
    };
    const clock = new FakeClock();
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const parts = { manifest: MANIFEST, log, onDamage() {}, nowMs: clock.nowMs, repeat };
    const stores = await openStores(configOf({ storeDir: folder }), parts);
    opened.push(stores);
    await stores.conversations.put("session::a", snapshot(), { expiresAtMs: clock.nowMs() + 1000 });
    await stores.conversations.put("session::b", snapshot());
    clock.advance(1001);
    for (const task of tasks) task();
    expect(stores.stats.conversations().tiers.map(({ numSnapshots }) => numSnapshots)).toEqual([1, 1]);
    await opened.pop()!.close();
    expect((await readdir(path.join(folder, "conversations"))).filter((name) => name.endsWith(".dsm"))).toHaveLength(1);
    expect(tasks).toEqual([]);
  });

  it("for one key is not evicted by another key's flood of any kind", async () => {
    const stores = await openStoresWith({ sessionBytes: "16KiB" });
    await stores.conversations.put("session:aa:1", snapshot());
    for (let i = 0; i < 100; i++) {
      for (const type of ["session", "response", "record"]) {
        await stores.conversations.put(`${type}:bb:${i}:x`, snapshot());
      }
      await stores.unstored.put(`unstored:bb:${i}`, snapshot());
    }
    expect(await stores.conversations.has("session:aa:1")).toBe(true);
    expect(stores.stats.conversations().numEvicted).toBeGreaterThan(300);
  });
});

describe("with a Valkey server that cannot be reached", () => {
  it("the server starts, logs it once for each store, and uses memory", async () => {
    const stores = await openStoresWith({ valkeyUrl: NOBODY, sharePrefixes: true });
    expect(logged.map(({ level, fields }) => ({ level, ...fields }))).toEqual([
      { level: "warn", store: "conversations", tier: "shared", way: "read" },
      { level: "warn", store: "prefixes", tier: "shared", way: "read" },
    ]);
    expect(JSON.stringify(logged)).toContain("127.0.0.1:1");
    expect(JSON.stringify(logged)).not.toContain("secret");
    await stores.conversations.put("session::a", snapshot());
    expect(await stores.conversations.get("session::a")).toMatchObject({ tokenIds: [1, 2] });
  });

  it("the server does not start if it is required, and gives its folder back", async () => {
    const flags = { valkeyUrl: NOBODY, storeRequired: true, storeDir: folder };
    await expect(openStoresWith(flags)).rejects.toMatchObject({
      code: "store_unavailable",
      message: expect.stringContaining("127.0.0.1:1"),
    });
    await openStoresWith({ storeDir: folder });
  });
});

describe("the banner", () => {
  const shown = async (flags: Record<string, unknown>) => {
    const stores = await openStoresWith(flags);
    const config = configOf(flags);
    const status = { state: "ready", runner: "fake" } as const;
    const facts = { modelName: "m", manifest: MANIFEST, status, config, others: [], port: 1, startupMs: 1 };
    return /stored in +(.*)/.exec(readyBanner("1", { ...facts, tiers: stores.stats.conversations().tiers }))![1];
  };

  it("says where states are stored, and whether they persist", async () => {
    expect(await shown({ sessionBytes: "2MiB" })).toBe("memory (2 MiB) only; with --store-dir they survive a restart");
    expect(await shown({ storeDir: folder })).toBe(`memory (1 GiB), ${folder} (16 GiB, 0 found)`);
    await opened[1]!.conversations.put("session::a", snapshot());
    await opened.pop()!.close();
    expect(await shown({ storeDir: folder, valkeyUrl: NOBODY })).toBe(
      `memory (1 GiB), ${folder} (16 GiB, 1 found), Valkey at 127.0.0.1:1 (cannot be reached yet)`,
    );
  });
});
