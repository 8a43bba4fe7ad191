/**
 * A server on a simulated CUDA device (test/cuda-device/), by its sockets: what clients, `/ready`
 * and the next request see of a call that fails, of memory that ends, and of a device that is lost
 * in the middle of a stream. What tokens come out depends on nothing: ONNX Runtime's own kernels
 * compute nothing there.
 */
import { rm } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import type { RunnerOptions } from "../../src/runtime/runner.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { DEVICE_UNAVAILABLE, LAUNCH_FAILED, OUT_OF_MEMORY } from "../cuda-device/errors.ts";
import { hasProvider, SimulatedCuda } from "../cuda-device/simulated-cuda.ts";
import { randomCheckpoint, TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";
import { type Gate, gate } from "../helpers/gate.ts";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";

/** Of the calls that a request makes: what fails for a reason of its own, and is done without. */
const DONE_WITHOUT = [
  /Capture/,
  /^cudaGraph(Instantiate|GetNodes|NodeGetType|MemcpyNodeGetParams|Destroy)$/,
  /^cudaPointerGetAttributes$/,
];
const OF_RUNS = ["cudaMemcpyAsync", "cudaLaunchKernel", "cudaStreamQuery"];
const LIMITS = { maxBatch: 2, maxQueue: 4, prefillChunk: 64 };

describe.runIf(hasProvider)("a server on a CUDA device", () => {
  let cuda: SimulatedCuda;
  let modelDir: string;
  let artifactDir: string;
  let server: RealServer;
  /** Awaited before a runner is opened. */
  let opening: Gate;
  let numOpened: number;
  beforeAll(async () => {
    cuda = await SimulatedCuda.load();
    artifactDir = temporaryFolder();
    modelDir = await randomCheckpoint({ ...TINY_SHAPE, vocabSize: 4096 });
    await compileModel({ modelDir, precision: "f32", lowering: "cuda", outDir: artifactDir });
  }, 240_000);
  afterAll(() => Promise.all([modelDir, artifactDir].map((dir) => rm(dir, { recursive: true }))));
  beforeEach(async () => {
    cuda.reset();
    opening = gate();
    opening.release();
    numOpened = 0;
    await start("cuda");
  });
  afterEach(async () => {
    opening.release();
    await server.close();
    expect(cuda.book()).toMatchObject({ illegal: [], unsupported: [] });
    cuda.forget();
    cuda.forgetErrors();
  });

  const start = async (lowering: "cuda" | "plain") => {
    const openRunner = async ({ numSlots, artifactDir: plain }: RunnerOptions) => {
      await opening.held;
      numOpened++;
      const dir = lowering === "cuda" ? artifactDir : plain;
      return (await cuda.openArtifact(dir, { numSlots, lowering })).runner;
    };
    server = await startRealServer({ openRunner, limits: LIMITS, modelDir });
  };
  /** By a bias, or what comes out would depend on what is not computed. */
  const complete = (body: object) => {
    const always = { temperature: 0, ignore_eos: true, logit_bias: { 1000: 100 } };
    return post(`${server.url}/v1/completions`, { prompt: "Once", ...always, ...body });
  };
  const ready = async () => {
    const response = await fetch(`${server.url}/ready`);
    return { status: response.status, body: (await response.json()) as { status: string; error?: string } };
  };
  const untilReady = async () => {
    while ((await ready()).status !== 200);
  };
  const expectAnswer = async () => {
    const answer = await complete({ max_tokens: 3 });
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ usage: { completion_tokens: 3 } });
  };

  // Old bug: a slot was cleared with two waits for each tensor of its state.
  it("waits for the device hardly more often than it makes steps, whatever requests begin and end", async () => {
    const NUM_TOKENS = 12;
    await expectAnswer();
    cuda.reset();
    const answers = ["Once", "Once upon a time"].map((prompt) => complete({ prompt, max_tokens: NUM_TOKENS }));
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
    // Beside the steps: the prompts, and what is kept of them.
    expect(cuda.book().synchronisations).toBeLessThanOrEqual(NUM_TOKENS + 6);
  });

  it.each(["cuda", "plain"] as const)(
    "answers, lowered to %s, and goes on after any one call that fails: the request is told, and /ready",
    async (lowering) => {
      await server.close();
      numOpened = 0;
      await start(lowering);
      await expectAnswer();
      cuda.reset();
      await expectAnswer();
      const calls = Object.keys(cuda.book().calls).filter((call) => !DONE_WITHOUT.some((known) => known.test(call)));
      expect(calls).toEqual(expect.arrayContaining(lowering === "cuda" ? ["cudaGraphLaunch", ...OF_RUNS] : OF_RUNS));
      for (const call of calls) {
        opening = gate();
        cuda.fail({ call, error: LAUNCH_FAILED });
        const answer = await complete({ max_tokens: 3 });
        const { error } = (await answer.json()) as { error: { code: string; message: string } };
        expect({ call, status: answer.status, code: error?.code }).toEqual({
          call,
          status: 500,
          code: "runtime_fault",
        });
        expect(error.message).toMatch(/^the runtime failed: .*CU(DA|BLAS)/i);
        expect(await ready()).toMatchObject({ status: 503, body: { status: "recovering", error: error.message } });
        expect((await fetch(`${server.url}/health`)).status).toBe(200);
        opening.release();
        await untilReady();
        await expectAnswer();
      }
      expect(numOpened).toBe(1 + calls.length);
    },
    200_000,
  );

  it("goes on with a conversation that a CPU kept, and the other way round, where both run plain ONNX", async () => {
    const store = new MemoryStore({ maxBytes: 1 << 24 });
    const onCpu = (options: RunnerOptions) => NativeRunner.open(options);
    const onCuda = async ({ artifactDir, numSlots }: RunnerOptions) =>
      (await cuda.openArtifact(artifactDir, { numSlots, lowering: "plain" })).runner;
    let numTokens = 0;
    for (const openRunner of [onCpu, onCuda, onCpu]) {
      const other = await startRealServer({ openRunner, limits: LIMITS, store, modelDir });
      if (numTokens === 0) expect((await post(`${other.url}/v1/sessions`, { session_id: "tale" })).status).toBe(201);
      const ask = { prompt: [5], session_id: "tale", max_tokens: 3, ignore_eos: true };
      const answer = await post(`${other.url}/v1/completions`, { ...ask, temperature: 0, logit_bias: { 1000: 100 } });
      expect({ status: answer.status, text: await answer.text() }).toMatchObject({ status: 200 });
      numTokens += 4;
      const kept = await fetch(`${other.url}/v1/sessions/tale`);
      expect(await kept.json()).toMatchObject({ num_tokens: numTokens });
      await other.close();
    }
  });

  it.each([
    { name: "that another process holds", error: DEVICE_UNAVAILABLE, advice: false },
    { name: "that only a new process can use again", error: LAUNCH_FAILED, advice: true },
  ])(
    "ends a stream when it loses the device, one $name",
    async ({ error, advice }) => {
      const response = await complete({ max_tokens: 2000, stream: true });
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      while (!text.includes('"choices"')) text += (await reader.read()).value;
      cuda.fail({ call: "*", error, stays: true });
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) text += chunk.value;
      expect(text).toContain('"choices"');
      expect(text).toMatch(/"error":\{"message":"the runtime failed: .*CU(DA|BLAS)/);
      expect(text).not.toContain("[DONE]");
      // Opening again is tried, and fails.
      while (!/cannot be opened again/.test((await ready()).body.error ?? ""));
      const { status, body } = await ready();
      expect(status).toBe(503);
      expect(body.error).toMatch(new RegExp(`error ${error}`));
      expect(body.error!.includes("restart")).toBe(advice);
      cuda.reset(); // it is back
      cuda.forgetErrors();
      await untilReady();
      await expectAnswer();
    },
    60_000,
  );

  it("fails a request that the device has no memory for, and answers the next", async () => {
    await expectAnswer();
    cuda.fail({ call: "cudaMalloc", error: OUT_OF_MEMORY, stays: true });
    opening = gate();
    const answer = await complete({ prompt: "Once upon a time", echo: true, logprobs: 1, max_tokens: 1 });
    const { error } = (await answer.json()) as { error: { code: string; message: string } };
    expect({ status: answer.status, ...error }).toMatchObject({ status: 500, code: "runtime_fault" });
    expect(error.message).toMatch(
      /^the runtime failed: CUDA cannot allocate \d+ bytes of the device's memory: out of memory/,
    );
    expect((await ready()).body.error).toBe(error.message);
    cuda.reset();
    opening.release();
    await untilReady();
    await expectAnswer();
  }, 60_000);
});
