/** How often a stream is written to. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { FlushPace } from "../../src/server/stream/flush-pace.ts";

let nowMs = 0;
let flushes: number[];
let pace: FlushPace;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  nowMs = 100;
  flushes = [];
  pace = new FlushPace(
    () => flushes.push(nowMs),
    () => nowMs,
  );
});
afterEach(() => {
  vi.useRealTimers();
});

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

it("flushes at the end of the tick after a silence, once for all that came in it", async () => {
  pace.request();
  pace.request();
  expect(flushes).toEqual([]);
  await tick();
  expect(flushes).toEqual([100]);
});

it("gathers what follows within a few milliseconds, and forgets none of it", async () => {
  pace.request();
  await tick();
  for (nowMs of [100.3, 104, 111.9]) pace.request();
  await tick();
  expect(flushes).toEqual([100]);
  nowMs = 116.2;
  vi.runAllTimers();
  expect(flushes).toEqual([100, 116.2]);
  nowMs = 129;
  pace.request();
  await tick();
  expect(flushes).toEqual([100, 116.2, 129]);
});

it("flushes at once when told, and not again for what was asked before", async () => {
  pace.request();
  await tick();
  nowMs = 100.5;
  pace.request();
  pace.flushNow();
  expect(flushes).toEqual([100, 100.5]);
  vi.runAllTimers();
  expect(flushes).toEqual([100, 100.5]);
});
