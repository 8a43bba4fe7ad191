/** How often a stream is written to. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { FlushThrottle } from "../../src/server/http/flush-throttle.ts";

let nowMs = 0;
let flushes: number[];
let pace: FlushThrottle;
let numRunning: number;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  nowMs = 100;
  flushes = [];
  numRunning = 1;
  pace = open(16);
});
afterEach(() => {
  vi.useRealTimers();
});

function open(gapMs: number): FlushThrottle {
  return new FlushThrottle(() => flushes.push(nowMs), {
    gapMs,
    engine: {
      get load() {
        return { numRunning };
      },
    },
    now: () => nowMs,
  });
}

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Behind its first pieces, the last of them at 100 ms. */
async function begin(): Promise<void> {
  for (const atMs of [70, 80, 90, 100]) {
    nowMs = atMs;
    pace.request();
    await tick();
  }
  flushes = [100];
}

it("flushes once at the end of the tick after a silence", async () => {
  pace.request();
  pace.request();
  expect(flushes).toEqual([]);
  await tick();
  expect(flushes).toEqual([100]);
});

it("flushes the first pieces without delay", async () => {
  for (nowMs of [100, 100.1, 100.3, 100.4, 100.5]) {
    pace.request();
    await tick();
  }
  expect(flushes).toEqual([100, 100.1, 100.3, 100.4]);
});

it("collects what follows soon after, and loses none of it", async () => {
  await begin();
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

it("flushes immediately on demand, and does not repeat a pending flush", async () => {
  await begin();
  nowMs = 100.5;
  pace.request();
  pace.flushNow();
  expect(flushes).toEqual([100, 100.5]);
  vi.runAllTimers();
  expect(flushes).toEqual([100, 100.5]);
});

it.each([
  { streams: 32, waitsUntilMs: 116 },
  { streams: 64, waitsUntilMs: 132 },
  { streams: 1000, waitsUntilMs: 148 },
])(
  "writes the less often the more streams run, though not below a bound: $streams",
  async ({ streams, waitsUntilMs }) => {
    numRunning = streams;
    await begin();
    nowMs = 101;
    pace.request();
    vi.advanceTimersByTime(waitsUntilMs - 102);
    expect(flushes).toEqual([100]);
    vi.advanceTimersByTime(2);
    expect(flushes).toHaveLength(2);
  },
);

it("writes each token separately if the gap is 0", async () => {
  pace = open(0);
  numRunning = 1000;
  await begin();
  for (nowMs of [100.1, 100.2, 100.3]) {
    pace.request();
    await tick();
  }
  expect(flushes).toEqual([100, 100.1, 100.2, 100.3]);
});

it("skips a wait that is a small share of the gap", async () => {
  await begin();
  nowMs = 113;
  pace.request();
  await tick();
  expect(flushes).toEqual([100, 113]);
});
