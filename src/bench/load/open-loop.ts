/** One run of an open-loop load: every request is sent when it is due, however many are still unanswered. */
import { performance } from "node:perf_hooks";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { poissonArrivals, randomPrompt } from "./arrivals.ts";
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
  const prompts = arrivals.map((_, i) => randomPrompt(load.promptTokens, load.seed * 1_000_003 + i));
  const startMs = performance.now();
  const running: Promise<DueRecord>[] = [];
  for (const [i, arrivalMs] of arrivals.entries()) {
    const dueAtMs = startMs + arrivalMs;
    await until(dueAtMs);
    const request = { promptIds: prompts[i]!, maxTokens: load.outputTokens, timeoutMs: load.timeoutMs };
    running.push(streamCompletion(target, request).then((record) => ({ ...record, dueAtMs })));
  }
  return Promise.all(running);
}

/** Never early, which timers may be, and not a whole tick of theirs late: the last of it passes in turns of the loop. */
async function until(atMs: number): Promise<void> {
  for (let waitMs = atMs - performance.now(); waitMs > 0; waitMs = atMs - performance.now()) {
    if (waitMs >= 1) await sleep(Math.floor(waitMs));
    else await setImmediate();
  }
}

/** All at once, and none after. @throws Error if a stream fails: a rate of the others would say nothing. */
export async function runTogether(
  target: Target,
  load: Pick<Load, "promptTokens" | "outputTokens" | "seed" | "timeoutMs"> & { readonly numStreams: number },
): Promise<StreamRecord[]> {
  const streams = await Promise.all(
    Array.from({ length: load.numStreams }, (_, i) =>
      streamCompletion(target, {
        promptIds: randomPrompt(load.promptTokens, load.seed * 1_000_003 + i),
        maxTokens: load.outputTokens,
        timeoutMs: load.timeoutMs,
      }),
    ),
  );
  const failed = streams.find(({ error }) => error !== undefined);
  if (failed !== undefined) throw new Error(`a stream from ${target.baseUrl} failed: ${failed.error}`);
  return streams;
}

/**
 * Tokens per second while all streams run: from the first chunk of the last to start, to the end of the first to end. A
 * chunk counts as many tokens as its stream has on the average: usually one.
 */
export function togetherRate(streams: readonly Pick<StreamRecord, "chunkAtMs" | "numTokens">[]): number {
  const fromMs = Math.max(...streams.map(({ chunkAtMs }) => chunkAtMs[0]!));
  const toMs = Math.min(...streams.map(({ chunkAtMs }) => chunkAtMs.at(-1)!));
  const inside = streams.map(({ chunkAtMs, numTokens }) => {
    const numChunks = chunkAtMs.filter((atMs) => atMs > fromMs && atMs <= toMs).length;
    return (numChunks * numTokens) / chunkAtMs.length;
  });
  return (inside.reduce((sum, count) => sum + count, 0) / (toMs - fromMs)) * 1000;
}
