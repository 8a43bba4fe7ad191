/**
 * What engine tests share: an engine over fake runners, requests with defaults, events gathered,
 * and an oracle.
 */
import { Engine, type EngineLimits } from "../../src/engine/engine.ts";
import type { EngineStatus, StepReport } from "../../src/engine/observer.ts";
import type {
  ResumePoint,
  Sequence,
  SequenceEvent,
  SequenceRequest,
  SequenceTimings,
} from "../../src/engine/sequence.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import { Sampler, SamplingScratch } from "../../src/sampling/sampler.ts";
import { FakeRunner, type FakeRunnerOptions, fakeLogits, fakeState, readToken } from "./fake-runner.ts";
import { logitRows } from "./logit-rows.ts";

export interface Harness {
  readonly engine: Engine;
  /** Every runner opened, the last one in use. */
  readonly runners: FakeRunner[];
  readonly steps: StepReport[];
  readonly statuses: EngineStatus[];
  readonly ends: { readonly reason: string; readonly timings: SequenceTimings }[];
  readonly slept: number[];
}

export interface HarnessOptions extends Partial<EngineLimits>, Partial<Omit<FakeRunnerOptions, "numSlots">> {
  /** Called before each opening; throws to make it fail. */
  readonly onOpen?: () => unknown;
  /** Default: the process's clock. */
  readonly now?: () => number;
  /** Sleeps take no time unless given. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

export async function startEngine(options: HarnessOptions = {}): Promise<Harness> {
  const harness = makeEngine(options);
  await harness.engine.start();
  return harness;
}

export function makeEngine(options: HarnessOptions = {}): Harness {
  const { maxBatch = 4, maxQueue = 100, prefillChunk = 4, maxStall, onOpen, sleep, now, ...runnerOptions } = options;
  const observed = {
    runners: [] as FakeRunner[],
    steps: [] as StepReport[],
    statuses: [] as EngineStatus[],
    ends: [] as { reason: string; timings: SequenceTimings }[],
    slept: [] as number[],
  };
  const engine = new Engine({
    openRunner: async () => {
      await onOpen?.();
      const runner = new FakeRunner({ ...runnerOptions, numSlots: maxBatch });
      observed.runners.push(runner);
      return runner;
    },
    limits: { maxBatch, maxQueue, prefillChunk, ...(maxStall === undefined ? {} : { maxStall }) },
    observer: {
      onStep: (step) => observed.steps.push(step),
      onSequenceEnd: (end) => observed.ends.push(end),
      onStatus: (status) => observed.statuses.push(status),
    },
    now: now ?? (() => performance.now()),
    random: () => 0.5,
    sleep: async (ms, signal) => {
      observed.slept.push(ms);
      await sleep?.(ms, signal);
      // A deadline's sleep that takes no time would cut every close short.
      if (sleep === undefined && ms >= 60_000)
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  });
  return { engine, ...observed };
}

export function request(given: Partial<SequenceRequest> & { readonly promptIds: readonly number[] }): SequenceRequest {
  return {
    sampling: GREEDY,
    maxTokens: 10,
    minTokens: 0,
    stopTokenIds: new Set(),
    signal: new AbortController().signal,
    ...given,
  };
}

export interface Gathered {
  readonly events: readonly SequenceEvent[];
  readonly tokenIds: readonly number[];
  readonly reason: "stop" | "length" | "aborted" | "interrupted" | undefined;
  readonly captured: ResumePoint | undefined;
  readonly capturedPrompt: ResumePoint | undefined;
  readonly error: unknown;
}

/** Iterates to the end, error included. */
export async function gather(sequence: Sequence, onEvent?: (event: SequenceEvent) => void): Promise<Gathered> {
  const events: SequenceEvent[] = [];
  let error: unknown;
  try {
    for await (const event of sequence.events) {
      events.push(event);
      onEvent?.(event);
    }
  } catch (caught) {
    error = caught;
  }
  const prompt = events.find((event) => event.type === "prompt");
  const finished = events.find((event) => event.type === "finished");
  return {
    events,
    tokenIds: events.flatMap((event) => (event.type === "token" ? [event.tokenId] : [])),
    reason: finished?.reason,
    captured: finished?.captured,
    capturedPrompt: prompt?.captured,
    error,
  };
}

/**
 * What the request must give, computed without an engine: one token after the other, from the very
 * first.
 */
export function tokensAlone(given: SequenceRequest, vocabSize = 29): number[] {
  const context = [...(given.resume?.tokenIds ?? []), ...given.promptIds];
  const state = stateAfter(context);
  const sampler = new Sampler({
    params: given.sampling,
    context: [context],
    minTokens: given.minTokens,
    stopTokenIds: given.stopTokenIds,
    seed: given.sampling.seed ?? 2 ** 52,
    scratch: new SamplingScratch(),
    ...(given.vocabSize !== undefined && { vocabSize: given.vocabSize }),
  });
  const tokenIds: number[] = [];
  while (tokenIds.length < given.maxTokens) {
    const tokenId = sampler.sample(logitRows([fakeLogits(state, vocabSize)], [given.sampling.temperature || 1]), 0);
    tokenIds.push(tokenId);
    if (given.stopTokenIds.has(tokenId)) break;
    readToken(state, tokenId);
  }
  return tokenIds;
}

/** The fake model's state once it has read these tokens. */
export function stateAfter(tokenIds: readonly number[]): Uint32Array {
  const state = fakeState();
  for (const tokenId of tokenIds) readToken(state, tokenId);
  return state;
}

export function bytesOf(state: Uint32Array): Uint8Array {
  return new Uint8Array(state.slice().buffer);
}
