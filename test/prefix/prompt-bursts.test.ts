/** Prompts with a common prefix that arrive together: the first is read, the others resume from its state. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { GenerationRequest, Prompt } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import { PendingPrefixes } from "../../src/prefix/pending-prefixes.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { type Harness, startEngine } from "../helpers/engine-harness.ts";
import {
  chat,
  fold,
  makeGenerator,
  request,
  tinyTokenizer,
  tokens,
  until,
  VOCAB_SIZE,
} from "../helpers/generation-harness.ts";
import { NaivePrefixCache } from "../helpers/naive-prefix-cache.ts";

const TEMPLATE = `{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const ids = (length: number, first = 10) => Array.from({ length }, (_, i) => 10 + ((first + 7 * i) % 300));

describe("over a real engine", () => {
  let tokenizer: Tokenizer;
  let harness: Harness;
  let generator: Generator;
  let cold: Generator;
  beforeAll(async () => {
    tokenizer = await tinyTokenizer(TEMPLATE);
  });
  beforeEach(async () => {
    harness = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 5 });
    generator = makeGenerator(harness.engine, tokenizer, { prefixCache: new NaivePrefixCache() });
    cold = makeGenerator(harness.engine, tokenizer);
  });
  afterEach(async () => {
    expect(harness.engine.load.slotsInUse).toBe(0);
    await harness.engine.close({ deadlineMs: 0 });
  });

  const on = (using: Generator, prompts: readonly Prompt[], given: Partial<GenerationRequest> = {}) =>
    fold(using.generate(request({ prompts, ignoreEos: true, ...given })));
  const numRead = () => harness.steps.reduce((sum, step) => sum + step.numPromptTokens, 0);

  test("one prompt in five concurrent requests is read once", async () => {
    const prompt = tokens(...ids(150));
    const outcomes = await Promise.all([1, 2, 3, 4, 5].map(() => on(generator, [prompt])));
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 149, 149, 149, 149]);
    expect(numRead()).toBe(150 + 4);
    const alone = await on(cold, [prompt]);
    for (const { choices } of outcomes) expect(choices).toEqual(alone.choices);
  });

  test("the instructions of several concurrent chats are read once", async () => {
    const instructions = "Be kind and brief. ".repeat(10);
    const chats = ["hello", "world", "you"].map((words) => ({ ...chat(words), instructions }));
    const outcomes = await Promise.all(chats.map((prompt) => on(generator, [prompt])));
    const [first, ...others] = outcomes.map(({ usage }) => usage.cachedTokens);
    expect(first).toBe(0);
    for (const cached of others) expect(cached).toBeGreaterThan(100);
    for (const [i, { choices }] of outcomes.entries()) {
      expect(choices).toEqual((await on(cold, [chats[i]!])).choices);
    }
  });

  test("a request that waits for an aborted one reads its prompt itself", async () => {
    const abort = new AbortController();
    const first = on(generator, [tokens(...ids(150))], { signal: abort.signal });
    const second = on(generator, [tokens(...ids(150))]);
    const third = on(generator, [tokens(...ids(150))]);
    await until(() => numRead() > 20);
    abort.abort();
    await first;
    // At most what the first one had read.
    expect((await second).usage.cachedTokens).toBeLessThan(149);
    expect((await third).usage.cachedTokens).toBe(149);
  });

  test("a waiting request can be aborted", async () => {
    const abort = new AbortController();
    const first = on(generator, [tokens(...ids(150))]);
    const second = on(generator, [tokens(...ids(150))], { signal: abort.signal });
    abort.abort();
    await expect(second).rejects.toMatchObject({ code: "aborted" });
    expect((await first).usage.cachedTokens).toBe(0);
  });

  test("requests with the same prompts in another order do not wait for each other", async () => {
    const [a, b] = [tokens(...ids(150)), tokens(...ids(150, 4))];
    const outcomes = await Promise.all([on(generator, [a, b, a]), on(generator, [b, a])]);
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 298]);
  });

  test("no request waits for another salt or another owner", async () => {
    const prompt = tokens(...ids(150));
    const others = [{ cacheSalt: "one" }, { cacheSalt: "other" }, { owner: "a0" }, { owner: "b1" }];
    const outcomes = await Promise.all(others.map((other) => on(generator, [prompt], other)));
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 0, 0, 0]);
  });
});

describe("pending prefixes", () => {
  const { signal } = new AbortController();
  const at = (...lengths: number[]) => ({ lengths });

  test("a prompt waits only for the longest pending prefix of its own", async () => {
    const pending = new PendingPrefixes();
    const [one, other] = [pending.open(), pending.open()];
    const first = await one.enter("s", ids(100), signal, async () => at(40, 60, 99));
    const order: string[] = [];
    const branched = other.enter("s", [...ids(70), 1, 2, 3], signal, async () => {
      order.push("planned");
      return at();
    });
    first.resolve(40);
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    first.resolve(60);
    await branched;
    expect(order).toEqual(["planned"]);
  });

  test("a plan that fails delays nobody, and closed requests leave nothing behind", async () => {
    const pending = new PendingPrefixes();
    const [one, other] = [pending.open(), pending.open()];
    const failure = one.enter("s", ids(100), signal, () => Promise.reject(new Error("no")));
    await expect(failure).rejects.toThrow("no");
    await other.enter("s", ids(100), signal, async () => at(99));
    expect(pending.size).toBe(1);
    one.close();
    other.close();
    other.close();
    expect(pending.size).toBe(0);
  });
});
