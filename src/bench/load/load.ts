/**
 * Requests to a server. In an open loop each is sent when it is due, however many are still
 * unanswered; arrivals are drawn before the run, so that a slow server cannot slow its own load
 * down. The same seed gives every server the same load.
 */
import { performance } from "node:perf_hooks";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { SeededRandom } from "../../sampling/random.ts";
import { randomPrompt } from "../random-model.ts";
import type { DueRecord } from "./latency.ts";
import { type StreamRecord, streamCompletion, type Target } from "./stream-client.ts";

export interface Load {
  readonly perSecond: number;
  readonly numRequests: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly seed: number;
  readonly timeoutMs: number;
}

/** One record for each request, in the order of arrival. */
export async function runOpenLoop(target: Target, load: Load): Promise<DueRecord[]> {
  const arrivals = poissonArrivals(load);
  const requests = arrivals.map((_, i) => requestOf(load, i));
  const startMs = performance.now();
  const running: Promise<DueRecord>[] = [];
  for (const [i, arrivalMs] of arrivals.entries()) {
    const dueAtMs = startMs + arrivalMs;
    await until(dueAtMs);
    running.push(streamCompletion(target, requests[i]!).then((record) => ({ ...record, dueAtMs })));
  }
  return Promise.all(running);
}

/**
 * All at once, and none after. @throws Error if a stream fails: a rate of the others would mean
 * nothing
 */
export async function runTogether(
  target: Target,
  load: Omit<Load, "perSecond" | "numRequests"> & { readonly numStreams: number },
): Promise<StreamRecord[]> {
  const requests = Array.from({ length: load.numStreams }, (_, i) => requestOf(load, i));
  const streams = await Promise.all(requests.map((request) => streamCompletion(target, request)));
  const failed = streams.find(({ error }) => error !== undefined);
  if (failed !== undefined) throw new Error(`a stream from ${target.baseUrl} failed: ${failed.error}`);
  return streams;
}

function requestOf(
  { promptTokens, outputTokens, seed, timeoutMs }: Omit<Load, "perSecond" | "numRequests">,
  index: number,
) {
  return { promptIds: randomPrompt(promptTokens, seed * 1_000_003 + index), maxTokens: outputTokens, timeoutMs };
}

/**
 * Of a Poisson process: milliseconds from the start of the run, ascending. @param perSecond mean
 * rate, > 0
 */
export function poissonArrivals(options: Pick<Load, "perSecond" | "numRequests" | "seed">): number[] {
  const random = new SeededRandom(options.seed);
  let atMs = 0;
  return Array.from({ length: options.numRequests }, () => {
    // The gaps are exponential; 1 - next() is never 0.
    atMs += (-Math.log(1 - random.next()) / options.perSecond) * 1000;
    return atMs;
  });
}

/**
 * Never early, as timers may be, nor a whole millisecond late: the last of it passes in turns of
 * the event loop.
 */
async function until(atMs: number): Promise<void> {
  for (let waitMs = atMs - performance.now(); waitMs > 0; waitMs = atMs - performance.now()) {
    if (waitMs >= 1) await sleep(Math.floor(waitMs));
    else await setImmediate();
  }
}
