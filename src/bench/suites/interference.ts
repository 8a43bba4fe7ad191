/**
 * What running streams and arriving prompts cost each other: short prompts, many of them at once,
 * and very long ones.
 */
import type { Engine } from "../../engine/engine.ts";
import { atMost, type Figure, gaps, median, percentile } from "../figures.ts";
import { randomPrompt } from "../random-model.ts";
import { inTurns, ratios } from "../rounds.ts";
import { runStream, type StreamTimes, streamRequest } from "../streams.ts";

const SHORT_PROMPT_TOKENS = 32;
const NUM_ARRIVALS = 200;
const BURST = 32;
const LONG_PROMPT_TOKENS = 8000;
const NUM_LONG_PROMPTS = 3;
const STALL_STREAMS = 8;
const QUIET_TOKENS = 300;

/** Runs endless streams beside `act`. @returns what it gave, and the streams' times */
async function besideStreams<T>(
  engine: Engine,
  numStreams: number,
  act: () => Promise<T>,
): Promise<[T, StreamTimes[]]> {
  const controller = new AbortController();
  const streams = Array.from({ length: numStreams }, (_, i) =>
    runStream(engine, streamRequest(randomPrompt(8, i), 10_000_000, controller.signal)),
  );
  try {
    const result = await act();
    controller.abort();
    return [result, await Promise.all(streams)];
  } finally {
    controller.abort();
  }
}

/**
 * The first token of short prompts that arrive one after the other while `numStreams` streams
 * decode.
 */
export async function benchInterference(engine: Engine, numStreams: number): Promise<Figure[]> {
  const arrive = async (seed: number) =>
    (await runStream(engine, streamRequest(randomPrompt(SHORT_PROMPT_TOKENS, seed), 4))).firstTokenMs;
  const [firstTokenMs, streams] = await besideStreams(engine, numStreams, async () => {
    await arrive(999); // warm-up: from here on all streams run
    const arrivals: number[] = [];
    for (let i = 0; i < NUM_ARRIVALS; i++) arrivals.push(await arrive(1000 + i));
    return arrivals;
  });
  const stepMs = gaps(streams[0]!.tokenAtMs);
  const step = median(stepMs);
  return [
    { name: `median step, ${numStreams} streams decoding`, value: step, unit: "ms" },
    { name: "p99 step", value: percentile(stepMs, 99), unit: "ms" },
    { name: `median first token, ${SHORT_PROMPT_TOKENS}-token prompt`, value: median(firstTokenMs), unit: "ms" },
    { name: "p99 first token", value: percentile(firstTokenMs, 99), unit: "ms" },
    { name: "p99 first token / median step", value: percentile(firstTokenMs, 99) / step, unit: "x", ...atMost(10) },
  ];
}

/**
 * The last first token of short prompts that come at once, in turns with that of a single prompt of
 * as many tokens.
 */
export async function benchBurst(engine: Engine): Promise<Figure[]> {
  let seed = 0;
  const firstTokenMs = async (numTokens: number) =>
    (await runStream(engine, streamRequest(randomPrompt(numTokens, seed++), 1))).firstTokenMs;
  const { last, single } = await inTurns(
    {
      last: async () =>
        Math.max(...(await Promise.all(Array.from({ length: BURST }, () => firstTokenMs(SHORT_PROMPT_TOKENS))))),
      single: () => firstTokenMs(BURST * SHORT_PROMPT_TOKENS),
    },
    { numRounds: 9 },
  );
  const burst = `random weights, ${BURST} prompts of ${SHORT_PROMPT_TOKENS} tokens at once`;
  const one = `one prompt of ${BURST * SHORT_PROMPT_TOKENS}`;
  return [
    { name: `${burst}: the last one's first token`, value: median(last), unit: "ms" },
    { name: `${one}: its first token`, value: median(single), unit: "ms" },
    { name: `the burst / ${one}`, value: median(ratios(last, single)), unit: "x", ...atMost(1.25) },
  ];
}

/** The pace of running streams while an 8,000-token prompt is read, and how long that takes. */
export async function benchStall(engine: Engine): Promise<Figure[]> {
  // Other streams of the engine tell when these have run for a while: no timer, whatever the
  // model's speed.
  const timed = async (promptTokens: number, maxTokens: number, seed: number) => {
    const fromMs = performance.now();
    await runStream(engine, streamRequest(randomPrompt(promptTokens, seed), maxTokens));
    return { fromMs, toMs: performance.now() };
  };
  const [{ quiet, reads }, streams] = await besideStreams(engine, STALL_STREAMS, async () => {
    await timed(8, QUIET_TOKENS, 99);
    const quiet = [await timed(8, QUIET_TOKENS, 98)];
    const reads = [];
    for (let i = 0; i < NUM_LONG_PROMPTS; i++) reads.push(await timed(LONG_PROMPT_TOKENS, 1, 100 + i));
    return { quiet, reads };
  });
  const gapsWithin = (spans: readonly { readonly fromMs: number; readonly toMs: number }[]) =>
    spans.flatMap(({ fromMs, toMs }) =>
      streams.flatMap(({ tokenAtMs }) => gaps(tokenAtMs.filter((at) => at >= fromMs && at <= toMs))),
    );
  const [quietMs, readingMs] = [gapsWithin(quiet), gapsWithin(reads)];
  const [typicalQuiet, typical] = [median(quietMs), median(readingMs)];
  const [worstQuiet, worst] = [percentile(quietMs, 99), percentile(readingMs, 99)];
  const promptMs = median(reads.map(({ fromMs, toMs }) => toMs - fromMs));
  const prompt = `a ${LONG_PROMPT_TOKENS}-token prompt is read`;
  return [
    { name: `median between tokens, ${STALL_STREAMS} streams alone`, value: typicalQuiet, unit: "ms" },
    { name: "p99 / median of the streams alone: the machine's own", value: worstQuiet / typicalQuiet, unit: "x" },
    { name: `median while ${prompt}`, value: typical, unit: "ms" },
    { name: `p99 while ${prompt}`, value: worst, unit: "ms" },
    { name: "p99 / median, while it is read", value: worst / typical, unit: "x", ...atMost(3) },
    // Beside a prompt all steps could be as slow as the p99: what the prompt costs shows against
    // the streams alone.
    { name: "median while it is read / median of the streams alone", value: typical / typicalQuiet, unit: "x" },
    { name: "p99 while it is read / p99 of the streams alone", value: worst / worstQuiet, unit: "x" },
    { name: "p99 while it is read / median of the streams alone", value: worst / typicalQuiet, unit: "x" },
    { name: "the prompt beside them", value: (LONG_PROMPT_TOKENS / promptMs) * 1000, unit: "tokens/s" },
  ];
}
