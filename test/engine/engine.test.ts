import { describe, expect, test } from "vitest";
import { GREEDY } from "../../src/sampling/params.ts";
import { bytesOf, gather, request, startEngine, stateAfter, tokensAlone } from "../helpers/engine-harness.ts";

const sampled = { ...GREEDY, temperature: 1, seed: 7 };

describe("a sequence", () => {
  test("sends a prompt event, its tokens, and its end", async () => {
    const { engine, ends, runners } = await startEngine();
    const given = request({ promptIds: [1, 2, 3], maxTokens: 3 });
    const { events, tokenIds, reason } = await gather(engine.submit([given])[0]!);
    expect(events.map(({ type }) => type)).toEqual(["prompt", "token", "token", "token", "finished"]);
    expect(tokenIds).toEqual(tokensAlone(given));
    expect(reason).toBe("length");
    expect(ends).toHaveLength(1);
    expect(engine.load).toMatchObject({ numRunning: 0, numWaiting: 0, slotsInUse: 0 });
    expect(runners[0]!.breaches).toEqual([]);
  });

  test("the next run starts before consumers get the last run's tokens", async () => {
    let numRead = 0;
    const numReadAtStart: number[] = [];
    const { engine, runners } = await startEngine({
      pace: () => {
        if (runners[0]?.calls.at(-1)?.type === "run") numReadAtStart.push(numRead);
        return new Promise(setImmediate);
      },
    });
    for await (const event of engine.submit([request({ promptIds: [1], maxTokens: 5 })])[0]!.events) {
      if (event.type === "token") numRead++;
    }
    // The second run starts while the first one's token is unread, and so on.
    expect(numReadAtStart).toEqual([0, 0, 1, 2, 3]);
  });

  test.each([1, 2, 3, 5, 8, 100])("is the same in prompt chunks of %d tokens", async (prefillChunk) => {
    const { engine } = await startEngine({ prefillChunk });
    const given = request({ promptIds: Array.from({ length: 37 }, (_, i) => i % 29), sampling: sampled });
    expect((await gather(engine.submit([given])[0]!)).tokenIds).toEqual(tokensAlone(given));
  });

  test("ends with the stop token, which its capture does not contain", async () => {
    const { engine } = await startEngine();
    const promptIds = [4, 5];
    const free = tokensAlone(request({ promptIds, sampling: sampled, maxTokens: 8 }));
    const stopTokenId = free[4]!;
    const numTokens = free.indexOf(stopTokenId) + 1;
    const given = request({
      promptIds,
      sampling: sampled,
      stopTokenIds: new Set([stopTokenId]),
      capture: { end: true },
    });
    const { events, tokenIds, captured } = await gather(engine.submit([given])[0]!);
    expect(tokenIds).toEqual(free.slice(0, numTokens));
    expect(events.at(-1)).toMatchObject({ reason: "stop", stopTokenId });
    const kept = [...promptIds, ...free.slice(0, numTokens - 1)];
    expect(captured).toMatchObject({ tokenIds: kept, position: kept.length, state: bytesOf(stateAfter(kept)) });
  });

  test("never samples a stop token before minTokens", async () => {
    const { engine } = await startEngine();
    const stopTokenIds = new Set(Array.from({ length: 20 }, (_, id) => id));
    const given = request({ promptIds: [1], sampling: sampled, stopTokenIds, minTokens: 6, maxTokens: 50 });
    const { tokenIds } = await gather(engine.submit([given])[0]!);
    expect(tokenIds).toEqual(tokensAlone(given));
    expect(tokenIds.findIndex((id) => stopTokenIds.has(id))).toBeGreaterThanOrEqual(6);
  });

  test("never samples an id that is padding", async () => {
    const { engine } = await startEngine();
    for (const sampling of [GREEDY, sampled]) {
      const given = request({ promptIds: [1], sampling, maxTokens: 60 });
      expect(Math.max(...(await gather(engine.submit([given])[0]!)).tokenIds)).toBeGreaterThanOrEqual(20);
      const { tokenIds } = await gather(engine.submit([{ ...given, vocabSize: 20 }])[0]!);
      expect(tokenIds).toHaveLength(60);
      expect(Math.max(...tokenIds)).toBeLessThan(20);
    }
  });

  test("with maxTokens 0 reads its prompt and samples nothing", async () => {
    const { engine, runners } = await startEngine();
    const given = request({ promptIds: [1, 2, 3], maxTokens: 0, capture: { end: true } });
    const { events, captured } = await gather(engine.submit([given])[0]!);
    expect(events.map(({ type }) => type)).toEqual(["prompt", "finished"]);
    expect(captured).toMatchObject({ tokenIds: [1, 2, 3], position: 3, state: bytesOf(stateAfter([1, 2, 3])) });
    const runs = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input] : []));
    expect(runs.every(({ logitRows }) => logitRows.length === 0)).toBe(true);
  });

  test("reports timings in order, and counts", async () => {
    const { engine } = await startEngine();
    const { events } = await gather(engine.submit([request({ promptIds: [1, 2], maxTokens: 4 })])[0]!);
    const finished = events.at(-1)!;
    if (finished.type !== "finished") throw new Error("not finished");
    const { arrivedAtMs, scheduledAtMs, firstTokenAtMs, finishedAtMs, ...counts } = finished.timings;
    const times = [arrivedAtMs, scheduledAtMs, firstTokenAtMs!, finishedAtMs];
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(counts).toEqual({ numPromptTokens: 2, numCachedTokens: 0, numOutputTokens: 4 });
  });

  test("without a seed draws one from the engine's random source", async () => {
    const { engine } = await startEngine();
    const given = request({ promptIds: [1], sampling: { ...sampled, seed: undefined } });
    expect((await gather(engine.submit([given])[0]!)).tokenIds).toEqual(tokensAlone(given));
  });
});

describe("in a batch with others", () => {
  test("every sequence has the same tokens as alone", async () => {
    const { engine, runners } = await startEngine({ maxBatch: 5, prefillChunk: 3 });
    const requests = Array.from({ length: 40 }, (_, i) =>
      request({
        promptIds: Array.from({ length: 1 + ((i * 7) % 23) }, (_, j) => (i + j) % 29),
        maxTokens: 1 + ((i * 5) % 17),
        sampling: { ...sampled, seed: i, repetitionPenalty: i % 3 === 0 ? 1.3 : 1, topK: i % 4 === 0 ? 5 : 0 },
        stopTokenIds: new Set([i % 29]),
      }),
    );
    const outcomes = await Promise.all(engine.submit(requests).map((sequence) => gather(sequence)));
    expect(outcomes.map(({ tokenIds }) => tokenIds)).toEqual(requests.map((given) => tokensAlone(given)));
    expect(runners[0]!.breaches).toEqual([]);
    expect(engine.load.slotsInUse).toBe(0);
  });

  test("decoding continues while a long prompt is read, and a short prompt overtakes it", async () => {
    const { engine, steps } = await startEngine({ prefillChunk: 4 });
    const order: string[] = [];
    const track = (name: string) => (event: { type: string }) => event.type !== "prompt" && order.push(name);
    const [running] = engine.submit([request({ promptIds: [1], maxTokens: 60 })]);
    const [long, short] = engine.submit([
      request({ promptIds: Array.from({ length: 100 }, () => 2), maxTokens: 1 }),
      request({ promptIds: [3, 4, 5], maxTokens: 1 }),
    ]);
    await Promise.all([
      gather(running!, track("running")),
      gather(long!, track("long")),
      gather(short!, track("short")),
    ]);
    expect(order.indexOf("short")).toBeLessThan(order.indexOf("long"));
    expect(order.slice(0, order.indexOf("long")).filter((name) => name === "running").length).toBeGreaterThan(20);
    expect(Math.max(...steps.slice(2).map(({ numPromptTokens }) => numPromptTokens))).toBeLessThanOrEqual(4);
  });
});

describe("a runner that takes lengths", () => {
  const prompts = [[9], [1, 2, 3], [4, 5], [6, 7, 8, 9, 10]];
  const given = prompts.map((promptIds) => request({ promptIds, sampling: sampled, maxTokens: 3 }));

  test.each([
    [true, ["1 3 2 3", "1 1 1 2", "1 1 1 1", "1"]],
    [false, ["1", "3", "1 1", "2", "1 1 1", "5", "1 1", "1"]],
  ])("reads short prompts in one run with those that decode (%s)", async (ragged, expected) => {
    const { engine, runners } = await startEngine({ ragged, prefillChunk: 8 });
    const outcomes = await Promise.all(engine.submit(given).map((sequence) => gather(sequence)));
    expect(outcomes.map(({ tokenIds }) => tokenIds)).toEqual(given.map((one) => tokensAlone(one)));
    const runs = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input.lengths] : []));
    expect(runs.map((lengths) => Array.from(lengths).join(" "))).toEqual(expected);
    expect(runners[0]!.breaches).toEqual([]);
  });
});

describe("a prompt beside a stream", () => {
  test.each([true, false])("is read as fast as the stream's pace allows (lengths: %s)", async (ragged) => {
    let clockMs = 0;
    const sizes: number[] = [];
    const { engine } = await startEngine({
      ...{ ragged, prefillChunk: 128, maxStall: 1.5, now: () => clockMs },
      onCall: (call) => {
        if (call.type !== "run") return;
        const numPromptTokens = Array.from(call.input.lengths).reduce(
          (sum, length) => sum + (length > 1 ? length : 0),
          0,
        );
        clockMs += (call.input.lengths[0] === 1 ? 2 : 0) + 0.1 * numPromptTokens; // 2 ms for the stream, 0.1 for each token
        sizes.push(numPromptTokens);
      },
    });
    const signal = new AbortController();
    const stream = gather(engine.submit([request({ promptIds: [1], maxTokens: 10_000, signal: signal.signal })])[0]!);
    const prompt = request({ promptIds: Array.from({ length: 1000 }, (_, i) => i % 29), maxTokens: 1 });
    expect((await gather(engine.submit([prompt])[0]!)).tokenIds).toEqual(tokensAlone(prompt));
    signal.abort();
    await stream;
    const chunks = sizes.filter((size) => size > 0);
    expect(chunks.reduce((sum, size) => sum + size)).toBeGreaterThanOrEqual(998);
    const settled = chunks.slice(-10, -1);
    expect(Math.min(...settled)).toBeGreaterThanOrEqual(16);
    expect(Math.max(...settled)).toBeLessThanOrEqual(32); // 30 take as long as 1.5 steps of the stream
  });
});

describe("a model's bound on the steps of a pass", () => {
  test("holds where chunks could be larger", async () => {
    const promptIds = Array.from({ length: 40 }, (_, i) => i % 29);
    const { engine, steps } = await startEngine({ prefillChunk: 16, maxPassSteps: 6 });
    const [sequence] = engine.submit([request({ promptIds })]);
    expect((await gather(sequence!)).tokenIds).toEqual(tokensAlone(request({ promptIds })));
    expect(Math.max(...steps.map(({ numPromptTokens }) => numPromptTokens))).toBe(6);
  });
});

describe("logits are requested only where they are needed", () => {
  test("for the prompt's last token and every decoded one", async () => {
    const { engine, runners } = await startEngine({ prefillChunk: 3 });
    await gather(
      engine.submit([request({ promptIds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], maxTokens: 3 })])[0]!,
    );
    const rows = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input.logitRows.length] : []));
    expect(rows).toEqual([0, 0, 0, 0, 1, 1, 1]);
  });

  test.each([
    { name: "candidates decide", given: {}, rows: [0, 0, 0] },
    {
      name: "a bias changes logits",
      given: { sampling: { ...GREEDY, logitBias: new Map([[3, 1]]) } },
      rows: [1, 1, 1],
    },
    { name: "a penalty does", given: { sampling: { ...GREEDY, presencePenalty: 1 } }, rows: [1, 1, 1] },
    { name: "a stop token is masked", given: { minTokens: 2, stopTokenIds: new Set([28]) }, rows: [1, 1, 0] },
    { name: "the prompt is scored", given: { numPromptLogprobs: 1 }, rows: [2, 0, 0] },
    { name: "tokens are scored", given: { numLogprobs: 2 }, rows: [0, 0, 0] },
  ])("whole where all of a row's are read: $name", async ({ given, rows }) => {
    const { engine, runners } = await startEngine({ ragged: true });
    // Beside another, which reads candidates alone.
    const others = request({ promptIds: [4], maxTokens: 3 });
    const sequences = engine.submit([others, request({ promptIds: [1, 2, 3], maxTokens: 3, ...given })]);
    await Promise.all(sequences.map((sequence) => gather(sequence)));
    const runs = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input] : []));
    expect(runs.map(({ wholeRows }) => wholeRows!.length).filter((_, i) => i < rows.length)).toEqual(rows);
    for (const { wholeRows } of runs) expect(Array.from(wholeRows!)).not.toContain(0);
  });
});

describe("log-probabilities", () => {
  test("of a prompt come in runs whose logits take 32 MiB at most", async () => {
    const claimedVocabSize = 2 ** 21; // 8 MiB a row
    const { engine, runners } = await startEngine({ claimedVocabSize, prefillChunk: 16 });
    const promptIds = Array.from({ length: 6 }, (_, i) => i);
    await gather(engine.submit([request({ promptIds, maxTokens: 0, numPromptLogprobs: 1 })])[0]!);
    const runs = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input.logitRows.length] : []));
    expect(runs).toEqual([4, 1]);
  });

  test("of sampled tokens come with k alternatives, the argmax first", async () => {
    const { engine } = await startEngine();
    const given = request({ promptIds: [1], sampling: sampled, maxTokens: 5, numLogprobs: 3 });
    const { events } = await gather(engine.submit([given])[0]!);
    for (const event of events) {
      if (event.type !== "token") continue;
      expect(event.scored?.tokenId).toBe(event.tokenId);
      expect(event.scored?.top).toHaveLength(3);
      expect(event.scored!.top[0]!.logprob).toBeGreaterThanOrEqual(event.scored!.logprob);
      const same = event.scored?.top.find(({ tokenId }) => tokenId === event.tokenId);
      if (same !== undefined) expect(same.logprob).toBe(event.scored?.logprob);
    }
  });

  test.each([1, 4, 100])(
    "of the prompt's tokens are those the model gave before each, in chunks of %d",
    async (chunk) => {
      const { engine } = await startEngine({ prefillChunk: chunk });
      const promptIds = [3, 1, 4, 1, 5, 9, 2, 6, 5];
      const { events } = await gather(engine.submit([request({ promptIds, maxTokens: 1, numPromptLogprobs: 1 })])[0]!);
      const prompt = events[0]!;
      if (prompt.type !== "prompt") throw new Error("not a prompt event");
      const logprobs = [...prompt.logprobs!];
      expect(logprobs).toHaveLength(promptIds.length);
      expect(logprobs[0]).toBeNull();
      expect(logprobs.slice(1).map((scored) => scored?.tokenId)).toEqual(promptIds.slice(1));
      // Greedy continuation and scoring of the same history agree.
      const [again] = engine.submit([request({ promptIds: promptIds.slice(0, 4), maxTokens: 1, numLogprobs: 1 })]);
      const token = (await gather(again!)).events.find((event) => event.type === "token");
      expect(logprobs[4]!.top).toEqual(token?.scored?.top);
    },
  );

  test("of a resumed prompt's first token exist if this request read a token before it", async () => {
    const { engine } = await startEngine();
    const state = bytesOf(stateAfter([7, 8]));
    const resumeFrom = (tokenIds: number[]) =>
      request({
        resume: { tokenIds, position: 2, state },
        promptIds: [1, 2],
        numPromptLogprobs: 0,
      });
    const unread = await gather(engine.submit([resumeFrom([7, 8, 9])])[0]!);
    const read = await gather(engine.submit([resumeFrom([7, 8])])[0]!);
    const logprobs = [unread, read].map(({ events }) =>
      events[0]?.type === "prompt" ? [...events[0].logprobs!] : undefined,
    );
    expect(logprobs.map((list) => list?.map((scored) => scored?.tokenId))).toEqual([
      [1, 2],
      [undefined, 2],
    ]);
  });
});
