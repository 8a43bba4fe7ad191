/** The stores that the configuration asks for, and what is told of them. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readyBanner } from "../../src/cli/banner.ts";
import { type KeptStates, keepingPolicy, openKeptStates } from "../../src/cli/kept-states.ts";
import { withinMemory } from "../../src/cli/memory.ts";
import { loadConfig } from "../../src/config.ts";
import type { Snapshot } from "../../src/sessions/stores/store.ts";
import { FakeClock } from "../helpers/clock.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const MANIFEST = { ...fakeManifest(8), state: [{ name: "ssm.0", shape: [4] }] };
const NOBODY = "valkey://user:secret@127.0.0.1:1";

let folder: string;
let opened: KeptStates[];
let told: { level: string; fields: object; message: string }[];
let numDamaged: number;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-kept-"));
  opened = [];
  told = [];
  numDamaged = 0;
});
afterEach(async () => {
  for (const states of opened) await states.close();
  await rm(folder, { recursive: true, force: true });
});

const ENOUGH = { limitBytes: 2 ** 40, modelBytes: 0, slotBytes: 0 };
const configOf = (flags: Record<string, unknown>) => withinMemory(loadConfig({ flags, env: {} }), ENOUGH);

async function openStates(flags: Record<string, unknown>): Promise<KeptStates> {
  const tell = (level: string) => (fields: object, message: string) => void told.push({ level, fields, message });
  const log = { debug: tell("debug"), info: tell("info"), warn: tell("warn"), error: tell("error") };
  const onDamage = () => void numDamaged++;
  const states = await openKeptStates(configOf(flags), { manifest: MANIFEST, log, onDamage, nowMs: Date.now });
  opened.push(states);
  return states;
}

async function reopen(flags: Record<string, unknown>): Promise<KeptStates> {
  await opened.pop()!.close();
  return openStates(flags);
}

const STATE = new Uint8Array(new Float32Array([1, 2, 3, 1 / 3]).buffer);

function snapshot(tokenIds: readonly number[] = [1, 2]): Snapshot {
  return { modelHash: MANIFEST.modelHash, tokenIds, position: 2, state: STATE, conversation: null };
}

describe("by default", () => {
  it("all is in memory, and gone afterwards", async () => {
    const states = await openStates({});
    await states.conversations.put("session::a", snapshot());
    expect(states.stats.conversations().tiers.map(({ name }) => name)).toEqual(["memory"]);
    expect(await (await reopen({})).conversations.get("session::a")).toBeUndefined();
    expect(told).toEqual([]);
  });

  it("sessions have no bounds but memory's, and responses thirty days", () => {
    expect(keepingPolicy(configOf({}))).toEqual({ responseTtlMs: 30 * 86_400_000 });
    const given = { sessionTtlMs: "1h", responseTtlMs: 0, sessionsPerKey: 3, sessionBytesPerKey: "1MiB" };
    expect(keepingPolicy(configOf(given))).toEqual({ sessionTtlMs: 3_600_000, maxSessions: 3, maxBytes: 2 ** 20 });
  });

  it("there are prefixes, unless they get no room", async () => {
    expect((await openStates({})).prefixes).toBeDefined();
    expect((await openStates({ prefixBytes: 0 })).prefixes).toBeUndefined();
  });
});

describe("with a folder", () => {
  it("sessions are there after a restart; what is unstored, and prefixes, never enter it", async () => {
    const flags = { storeDir: path.join(folder, "made", "for", "it") };
    const states = await openStates(flags);
    await states.conversations.put("session::a", snapshot());
    await states.unstored.put("unstored::b", snapshot());
    await states.prefixes!.insert("", [1, 2, 3], STATE);
    const files = await readdir(flags.storeDir, { recursive: true, withFileTypes: true });
    expect(files.filter((entry) => entry.isFile() && entry.name !== "lock.json")).toHaveLength(1);
    const later = await reopen(flags);
    expect((await later.conversations.get("session::a"))?.state).toEqual(STATE);
    expect(await later.unstored.get("unstored::b")).toBeUndefined();
    expect(await later.prefixes!.lookup("", [1, 2, 3, 4])).toBeUndefined();
  });

  it("prefixes survive in it, too, if they get room there", async () => {
    const flags = { storeDir: folder, prefixDiskBytes: "1MiB" };
    const states = await openStates(flags);
    await states.prefixes!.insert("", [1, 2, 3], STATE);
    expect(await (await reopen(flags)).prefixes!.lookup("", [1, 2, 3, 4])).toEqual({ length: 3, state: STATE });
  });

  it("states are rounded there to f16 on request only", async () => {
    const flags = { storeDir: folder, statePrecision: "f16" };
    await (await openStates(flags)).conversations.put("session::a", snapshot());
    const { state } = (await (await reopen(flags)).conversations.get("session::a"))!;
    const restored = new Float32Array(state.buffer, state.byteOffset, 4);
    expect([...restored.subarray(0, 3)]).toEqual([1, 2, 3]);
    expect(Math.abs(restored[3]! - 1 / 3)).toBeGreaterThan(1e-6);
    expect(Math.abs(restored[3]! - 1 / 3)).toBeLessThan(2e-4);
  });

  it("that another server uses keeps this one from starting", async () => {
    await openStates({ storeDir: folder });
    await expect(openStates({ storeDir: folder })).rejects.toMatchObject({
      code: "invalid_config",
      message: expect.stringContaining(`in use by the server with process id ${process.pid}`),
    });
  });

  it("that cannot be used for prefixes is left unlocked", async () => {
    await writeFile(path.join(folder, "prefixes"), "no folder");
    const flags = { storeDir: folder, prefixDiskBytes: "1MiB" };
    await expect(openStates(flags)).rejects.toMatchObject({ code: "store_unavailable" });
    await openStates({ storeDir: folder });
  });

  it("one that cannot be written keeps the server from starting, and is named", async () => {
    await writeFile(path.join(folder, "file"), "");
    const states = openStates({ storeDir: path.join(folder, "file") });
    await expect(states).rejects.toMatchObject({ code: "store_unavailable", message: expect.stringContaining(folder) });
  });

  it("damage is told of and counted", async () => {
    const flags = { storeDir: folder };
    await (await openStates(flags)).conversations.put("session::a", snapshot());
    await opened.pop()!.close();
    const dir = path.join(folder, "conversations");
    const names = await readdir(dir, { recursive: true, withFileTypes: true });
    const { parentPath, name } = names.find((entry) => entry.isFile())!;
    const file = path.join(parentPath, name);
    const bytes = await readFile(file);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(file, bytes);
    await expect((await openStates(flags)).conversations.get("session::a")).rejects.toMatchObject({
      code: "invalid_snapshot",
    });
    expect(told).toMatchObject([{ level: "warn", fields: { store: "conversations" }, message: /damaged/ }]);
    expect(numDamaged).toBe(1);
  });
});

describe("what is kept", () => {
  it("leaves memory and disk when it has expired, though nobody asks for it", async () => {
    const tasks: (() => void)[] = [];
    const repeat = (_ms: number, task: () => void) => {
      tasks.push(task);
      return () => void tasks.splice(tasks.indexOf(task), 1);
    };
    const clock = new FakeClock();
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const parts = { manifest: MANIFEST, log, onDamage() {}, nowMs: clock.nowMs, repeat };
    const states = await openKeptStates(configOf({ storeDir: folder }), parts);
    opened.push(states);
    await states.conversations.put("session::a", snapshot(), { expiresAtMs: clock.nowMs() + 1000 });
    await states.conversations.put("session::b", snapshot());
    clock.advance(1001);
    for (const task of tasks) task();
    expect(states.stats.conversations().tiers.map(({ numSnapshots }) => numSnapshots)).toEqual([1, 1]);
    await opened.pop()!.close();
    expect((await readdir(path.join(folder, "conversations"))).filter((name) => name.endsWith(".dsm"))).toHaveLength(1);
    expect(tasks).toEqual([]);
  });

  it("of one key does not give way to another key's flood, of whatever kind", async () => {
    const states = await openStates({ sessionBytes: "16KiB" });
    await states.conversations.put("session:aa:1", snapshot());
    for (let i = 0; i < 100; i++) {
      for (const type of ["session", "response", "record"]) {
        await states.conversations.put(`${type}:bb:${i}:x`, snapshot());
      }
      await states.unstored.put(`unstored:bb:${i}`, snapshot());
    }
    expect(await states.conversations.has("session:aa:1")).toBe(true);
    expect(states.stats.conversations().numEvicted).toBeGreaterThan(300);
  });
});

describe("with a Valkey server that cannot be reached", () => {
  it("the server starts, says so once for each store, and keeps in memory", async () => {
    const states = await openStates({ valkeyUrl: NOBODY, sharePrefixes: true });
    expect(told.map(({ level, fields }) => ({ level, ...fields }))).toEqual([
      { level: "warn", store: "conversations", tier: "shared", way: "read" },
      { level: "warn", store: "prefixes", tier: "shared", way: "read" },
    ]);
    expect(JSON.stringify(told)).toContain("127.0.0.1:1");
    expect(JSON.stringify(told)).not.toContain("secret");
    await states.conversations.put("session::a", snapshot());
    expect(await states.conversations.get("session::a")).toMatchObject({ tokenIds: [1, 2] });
  });
});

describe("the start", () => {
  const shown = async (flags: Record<string, unknown>) => {
    const states = await openStates(flags);
    const config = configOf(flags);
    const status = { state: "ready", runner: "fake" } as const;
    const facts = { version: "1", modelName: "m", manifest: MANIFEST, status, config, port: 1, startupMs: 1 };
    return /kept in +(.*)/.exec(readyBanner({ ...facts, tiers: states.stats.conversations().tiers }))![1];
  };

  it("says where states are, and whether that outlives the server", async () => {
    expect(await shown({ sessionBytes: "2MiB" })).toBe("memory (2 MiB) alone; with --store-dir they survive a restart");
    expect(await shown({ storeDir: folder })).toBe(`memory (1 GiB), ${folder} (16 GiB, 0 found)`);
    await opened[1]!.conversations.put("session::a", snapshot());
    await opened.pop()!.close();
    expect(await shown({ storeDir: folder, valkeyUrl: NOBODY })).toBe(
      `memory (1 GiB), ${folder} (16 GiB, 1 found), Valkey at 127.0.0.1:1 (cannot be reached yet)`,
    );
  });
});
