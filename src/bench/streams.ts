/**
 * Engine-level measurements: token streams straight from the engine, without text or HTTP. Greedy, no end-of-sequence,
 * fixed prompts, so that two runs do the same work.
 */
import { performance } from "node:perf_hooks";
import type { Engine } from "../engine/engine.ts";
import type { ResumePoint, SequenceRequest } from "../engine/sequence.ts";
import { GREEDY } from "../sampling/params.ts";
import { median, slope } from "./report.ts";

export function streamRequest(promptIds: readonly number[], maxTokens: number, signal?: AbortSignal): SequenceRequest {
  return {
    promptIds,
    sampling: GREEDY,
    maxTokens,
    minTokens: 0,
    stopTokenIds: new Set(),
    signal: signal ?? new AbortController().signal,
  };
}

/** A prompt of `length` ids that no vocabulary lacks, different for each `salt`. */
export function makePrompt(length: number, salt: number): number[] {
  return Array.from({ length }, (_, i) => 3 + ((i * 31 + salt * 17) % 250));
}

export interface StreamTimes {
  /** Milliseconds from submission to the first token. */
  readonly firstTokenMs: number;
  /** Arrival of each token on the process clock, ms. */
  readonly tokenAtMs: readonly number[];
}

/** Runs one sequence to its end. */
export async function runStream(engine: Engine, request: SequenceRequest): Promise<StreamTimes> {
  const submittedAtMs = performance.now();
  const tokenAtMs: number[] = [];
  for await (const event of engine.submit([request])[0]!.events) {
    if (event.type === "token") tokenAtMs.push(performance.now());
  }
  return { firstTokenMs: (tokenAtMs[0] ?? Number.NaN) - submittedAtMs, tokenAtMs };
}

/** Tokens per second of `numStreams` streams together, from the first token of the last to start, to the first to end. */
export async function measureThroughput(engine: Engine, numStreams: number, numTokens: number): Promise<number> {
  const streams = await Promise.all(
    Array.from({ length: numStreams }, (_, i) => runStream(engine, streamRequest(makePrompt(8, i), numTokens))),
  );
  const fromMs = Math.max(...streams.map((stream) => stream.tokenAtMs[0]!));
  const toMs = Math.min(...streams.map((stream) => stream.tokenAtMs.at(-1)!));
  const numInside = streams.reduce(
    (sum, stream) => sum + stream.tokenAtMs.filter((atMs) => atMs > fromMs && atMs <= toMs).length,
    0,
  );
  return (numInside / (toMs - fromMs)) * 1000;
}

/**
 * Time to first token of short prompts that arrive one after the other while `numStreams` streams decode, in ms, and
 * the streams' own median step.
 */
export async function measureInterference(
  engine: Engine,
  options: { readonly numStreams: number; readonly promptLength: number; readonly numArrivals: number },
): Promise<{ readonly firstTokenMs: number[]; readonly stepMs: number[] }> {
  const controller = new AbortController();
  const streams = Array.from({ length: options.numStreams }, (_, i) =>
    runStream(engine, streamRequest(makePrompt(8, i), 1_000_000, controller.signal)),
  );
  const firstTokenMs: number[] = [];
  await runStream(engine, streamRequest(makePrompt(options.promptLength, 999), 4)); // warm-up: all streams are running
  for (let i = 0; i < options.numArrivals; i++) {
    const arrival = await runStream(engine, streamRequest(makePrompt(options.promptLength, 1000 + i), 4));
    firstTokenMs.push(arrival.firstTokenMs);
  }
  controller.abort();
  const finished = await Promise.all(streams);
  const stepMs = finished[0]!.tokenAtMs.slice(1).map((atMs, i) => atMs - finished[0]!.tokenAtMs[i]!);
  return { firstTokenMs, stepMs };
}

export interface LongSession {
  /** Tokens per second of the session's first and last tenth. */
  readonly firstRate: number;
  readonly lastRate: number;
  /** The same, each over the rate of fresh sequences that ran in between: the machine's own drift cancels out. */
  readonly firstRelative: number;
  readonly lastRelative: number;
  /** Growth of resident memory behind the first tenth. */
  readonly bytesPerToken: number;
}

const NUM_SEGMENTS = 50;
/** Until everything is compiled that will be. */
const NUM_WARM_UPS = 3;

/** One session of `numTokens` in segments, each resumed from the last one's state; fresh sequences take turns with it. */
export async function measureLongSession(engine: Engine, numTokens: number): Promise<LongSession> {
  const length = Math.ceil(numTokens / NUM_SEGMENTS);
  const tenth = NUM_SEGMENTS / 10;
  const rates: { session: number; fresh: number }[] = [];
  const memory: { x: number; y: number }[] = [];
  let resume: ResumePoint | undefined;
  const runFresh = async () => (await runSegment(engine, undefined, length)).rate;
  for (let i = 0; i < NUM_WARM_UPS; i++) await runFresh();
  for (let segment = 0; segment < NUM_SEGMENTS; segment++) {
    const isTimed = segment < tenth || segment >= NUM_SEGMENTS - tenth;
    const isFreshFirst = segment % 2 === 0; // whoever comes second finds everything a little warmer
    let fresh = isTimed && isFreshFirst ? await runFresh() : Number.NaN;
    const run = await runSegment(engine, resume, length);
    resume = run.end;
    if (isTimed && !isFreshFirst) fresh = await runFresh();
    rates.push({ session: run.rate, fresh });
    if (segment >= tenth) memory.push({ x: segment * length, y: process.memoryUsage.rss() });
  }
  const first = rates.slice(0, tenth);
  const last = rates.slice(-tenth);
  return {
    firstRate: median(first.map(({ session }) => session)),
    lastRate: median(last.map(({ session }) => session)),
    firstRelative: median(first.map(({ session, fresh }) => session / fresh)),
    lastRelative: median(last.map(({ session, fresh }) => session / fresh)),
    bytesPerToken: slope(memory),
  };
}

async function runSegment(
  engine: Engine,
  resume: ResumePoint | undefined,
  numTokens: number,
): Promise<{ readonly rate: number; readonly end: ResumePoint | undefined }> {
  const request = streamRequest(makePrompt(8, 1), numTokens);
  let firstAtMs = 0;
  let end: ResumePoint | undefined;
  for await (const event of engine.submit([{ ...request, ...(resume && { resume }), capture: { end: true } }])[0]!
    .events) {
    if (event.type === "token" && firstAtMs === 0) firstAtMs = performance.now();
    else if (event.type === "finished") end = event.captured;
  }
  return { rate: ((numTokens - 1) / (performance.now() - firstAtMs)) * 1000, end };
}
