/**
 * Engine-level measurements: token streams straight from the engine, without text or HTTP. Greedy, no end-of-sequence,
 * fixed prompts, so that two runs do the same work.
 */
import { performance } from "node:perf_hooks";
import type { Engine } from "../engine/engine.ts";
import type { SequenceRequest } from "../engine/sequence.ts";
import { GREEDY } from "../sampling/params.ts";
import { slope } from "./report.ts";

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

/** One session of `numTokens`: tokens/s of its first and last tenth, and resident bytes per token between the two. */
export async function measureLongSession(
  engine: Engine,
  numTokens: number,
): Promise<{ readonly firstRate: number; readonly lastRate: number; readonly bytesPerToken: number }> {
  const tenth = Math.floor(numTokens / 10);
  const marksMs: number[] = [];
  const memory: { x: number; y: number }[] = [];
  let numSeen = 0;
  for await (const event of engine.submit([streamRequest(makePrompt(8, 1), numTokens)])[0]!.events) {
    if (event.type !== "token") continue;
    numSeen++;
    if (numSeen === 1 || numSeen === tenth || numSeen === numTokens - tenth || numSeen === numTokens) {
      marksMs.push(performance.now());
    }
    // The first tenth warms up the heap; the slope is taken over the rest.
    if (numSeen >= tenth && numSeen % Math.max(1, Math.floor(tenth / 20)) === 0) {
      memory.push({ x: numSeen, y: process.memoryUsage.rss() });
    }
  }
  const rate = (count: number, fromMs: number, toMs: number) => (count / (toMs - fromMs)) * 1000;
  return {
    firstRate: rate(tenth - 1, marksMs[0]!, marksMs[1]!),
    lastRate: rate(tenth, marksMs[2]!, marksMs[3]!),
    bytesPerToken: slope(memory),
  };
}
