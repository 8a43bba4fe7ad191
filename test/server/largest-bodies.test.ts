/**
 * How long the largest bodies that are taken hold up the event loop: to read a piece of one, and,
 * in one go, to parse and check it. What is measured is printed, the best of several times.
 */
import { expect, it } from "vitest";
import type * as z from "zod";
import { chatBody, toChatTask } from "../../src/server/endpoints/chat.ts";
import { completionBody, toCompletionTask } from "../../src/server/endpoints/completions.ts";
import { createBody } from "../../src/server/endpoints/sessions.ts";
import { detokenizeBody, tokenizeBody } from "../../src/server/endpoints/tokenize.ts";
import { boundsOf } from "../../src/server/openai/fields.ts";
import { JsonReader } from "../../src/server/openai/json-reader.ts";
import { parseBody } from "../../src/server/openai/validate.ts";
import { responseBody, toResponseTask } from "../../src/server/responses/request.ts";
import { createTestServer } from "../helpers/server-deps.ts";

const MOST_MS = 50;
const ROUNDS = 8;
const CHUNK_BYTES = 64 * 1024;

/** The processor's time: what else runs on the machine does not count. */
const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const { deps } = createTestServer();
const bounds = boundsOf(deps);
const { maxBodyBytes, maxPromptTokens, json } = bounds;

const schemas = {
  completions: { schema: completionBody(bounds), toTask: (body: unknown) => toCompletionTask(body as never, bounds) },
  chat: { schema: chatBody(bounds), toTask: (body: unknown) => toChatTask(body as never, bounds) },
  responses: { schema: responseBody(bounds), toTask: (body: unknown) => toResponseTask(body as never, bounds) },
  sessions: { schema: createBody, toTask: () => {} },
  tokenize: { schema: tokenizeBody(bounds), toTask: () => {} },
  detokenize: { schema: detokenizeBody(bounds), toTask: () => {} },
} satisfies Record<string, { schema: z.ZodObject; toTask: (body: unknown) => unknown }>;

const times = (count: number, item: string) => Array<string>(count).fill(item).join(",");
const names = (count: number, value: string) =>
  Array.from({ length: count }, (_, index) => `"k${index}":${value}`).join(",");
/** Text of the largest length that fits, of pieces that are costly to decode. */
const text = (piece: string, room = 200) =>
  `"${piece.repeat(Math.floor((maxBodyBytes - room) / Buffer.byteLength(piece)))}"`;
const numMessages = Math.floor(json.maxMembers / 2) - 8;
const message = '{"role":"user","content":"hi"}';
const tokens = `[${times(maxPromptTokens, "411")}]`;
const batch = `[${times(100, `[${times(Math.floor(json.maxItems / 100) - 2, "411")}]`)}]`;

const call = '{"id":"c","function":{"name":"f","arguments":"{}"}}';
const calls = `{"role":"assistant","tool_calls":[${times(Math.floor(json.maxMembers / 4) - 8, call)}]}`;
const callingMessage = `{"role":"assistant","tool_calls":[${call}]}`;
const callItem = '{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}';
const properties = names(Math.floor(json.maxMembers / 128) - 8, "{}");
const tool = (index: number) =>
  `{"type":"function","function":{"name":"f${index}","parameters":{"type":"object","properties":{${properties}}}}}`;
const tools = Array.from({ length: 128 }, (_, index) => tool(index)).join(",");

it.each<[keyof typeof schemas, what: string, body: string]>([
  ["chat", "the most calls in one message", `{"messages":[${calls}]}`],
  ["chat", "the most calls", `{"messages":[${times(Math.floor(json.maxMembers / 6) - 8, callingMessage)}]}`],
  ["chat", "the largest tools", `{"messages":[${message}],"tools":[${tools}]}`],
  ["responses", "the most calls", `{"input":[${times(Math.floor(json.maxMembers / 4) - 8, callItem)}]}`],
  ["completions", "one prompt of the most tokens", `{"prompt":${tokens}}`],
  ["completions", "the most tokens in a hundred prompts", `{"prompt":${batch}}`],
  ["completions", "a text with escapes", `{"prompt":${text("a\\n")}}`],
  ["completions", "a text of escapes", `{"prompt":${text("\\u4e2d")}}`],
  ["completions", "a text of many bytes a character", `{"prompt":${text("中")}}`],
  ["completions", "the most unknown fields", `{"prompt":"a",${names(json.maxMembers - 8, "1")}}`],
  ["completions", "the most empty lists", `{"prompt":"a","x":[${times(json.maxItems / 2 - 8, "[]")}]}`],
  ["completions", "the most empty objects", `{"prompt":"a","x":[${times(json.maxItems / 2 - 8, "{}")}]}`],
  [
    "completions",
    "the most short strings",
    `{"prompt":"a","x":[${Array.from({ length: json.maxStrings - 8 }, (_, i) => `"${i.toString(36)}"`).join()}]}`,
  ],
  ["completions", "the most numbers", `{"prompt":"a","x":[${times(json.maxItems - 8, "1e5")}]}`],
  [
    "completions",
    "objects with names of their own",
    `{"prompt":"a","x":[${Array.from({ length: json.maxMembers - 8 }, (_, i) => `{"k${i}":1}`).join()}]}`,
  ],
  ["chat", "the most messages", `{"messages":[${times(numMessages, message)}]}`],
  ["chat", "the most messages that are none", `{"messages":[${times(numMessages, '{"role":1,"content":2}')}]}`],
  [
    "chat",
    "a message of the most parts",
    `{"messages":[{"role":"user","content":[${times(numMessages, '{"type":"text","text":"a"}')}]}]}`,
  ],
  ["responses", "the most input items", `{"input":[${times(numMessages, message)}]}`],
  ["responses", "metadata of the most members", `{"input":"a","metadata":{${names(json.maxMembers - 8, '"a"')}}}`],
  ["sessions", "the most unknown fields", `{${names(json.maxMembers - 8, "1")}}`],
  ["tokenize", "a text with escapes", `{"prompt":${text("a\\n")}}`],
  ["detokenize", "the most tokens", `{"tokens":${tokens}}`],
])("%s: %s", (endpoint, what, body) => {
  const { schema, toTask } = schemas[endpoint];
  const bytes = Buffer.from(body);
  expect(bytes.byteLength).toBeLessThanOrEqual(maxBodyBytes);
  let [pieceMs, wholeMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < ROUNDS; round++) {
    const reader = new JsonReader(json);
    let slowest = 0;
    for (let at = 0; at < bytes.byteLength; at += CHUNK_BYTES) {
      const startedAt = cpuMs();
      reader.push(bytes.subarray(at, at + CHUNK_BYTES));
      slowest = Math.max(slowest, cpuMs() - startedAt);
    }
    pieceMs = Math.min(pieceMs, slowest);
    const startedAt = cpuMs();
    const value = reader.parse();
    try {
      toTask(parseBody(schema, value, deps.log));
    } catch {
      // To be told what is wrong must not take longer either.
    }
    wholeMs = Math.min(wholeMs, cpuMs() - startedAt);
  }
  const size = (bytes.byteLength / 2 ** 20).toFixed(2);
  console.log(
    `${endpoint}, ${what} (${size} MiB): ${pieceMs.toFixed(1)} ms a piece, ${wholeMs.toFixed(1)} ms at the end`,
  );
  expect(pieceMs).toBeLessThan(MOST_MS);
  expect(wholeMs).toBeLessThan(MOST_MS);
});
