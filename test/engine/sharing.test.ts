/**
 * Slots are shared between requests: who holds many gives some up for who comes later, and loses
 * nothing by it.
 */
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { gather, type Harness, request, startEngine, tokensAlone } from "../helpers/engine-harness.ts";

const longPrompt = (first: number) => Array.from({ length: 40 }, (_, i) => (first + 3 * i) % 29);
const LARGE = Array.from({ length: 12 }, (_, i) => request({ promptIds: longPrompt(i), maxTokens: 60 }));
const SMALL = request({ promptIds: [5, 6, 7, 8, 9, 10], maxTokens: 3 });

const calls = ({ runners }: Harness, wanted: string) => runners[0]!.calls.filter(({ type }) => type === wanted).length;

async function untilRuns(harness: Harness, count: number): Promise<void> {
  while (calls(harness, "run") < count) await turn();
}

test.each([
  ["reads its prompts", 3],
  ["decodes", 90],
])("a request that arrives while another %s in all slots gets one at once", async (_, numRuns) => {
  const harness = await startEngine({ maxBatch: 4, prefillChunk: 4 });
  const large = harness.engine.submit(LARGE).map((sequence) => gather(sequence));
  await untilRuns(harness, numRuns);
  expect(harness.engine.load).toMatchObject({ numRunning: 4, numWaiting: 8 });
  const [small] = harness.engine.submit([SMALL]);
  let runsToFirstToken: number | undefined;
  const outcome = await gather(small!, ({ type }) => {
    if (type === "token") runsToFirstToken ??= calls(harness, "run") - numRuns;
  });
  // The run that was under way; then chunks of four tokens, in turn with all prompts of the other
  // request as one.
  expect(runsToFirstToken).toBeLessThanOrEqual(6);
  expect(outcome.tokenIds).toEqual(tokensAlone(SMALL));
  const outcomes = await Promise.all(large);
  expect(outcomes.map(({ tokenIds }) => tokenIds)).toEqual(LARGE.map((given) => tokensAlone(given)));
  expect(harness.runners[0]!.breaches).toEqual([]);
  harness.engine.checkIntegrity();
});

test("a single request has all slots, and none of its states is moved", async () => {
  const harness = await startEngine({ maxBatch: 4 });
  await Promise.all(harness.engine.submit(LARGE).map((sequence) => gather(sequence)));
  expect(calls(harness, "read")).toBe(0);
  expect(calls(harness, "write")).toBe(0);
});

test("two large requests share evenly, one state moved before each run", async () => {
  const harness = await startEngine({ maxBatch: 4, maxQueue: 100 });
  const { engine } = harness;
  const first = engine.submit(LARGE).map((sequence) => gather(sequence));
  await untilRuns(harness, 3);
  const begun: number[] = [];
  const second = engine.submit(LARGE).map((sequence) =>
    gather(sequence, ({ type }) => {
      if (type === "prompt") begun.push(sequence.id);
    }),
  );
  while (begun.length < 2) await turn();
  const moves = harness.runners[0]!.calls.map(({ type }) => type);
  expect(moves.join(" ")).not.toMatch(/read (?:(?!run)\w+ )*read/);
  expect(calls(harness, "read")).toBe(2);
  for (const { tokenIds } of await Promise.all([...first, ...second])) expect(tokenIds).toHaveLength(60);
});

test("a sequence that is interrupted or aborted while its state is read ends, and frees everything", async () => {
  for (const end of ["interrupt", "abort"] as const) {
    const abort = new AbortController();
    const harness: Harness = await startEngine({
      maxBatch: 2,
      onCall: ({ type }) => {
        if (type !== "read") return;
        if (end === "interrupt") harness.engine.interrupt();
        else abort.abort();
      },
    });
    const kept = { capture: { end: true }, signal: abort.signal };
    const large = harness.engine.submit(LARGE.slice(0, 2).map((given) => ({ ...given, ...kept })));
    await untilRuns(harness, 3);
    const [small] = harness.engine.submit([SMALL]);
    const outcomes = await Promise.all([...large, small!].map((sequence) => gather(sequence)));
    expect(outcomes.slice(0, 2).map(({ reason }) => reason)).toEqual(
      Array(2).fill(end === "interrupt" ? "interrupted" : "aborted"),
    );
    expect(harness.engine.load).toMatchObject({ numRunning: 0, numWaiting: 0, numSuspended: 0 });
  }
});
