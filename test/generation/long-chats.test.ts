/**
 * A chat's turn looks at the end of the conversation only, where the template allows it, and reads
 * the same tokens.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Conversation } from "../../src/sessions/conversation.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import {
  chat,
  EOS,
  fold,
  makeGenerator,
  request,
  storedMessages,
  tinyTokenizer,
} from "../helpers/generation-harness.ts";
import { NaivePrefixCache } from "../helpers/naive-prefix-cache.ts";
import { numCases } from "../helpers/random-cases.ts";
import { ScriptedEngine } from "../helpers/scripted-engine.ts";

/** The first message is shown otherwise than it would be later, as many templates do it. */
const APART = `{% for m in messages %}{% if loop.first and messages[0].role != 'system' %}[system]kind[end]{% endif %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
/** The same text, by a template that could look at all of the messages. */
const TOGETHER = `{% set number = messages | length %}${APART}`;

const ANSWERS = ["the é", " and", "x[end]y", " [end]", ""];
const SESSION = { type: "session", id: "s" } as const;
const CONTINUED = { resumeFrom: SESSION, saveAs: SESSION };

/** Loaded once: each encodes in a process of its own. */
const tokenizers = new Map<string, Promise<Tokenizer>>();

async function startChat(template: string) {
  const loading = tokenizers.get(template) ?? tinyTokenizer(template);
  tokenizers.set(template, loading);
  const tokenizer = await loading;
  const encoded = await Promise.all(ANSWERS.map((answer) => tokenizer.encodeContinuation(answer)));
  const engine = new ScriptedEngine((_, index) => ({ tokenIds: [...encoded[index % encoded.length]!, EOS] }));
  const store = new MemoryStore({ maxBytes: 1e7 });
  const generator = makeGenerator(engine, tokenizer, {
    store,
    prefixCache: new NaivePrefixCache(),
    limits: { maxPromptTokens: 10_000 },
  });
  await generator.conversations.createSession("", "s");
  const say = async (prompt: ReturnType<typeof chat>, more = {}) => {
    const outcome = await fold(
      generator.generate(request({ prompts: [prompt], maxTokens: 50, ...CONTINUED, ...more })),
    ).catch((error: unknown) => error as Error);
    if (outcome instanceof Error) return outcome.message;
    const { accepted, usage, choices } = outcome;
    return { ids: accepted.prompts[0]!.tokenIds, usage, text: choices[0]!.text };
  };
  const kept = async () => (await store.get("session::s"))!;
  return { say, kept, store, engine, tokenizer };
}

/** A long past is an array that every copy of costs milliseconds. */
function countingCopies(ids: readonly number[]): { readonly ids: readonly number[]; numCopied: () => number } {
  let numCopied = 0;
  const all = [...ids];
  const counted = new Proxy(all, {
    get(target, name) {
      if (name === "concat" || name === Symbol.iterator) numCopied += target.length;
      return Reflect.get(target, name);
    },
  });
  return { ids: counted, numCopied: () => numCopied };
}

const word = fc.constantFrom("hello", "  world ", "é", "the[end]", "");
const turn = fc.record({
  kind: fc.constantFrom("new", "new", "again", "nothing", "goes on", "goes on with its own"),
  words: fc.array(fc.record({ role: fc.constantFrom("user", "system", "assistant"), content: word }), { maxLength: 2 }),
  instructions: fc.option(fc.constantFrom("Sing.", "Sing."), { nil: undefined }),
  stopStrings: fc.constantFrom([], [], ["[end]"]),
});

test("every turn reads the same tokens as if the whole conversation were rendered", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(turn, { minLength: 2, maxLength: 6 }), async (turns) => {
      const [one, other] = [await startChat(APART), await startChat(TOGETHER)];
      for (const { kind, words, instructions, stopStrings } of turns) {
        const messages = storedMessages(one.tokenizer, await one.kept());
        const given = kind === "again" ? [...messages, ...words] : kind === "nothing" ? [] : words;
        const isOpen = kind.startsWith("goes on");
        const prompt = {
          ...chat(...(kind === "goes on" ? [] : given)),
          ...(isOpen && { addGenerationPrompt: false, continueFinalMessage: true }),
          ...(instructions !== undefined && { instructions }),
        };
        expect(await one.say(prompt, { stopStrings })).toEqual(await other.say(prompt, { stopStrings }));
        const [kept, expected] = [await one.kept(), await other.kept()];
        expect(kept.tokenIds).toEqual(expected.tokenIds);
        expect(storedMessages(one.tokenizer, kept)).toEqual(storedMessages(other.tokenizer, expected));
      }
    }),
    { numRuns: numCases(60) },
  );
});

/**
 * The text of the first message is lost: a turn that looks at it finds that the tokens say
 * otherwise.
 */
test.each([
  ["shows each message by itself", APART, true],
  ["may look at all of them", TOGETHER, false],
])("the past is not rendered again by a template that %s: %3$s", async (_, template, isEndEnough) => {
  const { say, kept, store } = await startChat(template);
  await say(chat("a".repeat(100)));
  const { conversation, ...snapshot } = await kept();
  const { spans, ...rest } = conversation as Conversation;
  const altered = [{ ...spans[0]!, messages: chat("b").messages }, ...spans.slice(1)];
  await store.put("session::s", { ...snapshot, conversation: { ...rest, spans: altered } });
  const second = await say(chat("world"));
  expect(second).toMatchObject({ usage: { cachedTokens: isEndEnough ? snapshot.position : 0 } });
});

test("the tokens of the past are not copied on the way to the engine", async () => {
  const { kept, say, store, engine } = await startChat(APART);
  await say(chat("hello"));
  const snapshot = await kept();
  const past = countingCopies(snapshot.tokenIds);
  await store.put("session::s", { ...snapshot, tokenIds: past.ids });
  const submit = engine.submit.bind(engine);
  const numCopied: number[] = [];
  engine.submit = (requests) => {
    numCopied.push(past.numCopied());
    return submit(requests);
  };
  expect(await say(chat("world"))).toMatchObject({ usage: { cachedTokens: snapshot.position } });
  expect(numCopied).toEqual([0]);
  expect(past.numCopied()).toBeGreaterThan(0);
});

test("a session stored with other instructions or template arguments is read again", async () => {
  const { say } = await startChat(APART);
  await say({ ...chat("a"), instructions: "Sing." });
  await say({ ...chat("b"), instructions: "Sing." });
  expect(await say({ ...chat("c"), instructions: "Sing!" })).toMatchObject({ usage: { cachedTokens: 0 } });
  const same = await say({ ...chat("d"), instructions: "Sing!" });
  expect(same).not.toMatchObject({ usage: { cachedTokens: 0 } });
  const otherArguments = { ...chat("e"), instructions: "Sing!", templateArguments: { mood: "sad" } };
  expect(await say(otherArguments)).toMatchObject({ usage: { cachedTokens: 0 } });
});
