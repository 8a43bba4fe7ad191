/** What follows a persona is cached for those that begin from the same persona, and for no others. */
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { GenerationRequest, Prompt } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { type Harness, startEngine } from "../helpers/engine-harness.ts";
import {
  chat,
  fold,
  makeGenerator,
  request,
  tinyTokenizer,
  tokens,
  VOCAB_SIZE,
} from "../helpers/generation-harness.ts";
import { NaivePrefixCache } from "../helpers/naive-prefix-cache.ts";

const TEMPLATE = `{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const ids = (length: number, first = 10) => Array.from({ length }, (_, i) => 10 + ((first + 7 * i) % 300));

let tokenizer: Tokenizer;
let harness: Harness;
let generator: Generator;
let cold: Generator;

beforeAll(async () => {
  tokenizer = await tinyTokenizer(TEMPLATE);
});
beforeEach(async () => {
  harness = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 50 });
  generator = makeGenerator(harness.engine, tokenizer, { prefixCache: new NaivePrefixCache() });
  cold = makeGenerator(harness.engine, tokenizer);
  for (const [name, prompt] of [
    ["a", ids(20)],
    ["b", ids(20, 3)],
  ] as const) {
    const key = { type: "session", id: name } as const;
    await generator.conversations.createSession("", name);
    await fold(generator.generate(request({ prompts: [tokens(...prompt)], resumeFrom: key, saveAs: key })));
    const file = await generator.conversations.exportSession("", name);
    for (const each of [generator, cold]) await each.conversations.personas.put("", name, file);
  }
});
afterEach(async () => {
  expect(harness.engine.load.slotsInUse).toBe(0);
  expect(harness.runners[0]!.breaches).toEqual([]);
  await harness.engine.close({ deadlineMs: 0 });
});

const from = (id: string) => ({ resumeFrom: { type: "persona", id } as const });
const run = (each: Generator, prompt: Prompt, given: Partial<GenerationRequest> = {}) =>
  fold(each.generate(request({ prompts: [prompt], ignoreEos: true, ...given })));

async function numCached(prompt: Prompt, given: Partial<GenerationRequest> = {}): Promise<number> {
  const { usage, choices } = await run(generator, prompt, given);
  expect(choices.map(({ tokenIds }) => tokenIds)).toEqual(
    (await run(cold, prompt, given)).choices.map(({ tokenIds }) => tokenIds),
  );
  return usage.cachedTokens;
}

test("a prompt after a persona is read once, and its answer is the same", async () => {
  const prompt = tokens(...ids(150));
  const numBefore = (await run(cold, tokens(1), from("a"))).usage.cachedTokens;
  expect(await numCached(prompt, from("a"))).toBe(numBefore);
  expect(await numCached(prompt, from("a"))).toBe(numBefore + 1 + 149);
  // Neither another persona's nor nobody's.
  expect(await numCached(prompt, from("b"))).toBe(numBefore);
  expect(await numCached(prompt)).toBe(0);
  expect(await numCached(prompt)).toBe(149);
  expect(await numCached(prompt, { ...from("a"), cacheSalt: "x" })).toBe(numBefore);
});

test("a chat that is sent whole goes on after its last answer", async () => {
  const first = chat("tell me of the sea ".repeat(10));
  const { choices } = await run(generator, first, from("a"));
  const answer = { role: "assistant", content: choices[0]!.text };
  const whole = chat(first.messages[0]!, answer, "and then?");
  const { usage, accepted } = await run(generator, whole, from("a"));
  expect(usage.promptTokens - usage.cachedTokens).toBeLessThan(60);
  expect(accepted.prompts[0]!.numTokens).toBeGreaterThan(150);
  expect(await numCached(whole)).toBe(0);
});

test("a persona that is replaced is another one", async () => {
  const prompt = tokens(...ids(150));
  await run(generator, prompt, from("a"));
  const { personas } = generator.conversations;
  await personas.put("", "a", await generator.conversations.exportSession("", "b"));
  await cold.conversations.personas.put("", "a", await generator.conversations.exportSession("", "b"));
  expect(await numCached(prompt, from("a"))).toBeLessThan(40);
  // What is the same by another name is the same.
  expect(await numCached(prompt, from("b"))).toBeGreaterThan(150);
});
