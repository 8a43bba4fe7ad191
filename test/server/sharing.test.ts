/**
 * Requests on real sockets before the real engine: a large one does not keep the slots, or the
 * tokenizer, from the others.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";

const TIMEOUT_MS = 120_000;

let server: RealServer;

beforeAll(async () => {
  server = await startRealServer({ limits: { maxBatch: 8, maxQueue: 256, prefillChunk: 64 } });
}, TIMEOUT_MS);
afterAll(() => server?.close());

it(
  "answers a small request before any of 128 long prompts that came earlier",
  async () => {
    const prompt = Array.from({ length: 128 }, (_, i) =>
      Array.from({ length: 400 }, (_, j) => 5 + ((7 * i + j) % 900)),
    );
    const gone = new AbortController();
    const large = await post(
      `${server.url}/v1/completions`,
      { prompt, max_tokens: 200, ignore_eos: true, temperature: 0, stream: true },
      gone.signal,
    );
    let numFinished = 0;
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of large.body!) {
        numFinished += decoder.decode(chunk, { stream: true }).split('"finish_reason":"length"').length - 1;
      }
    })().catch(() => {});
    await expect.poll(() => server.engine.load.numRunning, { interval: 5 }).toBe(8);
    const small = await post(`${server.url}/v1/completions`, { prompt: "Once upon a time", max_tokens: 4 });
    expect(small.status).toBe(200);
    await small.json();
    expect(numFinished).toBe(0);
    gone.abort();
    await reading;
    await expect.poll(() => server.engine.load).toMatchObject({ numRunning: 0, numWaiting: 0 });
  },
  TIMEOUT_MS,
);

it(
  "encodes a long text while eight that cannot be cut wait for each other",
  async () => {
    const tokenize = (prompt: string, signal?: AbortSignal) => post(`${server.url}/tokenize`, { prompt }, signal);
    const gone = new AbortController();
    let numEncoded = 0;
    const uncut = Array.from({ length: 8 }, (_, i) => `${i}${"e\u0301\u0323".repeat(80_000)}`).map((text) =>
      tokenize(text, gone.signal).then(
        () => numEncoded++,
        () => {},
      ),
    );
    const long = await tokenize("once upon a time, ".repeat(20_000));
    expect(long.status).toBe(200);
    expect(numEncoded).toBeLessThan(8);
    gone.abort();
    await Promise.all(uncut);
  },
  TIMEOUT_MS,
);
