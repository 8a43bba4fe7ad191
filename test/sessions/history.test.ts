/** Old tokens are stored once, in segments: a turn costs the same after any history. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Generator } from "../../src/generation/generator.ts";
import type { ConversationKey } from "../../src/sessions/conversation-store.ts";
import { loadHistory, putSegments, SEGMENT_TOKENS } from "../../src/sessions/history.ts";
import { digestText } from "../../src/sessions/messages.ts";
import { encodeSnapshot } from "../../src/sessions/stores/codec.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { openStore } from "../../src/sessions/stores/open-store.ts";
import type { Snapshot } from "../../src/sessions/stores/snapshot.ts";
import type { StateStore } from "../../src/sessions/stores/store.ts";
import { ValkeyStore } from "../../src/sessions/stores/valkey-store.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { chat, EOS, fold, makeGenerator, request, tinyTokenizer, tokens } from "../helpers/generation-harness.ts";
import { ScriptedEngine } from "../helpers/scripted-engine.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../helpers/valkey-server.ts";

const SESSION: ConversationKey = { type: "session", id: "s" };
const CONTINUED = { resumeFrom: SESSION, saveAs: SESSION };
const TEMPLATE = `{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const LIMITS = { maxPromptTokens: 20_000_000, maxOutputTokens: 100 };

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await tinyTokenizer(TEMPLATE);
});

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Counts reads and writes. */
class CountingStore {
  readonly counts = { gets: 0, bytesRead: 0, puts: 0, bytesPut: 0 };
  readonly store: StateStore;

  constructor(inner: StateStore) {
    this.store = new Proxy(inner, {
      get: (target, name) => {
        if (name === "get") {
          return async (key: string) => {
            const found = await target.get(key);
            this.#count("gets", "bytesRead", found);
            return found;
          };
        }
        if (name === "put") {
          return async (key: string, snapshot: Snapshot, options?: object) => {
            this.#count("puts", "bytesPut", snapshot);
            await target.put(key, snapshot, options);
          };
        }
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  }

  take() {
    const counts = { ...this.counts };
    Object.assign(this.counts, { gets: 0, bytesRead: 0, puts: 0, bytesPut: 0 });
    return counts;
  }

  #count(times: "gets" | "puts", bytes: "bytesRead" | "bytesPut", snapshot: Snapshot | undefined): void {
    this.counts[times]++;
    if (snapshot !== undefined) this.counts[bytes] += encodeSnapshot(snapshot).length;
  }
}

async function newFolder(): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), "densemamba-history-"));
  cleanups.push(() => rm(dir, { recursive: true }));
  return dir;
}

function openFolder(dir: string): Promise<StateStore> {
  return openStore({
    memoryBytes: 1e6,
    disk: { dir, maxBytes: 1e9 },
    model: { modelHash: "fake-400", stateBytes: 24 },
    nowMs: Date.now,
    observer: { onTier: () => undefined, onDamage: () => undefined },
  });
}

async function openDisk(): Promise<StateStore> {
  const store = await openFolder(await newFolder());
  cleanups.push(() => store.close());
  return store;
}

async function openValkey(): Promise<ValkeyStore> {
  const server = await ValkeyServer.start();
  cleanups.push(() => server.stop());
  const model = { modelHash: "fake-400", stateBytes: 24 };
  const store = await ValkeyStore.open({ url: server.url, keyPrefix: "h:", model, nowMs: Date.now, timeoutMs: 10_000 });
  cleanups.push(() => store.close());
  return store;
}

function start(store: StateStore, answer: readonly number[] = [100, 101, EOS]) {
  const engine = new ScriptedEngine(() => ({ tokenIds: answer }));
  const generator = makeGenerator(engine, tokenizer, { store, limits: LIMITS });
  return { engine, generator };
}

const idsOf = (length: number) => Array.from({ length }, (_, i) => 3 + (i % 390));

/** A session of so many tokens. */
async function grow(generator: Generator, numTokens: number): Promise<void> {
  let isFirst = true;
  for (let left = numTokens; left > 0; left -= 1_000_000) {
    const prompt = tokens(...[]);
    const ids = { ...prompt, tokenIds: idsOf(Math.min(left, 1_000_000)) } as typeof prompt;
    await fold(generator.generate(request({ prompts: [ids], saveAs: SESSION, ...(isFirst ? {} : CONTINUED) })));
    isFirst = false;
  }
}

describe.each([
  ["memory", async () => new MemoryStore({ maxBytes: 1e9 })],
  ["disk", openDisk],
  ...(WITHOUT_VALKEY === "" ? [["valkey", openValkey] as const] : []),
] as const)("in %s", (_, open) => {
  test("a turn reads and writes as much after two million tokens as after a thousand", async () => {
    const turns: ReturnType<CountingStore["take"]>[][] = [];
    for (const numTokens of [1000, 100_000, 2_000_000]) {
      const counting = new CountingStore(await open());
      const { generator, engine } = start(counting.store);
      await grow(generator, numTokens);
      // The last prompt's tokens become a segment in the next turn.
      await fold(generator.generate(request({ prompts: [tokens(7)], ...CONTINUED })));
      counting.take();
      const found: ReturnType<CountingStore["take"]>[] = [];
      for (const saveAs of [SESSION, { type: "response", id: "r" } as const]) {
        await fold(generator.generate(request({ prompts: [tokens(7, 8)], resumeFrom: SESSION, saveAs })));
        found.push(counting.take());
      }
      const resumeFrom = { type: "response", id: "r" } as const;
      await fold(
        generator.generate(request({ prompts: [tokens(9)], resumeFrom, saveAs: { type: "response", id: "r2" } })),
      );
      found.push(counting.take());
      await generator.conversations.forkSession("", "s", "forked");
      found.push(counting.take());
      await generator.conversations.renameSession("", "forked", "renamed");
      found.push(counting.take());
      expect(await generator.conversations.inspectSession("", "renamed")).toMatchObject({
        numTokens: (await generator.conversations.inspectSession("", "s")).numTokens,
      });
      counting.take();
      const { history, tokenIds } = engine.requests.at(-1)!.resume!;
      expect((history?.numTokens ?? 0) + tokenIds.length).toBeGreaterThan(numTokens);
      turns.push(found);
    }
    const [short, ...long] = turns;
    for (const turn of long) {
      for (const [i, { gets, puts, bytesRead, bytesPut }] of turn.entries()) {
        const first = short![i]!;
        expect({ gets, puts }).toEqual({ gets: first.gets, puts: first.puts });
        // The model's state has 24 bytes, and a snapshot a few thousand ids at most, 4 bytes each.
        expect(bytesPut).toBeLessThan(first.bytesPut + 4 * (SEGMENT_TOKENS + 1000));
        expect(bytesRead).toBeLessThan(first.bytesRead + 4 * (SEGMENT_TOKENS + 1000));
      }
    }
  }, 120_000);

  test("segments are read for files, penalties, token ids and messages", async () => {
    const { generator, engine } = start(await open());
    await grow(generator, 3 * SEGMENT_TOKENS);
    await fold(generator.generate(request({ prompts: [tokens(398)], ...CONTINUED })));
    const all = [...idsOf(3 * SEGMENT_TOKENS), 100, 101, 398, 100, 101];
    const shown = await fold(generator.generate(request({ prompts: [tokens(5)], ...CONTINUED, returnTokenIds: true })));
    expect(shown.accepted.prompts[0]!.tokenIds).toEqual([...all, 5]);
    const { history, tokenIds } = engine.requests.at(-1)!.resume!;
    expect(history!.numTokens + tokenIds.length).toBe(all.length);
    expect(tokenIds.length).toBeLessThan(SEGMENT_TOKENS);

    const file = await generator.conversations.exportSession("", "s", { withCheckpoints: false });
    const other = start(await open()).generator;
    expect(await other.conversations.importSession("", file, "s")).toMatchObject({ numTokens: all.length + 3 });
    const again = await fold(other.generate(request({ prompts: [tokens(6)], ...CONTINUED, returnTokenIds: true })));
    expect(again.accepted.prompts[0]!.tokenIds).toEqual([...all, 5, 100, 101, 6]);
    const numMore = (await other.conversations.exportSession("", "s", { withCheckpoints: false })).length - file.length;
    expect(Math.abs(numMore - 3 * 4)).toBeLessThan(20);
  });
});

const LONG = "hello world ".repeat(200);

test("a chat in segments equals one that is not, whatever the turns", async () => {
  const turn = fc.constantFrom("new", "all again", "other instructions", "goes on", "completion");
  await fc.assert(
    fc.asyncProperty(fc.array(turn, { minLength: 4, maxLength: 9 }), async (turns) => {
      const answer = (await tokenizer.encodeContinuation("the é"))!;
      const store = new MemoryStore({ maxBytes: 1e8 });
      const { generator, engine } = start(store, [...answer, EOS]);
      await generator.conversations.createSession("", "s");
      const messages: { role: string; content: string }[] = [];
      let before = "";
      for (const kind of turns) {
        if (kind === "completion") {
          const { accepted, choices } = await fold(
            generator.generate(
              request({ prompts: [{ type: "text", text: LONG }], ...CONTINUED, returnTokenIds: true, maxTokens: 50 }),
            ),
          );
          const ids = [...accepted.prompts[0]!.tokenIds, ...choices[0]!.tokenIds.filter((id) => id !== EOS)];
          before = tokenizer.decode(ids, { skipSpecialTokens: false });
          messages.length = 0;
          continue;
        }
        const isOpen = kind === "goes on" && messages.length > 0;
        const added = isOpen ? [] : [{ role: "user", content: `${LONG}${messages.length}` }];
        const prompt = {
          ...chat(...(kind === "all again" ? messages : []), ...added),
          ...(isOpen && { addGenerationPrompt: false, continueFinalMessage: true }),
          ...(kind === "other instructions" && { instructions: `Sing ${messages.length}.` }),
        };
        const { accepted, choices, usage } = await fold(
          generator.generate(request({ prompts: [prompt], ...CONTINUED, returnTokenIds: true, maxTokens: 50 })),
        );
        if (isOpen) messages.push({ role: "assistant", content: messages.pop()!.content + choices[0]!.text });
        else messages.push(...added, { role: "assistant", content: choices[0]!.text });
        const shown = messages.map(({ role, content }) => `[${role}]${content}[end]`).join("");
        const instructions = prompt.instructions === undefined ? "" : `[system]${prompt.instructions}[end]`;
        const ids = [...accepted.prompts[0]!.tokenIds, ...choices[0]!.tokenIds.filter((id) => id !== EOS)];
        const text = tokenizer.decode(ids, { skipSpecialTokens: false });
        expect(`${text}[end]`).toBe(`${before}${instructions}${shown}`);
        expect(usage.promptTokens).toBe(accepted.prompts[0]!.tokenIds.length);
      }
      expect(engine.requests.length).toBe(turns.length);
    }),
    { numRuns: 20 },
  );
}, 120_000);

test("many messages without tokens become a segment, too", async () => {
  const store = new MemoryStore({ maxBytes: 1e8 });
  const spans = Array.from({ length: 300 }, (_, i) => ({ numTokens: 0, messages: chat(`${i}`).messages }));
  const conversation = {
    numPreambleTokens: 3,
    spans,
    messages: { count: 300, firstRole: "user", hash: "x", hashBeforeLast: "y" },
    ...digestText(""),
    createdAtMs: 0,
    lastUsedAtMs: 0,
  };
  const tail = { tokenIds: [1, 2, 3], position: 2, state: new Uint8Array(24) };
  const snapshot = { modelHash: "m", ...tail, conversation };
  const kept = await putSegments(store, snapshot, () => "segment::1");
  expect(kept.conversation.spans).toEqual(spans.slice(-1));
  expect(await loadHistory(store, kept)).toEqual({ tokenIds: [1, 2, 3], spans });
});

describe("segments are removed after their last reference", () => {
  test("not before, even if they are the least recently used", async () => {
    let now = 0;
    const store = new MemoryStore({ maxBytes: 4e6, nowMs: () => now });
    const { generator } = start(store);
    await grow(generator, 4 * SEGMENT_TOKENS);
    await fold(generator.generate(request({ prompts: [tokens(7)], ...CONTINUED })));
    await generator.conversations.forkSession("", "s", "t");
    const others = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const saveAs = { type: "response", id: `${now}-${i}` } as const;
        await fold(generator.generate(request({ prompts: [tokens(...idsOf(900))], saveAs })));
      }
    };
    await generator.conversations.deleteSession("", "s");
    now += 3_600_000;
    await others(100);
    expect(await generator.conversations.exportSession("", "t")).toHaveProperty("length");
    const before = store.stats().bytes;
    await generator.conversations.deleteSession("", "t");
    expect(store.stats().bytes).toBeGreaterThan(before - 100_000);
    now += 3_600_000;
    store.sweep();
    expect(store.stats().bytes).toBeLessThan(before - 3 * SEGMENT_TOKENS * 8);
  });

  test("they are evicted with their conversation", async () => {
    const store = new MemoryStore({ maxBytes: 1e6 });
    const { generator } = start(store);
    await grow(generator, 4 * SEGMENT_TOKENS);
    await fold(generator.generate(request({ prompts: [tokens(7)], ...CONTINUED })));
    for (let i = 0; i < 200; i++) {
      const saveAs = { type: "response", id: `${i}` } as const;
      await fold(generator.generate(request({ prompts: [tokens(...idsOf(900))], saveAs })));
    }
    expect(await store.has("session::s")).toBe(false);
    const { bytes, numSnapshots } = store.stats();
    expect(bytes).toBeLessThan(1e6);
    // No segments are left.
    expect(bytes / numSnapshots).toBeLessThan(9000);
  });

  test("on disk: those of a killed request, when the folder is opened again", async () => {
    const dir = await newFolder();
    const first = await openFolder(dir);
    const { generator } = start(first);
    await grow(generator, 3 * SEGMENT_TOKENS);
    await fold(generator.generate(request({ prompts: [tokens(7)], ...CONTINUED })));
    const segment = { modelHash: "fake-400", tokenIds: [1], position: 0, state: new Uint8Array(0), conversation: {} };
    await first.put("segment::unreferenced", { ...segment, isSegment: true });
    const numFiles = async () => (await readdir(dir)).filter((name) => name.endsWith(".dsm")).length;
    const before = await numFiles();
    await first.close();
    const second = await openFolder(dir);
    expect(await second.get("segment::unreferenced")).toBeUndefined();
    await second.close();
    expect(await numFiles()).toBe(before - 1);
    const third = await openFolder(dir);
    cleanups.push(() => third.close());
    const file = await start(third).generator.conversations.exportSession("", "s");
    expect(file.length).toBeGreaterThan(3 * SEGMENT_TOKENS * 4);
  });
});

test("a missing segment is an error if it is needed; otherwise the session continues", async () => {
  const store = new MemoryStore({ maxBytes: 1e8 });
  const { generator } = start(store);
  await grow(generator, 3 * SEGMENT_TOKENS);
  await fold(generator.generate(request({ prompts: [tokens(7)], ...CONTINUED })));
  const { history } = (await store.get("session::s"))!;
  await store.delete(history!.key);
  await expect(generator.conversations.exportSession("", "s")).rejects.toMatchObject({
    code: "state_lost",
    message: expect.stringContaining(
      `the first ${history!.numTokens} tokens of the conversation, which this request needs, are gone`,
    ),
  });
  const { usage } = await fold(generator.generate(request({ prompts: [tokens(7)], ...CONTINUED })));
  expect(usage.cachedTokens).toBeGreaterThan(3 * SEGMENT_TOKENS);
});
