import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { GenerationRequest, Prompt } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import { MIN_CHECKPOINT_TOKENS, MIN_PREFIX_TOKENS } from "../../src/prefix/prefix-reuse.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { bytesOf, type Harness, startEngine, stateAfter } from "../helpers/engine-harness.ts";
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
/** Renders an answer without its reasoning, as templates of reasoning models do. */
const FORGETFUL = `{% for m in messages %}[{{ m.role }}]{{ m.content.split('|')[-1] }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const SAMPLED = { ...GREEDY, temperature: 1, seed: 7 };
const MIN = MIN_CHECKPOINT_TOKENS;

const ids = (length: number, first = 10) => Array.from({ length }, (_, i) => 10 + ((first + 7 * i) % 300));

let tokenizer: Tokenizer;
let harness: Harness;
let cache: NaivePrefixCache;
let generator: Generator;
let cold: Generator;

beforeAll(async () => {
  tokenizer = await tinyTokenizer(TEMPLATE);
});
beforeEach(async () => {
  harness = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 5 });
  cache = new NaivePrefixCache();
  generator = makeGenerator(harness.engine, tokenizer, { prefixCache: cache });
  cold = makeGenerator(harness.engine, tokenizer);
});
afterEach(async () => {
  // Every cached state has read exactly the tokens it is cached under.
  for (const { tokenIds, state } of cache.entries) expect(state).toEqual(bytesOf(stateAfter(tokenIds)));
  expect(harness.engine.load.slotsInUse).toBe(0);
  expect(harness.runners[0]!.breaches).toEqual([]);
  await harness.engine.close({ deadlineMs: 0 });
});

const run = (prompt: Prompt, given: Partial<GenerationRequest> = {}) =>
  fold(generator.generate(request({ prompts: [prompt], ignoreEos: true, ...given })));
const runCold = (prompt: Prompt, given: Partial<GenerationRequest> = {}) =>
  fold(cold.generate(request({ prompts: [prompt], ignoreEos: true, ...given })));
const numRead = () => harness.steps.reduce((sum, step) => sum + step.numPromptTokens, 0);

describe("a hit gives the same tokens as a cold run", () => {
  const penalised = { ...SAMPLED, repetitionPenalty: 1.4, presencePenalty: 0.5, frequencyPenalty: 0.3 };
  test.each<[string, Partial<GenerationRequest>]>([
    ["greedy", {}],
    ["seeded sampling", { sampling: SAMPLED }],
    ["several samples", { sampling: SAMPLED, numChoices: 3, bestOf: 3 }],
    ["the best of several samples", { sampling: SAMPLED, numChoices: 1, bestOf: 3 }],
    ["penalties over the prompt", { sampling: penalised }],
    ["a logit bias", { sampling: { ...SAMPLED, logitBias: new Map([[30, 5]]) } }],
    ["log-probabilities of the answer", { sampling: SAMPLED, numLogprobs: 3 }],
    ["an echo of the prompt", { echo: true }],
    ["a minimum of tokens", { sampling: SAMPLED, ignoreEos: false, minTokens: 6 }],
    ["a truncated prompt", { truncatePromptTokens: 40 }],
  ])("%s", async (_, given) => {
    await run(tokens(...ids(160)), { truncatePromptTokens: 160, ...given });
    for (const prompt of [ids(160), [...ids(160), ...ids(25, 3)], [...ids(140), ...ids(80, 5)]]) {
      const before = numRead();
      const warm = await run(tokens(...prompt), given);
      const numReadWarm = numRead() - before;
      const alone = await runCold(tokens(...prompt), given);
      expect(warm.choices).toEqual(alone.choices);
      const { cachedTokens, ttftMs } = warm.usage;
      expect(warm.usage).toEqual({ ...alone.usage, cachedTokens, ttftMs });
      const numSamples = given.bestOf ?? 1;
      const numNew = warm.usage.promptTokens - cachedTokens;
      expect(numReadWarm).toBe(numNew + numSamples - 1);
    }
  });
});

test("of a repeated prompt only the last token is read", async () => {
  const first = await run(tokens(...ids(150)));
  expect(first.usage.cachedTokens).toBe(0);
  const again = await run(tokens(...ids(150)));
  expect(again.usage).toMatchObject({ promptTokens: 150, cachedTokens: 149 });
  expect(again.choices).toEqual(first.choices);
});

test("a conversation that is sent again with its answer is not read again", async () => {
  const first = await run(tokens(...ids(150)));
  const history = [...ids(150), ...first.choices[0]!.tokenIds];
  const second = await run(tokens(...history, ...ids(20, 4)));
  // The last sampled token was never read.
  expect(second.usage.cachedTokens).toBe(history.length - 1);
  expect(second.choices).toEqual((await runCold(tokens(...history, ...ids(20, 4)))).choices);
});

test("the third prompt resumes from the branch point of the first two", async () => {
  const shared = ids(140);
  const [a, b, c] = [3, 4, 5].map((first) => tokens(...shared, ...ids(80, first)));
  expect((await run(a!)).usage.cachedTokens).toBe(0);
  expect((await run(b!)).usage.cachedTokens).toBe(0);
  expect(cache.lengths).toContain(140);
  const third = await run(c!);
  expect(third.usage.cachedTokens).toBe(140);
  expect(third.choices).toEqual((await runCold(c!)).choices);
});

test("two prompts of one request with the same prefix both hit", async () => {
  await run(tokens(...ids(140)));
  const prompts = [tokens(...ids(140), ...ids(20, 3)), tokens(...ids(140), ...ids(20, 4))];
  const { usage, choices } = await fold(generator.generate(request({ prompts, ignoreEos: true })));
  expect(usage.cachedTokens).toBe(2 * 139);
  expect(choices).toEqual((await fold(cold.generate(request({ prompts, ignoreEos: true })))).choices);
});

test("a prompt whose reading was broken off leaves what it had come to", async () => {
  const shared = ids(140);
  await run(tokens(...shared, ...ids(20, 3)));
  const abort = new AbortController();
  const long = tokens(...shared, ...ids(200, 4));
  const events = generator.generate(request({ prompts: [long], signal: abort.signal }));
  await events.next();
  const rest = fold(prepend({ type: "accepted", prompts: [] }, events));
  await until(() => cache.lengths.includes(140));
  abort.abort();
  expect((await rest).choices[0]!.finished!.reason).toBe("aborted");
  expect((await run(long)).usage.cachedTokens).toBeGreaterThanOrEqual(140);
});

test("salts separate tenants and do not appear in the cache", async () => {
  await run(tokens(...ids(150)), { cacheSalt: "secret" });
  expect((await run(tokens(...ids(150)))).usage.cachedTokens).toBe(0);
  expect((await run(tokens(...ids(150)), { cacheSalt: "other" })).usage.cachedTokens).toBe(0);
  expect((await run(tokens(...ids(150)), { cacheSalt: "secret" })).usage.cachedTokens).toBe(149);
  expect(JSON.stringify(cache.entries.map(({ scope }) => scope))).not.toContain("secret");
});

test("owners are separate even with the same salt", async () => {
  const prompt = tokens(...ids(150));
  await run(prompt, { owner: "a0", cacheSalt: "1" });
  for (const other of [
    { owner: "b1", cacheSalt: "1" },
    { owner: "b1" },
    { owner: "" },
    { owner: "", cacheSalt: "a0:1" },
  ]) {
    expect((await run(prompt, other)).usage.cachedTokens).toBe(0);
  }
  expect((await run(prompt, { owner: "a0", cacheSalt: "1" })).usage.cachedTokens).toBe(149);
});

describe("states are cached", () => {
  test("before a prompt's last token and at the end of the answer", async () => {
    await run(tokens(...ids(150)), { maxTokens: 8 });
    expect(cache.lengths).toEqual([149, 157]);
  });

  test("not for prompts of a few tokens", async () => {
    await run(tokens(...ids(MIN_PREFIX_TOKENS)), { maxTokens: 30 });
    expect(cache.lengths).toEqual([]);
  });

  test("not within a short prompt, but at the end of its answer", async () => {
    const first = await run(tokens(...ids(MIN)), { maxTokens: 30 });
    expect(cache.lengths).toEqual([MIN + 29]);
    const next = await run(tokens(...ids(MIN), ...first.choices[0]!.tokenIds, 5, 6));
    expect(next.usage.cachedTokens).toBe(MIN + 29);
  });

  test("where two long prompts branch, however close to the end of the second", async () => {
    await run(tokens(...ids(150), ...ids(100, 3)));
    await run(tokens(...ids(150), ...ids(20, 4)));
    expect(cache.lengths).toContain(150);
  });

  test("not so close to the previous one that reading again is cheaper", async () => {
    await run(tokens(...ids(150)));
    await run(tokens(...ids(150), ...ids(MIN - 1, 3)), { maxTokens: 4 });
    expect(cache.lengths).toEqual([149, 157, 150 + MIN - 1 + 3]);
  });

  test("once for several samples of a prompt", async () => {
    await run(tokens(...ids(150)), { numChoices: 4, bestOf: 4, sampling: SAMPLED });
    expect(cache.lengths).toEqual([149]);
  });

  test("neither for nor from requests for log-probabilities of the prompt", async () => {
    await run(tokens(...ids(150)));
    const before = cache.lengths;
    for (const given of [{ echo: true, numLogprobs: 1 }, { numPromptLogprobs: 1 }]) {
      const scored = await run(tokens(...ids(150)), given);
      expect(scored.usage.cachedTokens).toBe(0);
      expect(scored.choices).toEqual((await runCold(tokens(...ids(150)), given)).choices);
    }
    expect(cache.lengths).toEqual(before);
  });

  test("not at the end of a session's turn, which is continued by name", async () => {
    await generator.conversations.createSession("", "s");
    const session = { type: "session", id: "s" } as const;
    await run(tokens(...ids(150)), { saveAs: session });
    expect(cache.lengths).toEqual([149]);
    await run(tokens(...ids(150, 3)), { resumeFrom: session, saveAs: session });
    expect(cache.lengths).toEqual([149]);
  });

  test("for the first response of a chain only", async () => {
    const response = (id: string) => ({ type: "response", id }) as const;
    await run(tokens(...ids(150)), { saveAs: response("a") });
    expect(cache.lengths).toEqual([149, 157]);
    await run(tokens(...ids(150, 3)), { resumeFrom: response("a"), saveAs: response("b") });
    expect(cache.lengths).toEqual([149, 157]);
  });
});

test("a cache that fails does not fail the request", async () => {
  cache.insert = () => Promise.reject(new Error("full"));
  expect((await run(tokens(...ids(150)))).choices[0]!.tokenIds).toHaveLength(8);
});

describe("chats", () => {
  const words = (n: number) => Array.from({ length: n }, (_, i) => `w${i} `).join("");

  test("instructions are not read again in the second conversation that has them", async () => {
    const system = { role: "system", content: words(60) };
    const first = await run(chat(system, `the ${words(40)}`));
    expect(first.usage.cachedTokens).toBe(0);
    const second = await run(chat(system, `and ${words(40)}`));
    const instructed = await tokenizer.encode(`[system]${words(60)}[end][user]`, { addSpecialTokens: false });
    expect(second.usage.cachedTokens).toBeGreaterThan(instructed.length - 4);
    expect(second.choices).toEqual((await runCold(chat(system, `and ${words(40)}`))).choices);
    const given = { ...chat(`xyz ${words(40)}`), instructions: words(60) };
    expect((await run(given)).usage.cachedTokens).toBe(second.usage.cachedTokens);
  });

  test("a template that rewrites earlier messages resumes from the end of the last prompt", async () => {
    const forgetful = await tinyTokenizer(FORGETFUL);
    const rewriting = makeGenerator(harness.engine, forgetful, { prefixCache: cache });
    const unaided = makeGenerator(harness.engine, forgetful);
    const question = chat(words(60));
    const first = await fold(rewriting.generate(request({ prompts: [question], ignoreEos: true })));
    const next = chat(words(60), { role: "assistant", content: "thoughts|answer" }, words(40));
    const second = await fold(rewriting.generate(request({ prompts: [next], ignoreEos: true })));
    expect(second.usage.cachedTokens).toBe(first.usage.promptTokens - 1);
    const alone = await fold(unaided.generate(request({ prompts: [next], ignoreEos: true })));
    expect(second.choices).toEqual(alone.choices);
  });

  test("so does a session under such a template", async () => {
    const rewriting = makeGenerator(harness.engine, await tinyTokenizer(FORGETFUL), { prefixCache: cache });
    const session = { type: "session", id: "s" } as const;
    const say = (content: string, resume: boolean) =>
      fold(
        rewriting.generate(
          request({ prompts: [chat(content)], saveAs: session, ...(resume && { resumeFrom: session }), sampling }),
        ),
      );
    // An answer with a bar is rendered without its beginning, and so read again.
    const [bar] = (await tokenizer.encodeContinuation("|"))!;
    const sampling = { ...GREEDY, logitBias: new Map([[bar!, 100]]) };
    const first = await say(words(60), false);
    expect(first.choices[0]!.text).toContain("|");
    const second = await say(words(50), true);
    expect(second.usage.cachedTokens).toBe(first.usage.promptTokens - 1);
  });
});

describe("prompts with a common prefix that arrive together", () => {
  test("one prompt in five concurrent requests is read once", async () => {
    const prompt = tokens(...ids(150));
    const outcomes = await Promise.all([1, 2, 3, 4, 5].map(() => run(prompt)));
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 149, 149, 149, 149]);
    expect(numRead()).toBe(150 + 4);
    const alone = await runCold(prompt);
    for (const { choices } of outcomes) expect(choices).toEqual(alone.choices);
  });

  test("the instructions of several concurrent chats are read once", async () => {
    const instructions = "Be kind and brief. ".repeat(10);
    const chats = ["hello", "world", "you"].map((words) => ({ ...chat(words), instructions }));
    const outcomes = await Promise.all(chats.map((prompt) => run(prompt)));
    const [first, ...others] = outcomes.map(({ usage }) => usage.cachedTokens);
    expect(first).toBe(0);
    for (const cached of others) expect(cached).toBeGreaterThan(100);
    for (const [i, { choices }] of outcomes.entries()) {
      expect(choices).toEqual((await runCold(chats[i]!)).choices);
    }
  });

  test("a request that waits for an aborted one reads its prompt itself", async () => {
    const abort = new AbortController();
    const first = run(tokens(...ids(150)), { signal: abort.signal });
    const second = run(tokens(...ids(150)));
    const third = run(tokens(...ids(150)));
    await until(() => numRead() > 20);
    abort.abort();
    await first;
    // At most what the first one had read.
    expect((await second).usage.cachedTokens).toBeLessThan(149);
    expect((await third).usage.cachedTokens).toBe(149);
  });

  test("a waiting request can be aborted", async () => {
    const abort = new AbortController();
    const first = run(tokens(...ids(150)));
    const second = run(tokens(...ids(150)), { signal: abort.signal });
    abort.abort();
    await expect(second).rejects.toMatchObject({ code: "aborted" });
    expect((await first).usage.cachedTokens).toBe(0);
  });

  test("requests with the same prompts in another order do not wait for each other", async () => {
    const runAll = (...prompts: Prompt[]) => fold(generator.generate(request({ prompts, ignoreEos: true })));
    const [a, b] = [tokens(...ids(150)), tokens(...ids(150, 4))];
    const outcomes = await Promise.all([runAll(a, b, a), runAll(b, a)]);
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 298]);
  });

  test("no request waits for another salt or another owner", async () => {
    const prompt = tokens(...ids(150));
    const others = [{ cacheSalt: "one" }, { cacheSalt: "other" }, { owner: "a0" }, { owner: "b1" }];
    const outcomes = await Promise.all(others.map((other) => run(prompt, other)));
    expect(outcomes.map(({ usage }) => usage.cachedTokens)).toEqual([0, 0, 0, 0]);
  });
});

async function* prepend<T>(first: T, rest: AsyncIterable<T>): AsyncGenerator<T> {
  yield first;
  yield* rest;
}

describe("a long chat that comes at once", () => {
  const messages = Array.from({ length: 20 }, (_, i) => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content: `${i} ${"tell me of the sea ".repeat(16)}`,
  }));
  const edited = (at: number) => [...messages.slice(0, at), { role: "user", content: "no, of the sky" }];

  async function numReadAgain(at: number, capacity: number): Promise<[number, number]> {
    cache = new NaivePrefixCache({ capacity });
    const limits = { maxPromptTokens: 10_000 };
    const warm = makeGenerator(harness.engine, tokenizer, { prefixCache: cache, limits });
    const reference = makeGenerator(harness.engine, tokenizer, { limits });
    const ask = (each: Generator, given: typeof messages) =>
      fold(each.generate(request({ prompts: [chat(...given)], ignoreEos: true })));
    const first = await ask(warm, messages);
    const { usage, choices } = await ask(warm, edited(at));
    expect(choices[0]!.tokenIds).toEqual((await ask(reference, edited(at))).choices[0]!.tokenIds);
    return [usage.promptTokens - usage.cachedTokens, first.usage.promptTokens];
  }

  test.each([4, 10, 18])("is read from shortly before message %i, where that is edited", async (at) => {
    const [numAgain, numAll] = await numReadAgain(at, 1000);
    expect(numAll).toBeGreaterThan(4000);
    const numNew = "[user]no, of the sky[end][assistant]".length;
    expect(numAgain - numNew).toBeLessThan(0.03 * numAll);
  });

  test("has no more states than an eighth of the cache can hold", async () => {
    const [numAgain] = await numReadAgain(10, 16);
    expect(numAgain).toBeGreaterThan(1000);
    expect(cache.entries.length).toBeLessThan(8);
  });
});
