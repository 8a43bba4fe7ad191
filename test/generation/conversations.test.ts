import { expect, test } from "vitest";
import { Conversations } from "../../src/generation/conversations.ts";
import { MemoryStore } from "../../src/session/memory-store.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

function make(store = new MemoryStore({ maxBytes: 1e6 }), maxSessions = 3) {
  let lastId = 0;
  let nowMs = 1000;
  const manifest = fakeManifest(29);
  const deps = { store, manifest, newId: () => `new-${++lastId}`, nowMs: () => nowMs++, maxSessions };
  return { store, manifest, conversations: new Conversations(deps) };
}

const session = (id: string) => ({ type: "session", id }) as const;

function head(modelHash: string, tokenIds: readonly number[], createdAtMs = 5) {
  const conversation = { numPreambleTokens: 1, messages: [], text: "p", createdAtMs, lastUsedAtMs: 9 };
  const snapshot = { modelHash, tokenIds, position: tokenIds.length - 1, state: new Uint8Array(24), conversation };
  return { snapshot, conversation };
}

test("a session is created, seen, listed and deleted", async () => {
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
  expect(await conversations.createSession("a")).toEqual(info);
  expect(await conversations.inspectSession("a")).toEqual(info);
  expect((await conversations.createSession()).id).toBe("new-1");
  expect((await conversations.listSessions()).map(({ id }) => id)).toEqual(["a", "new-1"]);
  await conversations.deleteSession("a");
  await expect(conversations.inspectSession("a")).rejects.toMatchObject({ code: "session_not_found" });
  await expect(conversations.deleteSession("a")).rejects.toMatchObject({ code: "session_not_found" });
});

test("an id is taken once, also by two at the same time", async () => {
  const { conversations } = make();
  const results = await Promise.allSettled([conversations.createSession("a"), conversations.createSession("a")]);
  expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  await expect(conversations.createSession("a")).rejects.toMatchObject({ code: "session_exists" });
});

test.each(["", "../../etc/passwd", "a/b", ".hidden", "a b", "x".repeat(129), "é"])(
  "the id %j is refused",
  async (id) => {
    const { conversations } = make();
    const refusal = { code: "invalid_value", param: "session_id" };
    await expect(conversations.createSession(id)).rejects.toMatchObject(refusal);
    await expect(conversations.open(session(id), undefined)).rejects.toMatchObject(refusal);
  },
);

test("what is kept shows in the session's card, and when it began stays", async () => {
  const { conversations, manifest } = make();
  const { createdAtMs } = await conversations.createSession("a");
  const lease = await conversations.open(session("a"), session("a"));
  expect(lease.head).toBeUndefined();
  expect(lease.createdAtMs).toBe(createdAtMs);
  expect((await conversations.inspectSession("a")).busy).toBe(true);
  await lease.keep(head(manifest.modelHash, [1, 2, 3], lease.createdAtMs));
  lease.release();
  lease.release();
  expect(await conversations.inspectSession("a")).toMatchObject({
    numTokens: 3,
    position: 2,
    createdAtMs,
    busy: false,
  });
});

test("a lock is held by name alone, and a refused request holds none", async () => {
  const { conversations } = make();
  const lease = await conversations.open(undefined, session("a"));
  await expect(conversations.open(session("a"), undefined)).rejects.toMatchObject({ code: "session_busy" });
  lease.release();
  await expect(conversations.open(session("a"), undefined)).rejects.toMatchObject({ code: "session_not_found" });
  (await conversations.open(undefined, session("a"))).release();
});

test("a session that outlived the process is found in the store", async () => {
  const { conversations, store, manifest } = make();
  await store.put("session:old", head(manifest.modelHash, [1, 2]).snapshot);
  expect(await conversations.inspectSession("old")).toMatchObject({ numTokens: 2, createdAtMs: 5, lastUsedAtMs: 9 });
  await expect(conversations.createSession("old")).rejects.toMatchObject({ code: "session_exists" });
  const lease = await conversations.open(session("old"), undefined);
  expect(lease.head!.conversation.text).toBe("p");
});

test("what the text layer did not write is refused", async () => {
  const { conversations, store, manifest } = make();
  await store.put("session:odd", { ...head(manifest.modelHash, [1]).snapshot, conversation: { text: 5 } });
  await expect(conversations.open(session("odd"), undefined)).rejects.toMatchObject({ code: "invalid_snapshot" });
});

test("so many sessions are remembered, and no more; busy ones stay", async () => {
  const { conversations } = make();
  await conversations.createSession("a");
  const lease = await conversations.open(session("a"), session("a"));
  for (const id of ["b", "c", "d", "e"]) await conversations.createSession(id);
  expect((await conversations.listSessions()).map(({ id }) => id)).toEqual(["a", "d", "e"]);
  lease.release();
});

test("a kept response can be deleted, once", async () => {
  const { conversations, manifest } = make();
  const lease = await conversations.open(undefined, { type: "response", id: "r" });
  await lease.keep(head(manifest.modelHash, [1, 2]));
  await conversations.deleteResponse("r");
  await expect(conversations.deleteResponse("r")).rejects.toMatchObject({ code: "response_not_found" });
});
