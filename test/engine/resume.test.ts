import { describe, expect, test } from "vitest";
import { GREEDY } from "../../src/sampling/params.ts";
import { bytesOf, gather, request, startEngine, stateAfter, tokensAlone } from "../helpers/engine-harness.ts";

const sampling = { ...GREEDY, temperature: 1, seed: 3 };

describe("a captured state", () => {
  test("at the prompt's end comes with the prompt event, before any token", async () => {
    const { engine } = await startEngine({ prefillChunk: 2 });
    const promptIds = [1, 2, 3, 4, 5];
    const { events, capturedPrompt, tokenIds } = await gather(
      engine.submit([request({ promptIds, sampling, maxTokens: 4, capture: { prompt: true } })])[0]!,
    );
    expect(events.map(({ type }) => type)).toEqual(["prompt", "token", "token", "token", "token", "finished"]);
    expect(capturedPrompt).toEqual({ tokenIds: promptIds, position: 5, state: bytesOf(stateAfter(promptIds)) });
    expect(tokenIds).toEqual(tokensAlone(request({ promptIds, sampling, maxTokens: 4 })));
  });

  test("also comes when the first token ends the sequence", async () => {
    const { engine } = await startEngine();
    const given = request({ promptIds: [1, 2], maxTokens: 1, capture: { prompt: true, end: true } });
    const { events, capturedPrompt, captured } = await gather(engine.submit([given])[0]!);
    expect(events.map(({ type }) => type)).toEqual(["prompt", "token", "finished"]);
    expect(capturedPrompt?.position).toBe(2);
    expect(captured?.position).toBe(2);
    expect(captured?.tokenIds).toHaveLength(3);
  });

  test("is taken at every checkpoint within the prompt, whatever the chunks", async () => {
    const { engine, runners } = await startEngine({ prefillChunk: 4 });
    const promptIds = Array.from({ length: 20 }, (_, i) => i + 1);
    const taken: [number, Uint8Array][] = [];
    const positions = [3, 4, 11, 19, 20, 25];
    const given = request({
      promptIds,
      sampling,
      checkpoints: { positions, take: (position, state) => taken.push([position, state]) },
    });
    const { tokenIds } = await gather(engine.submit([given])[0]!);
    expect(tokenIds).toEqual(tokensAlone(given));
    expect(taken).toEqual(positions.slice(0, 5).map((at) => [at, bytesOf(stateAfter(promptIds.slice(0, at)))]));
    expect(runners[0]!.breaches).toEqual([]);
  });

  test("checkpoints before the resume point are skipped", async () => {
    const { engine } = await startEngine();
    const all = [1, 2, 3, 4, 5, 6, 7, 8];
    const taken: [number, Uint8Array][] = [];
    const given = request({
      resume: { tokenIds: all.slice(0, 5), position: 4, state: bytesOf(stateAfter(all.slice(0, 4))) },
      promptIds: all.slice(5),
      checkpoints: { positions: [2, 4, 6], take: (position, state) => taken.push([position, state]) },
    });
    await gather(engine.submit([given])[0]!);
    expect(taken).toEqual([[6, bytesOf(stateAfter(all.slice(0, 6)))]]);
  });

  test("at the end has not read the last token if the length ended it", async () => {
    const { engine } = await startEngine();
    const given = request({ promptIds: [1, 2], sampling, maxTokens: 3, capture: { end: true } });
    const { captured, tokenIds } = await gather(engine.submit([given])[0]!);
    expect(captured?.tokenIds).toEqual([1, 2, ...tokenIds]);
    expect(captured?.position).toBe(4);
    expect(captured?.state).toEqual(bytesOf(stateAfter([1, 2, ...tokenIds].slice(0, 4))));
  });
});

test("a sequence continued over five requests equals one that never stopped", async () => {
  const { engine, runners } = await startEngine({ prefillChunk: 3 });
  const whole = request({ promptIds: [1, 2, 3], maxTokens: 25 });
  let resume: Awaited<ReturnType<typeof gather>>["captured"];
  const tokenIds: number[] = [];
  for (let part = 0; part < 5; part++) {
    const given = request({
      promptIds: part === 0 ? [1, 2, 3] : [],
      ...(resume === undefined ? {} : { resume }),
      maxTokens: 5,
      capture: { end: true },
    });
    const outcome = await gather(engine.submit([given])[0]!);
    tokenIds.push(...outcome.tokenIds);
    resume = outcome.captured;
  }
  expect(tokenIds).toEqual(tokensAlone(whole));
  const numFed = runners[0]!.calls.reduce(
    (sum, call) => sum + (call.type === "run" ? call.input.tokenIds.length : 0),
    0,
  );
  expect(numFed).toBe(3 + 24); // Nothing is read twice; the last token is not read at all.
});

describe("a resumed sampler", () => {
  const penalised = { ...sampling, presencePenalty: 0.7, frequencyPenalty: 0.4, repetitionPenalty: 1.1 };

  test.each([sampling, penalised])("continues as without the stop: %j", async (given) => {
    const { engine } = await startEngine();
    const whole = request({ promptIds: [1, 2, 3], sampling: given, maxTokens: 24 });
    const first = await gather(engine.submit([{ ...whole, maxTokens: 9, capture: { end: true } }])[0]!);
    const next = request({
      resume: first.captured!,
      promptIds: [],
      sampling: given,
      maxTokens: 9,
      capture: { end: true },
    });
    const second = await gather(engine.submit([next])[0]!);
    const last = request({ resume: second.captured!, promptIds: [], sampling: given, maxTokens: 6 });
    const third = await gather(engine.submit([last])[0]!);
    expect([...first.tokenIds, ...second.tokenIds, ...third.tokenIds]).toEqual(tokensAlone(whole));
  });

  test.each([
    { seed: 1, numDraws: 1e15, numSampled: 0 },
    { seed: 1, numDraws: -1, numSampled: 0 },
    { seed: 1, numDraws: 0, numSampled: 3 },
    { seed: 1, numDraws: 0.5, numSampled: 0 },
  ])("is refused if it cannot be: %j", async (sampler) => {
    const { engine } = await startEngine();
    const resume = { tokenIds: [5, 6], position: 2, state: bytesOf(stateAfter([5, 6])), sampler };
    expect(() => engine.submit([request({ resume, promptIds: [1] })])).toThrow(
      expect.objectContaining({ code: "invalid_snapshot", message: expect.stringContaining("from 0 to") }),
    );
  });
});

test("a single unread token is read by a decode step, together with decoding sequences", async () => {
  const { engine, runners, steps } = await startEngine({ maxBatch: 4 });
  const resume = { tokenIds: [5, 6], position: 2, state: bytesOf(stateAfter([5, 6])) };
  const forks = Array.from({ length: 4 }, (_, id) => request({ resume, promptIds: [id], sampling, maxTokens: 3 }));
  const outcomes = await Promise.all(engine.submit(forks).map((sequence) => gather(sequence)));
  expect(outcomes.map(({ tokenIds }) => tokenIds)).toEqual(forks.map((fork) => tokensAlone(fork)));
  const runs = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input.lengths.length] : []));
  expect(runs).toEqual([4, 4, 4]);
  expect(steps.map(({ numPromptTokens, numDecodeTokens }) => [numPromptTokens, numDecodeTokens])).toEqual([
    [4, 0],
    [0, 4],
    [0, 4],
  ]);
});

test("a new prompt after a resume point reads the unread tokens, then the prompt", async () => {
  const { engine } = await startEngine();
  const resume = { tokenIds: [5, 6, 7], position: 2, state: bytesOf(stateAfter([5, 6])) };
  const given = request({ resume, promptIds: [8, 9], sampling: { ...sampling, repetitionPenalty: 1.5 } });
  const { tokenIds, events } = await gather(engine.submit([given])[0]!);
  expect(tokenIds).toEqual(tokensAlone(given));
  expect(events.at(-1)).toMatchObject({ timings: { numPromptTokens: 5, numCachedTokens: 2 } });
});

test("one resume point serves many sequences at once", async () => {
  const { engine } = await startEngine({ maxBatch: 3 });
  const resume = { tokenIds: [5, 6], position: 2, state: bytesOf(stateAfter([5, 6])) };
  const forks = Array.from({ length: 8 }, (_, id) => request({ resume, promptIds: [id], sampling }));
  const outcomes = await Promise.all(engine.submit(forks).map((sequence) => gather(sequence)));
  expect(outcomes.map(({ tokenIds }) => tokenIds)).toEqual(forks.map((fork) => tokensAlone(fork)));
});
