import { setImmediate as tick } from "node:timers/promises";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import type { Generator } from "../../src/generation/generator.ts";
import type { Conversation } from "../../src/sessions/conversation.ts";
import type { ConversationKey } from "../../src/sessions/conversation-store.ts";
import { digestText } from "../../src/sessions/messages.ts";
import { encodeSnapshot } from "../../src/sessions/stores/codec.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { type Harness, startEngine } from "../helpers/engine-harness.ts";
import {
  chat,
  EOS,
  fold,
  makeGenerator,
  type Outcome,
  request,
  storedMessages,
  text,
  tinyTokenizer,
  tokens,
  VOCAB_SIZE,
} from "../helpers/generation-harness.ts";
import { ScriptedEngine } from "../helpers/scripted-engine.ts";

const SESSION: ConversationKey = { type: "session", id: "s" };
const CONTINUED = { resumeFrom: SESSION, saveAs: SESSION };

/** Every turn ends with text that no model wrote, as in ChatML. */
const TEMPLATE = `{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await tinyTokenizer(TEMPLATE);
});

describe("over a real engine", () => {
  let harness: Harness;
  let generator: Generator;
  let store: MemoryStore;
  beforeEach(async () => {
    harness = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 5 });
    store = new MemoryStore({ maxBytes: 1e7 });
    generator = makeGenerator(harness.engine, tokenizer, { store });
  });
  afterEach(async () => {
    expect(harness.runners[0]!.breaches).toEqual([]);
    await harness.engine.close({ deadlineMs: 0 });
  });

  const kept = async (key = SESSION) => (await store.get(`${key.type}::${key.id}`))!;

  test("a session of five requests answers like one uninterrupted request", async () => {
    await generator.conversations.createSession("", "s");
    const all: number[] = [];
    for (let turn = 0; turn < 5; turn++) {
      const prompt = [10 + turn, 20 + turn, 30 + turn];
      const { choices, usage } = await fold(
        generator.generate(request({ prompts: [tokens(...prompt)], ...CONTINUED })),
      );
      const position = all.length === 0 ? 0 : all.length - 1;
      all.push(...prompt);
      const cold = await fold(generator.generate(request({ prompts: [tokens(...all)] })));
      expect(choices[0]!.tokenIds).toEqual(cold.choices[0]!.tokenIds);
      expect(usage).toMatchObject({ promptTokens: all.length, cachedTokens: position });
      all.push(...choices[0]!.tokenIds.filter((id) => id !== EOS));
    }
    const info = await generator.conversations.inspectSession("", "s");
    expect(info).toMatchObject({ numTokens: all.length, stateBytes: 24, busy: false });
    expect((await kept()).tokenIds).toEqual(all);
  });

  test("only new tokens are read, and the one that the state has not seen", async () => {
    const long = tokens(...Array.from({ length: 30 }, (_, i) => 10 + i));
    await fold(generator.generate(request({ prompts: [long], saveAs: SESSION, ignoreEos: true })));
    const before = harness.steps.reduce((sum, step) => sum + step.numPromptTokens, 0);
    await fold(generator.generate(request({ prompts: [tokens(7, 8)], ...CONTINUED })));
    expect(harness.steps.reduce((sum, step) => sum + step.numPromptTokens, 0) - before).toBe(3);
  });

  test("two requests can continue the same response", async () => {
    const first: ConversationKey = { type: "response", id: "r1" };
    await fold(generator.generate(request({ prompts: [tokens(50, 51)], saveAs: first, ignoreEos: true })));
    const snapshot = await kept(first);
    const go = (id: string, next: number) =>
      fold(
        generator.generate(
          request({ prompts: [tokens(next)], resumeFrom: first, saveAs: { type: "response", id }, ignoreEos: true }),
        ),
      );
    const [a, b, again] = await Promise.all([go("r2", 60), go("r3", 61), go("r4", 60)]);
    expect(a.choices[0]!.tokenIds).toEqual(again.choices[0]!.tokenIds);
    expect(a.choices[0]!.tokenIds).not.toEqual(b.choices[0]!.tokenIds);
    expect(await kept(first)).toBe(snapshot);
  });

  test("an aborted request leaves the session unchanged and free", async () => {
    await fold(generator.generate(request({ prompts: [tokens(50)], saveAs: SESSION })));
    const before = await kept();
    const abort = new AbortController();
    for await (const event of generator.generate(
      request({ prompts: [tokens(60)], ...CONTINUED, maxTokens: 100, ignoreEos: true, signal: abort.signal }),
    )) {
      if (event.type === "delta") abort.abort();
    }
    expect(await kept()).toBe(before);
    expect((await generator.conversations.inspectSession("", "s")).busy).toBe(false);
  });

  test("a refused request leaves the session unchanged and free", async () => {
    await fold(generator.generate(request({ prompts: [tokens(50)], saveAs: SESSION })));
    const before = await kept();
    await expect(fold(generator.generate(request({ prompts: [tokens(400)], ...CONTINUED })))).rejects.toMatchObject({
      code: "invalid_value",
    });
    expect(await kept()).toBe(before);
    expect((await fold(generator.generate(request({ prompts: [tokens(60)], ...CONTINUED })))).choices).toHaveLength(1);
  });

  test("a session is busy while it answers, and free once the client knows the end", async () => {
    await generator.conversations.createSession("", "s");
    const running = generator.generate(request({ prompts: [tokens(50)], ...CONTINUED, ignoreEos: true }));
    let refused = 0;
    for await (const event of running) {
      if (event.type === "delta") {
        const second = generator.generate(request({ prompts: [tokens(60)], ...CONTINUED }));
        await expect(second.next()).rejects.toMatchObject({ code: "session_busy", param: "session_id" });
        await expect(generator.conversations.deleteSession("", "s")).rejects.toMatchObject({ code: "session_busy" });
        refused++;
      }
      if (event.type === "finished") {
        expect(
          (await fold(generator.generate(request({ prompts: [tokens(60)], ...CONTINUED })))).usage.cachedTokens,
        ).toBe(8);
      }
    }
    expect(refused).toBe(8);
  });

  test("an unknown session or response is not found", async () => {
    const go = (resumeFrom: ConversationKey) => fold(generator.generate(request({ prompts: [tokens(5)], resumeFrom })));
    await expect(go(SESSION)).rejects.toMatchObject({ code: "session_not_found" });
    await expect(go({ type: "response", id: "r" })).rejects.toMatchObject({ code: "previous_response_not_found" });
  });

  test("a snapshot of another model is refused", async () => {
    await fold(generator.generate(request({ prompts: [tokens(50)], saveAs: SESSION })));
    await store.put("session::s", { ...(await kept()), modelHash: "other" });
    await expect(fold(generator.generate(request({ prompts: [tokens(5)], ...CONTINUED })))).rejects.toMatchObject({
      code: "invalid_snapshot",
      message: expect.stringContaining("other"),
    });
  });

  test("the prompt limit counts only what is read, so that a session has no end", async () => {
    const limited = makeGenerator(harness.engine, tokenizer, { store, limits: { maxPromptTokens: 2 } });
    for (let turn = 0; turn < 4; turn++) {
      const prompts = [tokens(10 + turn, 20)];
      await fold(limited.generate(request({ prompts, saveAs: SESSION, ...(turn > 0 && CONTINUED) })));
    }
    expect((await kept()).tokenIds.length).toBeGreaterThan(20);
  });
});

test("continued text gets no second BOS and no space from the tokenizer", async () => {
  const the = (await tokenizer.encodeContinuation(" the"))!;
  const engine = new ScriptedEngine(() => ({ tokenIds: the }));
  const generator = makeGenerator(engine, tokenizer);
  await generator.conversations.createSession("", "s");
  const turns: Outcome[] = [];
  for (const prompt of ["hello", "wor", " ld é"]) {
    const given = request({ prompts: [text(prompt)], maxTokens: the.length, ...CONTINUED });
    turns.push(await fold(generator.generate(given)));
  }
  const [, , last] = turns;
  const ids = last!.accepted.prompts[0]!.tokenIds;
  expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe("hello thewor the ld é");
  expect(ids.filter((id) => id === tokenizer.bosTokenId)).toHaveLength(1);
});

test("a session that cannot be saved is an error, and stays unchanged and free", async () => {
  const store = new MemoryStore({ maxBytes: 1e7 });
  const generator = makeGenerator(new ScriptedEngine(() => ({ tokenIds: [100] })), tokenizer, { store });
  await generator.conversations.createSession("", "s");
  const go = () => fold(generator.generate(request({ prompts: [tokens(50)], ...CONTINUED })));
  await go();
  const before = await store.get("session::s");
  const put = store.put.bind(store);
  store.put = () => Promise.reject(new DenseMambaError("store_unavailable", "the disk is full"));
  await expect(go()).rejects.toMatchObject({ code: "store_unavailable" });
  store.put = put;
  expect(await store.get("session::s")).toBe(before);
  expect((await go()).usage.cachedTokens).toBe(8);
});

test("a request that fails in mid-stream leaves the session unchanged and free", async () => {
  const error = new Error("gone");
  const script = (_: unknown, index: number) => ({
    tokenIds: [100],
    ...(index === 1 && { failure: { afterTokens: 2, error } }),
  });
  const store = new MemoryStore({ maxBytes: 1e7 });
  const generator = makeGenerator(new ScriptedEngine(script), tokenizer, { store });
  await generator.conversations.createSession("", "s");
  const go = () => fold(generator.generate(request({ prompts: [tokens(50)], ...CONTINUED })));
  await go();
  const before = await store.get("session::s");
  await expect(go()).rejects.toBe(error);
  expect(await store.get("session::s")).toBe(before);
  expect((await go()).usage.cachedTokens).toBe(8);
});

describe("chats", () => {
  /** Answers with these texts, one a request, each ended by EOS. */
  async function answering(...answers: string[]) {
    const encoded = await Promise.all(answers.map((answer) => tokenizer.encodeContinuation(answer)));
    const engine = new ScriptedEngine((_, index) => ({ tokenIds: [...encoded[index % encoded.length]!, EOS] }));
    const store = new MemoryStore({ maxBytes: 1e7 });
    const generator = makeGenerator(engine, tokenizer, { store });
    await generator.conversations.createSession("", "s");
    const say = (prompt = chat("hello"), more = {}) =>
      fold(generator.generate(request({ prompts: [prompt], maxTokens: 50, ...CONTINUED, ...more })));
    const conversation = async () => (await store.get("session::s"))!.conversation as Conversation;
    const messages = async () => storedMessages(tokenizer, (await store.get("session::s"))!);
    const textOf = ({ accepted }: Outcome) =>
      tokenizer.decode(accepted.prompts[0]!.tokenIds, { skipSpecialTokens: false });
    return { engine, generator, store, say, conversation, messages, textOf };
  }

  test("only what the template adds after the stored text is read", async () => {
    const { say, engine, textOf } = await answering("the é", " and");
    await say(chat("hello"));
    const second = await say(chat("world"));
    expect(textOf(second)).toBe("[user]hello[end][assistant]the é[end][user]world[end][assistant]");
    const { resume, promptIds } = engine.requests[1]!;
    expect(resume!.tokenIds.concat(promptIds)).toEqual(second.accepted.prompts[0]!.tokenIds);
    expect(tokenizer.tokenText(promptIds[0]!)).toBe("[");
    expect(second.usage.cachedTokens).toBe(resume!.position);
    const third = await say(chat("!"));
    expect(textOf(third)).toBe(
      "[user]hello[end][assistant]the é[end][user]world[end][assistant] and[end][user]![end][assistant]",
    );
  });

  test("a client can send the whole history again, trimmed or not", async () => {
    const { say, textOf, messages } = await answering(" the ");
    await say(chat("hello"));
    const whole = chat("hello", { role: "assistant", content: "the" }, "world");
    const second = await say(whole);
    expect(textOf(second)).toBe("[user]hello[end][assistant] the [end][user]world[end][assistant]");
    expect(second.usage.cachedTokens).toBeGreaterThan(0);
    expect(await messages()).toEqual([
      { role: "user", content: "hello" },
      { role: "assistant", content: " the " },
      { role: "user", content: "world" },
      { role: "assistant", content: " the " },
    ]);
  });

  test("a template that renders earlier messages differently is read from the beginning", async () => {
    const { say, textOf, engine } = await answering("the");
    await say(chat("hello"));
    const second = await say({ ...chat("world"), template: "{{ messages | length }} messages" });
    expect(textOf(second)).toBe("3 messages");
    expect(second.usage).toMatchObject({ cachedTokens: 0, promptTokens: second.accepted.prompts[0]!.tokenIds.length });
    expect(engine.requests[1]!.resume).toBeUndefined();
  });

  test("a stop string is removed although the state has read it", async () => {
    const { say, conversation, textOf } = await answering("the[end]x");
    const first = await say(chat("hello"), { stopStrings: ["[end]"] });
    expect(first.choices[0]!.text).toBe("the");
    expect(await conversation()).toMatchObject(digestText("[assistant]the"));
    const second = await say(chat("world"), { stopStrings: ["[end]"] });
    expect(second.usage.cachedTokens).toBeGreaterThan(0);
    expect(textOf(second)).toBe("[user]hello[end][assistant]the[end][user]world[end][assistant]");
  });

  test("a session of many turns takes its state, its ids, less than a kilobyte, and some bytes a checkpoint", async () => {
    const { say, store, messages } = await answering("the é", " and");
    const words = Array.from({ length: 50 }, (_, i) => `word ${i}`.repeat(1 + (i % 7)));
    for (const word of words) await say(chat(word));
    const snapshot = (await store.get("session::s"))!;
    expect((await messages()).map(({ content }) => content)).toEqual(
      words.flatMap((word, i) => [word, i % 2 === 0 ? "the é" : " and"]),
    );
    const { checkpoints: _, ...conversation } = snapshot.conversation as Conversation;
    const without = { ...snapshot, conversation, checkpointKeys: [] };
    const bytes = encodeSnapshot(without).length - snapshot.state.length - 4 * snapshot.tokenIds.length;
    expect(bytes).toBeLessThan(1024);
    expect(encodeSnapshot(snapshot).length - encodeSnapshot(without).length).toBeLessThan(50 * 80);
    expect((await say(chat("world"))).usage.cachedTokens).toBe(snapshot.position);
  });

  test("tokens after a stop string are dropped, even if the state has read them", async () => {
    const setup = await answering("the[end]xyz");
    setup.engine.numOvershot = 2;
    await setup.say(chat("hello"), { stopStrings: ["[end]"] });
    // Two more were sampled; the state has read all but the last.
    expect(await setup.conversation()).toMatchObject(digestText("[assistant]the"));
    const second = await setup.say(chat("world"), { stopStrings: ["[end]"] });
    expect(second.usage.cachedTokens).toBeGreaterThan(0);
    expect(setup.textOf(second)).toBe("[user]hello[end][assistant]the[end][user]world[end][assistant]");
  });

  test("instructions apply to one request, and cost nothing if repeated", async () => {
    const { say, textOf, messages } = await answering("the");
    await say({ ...chat("a"), instructions: "Sing." });
    const same = await say({ ...chat("b"), instructions: "Sing." });
    expect(textOf(same)).toBe("[system]Sing.[end][user]a[end][assistant]the[end][user]b[end][assistant]");
    expect(same.usage.cachedTokens).toBeGreaterThan(0);
    const without = await say(chat("c"));
    expect(textOf(without)).not.toContain("Sing.");
    expect(without.usage.cachedTokens).toBe(0);
    expect(JSON.stringify(await messages())).not.toContain("Sing.");
  });

  test("the final message can be continued over several requests", async () => {
    const { say, textOf, messages: kept } = await answering("the ");
    const open = {
      ...chat("hello", { role: "assistant", content: "wor" }),
      addGenerationPrompt: false,
      continueFinalMessage: true,
    };
    const first = await say(open, { maxTokens: 2 });
    expect(textOf(first)).toBe("[user]hello[end][assistant]wor");
    const messages = await kept();
    expect(messages.at(-1)).toEqual({ role: "assistant", content: `wor${first.choices[0]!.text}` });
    const second = await say({ ...open, messages });
    expect(textOf(second)).toBe(`[user]hello[end][assistant]wor${first.choices[0]!.text}`);
    // Nothing is new but the one token that the state has not read.
    expect(second.usage.promptTokens - second.usage.cachedTokens).toBe(1);
  });

  test("chats and completions can follow each other in one session", async () => {
    const { say, textOf } = await answering("the");
    await say(text("hello") as never);
    const second = await say(chat("a"));
    expect(textOf(second)).toBe("<s> hellothe[user]a[end][assistant]");
    const third = await say(text("!") as never);
    expect(textOf(third)).toBe("<s> hellothe[user]a[end][assistant]the!");
    const fourth = await say(chat("b"));
    expect(textOf(fourth)).toBe("<s> hellothe[user]a[end][assistant]the!the[user]b[end][assistant]");
    for (const turn of [second, third, fourth]) expect(turn.usage.cachedTokens).toBeGreaterThan(0);
    // Read afresh, what no template shows is read again too.
    const fifth = await say({ ...chat("c"), template: "{{ bos_token }}{{ messages | length }} messages" });
    expect(textOf(fifth)).toBe("<s> hellothe[user]a[end][assistant]the!the3 messages");
    expect(fifth.usage.cachedTokens).toBe(0);
  });

  test("a message that the template does not render is stored", async () => {
    const { say, messages } = await answering("the[end]", " and");
    const template = `{% for m in messages %}{% if m.role != "note" %}[{{ m.role }}]{{ m.content }}[end]{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
    await say({ ...chat("hello"), template }, { stopStrings: ["[end]"] });
    await say({ ...chat({ role: "note", content: "quiet" }), template, addGenerationPrompt: false });
    expect((await messages()).map(({ content }) => content)).toEqual(["hello", "the", "quiet", " and"]);
  });

  test("a session with a truncated preamble can be continued", async () => {
    const { say, messages, conversation } = await answering("the");
    await say(text("hello hello hello") as never);
    await say(chat("a"));
    // Another template: all is read again, the preamble first, and of that the last tokens alone.
    await say({ ...chat("b"), template: "{{ messages | length }}" }, { truncatePromptTokens: 4 });
    expect((await conversation()).numPreambleTokens).toBeLessThan(4);
    const said = ["a", "the", "b", "the"];
    expect((await messages()).map(({ content }) => content)).toEqual(said);
    await say(chat("c"));
    expect((await messages()).map(({ content }) => content)).toEqual([...said, "c", "the"]);
  });

  test("the default template does not read earlier messages again", async () => {
    const plain = await tinyTokenizer();
    const answer = (await plain.encodeContinuation(" the world.\n\nUser: x"))!;
    const engine = new ScriptedEngine(() => ({ tokenIds: answer }));
    const generator = makeGenerator(engine, plain, { limits: { maxOutputTokens: 50 } });
    const say = (content: string) =>
      fold(
        generator.generate(
          request({ prompts: [chat(content)], maxTokens: 50, saveAs: SESSION, ...(content !== "a" && CONTINUED) }),
        ),
      );
    const first = await say("a");
    expect(first.choices[0]).toMatchObject({ text: " the world.\n", finished: { stoppedBy: "\nUser:" } });
    const second = await say("b");
    expect(plain.decode(second.accepted.prompts[0]!.tokenIds, { skipSpecialTokens: true })).toBe(
      "User: a\n\nAssistant: the world.\n\nUser: b\n\nAssistant:",
    );
    expect(second.usage.cachedTokens).toBeGreaterThan(0);
  });

  test("an evicted session is not found", async () => {
    const { say, store, generator } = await answering("the");
    await say();
    await store.delete("session::s");
    await expect(say()).rejects.toMatchObject({ code: "session_not_found" });
    expect(await generator.conversations.listSessions("")).toEqual([]);
  });
});

test("of two requests that race for a session one answers, and the other is refused at once", async () => {
  const engine = new ScriptedEngine(() => ({ tokenIds: [100] }));
  const generator = makeGenerator(engine, tokenizer);
  await generator.conversations.createSession("", "s");
  const ends: (Outcome | { code: string })[] = await Promise.all(
    [5, 6].map((id) =>
      fold(generator.generate(request({ prompts: [tokens(id)], ...CONTINUED }))).catch((error) => error),
    ),
  );
  expect(ends.filter((end) => "code" in end && end.code === "session_busy")).toHaveLength(1);
  expect(ends.filter((end) => "usage" in end)).toHaveLength(1);
  await tick();
});
