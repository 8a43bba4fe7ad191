/** What running streams and arriving prompts cost each other: short prompts, many of them at once, and one that is very long. */
import type { Engine } from "../../engine/engine.ts";
import { gaps } from "../load/latency.ts";
import { atMost, type Figure, median, percentile } from "../report.ts";
import { makePrompt, measureInterference, runStream, streamRequest } from "../streams.ts";

const LONG_PROMPT_TOKENS = 8000;
const STALL_STREAMS = 8;
const NUM_READS = 3;
const QUIET_TOKENS = 300;
const BURST = 32;
const BURST_PROMPT_TOKENS = 32;
const NUM_BURSTS = 9;

/** The first token of short prompts while `numStreams` others decode. */
export async function benchInterference(engine: Engine, numStreams: number): Promise<Figure[]> {
  const { firstTokenMs, stepMs } = await measureInterference(engine, {
    numStreams,
    promptLength: 32,
    numArrivals: 200,
  });
  const step = median(stepMs);
  return [
    { name: `median step, ${numStreams} streams decoding`, value: step, unit: "ms" },
    { name: "p99 step", value: percentile(stepMs, 99), unit: "ms" },
    { name: "median first token, 32-token prompt", value: median(firstTokenMs), unit: "ms" },
    { name: "p99 first token", value: percentile(firstTokenMs, 99), unit: "ms" },
    { name: "p99 first token / median step", value: percentile(firstTokenMs, 99) / step, unit: "x", ...atMost(10) },
  ];
}

/** Short prompts that come at once, in turns with a single one of as many tokens: the last one's first token, and the only one's. */
export async function benchBurst(engine: Engine): Promise<Figure[]> {
  const lastMs: number[] = [];
  const singleMs: number[] = [];
  for (let round = 0; round <= NUM_BURSTS; round++) {
    const prompts = Array.from({ length: BURST }, (_, i) => makePrompt(BURST_PROMPT_TOKENS, BURST * round + i));
    const burst = await Promise.all(prompts.map((prompt) => runStream(engine, streamRequest(prompt, 1))));
    const single = await runStream(engine, streamRequest(makePrompt(BURST * BURST_PROMPT_TOKENS, round), 1));
    if (round === 0) continue; // warm-up
    lastMs.push(Math.max(...burst.map(({ firstTokenMs }) => firstTokenMs)));
    singleMs.push(single.firstTokenMs);
  }
  const ratio = median(lastMs.map((ms, round) => ms / singleMs[round]!));
  const burst = `random weights, ${BURST} prompts of ${BURST_PROMPT_TOKENS} tokens at once`;
  const single = `one prompt of ${BURST * BURST_PROMPT_TOKENS}`;
  return [
    { name: `${burst}: the last one's first token`, value: median(lastMs), unit: "ms" },
    { name: `${single}: its first token`, value: median(singleMs), unit: "ms" },
    { name: `the burst / ${single}`, value: ratio, unit: "x", ...atMost(1.25) },
  ];
}

/** The pace of running streams while an 8,000-token prompt is read, and how long the reading takes. */
export async function benchStall(engine: Engine): Promise<Figure[]> {
  const { quietMs, readingMs, promptMs } = await measureStall(engine);
  const [quiet, reading] = [median(quietMs), median(readingMs)];
  const [worstQuiet, worst] = [percentile(quietMs, 99), percentile(readingMs, 99)];
  const prompt = `a ${LONG_PROMPT_TOKENS}-token prompt is read`;
  return [
    { name: `median between tokens, ${STALL_STREAMS} streams alone`, value: quiet, unit: "ms" },
    { name: "p99 / median of the streams alone: the machine's own", value: worstQuiet / quiet, unit: "x" },
    { name: `median while ${prompt}`, value: reading, unit: "ms" },
    { name: `p99 while ${prompt}`, value: worst, unit: "ms" },
    { name: "p99 / median, while it is read", value: worst / reading, unit: "x", ...atMost(3) },
    // Beside a prompt all of them could be as slow as the p99: what the prompt costs shows against the streams alone.
    { name: "median while it is read / median of the streams alone", value: reading / quiet, unit: "x" },
    { name: "p99 while it is read / p99 of the streams alone", value: worst / worstQuiet, unit: "x" },
    { name: "p99 while it is read / median of the streams alone", value: worst / quiet, unit: "x" },
    { name: "the prompt beside them", value: (LONG_PROMPT_TOKENS / median(promptMs)) * 1000, unit: "tokens/s" },
  ];
}

interface Stall {
  /** Between two tokens of one stream, before and after the prompt came. */
  readonly quietMs: readonly number[];
  readonly readingMs: readonly number[];
  /** From the prompt's arrival to its first token. */
  readonly promptMs: readonly number[];
}

async function measureStall(engine: Engine): Promise<Stall> {
  const controller = new AbortController();
  const arrivals: number[][] = [];
  const streams = Array.from({ length: STALL_STREAMS }, async (_, i) => {
    const atMs: number[] = [];
    arrivals.push(atMs);
    const request = streamRequest(makePrompt(8, i), 10_000_000, controller.signal);
    for await (const event of engine.submit([request])[0]!.events) {
      if (event.type === "token") atMs.push(performance.now());
    }
  });
  // Short sequences of the same engine tell when the streams have run for a while: no timer, whatever the model's speed.
  await runStream(engine, streamRequest(makePrompt(8, 99), QUIET_TOKENS));
  const quietFromMs = performance.now();
  await runStream(engine, streamRequest(makePrompt(8, 98), QUIET_TOKENS));
  const quietToMs = performance.now();
  const reads: { readonly fromMs: number; readonly toMs: number }[] = [];
  for (let i = 0; i < NUM_READS; i++) {
    const fromMs = performance.now();
    const { firstTokenMs } = await runStream(engine, streamRequest(makePrompt(LONG_PROMPT_TOKENS, i), 1));
    reads.push({ fromMs, toMs: fromMs + firstTokenMs });
  }
  controller.abort();
  await Promise.all(streams);
  return {
    quietMs: arrivals.flatMap((atMs) => gaps(within(atMs, quietFromMs, quietToMs))),
    readingMs: reads.flatMap(({ fromMs, toMs }) => arrivals.flatMap((atMs) => gaps(within(atMs, fromMs, toMs)))),
    promptMs: reads.map(({ fromMs, toMs }) => toMs - fromMs),
  };
}

function within(atMs: readonly number[], fromMs: number, toMs: number): number[] {
  return atMs.filter((at) => at >= fromMs && at <= toMs);
}
