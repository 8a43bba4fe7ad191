import { describe, expect, test } from "vitest";
import { bytesOf, gather, request, startEngine, stateAfter, tokensAlone } from "../helpers/engine-harness.ts";

const endless = { promptIds: [1, 2], maxTokens: 1_000_000 };

async function untilIdle(engine: { load: { slotsInUse: number; numWaiting: number } }): Promise<void> {
  while (engine.load.slotsInUse + engine.load.numWaiting > 0) await new Promise((resolve) => setImmediate(resolve));
}

describe("an abort", () => {
  test("ends a running sequence at the next step and frees its slot", async () => {
    const { engine, runners, ends } = await startEngine();
    const abort = new AbortController();
    let numTokens = 0;
    const outcome = await gather(engine.submit([request({ ...endless, signal: abort.signal })])[0]!, (event) => {
      if (event.type === "token" && ++numTokens === 3) abort.abort();
    });
    expect(outcome.reason).toBe("aborted");
    // The run under way when the third token arrived is the last one, and what it gave is dropped.
    expect(outcome.tokenIds).toHaveLength(3);
    expect(runners[0]!.calls.filter(({ type }) => type === "run")).toHaveLength(4);
    expect(engine.load.slotsInUse).toBe(0);
    expect(ends.map(({ reason }) => reason)).toEqual(["aborted"]);
  });

  test("ends a sequence in the middle of its prompt, with consistent state and position", async () => {
    const { engine, steps } = await startEngine({ prefillChunk: 1 });
    const abort = new AbortController();
    const promptIds = Array.from({ length: 1000 }, (_, i) => i % 29);
    const given = request({ promptIds, signal: abort.signal, capture: { end: true } });
    const outcome = gather(engine.submit([given])[0]!);
    while (steps.length < 5) await new Promise((resolve) => setImmediate(resolve));
    abort.abort();
    const { captured, reason } = await outcome;
    expect(reason).toBe("aborted");
    expect(captured!.position).toBeLessThan(1000);
    expect(captured!.tokenIds).toEqual(promptIds);
    expect(captured!.state).toEqual(bytesOf(stateAfter(promptIds.slice(0, captured!.position))));
  });

  test("takes a waiting sequence out of the queue at once", async () => {
    const { engine, ends } = await startEngine({ maxBatch: 1 });
    const abort = new AbortController();
    const [running, waiting] = engine.submit([request(endless), request({ ...endless, signal: abort.signal })]);
    while (engine.load.numRunning === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(engine.load.numWaiting).toBe(1);
    abort.abort();
    expect(engine.load.numWaiting).toBe(0);
    expect(ends).toHaveLength(1);
    const { events } = await gather(waiting!);
    expect(events).toMatchObject([{ type: "finished", reason: "aborted" }]);
    running!.stop();
    await gather(running!);
  });

  test("before submitting ends the sequence without running it", async () => {
    const { engine, runners } = await startEngine();
    const { reason } = await gather(engine.submit([request({ ...endless, signal: AbortSignal.abort() })])[0]!);
    expect(reason).toBe("aborted");
    await untilIdle(engine);
    expect(runners[0]!.calls).toEqual([]);
  });

  test("of one signal ends all its sequences and removes its listeners", async () => {
    const { engine } = await startEngine({ maxBatch: 16 });
    const abort = new AbortController();
    const { signal } = abort;
    let numListeners = 0;
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
    signal.addEventListener = (...given: Parameters<typeof add>) => {
      numListeners++;
      add(...given);
    };
    signal.removeEventListener = (...given: Parameters<typeof remove>) => {
      numListeners--;
      remove(...given);
    };
    const sequences = engine.submit(Array.from({ length: 32 }, () => request({ ...endless, signal })));
    const outcomes = Promise.all(sequences.map((sequence) => gather(sequence)));
    while (engine.load.numRunning === 0) await new Promise((resolve) => setImmediate(resolve));
    abort.abort();
    expect(new Set((await outcomes).map(({ reason }) => reason))).toEqual(new Set(["aborted"]));
    await untilIdle(engine);
    expect(numListeners).toBe(0);
  });
});

describe("stop", () => {
  test("ends a sequence with reason stop, its state having read what its tokens say", async () => {
    const { engine } = await startEngine();
    const [sequence] = engine.submit([request({ ...endless, capture: { end: true } })]);
    let numTokens = 0;
    const { reason, tokenIds, captured } = await gather(sequence!, (event) => {
      if (event.type === "token" && ++numTokens === 4) sequence!.stop();
    });
    expect(reason).toBe("stop");
    expect(tokenIds).toEqual(tokensAlone(request({ ...endless, maxTokens: 4 })));
    // The fourth token was being read when it was seen.
    const kept = [1, 2, ...tokenIds];
    expect(captured).toMatchObject({ tokenIds: kept, position: kept.length, state: bytesOf(stateAfter(kept)) });
  });

  test("works for a waiting sequence, a second time, and after the end", async () => {
    const { engine, ends } = await startEngine({ maxBatch: 1 });
    const [first, second] = engine.submit([request({ ...endless, maxTokens: 5 }), request(endless)]);
    second!.stop();
    second!.stop();
    expect((await gather(second!)).reason).toBe("stop");
    expect((await gather(first!)).reason).toBe("length");
    first!.stop();
    await untilIdle(engine);
    expect(ends.map(({ reason }) => reason)).toEqual(["stop", "length"]);
  });
});

describe("a consumer", () => {
  test("that stops iterating ends its sequence", async () => {
    const { engine, ends } = await startEngine();
    for await (const event of engine.submit([request({ ...endless, capture: { end: true } })])[0]!.events) {
      if (event.type === "token") break;
    }
    await untilIdle(engine);
    expect(ends.map(({ reason }) => reason)).toEqual(["aborted"]);
  });

  test("that is slow gets every event, and delays no others", async () => {
    const { engine } = await startEngine();
    const [slow, quick] = engine.submit([
      request({ promptIds: [1], maxTokens: 30 }),
      request({ promptIds: [2], maxTokens: 30 }),
    ]);
    expect((await gather(quick!)).tokenIds).toHaveLength(30);
    await untilIdle(engine);
    expect((await gather(slow!)).tokenIds).toEqual(tokensAlone(request({ promptIds: [1], maxTokens: 30 })));
  });

  test("gets its events during the next run, not between runs", async () => {
    const { engine, runners } = await startEngine();
    const seen: number[] = [];
    await gather(engine.submit([request({ promptIds: [1], maxTokens: 5 })])[0]!, (event) => {
      if (event.type === "token") seen.push(runners[0]!.calls.filter(({ type }) => type === "run").length);
    });
    // The first token leads to a change of slots; after that token i is seen when run i + 1 has
    // begun.
    expect(seen.slice(1, 4)).toEqual([3, 4, 5]);
  });
});
