/**
 * Errors from behind the request's schema name the field as the client spelled it, on every
 * endpoint. On the real engine.
 */
import { once } from "node:events";
import { afterAll, beforeAll, expect, it } from "vitest";
import { WebSocket } from "ws";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { DEFAULT_SERVER_OPTIONS } from "../helpers/server-deps.ts";

const TIMEOUT_MS = 120_000;
const LONG = "once upon a time, ".repeat(2000);
const chat = (content: string) => [{ role: "user", content }];
const UNCUT = "x".repeat(600_000);
const NOWHERE = /at most 524288 bytes of UTF-8/;
const LOGPROBS = { include: ["message.output_text.logprobs"], top_logprobs: 20 };

let server: RealServer;

beforeAll(async () => {
  const limits = { maxBatch: 2, maxQueue: 8, prefillChunk: 64 };
  server = await startRealServer({
    limits,
    maxOutputTokens: 8000,
    options: { limits: { ...DEFAULT_SERVER_OPTIONS.limits, maxPromptTokens: 2000 } },
  });
}, TIMEOUT_MS);
afterAll(() => server?.close());

const TOO_LONG = (name: string) =>
  new RegExp(`maximum context length is 2000 tokens. However, your ${name} resulted in \\d+ tokens`);

it.each<[path: string, body: object, param: string, message: RegExp]>([
  ["/v1/completions", { prompt: LONG }, "prompt", TOO_LONG("prompt")],
  ["/v1/completions", { prompt: ["a", LONG] }, "prompt", TOO_LONG("prompt")],
  ["/v1/chat/completions", { messages: chat(LONG) }, "messages", TOO_LONG("messages")],
  ["/v1/responses", { input: LONG }, "input", TOO_LONG("input")],
  ["/v1/responses", { input: chat(LONG) }, "input", TOO_LONG("input")],
  ["/v1/responses", { input: "a", instructions: LONG }, "input", TOO_LONG("input")],
  ["/tokenize", { prompt: LONG }, "prompt", TOO_LONG("prompt")],
  ["/tokenize", { content: LONG }, "content", TOO_LONG("content")],
  ["/v1/completions", { prompt: UNCUT }, "prompt", NOWHERE],
  ["/v1/chat/completions", { messages: chat(UNCUT) }, "messages", NOWHERE],
  ["/v1/responses", { input: UNCUT }, "input", NOWHERE],
  ["/tokenize", { content: UNCUT }, "content", NOWHERE],
  ["/v1/completions", { prompt: Array(11).fill("a") }, "prompt", /needs 11 sequences/],
  ["/v1/chat/completions", { messages: chat("a"), n: 11 }, "n", /needs 11 sequences/],
  ["/v1/completions", { prompt: "a", min_tokens: 9, max_tokens: 8 }, "min_tokens", /at most max_tokens \(8\)/],
  [
    "/v1/chat/completions",
    { messages: chat("a"), min_tokens: 9, max_completion_tokens: 8 },
    "min_tokens",
    /at most max_completion_tokens \(8\)/,
  ],
  ["/v1/chat/completions", { messages: chat("a"), min_tokens: 9, max_tokens: 8 }, "min_tokens", /max_tokens \(8\)/],
  ["/v1/responses", { input: "a", min_tokens: 9, max_output_tokens: 8 }, "min_tokens", /max_output_tokens \(8\)/],
  ["/v1/responses", { input: "a", max_output_tokens: 8000, ...LOGPROBS }, "top_logprobs", /8000 tokens x \(1 \+ 20/],
])("%s (case %#)", async (path, body, param, message) => {
  const response = await post(server.url + path, body);
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ error: { param, message: expect.stringMatching(message) } });
});

it("the same on the WebSocket", async () => {
  const socket = new WebSocket(`${server.url.replace("http", "ws")}/v1/responses`);
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "response.create", input: LONG }));
  const [data] = (await once(socket, "message")) as [Buffer];
  expect(JSON.parse(data.toString())).toMatchObject({ type: "error", error: { param: "input" } });
  socket.close();
});
