/** Checkpoints of sessions: which are kept, and over real stores what they survive. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  addCheckpoint,
  type CheckpointTree,
  keepCheckpoints,
  nameCheckpoint,
  thinCheckpoints,
} from "../../src/sessions/checkpoints.ts";
import { Conversations, type RetentionPolicy } from "../../src/sessions/conversations.ts";
import { digestText, NO_MESSAGES } from "../../src/sessions/messages.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { openStore } from "../../src/sessions/stores/open-store.ts";
import type { StateStore } from "../../src/sessions/stores/store.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../helpers/valkey-server.ts";

const OWNER = "0123456789abcdef";
const OTHER = "fedcba9876543210";
const VOCAB_SIZE = 29;
const STATE_BYTES = 24;

function treeOf(numTurns: number, maxCount = Number.POSITIVE_INFINITY, names: Record<number, string> = {}) {
  let tree: CheckpointTree | undefined;
  for (let turn = 1; turn <= numTurns; turn++) {
    tree = addCheckpoint(tree, { id: `ckpt_${turn}`, name: names[turn], numTokens: turn * 10, createdAtMs: turn });
    tree = thinCheckpoints(tree, maxCount);
  }
  return tree!;
}

const numbers = ({ all }: CheckpointTree) => all.map(({ number }) => number);

describe("which are kept", () => {
  test("all up to the bound, each continuing the one before", () => {
    const { current, all } = treeOf(3, 3);
    expect(current).toBe("ckpt_3");
    expect(all.map(({ id, parent }) => [id, parent])).toEqual([
      ["ckpt_1", undefined],
      ["ckpt_2", 1],
      ["ckpt_3", 2],
    ]);
  });

  test("beyond it the newer half stays, and the older ones are spread evenly", () => {
    const kept = numbers(treeOf(1000, 20));
    expect(kept).toHaveLength(20);
    expect(kept.slice(-10)).toEqual([991, 992, 993, 994, 995, 996, 997, 998, 999, 1000]);
    const gaps = [0, ...kept.slice(0, 10)].map((number, i, all) => (all[i + 1] ?? 991) - number);
    expect(Math.max(...gaps)).toBeLessThan(300);
    expect(kept[0]).toBeLessThan(300);
  });

  test("those with a name go last, and the current one never", () => {
    const kept = treeOf(50, 4, { 2: "two", 7: "seven" });
    expect(numbers(kept)).toEqual([2, 7, 49, 50]);
    const back = { ...treeOf(4, 4), current: "ckpt_1" };
    expect(numbers(thinCheckpoints(back, 1))).toEqual([1]);
  });

  test("what continued a dropped one continues its parent", () => {
    const kept = keepCheckpoints(treeOf(4), ({ number }) => number === 1 || number === 4);
    expect(kept.all.map(({ id, parent }) => [id, parent])).toEqual([
      ["ckpt_1", undefined],
      ["ckpt_4", 1],
    ]);
  });

  test("a name that is used again moves", () => {
    const tree = nameCheckpoint(treeOf(3, 9, { 1: "here" }), "ckpt_3", "here");
    expect(tree.all.map(({ name }) => name)).toEqual([undefined, undefined, "here"]);
  });
});

interface World {
  readonly conversations: Conversations;
  readonly store: StateStore;
  /** A turn: the session grows by so many tokens. */
  turn(id: string, more?: { numTokens?: number; checkpoint?: string; owner?: string }): Promise<void>;
  /** The first byte of its state, which tells turns apart. */
  stateOf(id: string): Promise<number>;
}

/** @param nowMs for the policy's times */
function world(store: StateStore, policy: RetentionPolicy = {}, nowMs?: () => number): World {
  let lastId = Math.floor(Math.random() * 1e9);
  let clock = 1000;
  let turns = 0;
  const manifest = fakeManifest(VOCAB_SIZE);
  const newId = () => `${++lastId}`;
  const conversations = new Conversations({ store, manifest, newId, nowMs: nowMs ?? (() => clock++), policy });
  return {
    conversations,
    store,
    async turn(id, { numTokens = 5, checkpoint, owner = OWNER } = {}) {
      const key = { type: "session", id } as const;
      const lease = await conversations.open(owner, key, key);
      lease.keepCheckpoint();
      const { history, tokenIds = [], position = 0 } = lease.resumed?.snapshot ?? {};
      const more = Array.from({ length: numTokens }, (_, i) => i % VOCAB_SIZE);
      const numBefore = (history?.numTokens ?? 0) + tokenIds.length;
      const conversation = {
        numPreambleTokens: numBefore + numTokens,
        spans: [],
        messages: NO_MESSAGES,
        ...digestText(""),
        createdAtMs: lease.createdAtMs,
        lastUsedAtMs: lease.lastUsedAtMs,
      };
      expect(position).toBeLessThanOrEqual(numBefore);
      const next = { tokenIds: [...tokenIds, ...more], position: numBefore + numTokens };
      const state = new Uint8Array(STATE_BYTES).fill(++turns);
      const snapshot = { modelHash: manifest.modelHash, ...(history && { history }), ...next, state, conversation };
      try {
        await lease.save(snapshot, checkpoint);
      } finally {
        await lease.release();
      }
    },
    async stateOf(id) {
      const lease = await conversations.open(OWNER, { type: "session", id }, undefined);
      await lease.release();
      return lease.resumed!.snapshot.state[0]!;
    },
  };
}

const shown = async ({ conversations }: World, id: string) =>
  (await conversations.listCheckpoints(OWNER, id)).map(({ numTokens, name, isCurrent }) =>
    [numTokens, name, isCurrent && "current"].filter(Boolean).join(" "),
  );

const stores: readonly [string, (dir: string) => Promise<StateStore>][] = [
  ["memory", async () => new MemoryStore({ maxBytes: 1e8 })],
  ["disk", (dir) => open({ dir })],
  ["Valkey", () => open({ url: valkey.url })],
];

let valkey: ValkeyServer;

function open({ dir, url, diskBytes = 1e8 }: { dir?: string; url?: string; diskBytes?: number }): Promise<StateStore> {
  const manifest = fakeManifest(VOCAB_SIZE);
  return openStore({
    memoryBytes: 1e8,
    ...(dir !== undefined && { disk: { dir, maxBytes: diskBytes } }),
    ...(url !== undefined && { valkey: { url, keyPrefix: "t:", timeoutMs: 2000 } }),
    model: { modelHash: manifest.modelHash, stateBytes: STATE_BYTES },
    nowMs: Date.now,
    observer: { onTier() {}, onDamage: expect.unreachable },
  });
}

describe.each(stores)("over %s", (name, openAny) => {
  describe.skipIf(name === "Valkey" && WITHOUT_VALKEY !== "")(`a session${WITHOUT_VALKEY}`, () => {
    let dir: string;
    let store: StateStore;
    beforeEach(async () => {
      if (name === "Valkey") valkey = await ValkeyServer.start();
      dir = await mkdtemp(path.join(tmpdir(), "checkpoints-"));
      store = await openAny(dir);
    });
    afterEach(async () => {
      await store.close();
      await rm(dir, { recursive: true });
      if (name === "Valkey") await valkey.stop();
    });

    async function ofTurns(numTurns: number, policy?: RetentionPolicy): Promise<World> {
      const made = world(store, policy);
      await made.conversations.createSession(OWNER, "s");
      for (let turn = 1; turn <= numTurns; turn++) await made.turn("s");
      return made;
    }

    test("goes back to any turn, and forward again", async () => {
      const w = await ofTurns(4);
      expect(await shown(w, "s")).toEqual(["5", "10", "15", "20 current"]);
      const all = await w.conversations.listCheckpoints(OWNER, "s");
      for (const i of [1, 3, 0, 2, 3]) {
        const info = await w.conversations.rollBackSession(OWNER, "s", all[i]!.id);
        expect(info).toMatchObject({ id: "s", numTokens: 5 * (i + 1), checkpoint: all[i]!.id });
        expect(await w.stateOf("s")).toBe(i + 1);
        expect((await w.conversations.listCheckpoints(OWNER, "s")).map(({ id }) => id)).toEqual(
          all.map(({ id }) => id),
        );
      }
    });

    test("branches where it goes on from an earlier turn", async () => {
      const w = await ofTurns(2);
      await w.turn("s", { checkpoint: "here" });
      await w.turn("s");
      await w.conversations.rollBackSession(OWNER, "s", "here");
      await w.turn("s", { numTokens: 7 });
      expect(await shown(w, "s")).toEqual(["5", "10", "15 here", "20", "22 current"]);
      const all = await w.conversations.listCheckpoints(OWNER, "s");
      expect(all.map(({ parent }) => all.findIndex(({ id }) => id === parent))).toEqual([-1, 0, 1, 2, 2]);
      expect(await w.stateOf("s")).toBe(5);
    });

    test("is forked from one, and the fork has its own", async () => {
      const w = await ofTurns(3);
      const [, second] = await w.conversations.listCheckpoints(OWNER, "s");
      await w.conversations.forkSession(OWNER, "s", "fork", { checkpoint: second!.id });
      expect(await shown(w, "fork")).toEqual(["10 current"]);
      expect(await w.stateOf("fork")).toBe(2);
      await w.turn("fork");
      expect(await shown(w, "fork")).toEqual(["10", "15 current"]);
      expect(await shown(w, "s")).toEqual(["5", "10", "15 current"]);
      await w.conversations.deleteSession(OWNER, "s");
      const [first] = await w.conversations.listCheckpoints(OWNER, "fork");
      expect(await w.conversations.rollBackSession(OWNER, "fork", first!.id)).toMatchObject({ numTokens: 10 });
    });

    test("keeps them under a new name, and in a file", async () => {
      const w = await ofTurns(3);
      await w.conversations.nameCheckpoint(OWNER, "s", "end");
      await w.conversations.renameSession(OWNER, "s", "t");
      expect(await shown(w, "t")).toEqual(["5", "10", "15 end current"]);
      const file = await w.conversations.exportSession(OWNER, "t");
      await w.conversations.deleteSession(OWNER, "t");
      await w.conversations.importSession(OWNER, file, "u");
      await w.conversations.importSession(OWNER, file, "v");
      for (const id of ["u", "v"]) expect(await shown(w, id)).toEqual(["5", "10", "15 end current"]);
      const [first, ...others] = await w.conversations.listCheckpoints(OWNER, "u");
      // Each has its own.
      await w.conversations.deleteSession(OWNER, "v");
      await w.conversations.rollBackSession(OWNER, "u", first!.id);
      expect(await w.stateOf("u")).toBe(1);
      expect(others[0]!.parent).toBe(first!.id);
    });

    test("with a long history has it again after going back, and in a file", async () => {
      const w = await ofTurns(0);
      for (let turn = 0; turn < 4; turn++) await w.turn("s", { numTokens: 6000 });
      const [, second] = await w.conversations.listCheckpoints(OWNER, "s");
      await w.conversations.rollBackSession(OWNER, "s", second!.id);
      await w.turn("s", { numTokens: 7000 });
      await w.conversations.importSession(OWNER, await w.conversations.exportSession(OWNER, "s"), "t");
      for (const id of ["s", "t"]) {
        expect(await shown(w, id)).toEqual(["6000", "12000", "18000", "24000", "19000 current"]);
        for (const { id: checkpoint, numTokens } of await w.conversations.listCheckpoints(OWNER, id)) {
          await w.conversations.rollBackSession(OWNER, id, checkpoint);
          const lease = await w.conversations.open(OWNER, { type: "session", id }, undefined);
          expect((await lease.resumed!.loadHistory()).tokenIds).toHaveLength(numTokens);
          await lease.release();
        }
      }
    });

    test("with a bound keeps so many, and the store no more", async () => {
      const w = await ofTurns(30, { maxCheckpoints: 4 });
      const kept = await w.conversations.listCheckpoints(OWNER, "s");
      expect(kept).toHaveLength(4);
      const keys = [];
      for await (const { key } of w.store.list("checkpoint:")) keys.push(key);
      expect(keys.length).toBeLessThanOrEqual(4);
      for (const { id, numTokens } of kept) {
        await w.conversations.rollBackSession(OWNER, "s", id);
        expect(await w.stateOf("s")).toBe(numTokens / 5);
      }
    });

    test("with room for no state keeps the one that it has", async () => {
      const w = await ofTurns(3, { maxCheckpointBytes: STATE_BYTES - 1 });
      expect(await shown(w, "s")).toEqual(["15 current"]);
      const more = world(store, { maxCheckpointBytes: 2 * STATE_BYTES });
      for (let turn = 0; turn < 4; turn++) await more.turn("s");
      expect(await shown(more, "s")).toHaveLength(3);
    });

    test("has none that it does not have, nor another's", async () => {
      const w = await ofTurns(2);
      const [first] = await w.conversations.listCheckpoints(OWNER, "s");
      await w.conversations.createSession(OWNER, "empty");
      await w.conversations.createSession(OTHER, "s");
      const { conversations } = w;
      const missing = { code: "checkpoint_not_found" };
      await expect(conversations.rollBackSession(OWNER, "s", "nope")).rejects.toMatchObject(missing);
      await expect(conversations.rollBackSession(OWNER, "empty", first!.id)).rejects.toMatchObject(missing);
      await expect(conversations.rollBackSession(OTHER, "s", first!.id)).rejects.toMatchObject(missing);
      await expect(conversations.forkSession(OWNER, "s", "f", { checkpoint: "" })).rejects.toMatchObject(missing);
      await expect(conversations.nameCheckpoint(OWNER, "empty", "x")).rejects.toMatchObject(missing);
      await expect(conversations.rollBackSession(OWNER, "nope", "x")).rejects.toMatchObject({
        code: "session_not_found",
      });
      expect(await shown(w, "empty")).toEqual([]);
    });

    test("that is answering is not taken back", async () => {
      const w = await ofTurns(2);
      const [first] = await w.conversations.listCheckpoints(OWNER, "s");
      const key = { type: "session", id: "s" } as const;
      const lease = await w.conversations.open(OWNER, key, key);
      const busy = { code: "session_busy" };
      await expect(w.conversations.rollBackSession(OWNER, "s", first!.id)).rejects.toMatchObject(busy);
      await expect(w.conversations.nameCheckpoint(OWNER, "s", "x")).rejects.toMatchObject(busy);
      await lease.release();
      expect(await w.conversations.rollBackSession(OWNER, "s", first!.id)).toMatchObject({ numTokens: 5 });
    });

    test.runIf(name === "disk")("has them after a restart, without those of deleted sessions", async () => {
      const w = await ofTurns(5);
      await w.conversations.forkSession(OWNER, "s", "gone");
      await w.turn("gone");
      await w.conversations.deleteSession(OWNER, "gone");
      const before = await w.conversations.listCheckpoints(OWNER, "s");
      await store.close();
      store = await open({ dir });
      const again = world(store);
      expect(await again.conversations.listCheckpoints(OWNER, "s")).toEqual(before);
      await again.conversations.rollBackSession(OWNER, "s", before[1]!.id);
      expect(await again.stateOf("s")).toBe(2);
      expect(store.stats().numSnapshots).toBe(1);
    });

    test.runIf(name === "Valkey")("has them on another server", async () => {
      const w = await ofTurns(3);
      const other = await open({ url: valkey.url });
      try {
        const there = world(other);
        const [first] = await w.conversations.listCheckpoints(OWNER, "s");
        await there.conversations.rollBackSession(OWNER, "s", first!.id);
        await there.turn("s");
        expect(await shown(w, "s")).toEqual(["5", "10", "15", "10 current"]);
      } finally {
        await other.close();
      }
    });
  });
});

test("checkpoints give way to sessions where memory is short", async () => {
  const w = world(new MemoryStore({ maxBytes: 60_000 }));
  for (let i = 0; i < 5; i++) {
    await w.conversations.createSession(OWNER, `s${i}`);
    for (let turn = 0; turn < 20; turn++) await w.turn(`s${i}`);
  }
  for (let i = 0; i < 5; i++) expect(await w.stateOf(`s${i}`)).toBe(20 * (i + 1));
  expect((await w.conversations.listCheckpoints(OWNER, "s0")).length).toBe(1);
  // What is listed is there.
  for (const { id } of await w.conversations.listCheckpoints(OWNER, "s4")) {
    await w.conversations.exportSession(OWNER, "s4", { checkpoint: id });
  }
});

test("checkpoints count towards what a key may store, and are not kept beyond that", async () => {
  const w = world(new MemoryStore({ maxBytes: 1e6 }), { maxBytes: 9000 });
  await w.conversations.createSession(OWNER, "s");
  for (let turn = 0; turn < 40; turn++) await w.turn("s", { numTokens: 1 });
  const kept = await w.conversations.listCheckpoints(OWNER, "s");
  expect(kept.length).toBeGreaterThan(1);
  expect(kept.length).toBeLessThan(40);
  expect(kept.at(-1)).toMatchObject({ isCurrent: true, numTokens: 40 });
});

test("the checkpoints of an expired session are removed", async () => {
  let nowMs = 0;
  const store = new MemoryStore({ maxBytes: 1e6, nowMs: () => nowMs });
  const w = world(store, { sessionTtlMs: 1000 }, () => nowMs);
  await w.conversations.createSession(OWNER, "s");
  for (let turn = 0; turn < 3; turn++) await w.turn("s");
  nowMs = 2000;
  store.sweep();
  nowMs = 2e6;
  store.sweep();
  expect(store.stats()).toMatchObject({ numSnapshots: 0, bytes: 0 });
});
