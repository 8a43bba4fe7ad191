/** An engine without a runner: when it opens one, and when it gives it up. */
import { expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { gather, makeEngine, request, startEngine, tokensAlone } from "../helpers/engine-harness.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const NEVER = new AbortController().signal;
const MANIFEST = fakeManifest(29);
const prompt = (id: number, maxTokens = 10) => request({ promptIds: [id, id + 1], maxTokens });

/** Resolves when it is opened. */
function door() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

it("opens one runner at the first request, whoever else asks meanwhile", async () => {
  const { engine, runners, statuses } = makeEngine();
  engine.startAsleep(MANIFEST);
  expect(engine.status).toEqual({ state: "sleeping" });
  expect(runners).toHaveLength(0);
  await Promise.all([engine.wake(NEVER), engine.wake(NEVER)]);
  const all = [prompt(1), prompt(3)];
  const ends = await Promise.all(engine.submit(all).map((sequence) => gather(sequence)));
  expect(ends.map(({ tokenIds }) => tokenIds)).toEqual(all.map((one) => tokensAlone(one)));
  expect(runners).toHaveLength(1);
  expect(statuses.map(({ state }) => state)).toEqual(["sleeping", "starting", "ready"]);
  await engine.close({ deadlineMs: 0 });
});

it("opens it for a request that was submitted without asking first", async () => {
  const { engine, runners } = makeEngine();
  engine.startAsleep(MANIFEST);
  const [sequence] = engine.submit([prompt(1)]);
  expect((await gather(sequence!)).tokenIds).toEqual(tokensAlone(prompt(1)));
  expect(runners).toHaveLength(1);
  await engine.close({ deadlineMs: 0 });
});

it("sleeps at once if it is idle, and wakes again", async () => {
  const { engine, runners } = await startEngine();
  await engine.sleep();
  expect(runners[0]!.isClosed).toBe(true);
  expect(engine.status.state).toBe("sleeping");
  await engine.sleep();
  expect((await gather(engine.submit([prompt(1)])[0]!)).tokenIds).toEqual(tokensAlone(prompt(1)));
  expect(runners).toHaveLength(2);
  await engine.close({ deadlineMs: 0 });
  expect(runners.flatMap(({ breaches }) => breaches)).toEqual([]);
});

it("first lets the sequences in slots end; those that wait get the next runner", async () => {
  const { engine, runners } = await startEngine({ maxBatch: 2 });
  const all = [1, 3, 5, 7, 9].map((id) => prompt(id, 20));
  const sequences = engine.submit(all);
  const runnerOf: number[] = [];
  let asleep: Promise<void> | undefined;
  const ends = sequences.map((sequence, index) =>
    gather(sequence, (event) => {
      if (event.type === "token") runnerOf[index] = runners.length;
      asleep ??= engine.sleep();
    }),
  );
  const gathered = await Promise.all(ends);
  expect(gathered.map(({ tokenIds }) => tokenIds)).toEqual(all.map((one) => tokensAlone(one)));
  await asleep;
  expect(runners[0]!.isClosed).toBe(true);
  expect(runnerOf).toEqual([1, 1, 2, 2, 2]);
  await engine.close({ deadlineMs: 0 });
  expect(runners.flatMap(({ breaches }) => breaches)).toEqual([]);
});

it("runs something of what it was opened for, even if it is to sleep right after", async () => {
  const { engine, runners } = makeEngine({ maxBatch: 1 });
  engine.startAsleep(MANIFEST);
  const all = [prompt(1), prompt(3), prompt(5)];
  const ends = engine.submit(all).map((sequence) => gather(sequence));
  for (let round = 0; round < all.length; round++) {
    await engine.wake(NEVER);
    await engine.sleep();
  }
  const gathered = await Promise.all(ends);
  expect(gathered.map(({ tokenIds }) => tokenIds)).toEqual(all.map((one) => tokensAlone(one)));
  expect(runners).toHaveLength(all.length);
  await engine.close({ deadlineMs: 0 });
});

it("a runner that cannot be opened fails those who wait for it; the next request tries again", async () => {
  let error: Error | undefined = new DenseMambaError("model_load_failed", "no memory");
  const { engine, runners } = makeEngine({
    onOpen: () => {
      if (error !== undefined) throw error;
    },
  });
  engine.startAsleep(MANIFEST);
  await expect(engine.wake(NEVER)).rejects.toBe(error);
  expect(engine.status.state).toBe("sleeping");
  expect((await gather(engine.submit([prompt(1)])[0]!)).error).toBe(error);
  error = new Error("a bug");
  const refused = engine.submit([prompt(1)])[0]!;
  expect((await gather(refused)).error).toMatchObject({ code: "runtime_fault" });
  error = undefined;
  await engine.wake(NEVER);
  expect((await gather(engine.submit([prompt(1)])[0]!)).tokenIds).toEqual(tokensAlone(prompt(1)));
  expect(runners).toHaveLength(1);
  await engine.close({ deadlineMs: 0 });
});

it("a request that is aborted while the runner is opened ends at once", async () => {
  const { open, opened } = door();
  const { engine } = makeEngine({ onOpen: () => opened });
  engine.startAsleep(MANIFEST);
  const abort = new AbortController();
  const waking = engine.wake(abort.signal);
  const sequence = engine.submit([request({ promptIds: [1], signal: abort.signal })])[0]!;
  const end = gather(sequence);
  await expect.poll(() => engine.status.state).toBe("starting");
  abort.abort();
  await expect(waking).rejects.toMatchObject({ code: "aborted" });
  expect(await end).toMatchObject({ reason: "aborted" });
  expect(engine.load).toMatchObject({ numRunning: 0, numWaiting: 0 });
  open();
  await expect.poll(() => engine.status.state).toBe("ready");
  await engine.close({ deadlineMs: 0 });
});

it("closes while a runner is being opened, and closes that one when it comes", async () => {
  const { open, opened } = door();
  const { engine, runners } = makeEngine({ onOpen: () => opened });
  engine.startAsleep(MANIFEST);
  const waking = engine.wake(NEVER);
  const end = gather(engine.submit([prompt(1)])[0]!);
  await expect.poll(() => engine.status.state).toBe("starting");
  await Promise.all([
    engine.close({ deadlineMs: 0 }),
    expect(waking).rejects.toMatchObject({ code: "shutting_down" }),
    end.then(({ error }) => expect(error).toMatchObject({ code: "shutting_down" })),
  ]);
  expect(engine.status.state).toBe("closed");
  open();
  await expect.poll(() => runners[0]?.isClosed).toBe(true);
});

it("closes while it sleeps", async () => {
  const { engine } = makeEngine();
  engine.startAsleep(MANIFEST);
  await engine.close({ deadlineMs: 60_000 });
  expect(engine.status.state).toBe("closed");
});

it("a fault while it falls asleep ends the wait: the broken runner is closed too", async () => {
  let isFaulty = false;
  const { engine, runners } = await startEngine({
    onCall: () => {
      if (isFaulty) throw new Error("injected");
    },
  });
  const end = gather(engine.submit([prompt(1, 1000)])[0]!);
  await expect.poll(() => engine.load.numRunning).toBe(1);
  isFaulty = true;
  await engine.sleep();
  expect(runners[0]!.isClosed).toBe(true);
  expect((await end).error).toMatchObject({ code: "runtime_fault" });
  isFaulty = false;
  expect((await gather(engine.submit([prompt(1)])[0]!)).tokenIds).toEqual(tokensAlone(prompt(1)));
  await engine.close({ deadlineMs: 0 });
});
