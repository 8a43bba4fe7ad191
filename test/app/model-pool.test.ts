/** Which models are in memory: real engines over fake runners, on a clock that is told to move. */
import { expect, it } from "vitest";
import { ModelPool } from "../../src/app/model-pool.ts";
import { Engine } from "../../src/engine/engine.ts";
import { FakeClock } from "../helpers/clock.ts";
import { gather, request, tokensAlone } from "../helpers/engine-harness.ts";
import { FakeRunner, fakeManifest } from "../helpers/fake-runner.ts";

const NEVER = new AbortController().signal;

/** A pool, and the time that its sweep is told to run. */
function poolOf({ maxBytes = 100, keepAliveMs = 5000 }: { maxBytes?: number; keepAliveMs?: number } = {}) {
  const clock = new FakeClock(0);
  let sweep = () => {};
  const repeat = (_ms: number, act: () => unknown) => {
    sweep = () => void act();
    return () => {};
  };
  const pool = new ModelPool({ maxBytes, keepAliveMs, now: clock.nowMs, repeat });
  const events: string[] = [];
  const add = (name: string, bytes: number, onOpen: () => unknown = () => {}) => {
    const observer = { onLoaded: () => events.push(`+${name}`), onUnloaded: () => events.push(`-${name}`) };
    const pooled = pool.add({ name, bytes, observer });
    const openRunner = async () => {
      await onOpen();
      return new FakeRunner({ numSlots: 2 });
    };
    const engine = new Engine({
      openRunner: () => pooled.open(openRunner),
      limits: { maxBatch: 2, maxQueue: 100, prefillChunk: 4 },
      observer: { onStep() {}, onSequenceEnd() {}, onStatus() {} },
      now: clock.nowMs,
      random: () => 0.5,
    });
    engine.startAsleep(fakeManifest(29));
    pooled.engine = engine;
    return { pooled, engine };
  };
  const advance = async (ms: number) => {
    clock.advance(ms);
    sweep();
    await new Promise((resolve) => setTimeout(resolve));
  };
  return { pool, events, add, advance };
}

const prompt = (id: number, maxTokens = 10) => request({ promptIds: [id, id + 1], maxTokens });

async function run(engine: Engine, given = prompt(1)): Promise<void> {
  await engine.wake(NEVER);
  expect((await gather(engine.submit([given])[0]!)).tokenIds).toEqual(tokensAlone(given));
}

it("the least recently used makes room for another one", async () => {
  const { pool, events, add, advance } = poolOf();
  const [a, b, c] = [add("a", 40), add("b", 40), add("c", 40)];
  await run(a.engine);
  await advance(1);
  await run(b.engine);
  await advance(1);
  await run(a.engine);
  await advance(1);
  await run(c.engine);
  expect(events).toEqual(["+a", "+b", "-b", "+c"]);
  expect(pool.loadedBytes).toBe(80);
  await run(b.engine);
  expect(events.slice(4)).toEqual(["-a", "+b"]);
});

it("a busy model first ends what is in its slots, and gets its turn again: nobody waits for ever", async () => {
  const { events, add } = poolOf({ maxBytes: 50 });
  const [a, b] = [add("a", 40), add("b", 40)];
  await a.engine.wake(NEVER);
  const many = Array.from({ length: 8 }, (_, n) => prompt(n + 1, 20));
  const ofA = many.map((one) => gather(a.engine.submit([one])[0]!));
  const ofB = many.map((one) => gather(b.engine.submit([one])[0]!));
  const ends = await Promise.all([...ofA, ...ofB]);
  const expected = many.map((one) => tokensAlone(one));
  expect(ends.map(({ tokenIds }) => tokenIds)).toEqual([...expected, ...expected]);
  // Two at a time.
  expect(events.filter((event) => event === "+b").length).toBeGreaterThan(1);
  expect(events.filter((event) => event === "+b").length).toBeLessThanOrEqual(5);
});

it("requests that come at once cause one load", async () => {
  const { events, add } = poolOf();
  const { engine } = add("a", 40);
  await Promise.all([1, 3, 5].map((id) => run(engine, prompt(id))));
  expect(events).toEqual(["+a"]);
});

it("an idle model is unloaded after its time, a busy one is not", async () => {
  const { events, add, advance } = poolOf({ keepAliveMs: 5000 });
  const { engine } = add("a", 40);
  await run(engine);
  await advance(4999);
  expect(events).toEqual(["+a"]);
  await run(engine);
  await advance(4999);
  expect(events).toEqual(["+a"]);
  const abort = new AbortController();
  // Its consumer reads nothing: it is suspended.
  const [stalled] = engine.submit([request({ promptIds: [1], maxTokens: 100_000, signal: abort.signal })]);
  await expect.poll(() => engine.load.numSuspended).toBe(1);
  await advance(5000);
  expect(events).toEqual(["+a"]);
  abort.abort();
  await gather(stalled!);
  await advance(5000);
  expect(events).toEqual(["+a", "-a"]);
  await run(engine);
  expect(events).toEqual(["+a", "-a", "+a"]);
});

it("a request may say how long its model is kept, until the next one", async () => {
  const { events, add, advance } = poolOf({ keepAliveMs: 5000 });
  const { pooled, engine } = add("a", 40);
  pooled.keepAlive(Number.POSITIVE_INFINITY);
  await run(engine);
  await advance(1e12);
  expect(events).toEqual(["+a"]);
  pooled.keepAlive(0);
  await run(engine);
  await advance(0);
  expect(events).toEqual(["+a", "-a"]);
  pooled.keepAlive();
  await run(engine);
  await advance(4999);
  expect(events).toHaveLength(3);
  await advance(1);
  expect(events).toHaveLength(4);
});

it("a failed load is an error for its own requests, and is tried again after a pause", async () => {
  let problem: string | undefined = "the file is gone";
  let numTries = 0;
  const { pool, events, add, advance } = poolOf({ maxBytes: 50 });
  const a = add("a", 40);
  const b = add("b", 40, () => {
    numTries++;
    if (problem !== undefined) throw new Error(problem);
  });
  await run(a.engine);
  const message = 'the model "b" could not be loaded: the file is gone';
  await expect(b.engine.wake(NEVER)).rejects.toMatchObject({
    code: "model_load_failed",
    message,
    retryAfterMs: 10_000,
  });
  expect(pool.loadedBytes).toBe(0);
  await advance(4000);
  await expect(b.engine.wake(NEVER)).rejects.toMatchObject({ message, retryAfterMs: 6000 });
  expect(numTries).toBe(1);
  // The pause costs the other model nothing.
  await run(a.engine);
  expect(events).toEqual(["+a", "-a", "+a"]);
  await expect(b.engine.wake(NEVER)).rejects.toMatchObject({ message });
  expect(events).toEqual(["+a", "-a", "+a"]);
  problem = undefined;
  await advance(6000);
  await run(b.engine);
  expect(numTries).toBe(2);
});

it("a model that is larger than the bound is refused with both numbers, and unloads nobody", async () => {
  const { events, add } = poolOf({ maxBytes: 50 });
  const [a, b] = [add("a", 40), add("b", 51)];
  await run(a.engine);
  await expect(b.engine.wake(NEVER)).rejects.toThrow(/b takes 51 bytes .* may take 50 together: raise --models-bytes/);
  expect(events).toEqual(["+a"]);
});

it("while one model is being loaded, another answers", async () => {
  let finish = () => {};
  const { add } = poolOf();
  const a = add("a", 40);
  const b = add("b", 40, () => new Promise<void>((resolve) => (finish = resolve)));
  const waiting = run(b.engine);
  await expect.poll(() => b.engine.status.state).toBe("starting");
  await run(a.engine);
  finish();
  await waiting;
});

it("closes while a model waits for room", async () => {
  const { pool, add } = poolOf({ maxBytes: 50 });
  const [a, b] = [add("a", 40), add("b", 40)];
  await a.engine.wake(NEVER);
  const abort = new AbortController();
  const [endless] = a.engine.submit([request({ promptIds: [1], maxTokens: 1e6, signal: abort.signal })]);
  const end = gather(endless!);
  const waiting = expect(b.engine.wake(NEVER)).rejects.toMatchObject({ code: "shutting_down" });
  pool.close();
  await Promise.all([a.engine.close({ deadlineMs: 0 }), b.engine.close({ deadlineMs: 0 }), waiting]);
  expect((await end).error).toMatchObject({ code: "shutting_down" });
  abort.abort();
});
