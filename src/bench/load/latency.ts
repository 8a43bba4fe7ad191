/**
 * Latencies and goodput of what one client saw. Time to first token and end to end count from when
 * a request was due, not from when it could be sent: otherwise a client that falls behind would
 * hide the wait.
 */
import { gaps, percentile } from "../figures.ts";
import type { StreamRecord } from "./stream-client.ts";

export interface DueRecord extends StreamRecord {
  /** When it should have been sent, ms on the process clock. */
  readonly dueAtMs: number;
}

/** Milliseconds. */
export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

/** A service-level objective: a request is good if it meets both. */
export interface Objective {
  readonly ttftMs: number;
  /** The mean time per output token after the first, of one stream. */
  readonly tpotMs: number;
}

export interface LoadFigures {
  readonly numRequests: number;
  readonly numErrors: number;
  /** The first error's text. */
  readonly firstError?: string;
  /** Requests per second that arrived, and that ended well. */
  readonly offeredPerSecond: number;
  readonly completedPerSecond: number;
  /** Requests per second that met the objective. */
  readonly goodputPerSecond: number;
  /** Share of all requests that met it, 0 to 1. */
  readonly goodShare: number;
  readonly tokensPerSecond: number;
  /** To the first token, from when the request was due. */
  readonly ttft: Spread;
  /** Per output token after the first, the mean of each request. */
  readonly tpot: Spread;
  /** Between one chunk and the next, over all requests. */
  readonly itl: Spread;
  readonly e2e: Spread;
}

/** @param records at least one */
export function summarize(records: readonly DueRecord[], objective: Objective): LoadFigures {
  const complete = records.filter((record) => record.error === undefined && record.chunkAtMs.length > 0);
  const good = complete.filter((r) => ttftMs(r) <= objective.ttftMs && tpotMs(r) <= objective.tpotMs);
  const firstError = records.find((record) => record.error !== undefined)?.error;
  const startMs = Math.min(...records.map((record) => record.dueAtMs));
  const arrivalSeconds = (Math.max(...records.map((record) => record.dueAtMs)) - startMs) / 1000;
  const seconds = (Math.max(...records.map((record) => record.endedAtMs)) - startMs) / 1000;
  return {
    numRequests: records.length,
    numErrors: records.length - complete.length,
    ...(firstError === undefined ? {} : { firstError }),
    // The first arrival opens the window, so one gap less than there are requests.
    offeredPerSecond: records.length > 1 ? (records.length - 1) / arrivalSeconds : Number.NaN,
    completedPerSecond: complete.length / seconds,
    goodputPerSecond: good.length / seconds,
    goodShare: good.length / records.length,
    tokensPerSecond: complete.reduce((sum, record) => sum + record.numTokens, 0) / seconds,
    ttft: spread(complete.map(ttftMs)),
    tpot: spread(complete.filter((record) => record.numTokens > 1).map(tpotMs)),
    itl: spread(complete.flatMap((record) => gaps(record.chunkAtMs))),
    e2e: spread(complete.map((record) => record.endedAtMs - record.dueAtMs)),
  };
}

function ttftMs(record: DueRecord): number {
  return record.chunkAtMs[0]! - record.dueAtMs;
}

/** 0 for a single token, which has no pace. */
function tpotMs({ chunkAtMs, numTokens }: DueRecord): number {
  return numTokens > 1 ? (chunkAtMs.at(-1)! - chunkAtMs[0]!) / (numTokens - 1) : 0;
}

function spread(values: readonly number[]): Spread {
  return { p50: percentile(values, 50), p90: percentile(values, 90), p99: percentile(values, 99) };
}
