import fc from "fast-check";
import { expect, test } from "vitest";
import type { ResumePoint, Sequence, SequenceRequest } from "../../src/engine/sequence.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import {
  bytesOf,
  type Gathered,
  gather,
  type HarnessOptions,
  request,
  startEngine,
  stateAfter,
  tokensAlone,
} from "../helpers/engine-harness.ts";
import { numCases } from "../helpers/random-cases.ts";

/** What a client may do, each after so many turns of the event loop. */
type Action =
  | { readonly type: "submit"; readonly turns: number; readonly plans: readonly Plan[] }
  | { readonly type: "abort" | "stop" | "leave"; readonly turns: number; readonly pick: number }
  | { readonly type: "fault" | "interrupt"; readonly turns: number };

interface Plan {
  readonly numPrompt: number;
  readonly maxTokens: number;
  readonly first: number;
  readonly temperature: number;
  readonly isPenalised: boolean;
  readonly hasStopToken: boolean;
  readonly numResumed: number;
  readonly numUnread: number;
  readonly capture: { readonly prompt: boolean; readonly end: boolean };
  readonly checkpoints: readonly number[];
  /** Turns of the event loop between two of its reader's events. */
  readonly readerTurns: number;
}

const turns = fc.nat(6);
const plan: fc.Arbitrary<Plan> = fc.record({
  numPrompt: fc.integer({ min: 1, max: 20 }),
  maxTokens: fc.oneof({ weight: 3, arbitrary: fc.nat(15) }, { weight: 1, arbitrary: fc.constantFrom(100, 150) }),
  first: fc.nat(28),
  temperature: fc.constantFrom(0, 0.5, 1.5),
  isPenalised: fc.boolean(),
  hasStopToken: fc.boolean(),
  numResumed: fc.constantFrom(0, 0, 5),
  numUnread: fc.nat(3),
  capture: fc.record({ prompt: fc.boolean(), end: fc.boolean() }),
  checkpoints: fc.uniqueArray(fc.nat(25), { maxLength: 3 }),
  readerTurns: fc.constantFrom(0, 0, 5, 20),
});
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant("submit" as const), turns, plans: fc.array(plan, { maxLength: 3 }) }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constantFrom("abort", "stop", "leave"), turns, pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom("fault", "interrupt"), turns }) },
);

interface Client {
  readonly given: SequenceRequest;
  readonly abort: AbortController;
  readonly stop: () => void;
  readonly leave: () => void;
  readonly outcome: Promise<Gathered>;
  hasLeft: boolean;
}

function makeRequest(plan: Plan, signal: AbortSignal): SequenceRequest {
  const tokenIds = Array.from({ length: plan.numResumed + plan.numPrompt }, (_, i) => (plan.first + 3 * i) % 29);
  const resumed = tokenIds.slice(0, plan.numResumed);
  const position = Math.max(0, plan.numResumed - plan.numUnread);
  const resume: ResumePoint = { tokenIds: resumed, position, state: bytesOf(stateAfter(resumed.slice(0, position))) };
  return request({
    promptIds: tokenIds.slice(plan.numResumed),
    ...(plan.numResumed > 0 ? { resume } : {}),
    maxTokens: plan.maxTokens,
    stopTokenIds: new Set(plan.hasStopToken ? [plan.first, 1, 2] : []),
    sampling: {
      ...GREEDY,
      temperature: plan.temperature,
      seed: plan.first,
      repetitionPenalty: plan.isPenalised ? 1.2 : 1,
    },
    capture: plan.capture,
    checkpoints: {
      positions: [...plan.checkpoints].sort((a, b) => a - b),
      take: (position, state) => expect(state).toEqual(bytesOf(stateAfter(tokenIds.slice(0, position)))),
    },
    signal,
  });
}

/** Read by somebody who takes so many turns for each event. */
function slowly(sequence: Sequence, turns: number): Sequence {
  if (turns === 0) return sequence;
  const events = async function* () {
    for await (const event of sequence.events) {
      for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
      yield event;
    }
  };
  return { ...sequence, events: events() };
}

function expectConsistent(point: ResumePoint | undefined): void {
  if (point === undefined) return;
  expect(point.position).toBeLessThanOrEqual(point.tokenIds.length);
  expect(point.state).toEqual(bytesOf(stateAfter(point.tokenIds.slice(0, point.position))));
}

async function play(actions: readonly Action[], options: HarnessOptions): Promise<void> {
  let isFaulty = false;
  let numFaults = 0;
  let numContinued = 0;
  const harness = await startEngine({
    ...options,
    onCall: () => {
      if (!isFaulty) return;
      isFaulty = false;
      numFaults++;
      throw new Error("injected");
    },
  });
  const { engine } = harness;
  const clients: Client[] = [];
  for (const action of actions) {
    for (let turn = 0; turn < action.turns; turn++) await new Promise((resolve) => setImmediate(resolve));
    const client = "pick" in action ? clients[action.pick % clients.length] : undefined;
    if (action.type === "fault") {
      isFaulty = true;
    } else if (action.type === "interrupt") {
      engine.interrupt();
    } else if (action.type === "submit") {
      const aborts = action.plans.map(() => new AbortController());
      const requests = action.plans.map((plan, i) => makeRequest(plan, aborts[i]!.signal));
      engine.submit(requests).forEach((sequence, i) => {
        const events = sequence.events[Symbol.asyncIterator]();
        clients.push({
          given: requests[i]!,
          abort: aborts[i]!,
          stop: () => sequence.stop(),
          leave: () => void events.return?.(),
          outcome: gather(slowly(sequence, action.plans[i]!.readerTurns)),
          hasLeft: false,
        });
      });
    } else if (action.type === "abort") {
      client?.abort.abort();
    } else if (action.type === "stop") {
      client?.stop();
    } else if (client !== undefined) {
      client.hasLeft = true;
      client.leave();
    }
  }
  for (const { given, outcome, hasLeft } of clients) {
    const { tokenIds, reason, error, captured, capturedPrompt, events } = await outcome;
    const alone = tokensAlone(given);
    expect(tokenIds).toEqual(alone.slice(0, tokenIds.length));
    expectConsistent(captured);
    expectConsistent(capturedPrompt);
    if (reason === "interrupted") {
      // Whoever goes on from where it was interrupted, maybe in the middle of its prompt, gets the
      // rest of what it gives alone.
      const maxTokens = given.maxTokens - tokenIds.length;
      const { checkpoints: _, capture: __, ...rest } = given;
      const next = { ...rest, resume: captured!, promptIds: [], maxTokens, signal: new AbortController().signal };
      const after = await gather(engine.submit([next])[0]!);
      if (after.error === undefined) expect([...tokenIds, ...after.tokenIds]).toEqual(alone);
      numContinued++;
    }
    if (error !== undefined) {
      expect(["runtime_fault", "shutting_down"]).toContain((error as { code: string }).code);
    } else if (!hasLeft) {
      expect(events.filter(({ type }) => type === "finished")).toHaveLength(1);
      expect(events.at(-1)?.type).toBe("finished");
      if (reason === "length") expect(tokenIds).toEqual(alone);
      const wasSeated = events.length > 1 || reason !== "aborted";
      if (reason === "interrupted") expect(captured).toBeDefined();
      if (given.capture?.end !== true) expect(captured).toBeUndefined();
      else if (wasSeated && reason !== "stop") expect(captured).toBeDefined();
    }
  }
  await engine.close({ deadlineMs: 60_000 });
  engine.checkIntegrity();
  expect(harness.ends).toHaveLength(clients.length + numContinued);
  expect(engine.load).toMatchObject({ numRunning: 0, numWaiting: 0, numSuspended: 0, slotsInUse: 0 });
  expect(harness.runners.flatMap(({ breaches }) => breaches)).toEqual([]);
  // A fault while closing, with nobody left, is not worth a fresh runner.
  expect([numFaults, numFaults + 1]).toContain(harness.runners.length);
  expect(harness.runners.every(({ isClosed }) => isClosed)).toBe(true);
}

test("whatever clients and faults do, each sequence ends once, has the same tokens as alone, and frees its slot", async () => {
  const options = fc.record({
    maxBatch: fc.integer({ min: 1, max: 5 }),
    prefillChunk: fc.integer({ min: 1, max: 6 }),
    maxStall: fc.constantFrom(0.5, Number.POSITIVE_INFINITY),
    ragged: fc.boolean(),
    maxPassSteps: fc.integer({ min: 6, max: 9 }),
  });
  await fc.assert(fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 25 }), options, play), {
    numRuns: numCases(200),
  });
}, 120_000);
