/**
 * A fault of the runtime while streams run: their clients are told, `/ready` shows it, a fresh
 * runner takes over, sessions go on from their last kept state, and the server stays up.
 */
import { afterEach, describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { PortableRunner } from "../../src/runtime/portable/portable-runner.ts";
import type { ModelRunner, RunnerOptions } from "../../src/runtime/runner.ts";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { sseData } from "../helpers/server-deps.ts";

const LIMITS = { maxBatch: 4, maxQueue: 8, prefillChunk: 16 };

let server: RealServer | undefined;
let letOpen = () => {};
afterEach(async () => {
  letOpen();
  await server?.close();
  server = undefined;
});

interface Faulty {
  open(options: RunnerOptions): Promise<ModelRunner>;
  /** Breaks the runner that was opened last. */
  strike(): Promise<void>;
}

/** The next run is refused as ONNX Runtime would refuse it. */
function injected(): Faulty {
  let isBroken = false;
  return {
    async open(options) {
      isBroken = false;
      const runner = await NativeRunner.open(options);
      const run = runner.run.bind(runner);
      runner.run = async (input) => {
        if (isBroken) throw new DenseMambaError("runtime_fault", "an injected fault");
        return run(input);
      };
      return runner;
    },
    async strike() {
      isBroken = true;
    },
  };
}

/** The portable runner's worker thread is killed. */
function killed(): Faulty {
  let runner: PortableRunner;
  return {
    async open(options) {
      runner = await PortableRunner.open(options);
      return runner;
    },
    strike: () => runner.killWorker(),
  };
}

describe.each([
  ["the native runner, with a fault injected", injected],
  ["the portable runner, its worker killed", killed],
])("%s, in mid-stream", (_name, make) => {
  it("fails the streams, appears in /ready, recovers, and loses no session", { timeout: 60_000 }, async () => {
    const faulty = make();
    let numOpened = 0;
    server = await startRealServer({
      limits: LIMITS,
      async openRunner(options) {
        // The second opening waits, so that the time between the fault and the recovery can be
        // looked at.
        if (numOpened++ === 1) await new Promise<void>((resolve) => (letOpen = resolve));
        return faulty.open(options);
      },
    });
    const { url, engine } = server;
    const ask = (body: object) => post(`${url}/v1/completions`, { temperature: 0, max_tokens: 8, ...body });

    await post(`${url}/v1/sessions`, { session_id: "tale" });
    await (await ask({ prompt: "Once upon a time", session_id: "tale" })).json();

    const streams = await Promise.all(
      ["There was a king", "There was a queen"].map((prompt) =>
        ask({ prompt, stream: true, max_tokens: 1500, ignore_eos: true }),
      ),
    );
    expect(streams.map((stream) => stream.status)).toEqual([200, 200]);
    // One that still waits for a slot would not be hit: it goes on with the next runner.
    await expect.poll(() => engine.load.numRunning).toBe(2);
    await faulty.strike();
    for (const stream of streams) {
      const messages = sseData(await stream.text());
      expect(messages.at(-1)).toMatchObject({ error: { code: "runtime_fault" } });
    }

    const whileDown = await fetch(`${url}/ready`);
    expect(whileDown.status).toBe(503);
    expect(await whileDown.json()).toMatchObject({ status: "recovering", error: expect.stringContaining("runtime") });
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const waiting = ask({ prompt: "One day", session_id: "tale" });
    await expect.poll(() => engine.load.numWaiting).toBe(1);

    letOpen();
    const answer = (await (await waiting).json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } };
    expect(answer.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(0);
    expect((await fetch(`${url}/ready`)).status).toBe(200);
    expect(engine.load.slotsInUse).toBe(0);
  });
});
