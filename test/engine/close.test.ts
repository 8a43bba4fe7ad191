import { describe, expect, test } from "vitest";
import { bytesOf, gather, makeEngine, request, startEngine, stateAfter } from "../helpers/engine-harness.ts";

const endless = { promptIds: [1], maxTokens: 1_000_000 };

describe("closing", () => {
  test("lets admitted sequences finish, also waiting ones, and refuses new ones", async () => {
    const { engine, runners, statuses } = await startEngine({ maxBatch: 1 });
    const sequences = engine.submit([request({ promptIds: [1] }), request({ promptIds: [2] })]);
    const outcomes = Promise.all(sequences.map((sequence) => gather(sequence)));
    const closed = engine.close({ deadlineMs: 60_000 });
    expect(() => engine.submit([request(endless)])).toThrow(expect.objectContaining({ code: "shutting_down" }));
    await closed;
    expect((await outcomes).map(({ reason }) => reason)).toEqual(["length", "length"]);
    expect(runners[0]!.isClosed).toBe(true);
    expect(runners[0]!.breaches).toEqual([]);
    expect(statuses.at(-1)).toEqual({ state: "closed" });
  });

  test("fails the rest at the deadline", async () => {
    const { engine, runners, ends } = await startEngine({
      maxBatch: 1,
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    });
    const outcomes = Promise.all(
      engine.submit([request(endless), request(endless)]).map((sequence) => gather(sequence)),
    );
    await engine.close({ deadlineMs: 5 });
    for (const { error } of await outcomes) expect(error).toMatchObject({ code: "shutting_down" });
    expect(ends.map(({ reason }) => reason)).toEqual(["failed", "failed"]);
    expect(runners[0]!.isClosed).toBe(true);
    expect(engine.load.slotsInUse).toBe(0);
  });

  test("interrupts sequences that capture their state at the deadline", async () => {
    const { engine, ends } = await startEngine({
      maxBatch: 2,
      prefillChunk: 2,
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    });
    const capture = { end: true };
    const [decoding, reading, waiting] = engine.submit([
      request({ ...endless, capture }),
      request({ promptIds: Array.from({ length: 5000 }, (_, i) => i % 29), capture }),
      request({ ...endless, capture }),
    ]);
    const outcomes = Promise.all([gather(decoding!), gather(reading!), gather(waiting!)]);
    await engine.close({ deadlineMs: 10 });
    const [decoded, read, waited] = await outcomes;
    expect([decoded.reason, read.reason]).toEqual(["interrupted", "interrupted"]);
    expect(decoded.captured!.tokenIds).toEqual([1, ...decoded.tokenIds]);
    expect(read.captured!.tokenIds).toHaveLength(5000);
    for (const { captured } of [decoded, read]) {
      const { tokenIds, position, state } = captured!;
      expect(position).toBeGreaterThan(0);
      expect(position).toBeLessThan(tokenIds.length);
      expect(state).toEqual(bytesOf(stateAfter(tokenIds.slice(0, position))));
    }
    // It had no slot: nothing of it has been read.
    expect(waited.error).toMatchObject({ code: "shutting_down" });
    expect(ends.map(({ reason }) => reason).sort()).toEqual(["failed", "interrupted", "interrupted"]);
    expect(engine.load.slotsInUse).toBe(0);
  });

  test("a second call may have an earlier deadline", async () => {
    const { engine } = await startEngine({ sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref()) });
    const outcome = gather(engine.submit([request(endless)])[0]!);
    const patient = engine.close({ deadlineMs: 1e12 });
    await engine.close({ deadlineMs: 1 });
    await patient;
    expect((await outcome).error).toMatchObject({ code: "shutting_down" });
  });

  test("is immediate when idle, and idempotent", async () => {
    const { engine, runners, statuses } = await startEngine();
    await Promise.all([engine.close({ deadlineMs: 60_000 }), engine.close({ deadlineMs: 60_000 })]);
    await engine.close({ deadlineMs: 60_000 });
    expect(runners[0]!.isClosed).toBe(true);
    expect(statuses.filter(({ state }) => state === "closed")).toHaveLength(1);
  });

  test("before or during the start leaves no runner open", async () => {
    const { engine, runners } = makeEngine();
    const starting = engine.start();
    await engine.close({ deadlineMs: 0 });
    await expect(starting).rejects.toMatchObject({ code: "shutting_down" });
    expect(runners.every(({ isClosed }) => isClosed)).toBe(true);
    expect(engine.status.state).toBe("closed");
  });
});
