import { describe, expect, test } from "vitest";
import type { SequenceEvent } from "../../src/engine/sequence.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import {
  bytesOf,
  gather,
  type Harness,
  request,
  startEngine,
  stateAfter,
  tokensAlone,
} from "../helpers/engine-harness.ts";
import type { FakeCall } from "../helpers/fake-runner.ts";

/** Throws at the n-th call of the given type, and from then on as long as `isLasting`. */
function faultAt(type: FakeCall["type"], n: number, isLasting = false): (call: FakeCall) => void {
  let count = 0;
  return (call) => {
    if (call.type !== type) return;
    count++;
    if (count === n || (isLasting && count > n)) throw new Error("worker died");
  };
}

function expectSound({ engine, runners }: Harness): void {
  engine.checkIntegrity();
  expect(engine.load).toMatchObject({ numRunning: 0, numWaiting: 0, slotsInUse: 0 });
  expect(runners.flatMap(({ breaches }) => breaches)).toEqual([]);
  expect(runners.slice(0, -1).every(({ isClosed }) => isClosed)).toBe(true);
}

describe("a fault of the runner", () => {
  test("fails the sequences in slots, after their events so far; waiting ones continue with a new runner", async () => {
    const harness = await startEngine({ maxBatch: 2, onCall: faultAt("run", 6) });
    const requests = [3, 4, 5, 6].map((id) => request({ promptIds: [id], maxTokens: 20 }));
    const outcomes = await Promise.all(harness.engine.submit(requests).map((sequence) => gather(sequence)));
    for (const { error, events } of outcomes.slice(0, 2)) {
      expect(error).toMatchObject({ code: "runtime_fault", message: "the runtime failed: worker died" });
      expect((error as Error).cause).toMatchObject({ message: "worker died" });
      expect(events.some(({ type }) => type === "token")).toBe(true);
    }
    expect(outcomes.slice(2).map(({ tokenIds }) => tokenIds)).toEqual(requests.slice(2).map((r) => tokensAlone(r)));
    expect(harness.runners).toHaveLength(2);
    expect(harness.statuses.map(({ state }) => state)).toEqual(["starting", "ready", "recovering", "ready"]);
    expect(harness.ends.map(({ reason }) => reason).sort()).toEqual(["failed", "failed", "length", "length"]);
    expectSound(harness);
  });

  test.each(["clear", "copy", "swap", "read", "write"] as const)("in a %s is handled alike", async (type) => {
    const harness = await startEngine({ maxBatch: 3, prefillChunk: 2, onCall: faultAt(type, 1) });
    const resume = { tokenIds: [1], position: 1, state: bytesOf(stateAfter([1])) };
    const requests = [9, 4, 5, 6, 7, 8].map((id, i) =>
      request({
        promptIds: Array.from({ length: i === 0 ? 12 : 2 }, () => id),
        maxTokens: 3 + i,
        capture: { end: true },
        ...(i % 2 === 0 ? { resume } : {}),
      }),
    );
    const outcomes = await Promise.all(harness.engine.submit(requests).map((sequence) => gather(sequence)));
    expect(harness.runners).toHaveLength(2);
    expect(outcomes.some(({ error }) => error !== undefined)).toBe(true);
    outcomes.forEach(({ error, tokenIds }, i) => {
      if (error === undefined) expect(tokenIds).toEqual(tokensAlone(requests[i]!));
      else expect(error).toMatchObject({ code: "runtime_fault" });
    });
    expectSound(harness);
  });

  test("does not fail a sequence that has its last token and needs no state", async () => {
    // Both end in the same step, the first one a step older; reading its state faults.
    const harness = await startEngine({ maxBatch: 2, onCall: faultAt("read", 1) });
    const requests = [
      request({ promptIds: [1], maxTokens: 4, capture: { end: true } }),
      request({ promptIds: [2], maxTokens: 3 }),
    ];
    const [first, second] = await Promise.all(harness.engine.submit(requests).map((sequence) => gather(sequence)));
    expect(first!.tokenIds).toHaveLength(4);
    expect(first!.error).toMatchObject({ code: "runtime_fault" });
    expect(second!.reason).toBe("length");
    expectSound(harness);
  });

  test("that a request always causes fails that request once and is not repeated", async () => {
    const harness = await startEngine({
      maxBatch: 1,
      onCall: (call) => {
        if (call.type === "run" && Array.from(call.input.tokenIds).includes(13)) throw new Error("poison");
      },
    });
    const [poison, other] = harness.engine.submit([
      request({ promptIds: [13] }),
      request({ promptIds: [1], maxTokens: 1 }),
    ]);
    expect((await gather(poison!)).error).toMatchObject({ code: "runtime_fault" });
    expect((await gather(other!)).reason).toBe("length");
    expect(harness.runners).toHaveLength(2);
  });

  test("again and again leads to growing pauses, which a successful step resets", async () => {
    let isBroken = true;
    const harness = await startEngine({
      maxBatch: 1,
      onCall: (call) => {
        if (isBroken && call.type === "run") throw new Error("still broken");
      },
    });
    const run = () => gather(harness.engine.submit([request({ promptIds: [1], maxTokens: 1 })])[0]!);
    for (let i = 0; i < 4; i++) await run();
    isBroken = false;
    expect((await run()).reason).toBe("length");
    expect(harness.slept).toEqual([0, 100, 200, 400]);
    isBroken = true;
    await run();
    isBroken = false;
    await run();
    expect(harness.slept.slice(4)).toEqual([0]);
  });
});

describe("when no runner can be opened", () => {
  /** Fails every opening between the first and `isHealed`. */
  async function startBroken(): Promise<Harness & { heal: () => void; wake: () => void }> {
    let isHealed = true;
    let wake: (() => void) | undefined;
    const harness = await startEngine({
      maxBatch: 1,
      onCall: faultAt("run", 1),
      onOpen: () => {
        if (!isHealed) throw new Error("no device");
      },
      // Pauses before the sixth attempt are skipped, later ones wait to be woken.
      sleep: async (ms, signal) => {
        if (ms < 1600) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
          signal.addEventListener("abort", () => resolve());
        });
      },
    });
    isHealed = false;
    return Object.assign(harness, { heal: () => (isHealed = true), wake: () => wake?.() });
  }

  test("waiting sequences fail in the end, new ones are refused, and it keeps trying until it succeeds", async () => {
    const harness = await startBroken();
    const outcomes = await Promise.all(
      harness.engine
        .submit([request({ promptIds: [1] }), request({ promptIds: [2] })])
        .map((sequence) => gather(sequence)),
    );
    expect(outcomes[0]!.error).toMatchObject({ message: "the runtime failed: worker died" });
    expect(outcomes[1]!.error).toMatchObject({
      code: "runtime_fault",
      message: "the runtime cannot be opened again: no device",
    });
    expect(harness.engine.status.state).toBe("recovering");
    expect(() => harness.engine.submit([request({ promptIds: [1] })])).toThrow(
      expect.objectContaining({ code: "not_ready", retryAfterMs: expect.any(Number) }),
    );
    harness.heal();
    harness.wake();
    while (harness.engine.status.state !== "ready") await new Promise((resolve) => setImmediate(resolve));
    expect((await gather(harness.engine.submit([request({ promptIds: [1], maxTokens: 2 })])[0]!)).reason).toBe(
      "length",
    );
    expectSound(harness);
  });

  test("closing does not wait for it", async () => {
    const harness = await startBroken();
    await gather(harness.engine.submit([request({ promptIds: [1] })])[0]!);
    await harness.engine.close({ deadlineMs: 60_000 });
    expect(harness.engine.status.state).toBe("closed");
    expect(harness.runners.every(({ isClosed }) => isClosed)).toBe(true);
  });
});

test("logits that are not finite fail their own sequence only", async () => {
  const harness = await startEngine({ poisonToken: 13, precision: "f16" });
  const requests = [[1], [13], [2]].map((promptIds) =>
    request({ promptIds, maxTokens: 8, sampling: { ...GREEDY, logitBias: new Map([[13, -100]]) } }),
  );
  const outcomes = await Promise.all(harness.engine.submit(requests).map((sequence) => gather(sequence)));
  expect(outcomes[1]!.error).toMatchObject({
    code: "runtime_fault",
    message: expect.stringMatching(/^in f16, whose numbers end at 65504: the model gave logits that are not finite/),
  });
  for (const i of [0, 2]) expect(outcomes[i]!.tokenIds).toEqual(tokensAlone(requests[i]!));
  expect(harness.runners).toHaveLength(1);
  expectSound(harness);
});

test("log-probabilities of a prompt that are not finite fail their own sequence, and say where", async () => {
  const harness = await startEngine({ poisonToken: 13 });
  const requests = [
    [1, 2, 3],
    [1, 13, 2, 3],
  ].map((promptIds) => request({ promptIds, maxTokens: 0, numPromptLogprobs: 1 }));
  const outcomes = await Promise.all(harness.engine.submit(requests).map((sequence) => gather(sequence)));
  expect(outcomes[0]!.error).toBeUndefined();
  expect(outcomes[1]!.error).toMatchObject({
    code: "runtime_fault",
    message: expect.stringContaining("not finite for token 2 of the prompt"),
  });
  expectSound(harness);
});

test("the error comes where the consumer iterates, not as an unhandled rejection", async () => {
  const harness = await startEngine({ onCall: faultAt("run", 2) });
  const [sequence] = harness.engine.submit([request({ promptIds: [1] })]);
  while (harness.engine.load.slotsInUse > 0 || harness.ends.length === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  const types: SequenceEvent["type"][] = [];
  const { error } = await gather(sequence!, ({ type }) => types.push(type));
  expect(types).toEqual(["prompt", "token"]);
  expect(error).toMatchObject({ code: "runtime_fault" });
});
