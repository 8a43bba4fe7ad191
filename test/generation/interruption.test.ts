import { setImmediate as tick } from "node:timers/promises";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { GenerationEvent, GenerationRequest } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import type { ConversationKey } from "../../src/sessions/conversation-store.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { type Harness, startEngine } from "../helpers/engine-harness.ts";
import { gate } from "../helpers/gate.ts";
import {
  chat,
  fold,
  makeGenerator,
  request,
  storedMessages,
  text,
  tinyTokenizer,
  tokens,
  until,
  VOCAB_SIZE,
} from "../helpers/generation-harness.ts";

const TEMPLATE = `{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if not (loop.last and m.role == 'assistant') %}[end]{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const SESSION: ConversationKey = { type: "session", id: "s" };
const SAMPLED = { ...GREEDY, temperature: 1, seed: 11, presencePenalty: 0.4, frequencyPenalty: 0.2 };

let tokenizer: Tokenizer;
let harness: Harness;
let store: MemoryStore;
let generator: Generator;
beforeAll(async () => {
  tokenizer = await tinyTokenizer(TEMPLATE);
});
beforeEach(async () => {
  harness = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 5, maxBatch: 2 });
  store = new MemoryStore({ maxBytes: 1e8 });
  generator = makeGenerator(harness.engine, tokenizer, { store });
});
afterEach(async () => {
  await harness.engine.close({ deadlineMs: 0 });
  expect(harness.engine.load.slotsInUse).toBe(0);
  expect(harness.runners[0]!.breaches).toEqual([]);
});

/** Reads until so many tokens have come; then interrupts the engine and reads on to the end. */
async function interruptedAfter(numTokens: number, given: GenerationRequest) {
  const tokenIds: number[] = [];
  let shown = "";
  let error: unknown;
  try {
    for await (const event of generator.generate(given)) {
      if (event.type === "delta") {
        tokenIds.push(...event.tokenIds);
        shown += event.text;
      }
      if (event.type === "finished" || event.type === "usage") throw new Error("it was interrupted, it did not end");
      if (tokenIds.length === numTokens) harness.engine.interrupt();
    }
  } catch (caught) {
    error = caught;
  }
  return { tokenIds, shown, error };
}

describe("a session that was interrupted", () => {
  const endless = { ignoreEos: true, maxTokens: 100, sampling: SAMPLED };
  const continued = { resumeFrom: SESSION, saveAs: SESSION };

  test("continues as if it had never stopped, including seed and penalties", async () => {
    const whole = await fold(generator.generate(request({ prompts: [tokens(5, 6, 7)], ...endless, maxTokens: 40 })));
    const given = request({ prompts: [tokens(5, 6, 7)], saveAs: SESSION, ...endless, maxTokens: 40 });
    const { tokenIds, error } = await interruptedAfter(9, given);
    expect(error).toMatchObject({ code: "shutting_down", message: expect.stringContaining("session s is saved") });
    const maxTokens = 40 - tokenIds.length;
    const rest = await fold(generator.generate(request({ prompts: [text("")], ...endless, ...continued, maxTokens })));
    expect([...tokenIds, ...rest.choices[0]!.tokenIds]).toEqual(whole.choices[0]!.tokenIds);
    // Only the token that was sampled last was not read.
    expect(rest.usage.promptTokens - rest.usage.cachedTokens).toBe(1);
  });

  test("keeps to its constraint, together with what is there", async () => {
    const constraint = { type: "regex", pattern: "[a-c]{6}-[0-9]{30}" } as const;
    const held = { ...endless, constraint };
    const whole = await fold(generator.generate(request({ prompts: [tokens(5, 6, 7)], ...held })));
    expect(whole.choices[0]!.text).toMatch(/^[a-c]{6}-\d{30}$/);
    const first = await interruptedAfter(9, request({ prompts: [tokens(5, 6, 7)], saveAs: SESSION, ...held }));
    const rest = await fold(generator.generate(request({ prompts: [text("")], ...held, ...continued })));
    expect(first.shown + rest.choices[0]!.text).toBe(whole.choices[0]!.text);
    expect(rest.choices[0]!.finished).toMatchObject({ reason: "stop" });
  });

  test("without a seed does not tell how much of its constraint is met: it is refused", async () => {
    const constraint = { type: "regex", pattern: "[a-c]{30}" } as const;
    const held = { ignoreEos: true, maxTokens: 100, sampling: { ...SAMPLED, seed: undefined }, constraint };
    await interruptedAfter(9, request({ prompts: [tokens(5, 6, 7)], saveAs: SESSION, ...held }));
    const again = fold(generator.generate(request({ prompts: [text("")], ...held, ...continued })));
    await expect(again).rejects.toMatchObject({ code: "invalid_value", param: "prompt" });
  });

  test("and is interrupted again, still continues", async () => {
    const whole = await fold(generator.generate(request({ prompts: [tokens(5, 6, 7)], ...endless, maxTokens: 40 })));
    const first = await interruptedAfter(5, request({ prompts: [tokens(5, 6, 7)], saveAs: SESSION, ...endless }));
    const second = await interruptedAfter(6, request({ prompts: [text("")], ...endless, ...continued }));
    const maxTokens = 40 - first.tokenIds.length - second.tokenIds.length;
    const third = await fold(generator.generate(request({ prompts: [text("")], ...endless, ...continued, maxTokens })));
    expect([...first.tokenIds, ...second.tokenIds, ...third.choices[0]!.tokenIds]).toEqual(whole.choices[0]!.tokenIds);
  });

  test("while its prompt was read continues reading it", async () => {
    const prompt = tokens(...Array.from({ length: 200 }, (_, i) => 5 + i));
    const whole = await fold(generator.generate(request({ prompts: [prompt], ...endless, maxTokens: 10 })));
    harness.steps.length = 0;
    const events = generator.generate(request({ prompts: [prompt], saveAs: SESSION, ...endless }));
    const ended = expect(fold(events)).rejects.toMatchObject({ code: "shutting_down" });
    await until(() => harness.steps.length >= 3);
    harness.engine.interrupt();
    await ended;
    const { numTokens, position } = await generator.conversations.inspectSession("", "s");
    expect(numTokens).toBe(200);
    expect(position).toBeGreaterThan(0);
    expect(position).toBeLessThan(200);
    const rest = await fold(
      generator.generate(request({ prompts: [text("")], ...endless, ...continued, maxTokens: 10 })),
    );
    expect(rest.choices[0]!.tokenIds).toEqual(whole.choices[0]!.tokenIds);
    expect(rest.usage.cachedTokens).toBe(position);
  });

  test("in a chat continues its answer", async () => {
    const first = await interruptedAfter(6, request({ prompts: [chat("hello")], saveAs: SESSION, ...endless }));
    const open = { ...chat(), addGenerationPrompt: false, continueFinalMessage: true };
    const rest = await fold(generator.generate(request({ prompts: [open], ...endless, ...continued, maxTokens: 10 })));
    const whole = await fold(
      generator.generate(request({ prompts: [chat("hello")], ...endless, maxTokens: first.tokenIds.length + 10 })),
    );
    expect([...first.tokenIds, ...rest.choices[0]!.tokenIds]).toEqual(whole.choices[0]!.tokenIds);
  });

  test("while it waited for a slot is unchanged", async () => {
    await fold(generator.generate(request({ prompts: [tokens(5)], saveAs: SESSION, maxTokens: 4 })));
    const before = await store.get("session::s");
    const busy = [6, 7].map((id) => fold(generator.generate(request({ prompts: [tokens(id)], ...endless }))));
    await until(() => harness.engine.load.numRunning === 2);
    const waiting = fold(generator.generate(request({ prompts: [tokens(8)], ...endless, ...continued })));
    await until(() => harness.engine.load.numWaiting > 0);
    harness.engine.interrupt();
    const ends = await Promise.allSettled([...busy, waiting]);
    for (const end of ends) expect(end).toMatchObject({ reason: { code: "shutting_down" } });
    expect(await store.get("session::s")).toBe(before);
    expect((await generator.conversations.inspectSession("", "s")).busy).toBe(false);
  });
});

test("with another seed, or none, a continued answer has new random numbers", async () => {
  const go = (seed: number | undefined, given: Partial<GenerationRequest>) =>
    fold(
      generator.generate(
        request({ prompts: [text("")], sampling: { ...SAMPLED, seed }, ignoreEos: true, maxTokens: 12, ...given }),
      ),
    );
  await go(11, { prompts: [tokens(5, 6)], saveAs: SESSION });
  const [same, again, other, none] = [
    await go(11, { resumeFrom: SESSION }),
    await go(11, { resumeFrom: SESSION }),
    await go(12, { resumeFrom: SESSION }),
    await go(undefined, { resumeFrom: SESSION }),
  ].map(({ choices }) => choices[0]!.tokenIds);
  expect(again).toEqual(same);
  expect(other).not.toEqual(same);
  expect(none).not.toEqual(same);
});

test("a new turn restarts its seed's random numbers, as if the whole conversation were sent", async () => {
  const first = await fold(
    generator.generate(request({ prompts: [tokens(5, 6)], sampling: SAMPLED, saveAs: SESSION, ignoreEos: true })),
  );
  const all = [5, 6, ...first.choices[0]!.tokenIds, 9, 10];
  const given = { sampling: SAMPLED, ignoreEos: true };
  const cold = await fold(generator.generate(request({ prompts: [tokens(...all)], ...given })));
  const next = await fold(generator.generate(request({ prompts: [tokens(9, 10)], resumeFrom: SESSION, ...given })));
  expect(next.choices).toEqual(cold.choices);
});

describe("draining", () => {
  test("waits for running requests, and for their sessions to be saved", async () => {
    const put = store.put.bind(store);
    let isSaved = false;
    store.put = async (...given) => {
      await tick();
      await put(...given);
      if (given[0] === "session::s") isSaved = true;
    };
    const run = fold(generator.generate(request({ prompts: [tokens(5)], saveAs: SESSION, maxTokens: 30 })));
    await until(() => harness.engine.load.numRunning > 0);
    await generator.drain({ graceMs: 60_000 });
    expect(isSaved).toBe(true);
    expect((await run).choices).toHaveLength(1);
  });

  test("saves the session of a consumer that has stopped reading", async () => {
    const given = request({ prompts: [chat("hello")], saveAs: SESSION, ignoreEos: true, maxTokens: 100 });
    const events = generator.generate(given);
    const seen: GenerationEvent[] = [];
    while (seen.length < 4) seen.push((await events.next()).value!);
    for (let turn = 0; turn < 20; turn++) await tick();
    harness.engine.interrupt();
    await generator.drain({ graceMs: 5 });
    const info = await generator.conversations.inspectSession("", "s");
    expect(info.busy).toBe(false);
    expect(info.numTokens).toBeGreaterThan(seen.length + 10);
    // It may come back for the rest, and hears what happened.
    const rest: GenerationEvent[] = [];
    const reading = async () => {
      for await (const event of events) rest.push(event);
    };
    await expect(reading()).rejects.toMatchObject({ code: "shutting_down" });
    expect(rest.every(({ type }) => type === "delta")).toBe(true);
    expect(storedMessages(tokenizer, (await store.get("session::s"))!)).toHaveLength(2);
  });

  // A soak saw streams with `finished` and then an error: they were being saved when the grace
  // period ended.
  test("takes nothing from a consumer that has read everything and waits for the store", async () => {
    const put = store.put.bind(store);
    const slow = gate();
    let isSaving = false;
    store.put = async (...given) => {
      if (given[0] === "session::s") {
        isSaving = true;
        await slow.held;
      }
      await put(...given);
    };
    const impatient = makeGenerator(harness.engine, tokenizer, { store, sleep: async () => {} });
    const run = fold(impatient.generate(request({ prompts: [tokens(5)], saveAs: SESSION, maxTokens: 5 })));
    await until(() => isSaving);
    let isDrained = false;
    const draining = impatient.drain({ graceMs: 0 }).then(() => {
      isDrained = true;
    });
    for (let turn = 0; turn < 20; turn++) await tick();
    expect(isDrained).toBe(false);
    slow.release();
    const { choices, usage } = await run;
    await draining;
    expect(choices.map(({ finished }) => finished?.reason)).toEqual(["length"]);
    expect(usage).toMatchObject({ completionTokens: 5 });
  });

  test("is immediate if nothing runs", async () => {
    await generator.drain({ graceMs: 60_000 });
  });
});
