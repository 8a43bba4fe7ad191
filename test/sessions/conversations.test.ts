import { describe, expect, test } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { Conversations, type RetentionPolicy } from "../../src/sessions/conversations.ts";
import { digestText, NO_MESSAGES } from "../../src/sessions/messages.ts";
import { encodeSnapshot } from "../../src/sessions/stores/codec.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { StateStore } from "../../src/sessions/stores/store.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const OWNER = "0123456789abcdef";
const OTHER = "fedcba9876543210";

function make({
  store = new MemoryStore({ maxBytes: 1e6 }),
  policy = {},
  nowMs,
}: {
  store?: StateStore;
  policy?: RetentionPolicy;
  nowMs?: () => number;
} = {}) {
  let lastId = 0;
  let clock = 1000;
  const manifest = fakeManifest(29);
  const newId = () => `new-${++lastId}`;
  const deps = { store, manifest, newId, nowMs: nowMs ?? (() => clock++), policy };
  return { store, manifest, conversations: new Conversations(deps) };
}

/** A session with so many tokens. */
async function save({ conversations, manifest }: ReturnType<typeof make>, id: string, numTokens = 3, owner = OWNER) {
  const lease = await conversations.open(owner, undefined, session(id));
  await lease.save(snapshotOf(manifest.modelHash, tokensUpTo(numTokens), lease.createdAtMs));
  await lease.release();
}

const tokensUpTo = (length: number) => Array.from({ length }, (_, i) => i);

const session = (id: string) => ({ type: "session", id }) as const;

function snapshotOf(modelHash: string, tokenIds: readonly number[], createdAtMs = 5, lastUsedAtMs = 9) {
  const conversation = {
    numPreambleTokens: 1,
    spans: [],
    messages: NO_MESSAGES,
    ...digestText("p"),
    createdAtMs,
    lastUsedAtMs,
  };
  return { modelHash, tokenIds, position: tokenIds.length - 1, state: new Uint8Array(24), conversation };
}

test("a session is created, inspected, listed and deleted", async () => {
  const { conversations } = make();
  const info = {
    id: "a",
    numTokens: 0,
    position: 0,
    stateBytes: 24,
    createdAtMs: 1000,
    lastUsedAtMs: 1000,
    busy: false,
  };
  expect(await conversations.createSession(OWNER, "a")).toEqual(info);
  expect(await conversations.inspectSession(OWNER, "a")).toEqual(info);
  expect((await conversations.createSession(OWNER)).id).toBe("new-1");
  expect((await conversations.listSessions(OWNER)).map(({ id }) => id)).toEqual(["a", "new-1"]);
  await conversations.deleteSession(OWNER, "a");
  await expect(conversations.inspectSession(OWNER, "a")).rejects.toMatchObject({ code: "session_not_found" });
  await expect(conversations.deleteSession(OWNER, "a")).rejects.toMatchObject({ code: "session_not_found" });
});

test("an id is used once, even by concurrent requests", async () => {
  const { conversations } = make();
  const results = await Promise.allSettled([
    conversations.createSession(OWNER, "a"),
    conversations.createSession(OWNER, "a"),
  ]);
  expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  await expect(conversations.createSession(OWNER, "a")).rejects.toMatchObject({ code: "session_exists" });
});

test.each(["", "../../etc/passwd", "a/b", ".hidden", "a b", "x".repeat(129), "é"])(
  "the id %j is refused",
  async (id) => {
    const { conversations } = make();
    const refusal = { code: "invalid_value", param: "session_id" };
    await expect(conversations.createSession(OWNER, id)).rejects.toMatchObject(refusal);
    await expect(conversations.open(OWNER, session(id), undefined)).rejects.toMatchObject(refusal);
  },
);

test("a saved session shows in its summary, with the time of its creation", async () => {
  const { conversations, manifest } = make();
  const { createdAtMs } = await conversations.createSession(OWNER, "a");
  const lease = await conversations.open(OWNER, session("a"), session("a"));
  expect(lease.resumed).toBeUndefined();
  expect(lease.createdAtMs).toBe(createdAtMs);
  expect((await conversations.inspectSession(OWNER, "a")).busy).toBe(true);
  await lease.save(snapshotOf(manifest.modelHash, [1, 2, 3], lease.createdAtMs));
  await lease.release();
  await lease.release();
  expect(await conversations.inspectSession(OWNER, "a")).toMatchObject({
    numTokens: 3,
    position: 2,
    createdAtMs,
    busy: false,
  });
});

test("an id is locked before its session exists, and not by a refused request", async () => {
  const { conversations } = make();
  const lease = await conversations.open(OWNER, undefined, session("a"));
  await expect(conversations.open(OWNER, session("a"), session("a"))).rejects.toMatchObject({ code: "session_busy" });
  await lease.release();
  await expect(conversations.open(OWNER, session("a"), undefined)).rejects.toMatchObject({ code: "session_not_found" });
  await (await conversations.open(OWNER, undefined, session("a"))).release();
});

test("a session that outlived the process is found in the store", async () => {
  const { conversations, store, manifest } = make();
  await store.put(`session:${OWNER}:old`, snapshotOf(manifest.modelHash, [1, 2]));
  expect(await conversations.inspectSession(OWNER, "old")).toMatchObject({
    numTokens: 2,
    createdAtMs: 5,
    lastUsedAtMs: 9,
  });
  await expect(conversations.createSession(OWNER, "old")).rejects.toMatchObject({ code: "session_exists" });
  const lease = await conversations.open(OWNER, session("old"), undefined);
  expect(lease.resumed!.snapshot.conversation).toMatchObject(digestText("p"));
});

test("a snapshot without a valid conversation is refused", async () => {
  const { conversations, store, manifest } = make();
  await store.put(`session:${OWNER}:odd`, { ...snapshotOf(manifest.modelHash, [1]), conversation: { text: 5 } });
  await expect(conversations.open(OWNER, session("odd"), undefined)).rejects.toMatchObject({
    code: "invalid_snapshot",
  });
  await conversations.createSession(OWNER, "even");
  expect((await conversations.listSessions(OWNER)).map(({ id }) => id)).toEqual(["even"]);
  await conversations.deleteSession(OWNER, "odd");
});

test("a stored response can be deleted once", async () => {
  const { conversations, manifest } = make();
  const lease = await conversations.open(OWNER, undefined, { type: "response", id: "r" });
  await lease.save(snapshotOf(manifest.modelHash, [1, 2]));
  await conversations.deleteResponse(OWNER, "r");
  await expect(conversations.deleteResponse(OWNER, "r")).rejects.toMatchObject({ code: "response_not_found" });
});

describe("owners", () => {
  test("what belongs to another owner does not exist", async () => {
    const made = make();
    const { conversations, manifest } = made;
    await save(made, "a");
    const lease = await conversations.open(OWNER, undefined, { type: "response", id: "r" });
    await lease.save(snapshotOf(manifest.modelHash, [1, 2]));
    await conversations.saveRecord(OWNER, "r", { text: "hello" });
    const unknown = { code: "session_not_found", message: "session a is not known here" };
    await expect(conversations.inspectSession(OTHER, "a")).rejects.toMatchObject(unknown);
    await expect(conversations.deleteSession(OTHER, "a")).rejects.toMatchObject(unknown);
    await expect(conversations.forkSession(OTHER, "a")).rejects.toMatchObject(unknown);
    await expect(conversations.renameSession(OTHER, "a", "b")).rejects.toMatchObject(unknown);
    await expect(conversations.exportSession(OTHER, "a")).rejects.toMatchObject(unknown);
    await expect(conversations.open(OTHER, session("a"), session("a"))).rejects.toMatchObject(unknown);
    await expect(conversations.readRecord(OTHER, "r")).rejects.toMatchObject({ code: "response_not_found" });
    await expect(conversations.deleteResponse(OTHER, "r")).rejects.toMatchObject({ code: "response_not_found" });
    const previous = { code: "previous_response_not_found" };
    await expect(conversations.forkResponse(OTHER, "r")).rejects.toMatchObject(previous);
    expect(await conversations.listSessions(OTHER)).toEqual([]);
    expect(await conversations.listSessions(OWNER)).toHaveLength(1);
    expect(await conversations.readRecord(OWNER, "r")).toEqual({ text: "hello" });
  });

  test("two owners can use the same id at the same time", async () => {
    const made = make();
    await save(made, "a", 3);
    await save(made, "a", 5, OTHER);
    const { conversations } = made;
    const lease = await conversations.open(OWNER, session("a"), session("a"));
    expect((await conversations.inspectSession(OTHER, "a")).busy).toBe(false);
    expect((await conversations.inspectSession(OTHER, "a")).numTokens).toBe(5);
    await lease.release();
  });

  test("an id cannot name another owner's session", async () => {
    const made = make();
    await save(made, "x", 3, "");
    const { conversations } = made;
    await save(made, `${OWNER}:x`, 4, "");
    await expect(conversations.inspectSession(OWNER, "x")).rejects.toMatchObject({ code: "session_not_found" });
    expect((await conversations.listSessions("")).map(({ id }) => id)).toEqual(["x", `${OWNER}:x`]);
  });
});

describe("forking", () => {
  test("a fork has the same history and advances independently", async () => {
    const made = make();
    const { conversations, manifest } = made;
    await save(made, "a", 3);
    expect(await conversations.forkSession(OWNER, "a", "b")).toMatchObject({ id: "b", numTokens: 3, position: 2 });
    const lease = await conversations.open(OWNER, session("b"), session("b"));
    expect(lease.resumed!.snapshot.tokenIds).toEqual([0, 1, 2]);
    await lease.save(snapshotOf(manifest.modelHash, tokensUpTo(9)));
    await lease.release();
    expect(await conversations.inspectSession(OWNER, "a")).toMatchObject({ numTokens: 3 });
    expect(await conversations.inspectSession(OWNER, "b")).toMatchObject({ numTokens: 9 });
  });

  test("a fork of a busy session is of what was saved last, at once", async () => {
    const made = make();
    const { conversations, manifest } = made;
    await save(made, "a", 3);
    const lease = await conversations.open(OWNER, session("a"), session("a"));
    expect(await conversations.forkSession(OWNER, "a", "b")).toMatchObject({ numTokens: 3, busy: false });
    await lease.save(snapshotOf(manifest.modelHash, tokensUpTo(7)));
    await lease.release();
    expect(await conversations.inspectSession(OWNER, "b")).toMatchObject({ numTokens: 3 });
  });

  test("an empty session can be forked; used and unknown ids are refused", async () => {
    const { conversations } = make();
    await conversations.createSession(OWNER, "a");
    expect(await conversations.forkSession(OWNER, "a")).toMatchObject({ id: "new-1", numTokens: 0 });
    await expect(conversations.forkSession(OWNER, "a", "a")).rejects.toMatchObject({ code: "session_exists" });
    await expect(conversations.forkSession(OWNER, "no", "b")).rejects.toMatchObject({ code: "session_not_found" });
    await expect(conversations.forkSession(OWNER, "a", "../b")).rejects.toMatchObject({ code: "invalid_value" });
    expect(await conversations.listSessions(OWNER)).toHaveLength(2);
  });

  test("a session can continue a stored response", async () => {
    const { conversations, manifest } = make();
    const lease = await conversations.open(OWNER, undefined, { type: "response", id: "r" });
    await lease.save(snapshotOf(manifest.modelHash, [1, 2, 3, 4]));
    expect(await conversations.forkResponse(OWNER, "r", "s")).toMatchObject({ id: "s", numTokens: 4 });
  });
});

describe("renaming", () => {
  test("a session is found under its new id only", async () => {
    const made = make();
    const { conversations } = made;
    await save(made, "a", 3);
    const before = await conversations.inspectSession(OWNER, "a");
    expect(await conversations.renameSession(OWNER, "a", "b")).toEqual({ ...before, id: "b" });
    expect(await conversations.inspectSession(OWNER, "b")).toEqual({ ...before, id: "b" });
    expect((await conversations.listSessions(OWNER)).map(({ id }) => id)).toEqual(["b"]);
    await expect(conversations.inspectSession(OWNER, "a")).rejects.toMatchObject({ code: "session_not_found" });
  });

  test("its own id is accepted, a used one is refused, and so is a busy session", async () => {
    const made = make();
    const { conversations } = made;
    await save(made, "a");
    await save(made, "b");
    expect(await conversations.renameSession(OWNER, "a", "a")).toMatchObject({ id: "a", busy: false });
    await expect(conversations.renameSession(OWNER, "a", "b")).rejects.toMatchObject({ code: "session_exists" });
    const lease = await conversations.open(OWNER, session("a"), session("a"));
    await expect(conversations.renameSession(OWNER, "a", "c")).rejects.toMatchObject({ code: "session_busy" });
    await lease.release();
  });
});

describe("files", () => {
  test("an exported session can be continued elsewhere", async () => {
    const [here, there] = [make(), make()];
    await save(here, "a", 4);
    const file = await here.conversations.exportSession(OWNER, "a");
    expect(await there.conversations.importSession(OTHER, file, "b")).toMatchObject({ numTokens: 4, position: 3 });
    const original = await here.conversations.open(OWNER, session("a"), undefined);
    const copy = await there.conversations.open(OTHER, session("b"), undefined);
    const times = { createdAtMs: expect.any(Number), lastUsedAtMs: expect.any(Number) };
    expect(copy.resumed!.snapshot.conversation).toEqual({ ...original.resumed!.snapshot.conversation, ...times });
    expect(Buffer.compare(copy.resumed!.snapshot.state, original.resumed!.snapshot.state)).toBe(0);
  });

  test("an empty session can be exported", async () => {
    const { conversations } = make();
    await conversations.createSession(OWNER, "a");
    const file = await conversations.exportSession(OWNER, "a");
    expect(await conversations.importSession(OWNER, file)).toMatchObject({ id: "new-1", numTokens: 0 });
  });

  test("a file with times in the future expires no later", async () => {
    const nowMs = () => 5000;
    const made = make({ store: new MemoryStore({ maxBytes: 1e6, nowMs }), policy: { sessionTtlMs: 100 }, nowMs });
    const snapshot = snapshotOf(made.manifest.modelHash, [1, 2], 9e15, 9e15);
    const info = await made.conversations.importSession(OWNER, encodeSnapshot({ ...snapshot, expiresAtMs: 9e15 }), "a");
    expect(info).toMatchObject({ createdAtMs: 5000, lastUsedAtMs: 5000, expiresAtMs: 5100 });
    expect(await made.conversations.inspectSession(OWNER, "a")).toEqual(info);
  });

  test("a file that is truncated, altered or of another model is refused", async () => {
    const made = make();
    await save(made, "a", 4);
    const file = await made.conversations.exportSession(OWNER, "a");
    const altered = Uint8Array.from(file);
    altered[50]! ^= 1;
    const other = new Conversations({
      store: made.store,
      manifest: { ...fakeManifest(29), modelHash: "other" },
      newId: () => "x",
      nowMs: () => 1,
    });
    const refusal = { code: "invalid_snapshot" };
    await expect(made.conversations.importSession(OWNER, file.slice(0, -1), "b")).rejects.toMatchObject(refusal);
    await expect(made.conversations.importSession(OWNER, altered, "b")).rejects.toMatchObject(refusal);
    await expect(other.importSession(OWNER, file, "b")).rejects.toMatchObject(refusal);
    await expect(made.conversations.importSession(OWNER, file, "../../etc/x")).rejects.toMatchObject({
      code: "invalid_value",
    });
    await expect(made.conversations.importSession(OWNER, file, "a")).rejects.toMatchObject({ code: "session_exists" });
    expect((await made.conversations.listSessions(OWNER)).map(({ id }) => id)).toEqual(["a"]);
  });
});

describe("quotas", () => {
  test("the number of sessions is bounded for each owner, however they are made", async () => {
    const made = make({ policy: { maxSessions: 2 } });
    const { conversations } = made;
    await save(made, "a");
    await conversations.createSession(OWNER, "b");
    const file = await conversations.exportSession(OWNER, "a");
    const full = {
      code: "quota_exceeded",
      message: expect.stringContaining("this key has 2 sessions; at most 2"),
    };
    await expect(conversations.createSession(OWNER, "c")).rejects.toMatchObject(full);
    await expect(conversations.forkSession(OWNER, "a", "c")).rejects.toMatchObject(full);
    await expect(conversations.importSession(OWNER, file, "c")).rejects.toMatchObject(full);
    await expect(conversations.open(OWNER, undefined, session("c"))).rejects.toMatchObject(full);
    // Existing sessions can be continued.
    await (await conversations.open(OWNER, session("b"), session("b"))).release();
    await conversations.importSession(OTHER, file, "c");
    await conversations.deleteSession(OWNER, "b");
    await conversations.importSession(OWNER, file, "c");
  });

  test("of concurrent requests for the last place one gets it", async () => {
    const { conversations } = make({ policy: { maxSessions: 1 } });
    const made = await Promise.allSettled(["a", "b", "c"].map((id) => conversations.createSession(OWNER, id)));
    expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });

  test("the bytes of an owner are bounded, and the message names bound and values", async () => {
    const made = make({ policy: { maxBytes: 2550 } });
    await save(made, "a");
    const file = await made.conversations.exportSession(OWNER, "a");
    await made.conversations.importSession(OWNER, file, "b");
    const bytes = (await listed(made.store, `session:${OWNER}:`)).reduce((sum, entry) => sum + entry.bytes, 0);
    expect(bytes).toBeLessThanOrEqual(2550);
    await expect(made.conversations.importSession(OWNER, file, "c")).rejects.toMatchObject({
      code: "quota_exceeded",
      message: `sessions of this key take ${bytes} bytes and would take 36 more; at most 2550 are allowed`,
    });
  });
});

describe("responses in quotas", () => {
  const response = (id: string) => ({ type: "response", id }) as const;
  const record = { text: "x".repeat(100) };

  async function respond({ conversations, manifest }: ReturnType<typeof make>, id: string, owner = OWNER) {
    const lease = await conversations.open(owner, undefined, response(id));
    await lease.save(snapshotOf(manifest.modelHash, tokensUpTo(3)));
    await conversations.saveRecord(owner, id, record);
    await lease.release();
  }

  const idsOf = async ({ store }: ReturnType<typeof make>, type: string, owner = OWNER) =>
    (await listed(store, `${type}:${owner}:`)).map(({ key }) => key.split(":")[2]);

  test("count with sessions in bytes; the oldest are deleted with their records, and no session", async () => {
    const made = make({ policy: { maxBytes: 10_000 } });
    await save(made, "a");
    for (let i = 0; i < 50; i++) await respond(made, `r${i}`);
    await respond(made, "theirs", OTHER);
    const kept = await idsOf(made, "response");
    expect(kept.at(-1)).toBe("r49");
    expect(kept.length).toBeGreaterThan(2);
    expect(kept.length).toBeLessThan(10);
    expect(await idsOf(made, "record")).toEqual(kept);
    expect(await idsOf(made, "session")).toEqual(["a"]);
    let bytes = 0;
    for (const type of ["session", "response", "record"]) {
      for (const entry of await listed(made.store, `${type}:${OWNER}:`)) bytes += entry.bytes;
    }
    // A record's bytes are known once it is written.
    expect(bytes).toBeLessThanOrEqual(10_000 + 2 * 1000);
  });

  test("are deleted for a session; if sessions take all bytes, a response is refused before it is made", async () => {
    const made = make({ policy: { maxBytes: 3900 } });
    for (let i = 0; i < 3; i++) await respond(made, `r${i}`);
    for (const id of ["a", "b", "c"]) await save(made, id);
    expect(await idsOf(made, "response")).toEqual([]);
    await save(made, "d");
    await expect(made.conversations.open(OWNER, undefined, response("r9"))).rejects.toMatchObject({
      code: "quota_exceeded",
    });
    await respond(made, "theirs", OTHER);
  });

  test("do not count as sessions", async () => {
    const made = make({ policy: { maxSessions: 1 } });
    await save(made, "a");
    for (let i = 0; i < 5; i++) await respond(made, `r${i}`);
    expect(await idsOf(made, "response")).toHaveLength(5);
  });
});

describe("time", () => {
  test("an unused session expires, a used one does not", async () => {
    let now = 1000;
    const nowMs = () => now;
    const made = make({ store: new MemoryStore({ maxBytes: 1e6, nowMs }), policy: { sessionTtlMs: 100 }, nowMs });
    expect(await made.conversations.createSession(OWNER, "a")).toMatchObject({ expiresAtMs: 1100 });
    await made.conversations.createSession(OWNER, "b");
    now = 1090;
    await save(made, "a");
    expect(await made.conversations.inspectSession(OWNER, "a")).toMatchObject({ expiresAtMs: 1190 });
    now = 1101;
    expect((await made.conversations.listSessions(OWNER)).map(({ id }) => id)).toEqual(["a"]);
    now = 1190;
    await expect(made.conversations.open(OWNER, session("a"), session("a"))).rejects.toMatchObject({
      code: "session_not_found",
    });
  });

  test("responses and their records expire", async () => {
    let now = 1000;
    const nowMs = () => now;
    const made = make({ store: new MemoryStore({ maxBytes: 1e6, nowMs }), policy: { responseTtlMs: 100 }, nowMs });
    const { conversations, manifest } = made;
    await (await conversations.open(OWNER, undefined, { type: "response", id: "r" })).save(
      snapshotOf(manifest.modelHash, [1, 2]),
    );
    await conversations.saveRecord(OWNER, "r", "record");
    now = 1100;
    await expect(conversations.readRecord(OWNER, "r")).rejects.toMatchObject({ code: "response_not_found" });
    await expect(conversations.forkResponse(OWNER, "r")).rejects.toMatchObject({ code: "previous_response_not_found" });
  });

  test("a clock that is set back expires nothing early, and a session's last use is never before its creation", async () => {
    let now = 1_000_000;
    const nowMs = () => now;
    const store = new MemoryStore({ maxBytes: 1e6, nowMs });
    const made = make({ store, policy: { sessionTtlMs: 1000 }, nowMs });
    await made.conversations.createSession(OWNER, "a");
    now = 5000;
    const lease = await made.conversations.open(OWNER, session("a"), session("a"));
    expect(lease.createdAtMs).toBe(1_000_000);
    const kept = snapshotOf(made.manifest.modelHash, [1, 2, 3], lease.createdAtMs, lease.lastUsedAtMs);
    expect(lease.lastUsedAtMs).toBe(1_000_000);
    await lease.save(kept);
    await lease.release();
    expect(await made.conversations.inspectSession(OWNER, "a")).toMatchObject({ numTokens: 3, expiresAtMs: 1_001_000 });
  });
});

describe("several servers on one store", () => {
  const two = () => {
    const store = new MemoryStore({ maxBytes: 1e6 });
    return [make({ store }), make({ store })] as const;
  };

  test("one advances a session at a time, then the other can", async () => {
    const [a, b] = two();
    await save(a, "s", 3);
    const lease = await a.conversations.open(OWNER, session("s"), session("s"));
    const busy = { code: "session_busy" };
    await expect(b.conversations.open(OWNER, session("s"), session("s"))).rejects.toMatchObject(busy);
    await expect(b.conversations.deleteSession(OWNER, "s")).rejects.toMatchObject(busy);
    await expect(b.conversations.renameSession(OWNER, "s", "t")).rejects.toMatchObject(busy);
    expect(await b.conversations.forkSession(OWNER, "s", "t")).toMatchObject({ numTokens: 3 });
    await lease.save(snapshotOf(a.manifest.modelHash, tokensUpTo(6)));
    await lease.release();
    const next = await b.conversations.open(OWNER, session("s"), session("s"));
    expect(next.resumed!.snapshot.tokenIds).toHaveLength(6);
    await next.release();
  });

  test("a server whose claim has lapsed cannot overwrite a session that another has advanced", async () => {
    let now = 1000;
    const store = new MemoryStore({ maxBytes: 1e6, nowMs: () => now });
    const asleep = make({ store });
    const awake = make({ store });
    await save(asleep, "s", 3);
    const lease = await asleep.conversations.open(OWNER, session("s"), session("s"));
    now += 60_000;
    await save(awake, "s", 8);
    await expect(lease.save(snapshotOf(asleep.manifest.modelHash, tokensUpTo(4)))).rejects.toMatchObject({
      code: "session_conflict",
    });
    await lease.release();
    expect(await awake.conversations.inspectSession(OWNER, "s")).toMatchObject({ numTokens: 8 });
  });

  test("a claim is renewed for as long as it is held", async () => {
    let now = 1000;
    const store = new MemoryStore({ maxBytes: 1e6, nowMs: () => now });
    const repeated: { ms: number; task: () => void }[] = [];
    const manifest = fakeManifest(29);
    const repeat = (ms: number, task: () => void) => {
      repeated.push({ ms, task });
      return () => void repeated.pop();
    };
    const conversations = new Conversations({ store, manifest, newId: () => "x", nowMs: () => now, repeat });
    const lease = await conversations.open(OWNER, undefined, session("s"));
    for (let turn = 0; turn < 10; turn++) {
      now += repeated[0]!.ms;
      repeated[0]!.task();
    }
    const other = make({ store });
    await expect(other.conversations.open(OWNER, undefined, session("s"))).rejects.toMatchObject({
      code: "session_busy",
    });
    await lease.save(snapshotOf(manifest.modelHash, [1, 2]));
    await lease.release();
    expect(repeated).toEqual([]);
  });

  test("a session that cannot be claimed is not locked", async () => {
    const store = new MemoryStore({ maxBytes: 1e6 });
    const made = make({ store });
    const gone = new DenseMambaError("store_unavailable", "gone");
    store.claim = async () => {
      throw gone;
    };
    await expect(made.conversations.open(OWNER, undefined, session("s"))).rejects.toBe(gone);
    expect(made.conversations.isBusy(OWNER, "s")).toBe(false);
  });
});

test("records are replaced, read and deleted with their response", async () => {
  const { conversations } = make();
  await expect(conversations.readRecord(OWNER, "r")).rejects.toMatchObject({ code: "response_not_found" });
  await conversations.saveRecord(OWNER, "r", { status: "in_progress" });
  await conversations.saveRecord(OWNER, "r", { status: "completed", output: ["é"] });
  expect(await conversations.readRecord(OWNER, "r")).toEqual({ status: "completed", output: ["é"] });
  await conversations.deleteResponse(OWNER, "r");
  await expect(conversations.readRecord(OWNER, "r")).rejects.toMatchObject({ code: "response_not_found" });
});

test("a list reads each session once, and again after it has changed, on any server", async () => {
  const store = new MemoryStore({ maxBytes: 1e6 });
  const [here, there] = [make({ store }), make({ store })];
  for (const id of ["a", "b", "c"]) await save(here, id, 3);
  const get = store.get.bind(store);
  let numRead = 0;
  store.get = (key) => {
    numRead++;
    return get(key);
  };
  const numTokens = async () => {
    numRead = 0;
    const found = await here.conversations.listSessions(OWNER);
    return { numRead, tokens: found.map(({ id, numTokens }) => `${id}${numTokens}`).sort() };
  };
  expect(await numTokens()).toEqual({ numRead: 3, tokens: ["a3", "b3", "c3"] });
  expect(await numTokens()).toEqual({ numRead: 0, tokens: ["a3", "b3", "c3"] });
  await save(here, "a", 3);
  await save(there, "b", 5);
  await there.conversations.deleteSession(OWNER, "c");
  expect(await numTokens()).toEqual({ numRead: 2, tokens: ["a3", "b5"] });
  expect(store.stats().numSnapshots).toBe(2);
});

async function listed(store: StateStore, prefix: string) {
  const all = [];
  for await (const entry of store.list(prefix)) all.push(entry);
  return all;
}

test.each([
  ["more tokens than there are", { spans: [{ numTokens: 1e15, messages: [{ role: "user", at: 0, length: 1 }] }] }],
  ["spans that are longer together", { spans: [2, 2].map((numTokens) => ({ numTokens, messages: [] })) }],
  ["a preamble that is too long", { numPreambleTokens: 4, spans: [] }],
])("an imported session whose conversation claims %s is refused", async (_, lie) => {
  const { conversations, manifest } = make();
  const snapshot = snapshotOf(manifest.modelHash, tokensUpTo(3));
  const file = encodeSnapshot({ ...snapshot, conversation: { ...snapshot.conversation, ...lie } });
  await expect(conversations.importSession(OWNER, file)).rejects.toThrow(/tokens; the snapshot holds 3/);
});
