/**
 * Token streams straight from the engine, without text or HTTP. Greedy, to their full length, with
 * seeded prompts: two runs do the same work.
 */
import { performance } from "node:perf_hooks";
import type { Engine } from "../engine/engine.ts";
import type { SequenceRequest } from "../engine/sequence.ts";
import { GREEDY } from "../sampling/params.ts";

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

/**
 * What one of several streams received: when each chunk came, ms, and how many tokens all of them
 * had.
 */
export interface StreamArrivals {
  readonly chunkAtMs: readonly number[];
  readonly numTokens: number;
}

/**
 * Tokens per second while all streams run: from the first chunk of the last to start until the
 * first to end. A chunk counts as many tokens as its stream's chunks have on average.
 */
export function rateTogether(streams: readonly StreamArrivals[]): number {
  const fromMs = Math.max(...streams.map(({ chunkAtMs }) => chunkAtMs[0]!));
  const toMs = Math.min(...streams.map(({ chunkAtMs }) => chunkAtMs.at(-1)!));
  const inside = streams.map(({ chunkAtMs, numTokens }) => {
    const numChunks = chunkAtMs.filter((atMs) => atMs > fromMs && atMs <= toMs).length;
    return (numChunks * numTokens) / chunkAtMs.length;
  });
  return (inside.reduce((sum, count) => sum + count, 0) / (toMs - fromMs)) * 1000;
}
