import { describe, expect, test } from "vitest";
import type { SequenceRequest } from "../../src/engine/sequence.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import { bytesOf, gather, makeEngine, request, startEngine, stateAfter } from "../helpers/engine-harness.ts";

const endless = { promptIds: [1], maxTokens: 1_000_000 };
const state = bytesOf(stateAfter([1]));

describe("a request is refused with the bound and the value", () => {
  test.each<[string, Partial<SequenceRequest>, RegExp]>([
    ["token id at the vocabulary's end", { promptIds: [1, 29] }, /prompt token 1 is 29; .* from 0 to 28/],
    ["negative token id", { promptIds: [-1] }, /prompt token 0 is -1/],
    ["fractional token id", { promptIds: [1.5] }, /prompt token 0 is 1.5/],
    ["NaN as token id", { promptIds: [Number.NaN] }, /prompt token 0 is NaN/],
    ["empty prompt", { promptIds: [] }, /no tokens; at least 1/],
    ["negative maxTokens", { maxTokens: -1 }, /max_tokens is -1; it must be an integer from 0/],
    ["fractional maxTokens", { maxTokens: 1.5 }, /max_tokens is 1.5/],
    ["negative minTokens", { minTokens: -1 }, /min_tokens is -1; it must be an integer from 0 to/],
    ["too many logprobs", { numLogprobs: 65 }, /logprobs is 65; it must be an integer from 0 to 64/],
    ["too many prompt logprobs", { numPromptLogprobs: 65 }, /prompt_logprobs is 65/],
    [
      "bias for a token outside the vocabulary",
      { sampling: { ...GREEDY, logitBias: new Map([[29, 1]]) } },
      /logit_bias names token 29; .* from 0 to 28/,
    ],
    [
      "a resume point that leaves nothing to read",
      { promptIds: [], resume: { tokenIds: [1], position: 1, state } },
      /no tokens; at least 1/,
    ],
    [
      "an unread token outside the vocabulary",
      { resume: { tokenIds: [1, 29], position: 1, state } },
      /token of the resumed sequence 1 is 29/,
    ],
  ])("%s", async (_, given, message) => {
    const { engine } = await startEngine();
    expect(() => engine.submit([request({ promptIds: [1], ...given })])).toThrow(
      expect.objectContaining({ code: "invalid_value", message: expect.stringMatching(message) }),
    );
  });

  test.each([
    ["a position beyond the tokens", { tokenIds: [1], position: 2, state }, /position 2; .* tokens, 1/],
    ["a negative position", { tokenIds: [1], position: -1, state }, /position -1/],
    ["a state of another size", { tokenIds: [1], position: 1, state: state.slice(1) }, /23 bytes long; .* has 24/],
  ])("%s", async (_, resume, message) => {
    const { engine } = await startEngine();
    expect(() => engine.submit([request({ promptIds: [1], resume })])).toThrow(
      expect.objectContaining({ code: "invalid_snapshot", message: expect.stringMatching(message) }),
    );
  });

  test("one invalid request refuses all submitted with it", async () => {
    const { engine } = await startEngine();
    expect(() => engine.submit([request(endless), request({ promptIds: [99] })])).toThrow(/token 0 is 99/);
    expect(engine.load.numWaiting).toBe(0);
    engine.checkIntegrity();
  });
});

describe("a full queue", () => {
  test("refuses all of a request or none, says when to retry, and admits requests again when it has room", async () => {
    const { engine } = await startEngine({ maxBatch: 2, maxQueue: 2 });
    const sequences = engine.submit([1, 2, 3].map(() => request(endless)));
    expect(() => engine.submit([request(endless), request(endless)])).toThrow(
      expect.objectContaining({ code: "queue_full", retryAfterMs: expect.any(Number) }),
    );
    sequences.push(...engine.submit([request(endless)]));
    expect(() => engine.submit([request(endless)])).toThrow(/no room for 1 more/);
    sequences[3]!.stop();
    sequences.push(...engine.submit([request(endless)]));
    for (const sequence of sequences) sequence.stop();
    await Promise.all(sequences.map((sequence) => gather(sequence)));
  });

  test("of length 0 still lets requests into free slots", async () => {
    const { engine } = await startEngine({ maxBatch: 2, maxQueue: 0 });
    const requests = [1, 2].map((id) => request({ promptIds: [id] }));
    const outcomes = await Promise.all(engine.submit(requests).map((sequence) => gather(sequence)));
    expect(outcomes.map(({ reason }) => reason)).toEqual(["length", "length"]);
  });

  test("a request that can never fit is invalid", async () => {
    const { engine } = await startEngine({ maxBatch: 2, maxQueue: 2 });
    expect(() => engine.submit([1, 2, 3, 4, 5].map(() => request(endless)))).toThrow(
      expect.objectContaining({
        code: "invalid_value",
        message: expect.stringMatching(/needs 5 .* 2 can run and 2 wait/),
      }),
    );
  });
});

test("before the model is loaded a request is refused with a time to retry", () => {
  const { engine } = makeEngine();
  expect(engine.status).toEqual({ state: "starting" });
  expect(() => engine.submit([request(endless)])).toThrow(
    expect.objectContaining({ code: "not_ready", retryAfterMs: expect.any(Number) }),
  );
});

test("a model that cannot be opened at the start is an error of `start`", async () => {
  const { engine } = makeEngine({
    onOpen: () => {
      throw new Error("no such artifact");
    },
  });
  await expect(engine.start()).rejects.toThrow("no such artifact");
});
