/** Runner-level measurements: forward passes alone, without the engine. What the hardware and the graph allow. */
import { performance } from "node:perf_hooks";
import type { ModelRunner, RunInput } from "../runtime/runner.ts";
import { median } from "./report.ts";

/** Median milliseconds of one decode step of `numSequences` sequences. */
export async function measureDecodeMs(runner: ModelRunner, numSequences: number, numSteps: number): Promise<number> {
  return median(await timeRuns(runner, decodeInput(numSequences), numSteps));
}

/** Tokens per second of `numSequences` sequences over `numSteps` decode steps, as llama-bench counts: all of the time. */
export async function measureDecodeRate(runner: ModelRunner, numSequences: number, numSteps: number): Promise<number> {
  const input = decodeInput(numSequences);
  await runner.run(input); // warm-up
  const startMs = performance.now();
  for (let i = 0; i < numSteps; i++) await runner.run(input);
  return ((numSequences * numSteps) / (performance.now() - startMs)) * 1000;
}

/**
 * Median milliseconds of a decode step of two runners, taken in turns so that a drift of the machine's speed hits both.
 */
export async function compareDecodeMs(
  a: ModelRunner,
  b: ModelRunner,
  numSequences: number,
  numRounds: number,
): Promise<{ readonly aMs: number; readonly bMs: number }> {
  const aMs: number[] = [];
  const bMs: number[] = [];
  for (let round = 0; round < numRounds; round++) {
    aMs.push(...(await timeRuns(a, decodeInput(numSequences), 10)));
    bMs.push(...(await timeRuns(b, decodeInput(numSequences), 10)));
  }
  return { aMs: median(aMs), bMs: median(bMs) };
}

/** Tokens per second of reading one prompt of `numTokens` in chunks, with logits for the last token only. */
export async function measurePrefillRate(
  runner: ModelRunner,
  numTokens: number,
  chunk: number,
  numRounds: number,
): Promise<number> {
  const roundMs: number[] = [];
  for (let round = 0; round <= numRounds; round++) {
    const readMs = await timePrefill(runner, numTokens, chunk);
    if (round > 0) roundMs.push(readMs); // the first round warms up
  }
  return (numTokens / median(roundMs)) * 1000;
}

/** Median milliseconds of reading one prompt in chunks, two runners in turns. */
export async function comparePrefillMs(
  a: ModelRunner,
  b: ModelRunner,
  { numTokens, chunk }: { readonly numTokens: number; readonly chunk: number },
  numRounds: number,
): Promise<{ readonly aMs: number; readonly bMs: number }> {
  const aMs: number[] = [];
  const bMs: number[] = [];
  for (let round = 0; round <= numRounds; round++) {
    const times = [await timePrefill(a, numTokens, chunk), await timePrefill(b, numTokens, chunk)] as const;
    if (round === 0) continue; // warm-up
    aMs.push(times[0]);
    bMs.push(times[1]);
  }
  return { aMs: median(aMs), bMs: median(bMs) };
}

/** Milliseconds of each of `numRuns` decode steps of one sequence, behind a few that warm up. */
export function timeDecodeSteps(
  runner: ModelRunner,
  numRuns: number,
  { firstSlot }: Pick<RunInput, "firstSlot">,
): Promise<number[]> {
  return timeRuns(runner, { ...decodeInput(1), firstSlot }, numRuns);
}

/** Milliseconds. */
async function timePrefill(runner: ModelRunner, numTokens: number, chunk: number): Promise<number> {
  await runner.clearSlot(0);
  const startMs = performance.now();
  await readPrompt(runner, numTokens, chunk);
  return performance.now() - startMs;
}

/** Slot 0 goes on with so many tokens, `chunk` of them a run; logits of the last one only. */
export async function readPrompt(runner: ModelRunner, numTokens: number, chunk: number): Promise<void> {
  for (let done = 0; done < numTokens; done += chunk) {
    const numSteps = Math.min(chunk, numTokens - done);
    const isLast = done + numSteps === numTokens;
    await runner.run({
      firstSlot: 0,
      lengths: [numSteps],
      tokenIds: Array.from({ length: numSteps }, (_, i) => 3 + ((i + done) % 250)),
      logitRows: isLast ? [numSteps - 1] : [],
      temperatures: isLast ? [1] : [],
    });
  }
}

function decodeInput(numSequences: number): RunInput {
  return {
    firstSlot: 0,
    lengths: new Array<number>(numSequences).fill(1),
    tokenIds: Array.from({ length: numSequences }, (_, i) => 3 + ((i * 7) % 250)),
    logitRows: Array.from({ length: numSequences }, (_, i) => i),
    temperatures: new Array<number>(numSequences).fill(1),
  };
}

async function timeRuns(runner: ModelRunner, input: RunInput, numRuns: number): Promise<number[]> {
  for (let i = 0; i < 3; i++) await runner.run(input);
  const runMs: number[] = [];
  for (let i = 0; i < numRuns; i++) {
    const startMs = performance.now();
    await runner.run(input);
    runMs.push(performance.now() - startMs);
  }
  return runMs;
}
