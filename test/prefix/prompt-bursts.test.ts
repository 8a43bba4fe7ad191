/** Prompts that begin alike and come at once: the first is read, the others go on from its state. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { GenerationRequest, Prompt } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import { PromptsInFlight } from "../../src/prefix/pending-prefixes.ts";
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

  test("one prompt in five requests at once is read once", async () => {
    const prompt = tokens(...ids(150));
    const outcomes = await Promise.all([1, 2, 3, 4, 5].map(() => on(generator, [prompt])));
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 149, 149, 149, 149]);
    expect(numRead()).toBe(150 + 4);
    const alone = await on(cold, [prompt]);
    for (const { choices } of outcomes) expect(choices).toEqual(alone.choices);
  });

  test("the instructions of several chats at once are read once", async () => {
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

  test("whoever waits for a request that is aborted reads by itself", async () => {
    const abort = new AbortController();
    const first = on(generator, [tokens(...ids(150))], { signal: abort.signal });
    const second = on(generator, [tokens(...ids(150))]);
    const third = on(generator, [tokens(...ids(150))]);
    await until(() => numRead() > 20);
    abort.abort();
    await first;
    // As far as the first one came, at most.
    expect((await second).usage.cachedTokens).toBeLessThan(149);
    expect((await third).usage.cachedTokens).toBe(149);
  });

  test("whoever waits may leave", async () => {
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

  test("nobody waits for a tenant of another salt, or for another owner", async () => {
    const prompt = tokens(...ids(150));
    const others = [{ cacheSalt: "one" }, { cacheSalt: "other" }, { owner: "a0" }, { owner: "b1" }];
    const outcomes = await Promise.all(others.map((other) => on(generator, [prompt], other)));
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 0, 0, 0]);
  });
});

describe("prompts in flight", () => {
  const { signal } = new AbortController();
  const leaving = (...lengths: number[]) => ({ lengths });

  test("a prompt waits for the longest state that it begins with, and for no other", async () => {
    const flight = new PromptsInFlight();
    const [one, other] = [flight.reader(), flight.reader()];
    const first = await one.enter("s", ids(100), signal, async () => leaving(40, 60, 99));
    const order: string[] = [];
    const parted = other.enter("s", [...ids(70), 1, 2, 3], signal, async () => {
      order.push("planned");
      return leaving();
    });
    first.settle(40, true);
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    first.settle(60, true);
    await parted;
    expect(order).toEqual(["planned"]);
  });

  test("what fails to be planned holds up nobody, and nothing is remembered of those who ended", async () => {
    const flight = new PromptsInFlight();
    const [one, other] = [flight.reader(), flight.reader()];
    const failure = one.enter("s", ids(100), signal, () => Promise.reject(new Error("no")));
    await expect(failure).rejects.toThrow("no");
    await other.enter("s", ids(100), signal, async () => leaving(99));
    expect(flight.size).toBe(1);
    one.end();
    other.end();
    other.end();
    expect(flight.size).toBe(0);
  });
});
