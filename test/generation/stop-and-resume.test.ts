/**
 * A session continues from what the client received: text that a stop string cut off is not part of
 * it.
 */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { GenerationRequest } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { type Harness, startEngine } from "../helpers/engine-harness.ts";
import {
  chat,
  fold,
  makeGenerator,
  request,
  text,
  tinyTokenizer,
  tokens,
  VOCAB_SIZE,
} from "../helpers/generation-harness.ts";

const TEMPLATE = `{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const SESSION = { type: "session", id: "s" } as const;
const SAMPLED = { ...GREEDY, temperature: 1.5 };

let tokenizer: Tokenizer;
let harness: Harness;
let generator: Generator;
let cold: Generator;

beforeEach(async () => {
  tokenizer = await tinyTokenizer(TEMPLATE);
  harness = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 5 });
  generator = makeGenerator(harness.engine, tokenizer, { store: new MemoryStore({ maxBytes: 1e8 }) });
  cold = makeGenerator(harness.engine, tokenizer);
});
afterEach(async () => {
  expect(harness.engine.load.slotsInUse).toBe(0);
  await harness.engine.close({ deadlineMs: 0 });
});

const run = async (given: Parameters<typeof request>[0], on = generator) => fold(on.generate(request(given)));
const decode = (ids: readonly number[]) => tokenizer.decode(ids, { skipSpecialTokens: true });

/** Answers in a new session, then returns the tokens that the next request continues from. */
async function answerAndResume(first: Partial<GenerationRequest>, next = text("")) {
  await generator.conversations.createSession("", SESSION.id);
  const keys = { resumeFrom: SESSION, saveAs: SESSION };
  const { choices } = await run({ prompts: [text("one two")], sampling: { ...SAMPLED, seed: 1 }, ...keys, ...first });
  const after = await run({ prompts: [next], returnTokenIds: true, ignoreEos: true, ...keys });
  await generator.conversations.deleteSession("", SESSION.id);
  const past = after.accepted.prompts[0]!.tokenIds;
  // The state has read exactly these tokens.
  const alone = await run({ prompts: [tokens(...past)], ignoreEos: true }, cold);
  expect(after.choices[0]!.tokenIds).toEqual(alone.choices[0]!.tokenIds);
  return { answer: choices[0]!, past };
}

const prompt = async () => decode(await tokenizer.encode("one two", { addSpecialTokens: true }));

describe("the next request in a session", () => {
  test("continues from what the client received, wherever a stop string begins and ends", async () => {
    const whole = (
      await run({ prompts: [text("one two")], sampling: { ...SAMPLED, seed: 1 }, ignoreEos: true, maxTokens: 30 })
    ).choices[0]!.text;
    const beginning = await prompt();
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          begin: fc.nat(whole.length - 2),
          length: fc.integer({ min: 1, max: 6 }),
          includeStopString: fc.boolean(),
          maxTokens: fc.integer({ min: 1, max: 30 }),
          minTokens: fc.constantFrom(0, 0, 3),
        }),
        async ({ begin, length, maxTokens, minTokens, ...given }) => {
          const stop = whole.slice(begin, begin + length);
          const bounds = { maxTokens, minTokens: Math.min(minTokens, maxTokens) };
          const { answer, past } = await answerAndResume({ stopStrings: [stop], ignoreEos: true, ...bounds, ...given });
          // Broken characters are sent as U+FFFD and stored as bytes.
          if (!answer.text.includes("\ufffd")) expect(decode(past)).toBe(beginning + answer.text);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("continues before a stop token, or after one that was returned", async () => {
    const free = await run({
      prompts: [text("one two")],
      sampling: { ...SAMPLED, seed: 1 },
      ignoreEos: true,
      maxTokens: 9,
    });
    const stopToken = free.choices[0]!.tokenIds.find((id, i) => i > 3 && decode([id]) !== "")!;
    const beginning = await prompt();
    for (const includeStopString of [false, true]) {
      const { answer, past } = await answerAndResume({
        stopTokenIds: [stopToken],
        ignoreEos: true,
        maxTokens: 9,
        includeStopString,
      });
      expect(answer.finished).toMatchObject({ reason: "stop", stoppedBy: stopToken });
      expect(past.at(-1) === stopToken).toBe(includeStopString);
      expect(decode(past)).toBe(beginning + answer.text);
    }
  });

  test("may have an empty prompt, however the answer ended", async () => {
    const ended: Partial<GenerationRequest>[] = [
      { maxTokens: 5 },
      { stopTokenIds: Array.from({ length: 390 }, (_, i) => i + 10) },
      { maxTokens: 0 },
    ];
    for (const given of ended) {
      const { answer, past } = await answerAndResume({ ignoreEos: true, ...given });
      expect(decode(past)).toBe((await prompt()) + answer.text);
    }
  });

  test("does not see what a stop string cut from a chat's answer, even if it is a completion", async () => {
    const given = { prompts: [chat("one")], sampling: { ...SAMPLED, seed: 2 }, ignoreEos: true, maxTokens: 12 };
    const whole = (await run(given)).choices[0]!.text;
    const stop = whole.slice(3, 5);
    const { answer, past } = await answerAndResume({ ...given, stopStrings: [stop] }, text("x"));
    expect(answer.finished!.reason).toBe("stop");
    expect(decode(past)).toContain(`[assistant]${answer.text}x`);
  });
});

test("the number of tokens that must be read again is bounded, and the message says why", async () => {
  const small = makeGenerator(harness.engine, tokenizer, { limits: { maxPromptTokens: 6 } });
  const keys = { resumeFrom: SESSION, saveAs: SESSION };
  await small.conversations.createSession("", SESSION.id);
  const stopTokenIds = Array.from({ length: 390 }, (_, i) => i + 10);
  for (let turn = 0; turn < 3; turn++) await run({ prompts: [tokens(20, 21, 22, 23)], stopTokenIds, ...keys }, small);
  await expect(run({ prompts: [text("")], ...keys }, small)).rejects.toMatchObject({
    code: "prompt_too_long",
    message: expect.stringMatching(
      /prompt is empty, and the state has read all of the past: .* its \d+ tokens .* at most 6/,
    ),
  });
});
