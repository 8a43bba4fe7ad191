/** One session that goes on and on: its speed and its memory must not depend on how long it is. */
import type { Engine } from "../../engine/engine.ts";
import type { ResumePoint } from "../../engine/sequence.ts";
import { atLeast, type Figure, median, slope } from "../figures.ts";
import { randomPrompt } from "../random-model.ts";
import { streamRequest } from "../streams.ts";

const NUM_SEGMENTS = 50;
const TENTH = NUM_SEGMENTS / 10;
/** Until everything has been compiled by the JavaScript engine. */
const NUM_WARM_UPS = 3;

/**
 * A session of `numTokens` in segments, each resumed from the state of the one before. In the first
 * and the last tenth fresh sequences take turns with it, which cancels out the machine's own drift.
 * @param minRatio of the last tenth's speed to the first's
 */
export async function benchSession(engine: Engine, numTokens: number, minRatio: number): Promise<Figure[]> {
  const length = Math.ceil(numTokens / NUM_SEGMENTS);
  const rates: { readonly session: number; readonly fresh: number }[] = [];
  const memory: { readonly x: number; readonly y: number }[] = [];
  let resume: ResumePoint | undefined;
  const runFresh = async () => (await runSegment(engine, undefined, length)).rate;
  for (let i = 0; i < NUM_WARM_UPS; i++) await runFresh();
  for (let segment = 0; segment < NUM_SEGMENTS; segment++) {
    const isTimed = segment < TENTH || segment >= NUM_SEGMENTS - TENTH;
    const isFreshFirst = segment % 2 === 0; // the second one finds warmer caches
    let fresh = isTimed && isFreshFirst ? await runFresh() : Number.NaN;
    const run = await runSegment(engine, resume, length);
    resume = run.end;
    if (isTimed && !isFreshFirst) fresh = await runFresh();
    rates.push({ session: run.rate, fresh });
    if (segment >= TENTH) memory.push({ x: segment * length, y: process.memoryUsage.rss() });
  }
  const [first, last] = [rates.slice(0, TENTH), rates.slice(-TENTH)].map((tenth) => ({
    rate: median(tenth.map(({ session }) => session)),
    relative: median(tenth.map(({ session, fresh }) => session / fresh)),
  })) as [Tenth, Tenth];
  return [
    { name: `first tenth of ${numTokens} tokens`, value: first.rate, unit: "tokens/s" },
    { name: "last tenth", value: last.rate, unit: "tokens/s" },
    { name: "first tenth / fresh sequences beside it", value: first.relative, unit: "x" },
    { name: "last tenth / fresh sequences beside it", value: last.relative, unit: "x" },
    { name: "last / first", value: last.relative / first.relative, unit: "x", ...atLeast(minRatio) },
    { name: "resident memory", value: slope(memory), unit: "bytes/token" },
  ];
}

interface Tenth {
  readonly rate: number;
  readonly relative: number;
}

async function runSegment(engine: Engine, resume: ResumePoint | undefined, numTokens: number) {
  const request = {
    ...streamRequest(randomPrompt(8, 1), numTokens),
    ...(resume && { resume }),
    capture: { end: true },
  };
  let firstAtMs = 0;
  let end: ResumePoint | undefined;
  for await (const event of engine.submit([request])[0]!.events) {
    if (event.type === "token" && firstAtMs === 0) firstAtMs = performance.now();
    else if (event.type === "finished") end = event.captured;
  }
  return { rate: ((numTokens - 1) / (performance.now() - firstAtMs)) * 1000, end };
}
