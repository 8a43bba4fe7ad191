/** Sequences whose readers are behind: what they hold, whom they hold up, and how they end. */
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { MAX_UNREAD } from "../../src/engine/event-queue.ts";
import {
  bytesOf,
  gather,
  type Harness,
  request,
  startEngine,
  stateAfter,
  tokensAlone,
} from "../helpers/engine-harness.ts";

const LONG = request({ promptIds: [1, 2, 3], maxTokens: 500 });
/**
 * Sampled while the runner is under way with the step that follows the one that filled the queue.
 */
const MARGIN = 2;

const numSampled = ({ steps }: Harness) => steps.reduce((sum, { numDecodeTokens }) => sum + numDecodeTokens, 0);

async function untilSuspended({ engine }: Harness, count = 1): Promise<void> {
  for (let i = 0; i < 5000 && engine.load.numSuspended < count; i++) await turn();
  expect(engine.load.numSuspended).toBe(count);
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

test("a consumer that reads nothing gets at most a full queue, and no slot", async () => {
  const harness = await startEngine({ maxBatch: 1 });
  const [unread] = harness.engine.submit([LONG]);
  await untilSuspended(harness);
  await turns(200);
  expect(numSampled(harness)).toBeLessThanOrEqual(MAX_UNREAD + MARGIN);
  expect(harness.engine.load).toMatchObject({ numRunning: 0, numWaiting: 0, slotsInUse: 0 });

  const other = request({ promptIds: [4], maxTokens: 300 });
  const [read] = harness.engine.submit([other]);
  expect((await gather(read!)).tokenIds).toEqual(tokensAlone(other));
  expect(harness.engine.load.numSuspended).toBe(1);

  expect((await gather(unread!)).tokenIds).toEqual(tokensAlone(LONG));
  harness.engine.checkIntegrity();
  expect(harness.runners[0]!.breaches).toEqual([]);
});

test("a slow consumer gets tokens as it reads, the same as alone", async () => {
  const harness = await startEngine({ maxBatch: 2 });
  const sampled = request({ ...LONG, sampling: { ...LONG.sampling, temperature: 1, seed: 3, frequencyPenalty: 0.5 } });
  const [sequence] = harness.engine.submit([sampled]);
  const events = sequence!.events[Symbol.asyncIterator]();
  const tokenIds: number[] = [];
  for (;;) {
    const { done, value } = await events.next();
    if (done) break;
    if (value.type !== "token") continue;
    tokenIds.push(value.tokenId);
    if (tokenIds.length % 50 === 0) await turns(300);
    expect(numSampled(harness)).toBeLessThanOrEqual(tokenIds.length + MAX_UNREAD + MARGIN);
  }
  expect(tokenIds).toEqual(tokensAlone(sampled));
  expect(harness.runners[0]!.calls.filter(({ type }) => type === "read").length).toBeGreaterThan(3);
});

test("when consumers catch up, the earliest request gets the next slot", async () => {
  const harness = await startEngine({ maxBatch: 1 });
  const order: string[] = [];
  const follow = (name: string, sequence: ReturnType<typeof harness.engine.submit>[number]) =>
    gather(sequence).then(() => order.push(name));
  const [first, second] = [LONG, LONG].flatMap((given) => harness.engine.submit([given]));
  await untilSuspended(harness, 2);
  const [running] = harness.engine.submit([LONG]);
  const third = follow("third", running!);
  const [waiting] = harness.engine.submit([request({ promptIds: [9], maxTokens: 3 })]);
  const fourth = follow("fourth", waiting!);
  await Promise.all([third, fourth, follow("second", second!), follow("first", first!)]);
  expect(order).toEqual(["third", "first", "second", "fourth"]);
});

test("suspended sequences count as waiting", async () => {
  const harness = await startEngine({ maxBatch: 1, maxQueue: 2 });
  const sequences = harness.engine.submit([LONG, LONG, LONG]);
  await untilSuspended(harness, 3);
  expect(() => harness.engine.submit([LONG])).toThrow(expect.objectContaining({ code: "queue_full" }));
  for (const sequence of sequences) sequence.stop();
  expect(harness.engine.load.numSuspended).toBe(0);
  expect((await gather(harness.engine.submit([LONG])[0]!)).reason).toBe("length");
});

test("a suspended sequence that is stopped, aborted or abandoned ends at once, with its state", async () => {
  const harness = await startEngine({ maxBatch: 4 });
  const abort = new AbortController();
  const kept = { ...LONG, capture: { end: true } };
  const [stopped, aborted, left] = harness.engine.submit([kept, { ...kept, signal: abort.signal }, kept]);
  await untilSuspended(harness, 3);
  stopped!.stop();
  abort.abort();
  await left!.events[Symbol.asyncIterator]().return?.();
  expect(harness.engine.load).toMatchObject({ numSuspended: 0, numRunning: 0, numWaiting: 0 });
  expect(harness.ends.map(({ reason }) => reason)).toEqual(["stop", "aborted", "aborted"]);
  for (const [sequence, reason] of [
    [stopped!, "stop"],
    [aborted!, "aborted"],
  ] as const) {
    const gathered = await gather(sequence);
    expect(gathered.reason).toBe(reason);
    const { tokenIds, position, state } = gathered.captured!;
    expect(tokenIds).toEqual([1, 2, 3, ...gathered.tokenIds]);
    expect(state).toEqual(bytesOf(stateAfter(tokenIds.slice(0, position))));
  }
});

test("closing waits for a slow consumer, and interrupts sequences that can be resumed at the deadline", async () => {
  const patient = await startEngine({ maxBatch: 1 });
  const [read] = patient.engine.submit([LONG]);
  await untilSuspended(patient);
  const closed = patient.engine.close({ deadlineMs: 60_000 });
  expect((await gather(read!)).tokenIds).toEqual(tokensAlone(LONG));
  await closed;

  const harness = await startEngine({ maxBatch: 1 });
  const [kept, lost] = harness.engine.submit([{ ...LONG, capture: { end: true } }, LONG]);
  await untilSuspended(harness, 2);
  await harness.engine.close({ deadlineMs: 0 });
  const interrupted = await gather(kept!);
  expect(interrupted.reason).toBe("interrupted");
  expect(interrupted.captured!.state).toEqual(
    bytesOf(stateAfter(interrupted.captured!.tokenIds.slice(0, interrupted.captured!.position))),
  );
  expect((await gather(lost!)).error).toMatchObject({ code: "shutting_down" });
  expect(harness.engine.status.state).toBe("closed");
});

test("a fault of the runtime does not reach a suspended sequence", async () => {
  let mustFail = false;
  const harness = await startEngine({
    maxBatch: 1,
    onCall: () => {
      if (!mustFail) return;
      mustFail = false;
      throw new Error("injected");
    },
  });
  const [suspended] = harness.engine.submit([LONG]);
  await untilSuspended(harness);
  const [hit] = harness.engine.submit([request({ promptIds: [4] })]);
  mustFail = true;
  expect((await gather(hit!)).error).toMatchObject({ code: "runtime_fault" });
  expect((await gather(suspended!)).tokenIds).toEqual(tokensAlone(LONG));
  expect(harness.runners).toHaveLength(2);
});
