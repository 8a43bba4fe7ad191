/**
 * Clients that do not read, on real sockets before the real engine: what is made for them stops,
 * and goes on when they read.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { DEFAULT_SERVER_OPTIONS } from "../helpers/server-deps.ts";

const MAX_TOKENS = 800;
const MESSAGES = [{ role: "user", content: "Tell me of the sea." }];
/** Of some two kilobytes a token. */
const LONG = {
  messages: MESSAGES,
  logprobs: true,
  top_logprobs: 20,
  max_tokens: MAX_TOKENS,
  ignore_eos: true,
  temperature: 0,
  stream: true,
};
/** An answer in the Responses endpoint's words, kept from ending. */
const ENDLESS = {
  temperature: 0,
  max_output_tokens: MAX_TOKENS,
  logit_bias: { 0: -100, 1: -100, 2: -100, 3: -100, 4: -100 },
};
const LIMITS = { maxBatch: 2, maxQueue: 32, prefillChunk: 64 };
const TIMEOUT_MS = 120_000;

let server: RealServer;
const sockets: { destroy(): unknown }[] = [];

beforeAll(async () => {
  const { limits, resume } = DEFAULT_SERVER_OPTIONS;
  server = await startRealServer({
    limits: LIMITS,
    maxOutputTokens: MAX_TOKENS,
    options: { limits: { ...limits, maxOutputTokens: MAX_TOKENS }, resume: { ...resume, waitBytes: 1 } },
  });
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await server?.close();
});

/** Sends a request and reads nothing. */
function ask(route: string, body: object): Socket {
  const socket = connect(server.port, "127.0.0.1");
  socket.pause();
  const text = JSON.stringify(body);
  const head = `POST ${route} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close`;
  socket.write(`${head}\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  sockets.push(socket);
  return socket;
}

async function readAll(socket: Socket): Promise<string> {
  let text = "";
  socket.setEncoding("utf8").on("data", (data) => (text += data));
  socket.resume();
  await once(socket, "end");
  // Without the lengths of chunks, which may stand within an event.
  return text.slice(text.indexOf("\r\n\r\n") + 4).replaceAll(/(?:^|\r\n)[0-9a-f]+\r\n/g, "");
}

async function untilSuspended(count: number): Promise<void> {
  await expect.poll(() => server.engine.load.numSuspended, { timeout: TIMEOUT_MS, interval: 20 }).toBe(count);
}

/** Tokens are made for them no more, though slots are free. */
async function expectStill(): Promise<void> {
  const before = server.numDecoded;
  expect(server.engine.load).toMatchObject({ numRunning: 0, numWaiting: 0 });
  const other = await post(`${server.url}/v1/chat/completions`, { ...LONG, stream: false, max_tokens: 20 });
  expect(other.status).toBe(200);
  expect(server.numDecoded - before).toBeLessThanOrEqual(20);
}

async function expectIdle(): Promise<void> {
  const load = { slotsInUse: 0, numWaiting: 0, numSuspended: 0 };
  await expect.poll(() => server.engine.load, { timeout: 5000 }).toMatchObject(load);
  await expect.poll(() => server.responses.numRunning).toBe(0);
}

describe("a stream whose client does not read", () => {
  it(
    "of one choice pauses, is complete once it is read, and ends when its socket closes",
    async () => {
      const body = { ...LONG, return_token_ids: true };
      const [read, left] = [ask("/v1/chat/completions", body), ask("/v1/chat/completions", body)];
      await untilSuspended(2);
      await expectStill();
      expect(server.numDecoded).toBeLessThan(2 * MAX_TOKENS);
      left.destroy();
      await untilSuspended(1);
      const events = (await readAll(read)).split("\n\n").filter((event) => event.startsWith("data: {"));
      const tokenIds = events.flatMap((event) => JSON.parse(event.slice(6)).choices[0].token_ids ?? []);
      expect(tokenIds).toHaveLength(MAX_TOKENS);
      await expectIdle();
    },
    TIMEOUT_MS,
  );

  it(
    "of several choices pauses all of them, and all end once it is read",
    async () => {
      const before = server.numDecoded;
      const more = { n: 2, temperature: 1, seed: 1 };
      const socket = ask("/v1/chat/completions", { ...LONG, ...more });
      await untilSuspended(2);
      await expectStill();
      expect(server.numDecoded - before).toBeLessThan(2 * MAX_TOKENS);
      const text = await readAll(socket);
      expect(text.match(/"finish_reason":"length"/g)).toHaveLength(2);
      expect(text).toContain("[DONE]");
      await expectIdle();
    },
    TIMEOUT_MS,
  );

  it(
    "of a WebSocket pauses, resumes once it is read, and ends when the socket closes",
    async () => {
      const before = server.numDecoded;
      const socket = new WebSocket(`${server.url.replace("http", "ws")}/v1/responses`);
      await once(socket, "open");
      sockets.push({ destroy: () => socket.terminate() });
      socket.pause();
      socket.send(
        JSON.stringify({
          type: "response.create",
          input: "Tell me of the sea.",
          ...ENDLESS,
          store: false,
          top_logprobs: 20,
          include: ["message.output_text.logprobs"],
        }),
      );
      await untilSuspended(1);
      await expectStill();
      expect(server.numDecoded - before).toBeLessThan(MAX_TOKENS);
      let numDeltas = 0;
      socket.on("message", (data) => (numDeltas += data.toString().includes("output_text.delta") ? 1 : 0));
      socket.resume();
      await expect.poll(() => numDeltas, { timeout: TIMEOUT_MS }).toBeGreaterThan(MAX_TOKENS - 200);
      socket.terminate();
      await expectIdle();
    },
    TIMEOUT_MS,
  );

  it(
    "of a stored response that lost its client pauses within its limit, and resumes for the next client",
    async () => {
      const before = server.numDecoded;
      const abort = new AbortController();
      const response = await post(
        `${server.url}/v1/responses`,
        { ...ENDLESS, input: "Hello.", stream: true },
        abort.signal,
      );
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      const id = /"id":"(resp_\w+)"/.exec((await reader.read()).value!)![1]!;
      abort.abort();
      await untilSuspended(1);
      expect(server.numDecoded - before).toBeLessThan(MAX_TOKENS);
      await expectStill();
      await fetch(`${server.url}/v1/responses/${id}/cancel`, { method: "POST" });
      await expectIdle();
    },
    TIMEOUT_MS,
  );
});

it(
  "a stored response ends with its stream if the server does not wait for clients",
  async () => {
    const { limits, resume } = DEFAULT_SERVER_OPTIONS;
    const impatient = await startRealServer({
      limits: LIMITS,
      maxOutputTokens: MAX_TOKENS,
      options: { limits: { ...limits, maxOutputTokens: MAX_TOKENS }, resume: { ...resume, waitMs: 0 } },
    });
    const abort = new AbortController();
    const body = { ...ENDLESS, input: "Hello.", stream: true };
    const response = await post(`${impatient.url}/v1/responses`, body, abort.signal);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const id = /"id":"(resp_\w+)"/.exec((await reader.read()).value!)![1]!;
    abort.abort();
    await expect.poll(() => impatient.engine.load.slotsInUse, { timeout: 10_000 }).toBe(0);
    const kept = await fetch(`${impatient.url}/v1/responses/${id}`);
    expect(await kept.json()).toMatchObject({ status: "cancelled" });
    expect(impatient.numDecoded).toBeLessThan(MAX_TOKENS);
    await impatient.close();
  },
  TIMEOUT_MS,
);
