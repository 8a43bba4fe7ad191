/**
 * `openapi.yaml` against what is served: the same routes, the same request fields, and answers that
 * fit its schemas.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { parse } from "yaml";
import type { ZodObject } from "zod";
import { chatBody } from "../../src/server/endpoints/chat.ts";
import { completionBody } from "../../src/server/endpoints/completions.ts";
import { conversationBody, conversationUpdateBody, itemsBody } from "../../src/server/endpoints/conversations.ts";
import { embeddingsBody } from "../../src/server/endpoints/embeddings.ts";
import { scoreBody } from "../../src/server/endpoints/score.ts";
import { createBody, forkBody, renameBody } from "../../src/server/endpoints/sessions.ts";
import { detokenizeBody, tokenizeBody } from "../../src/server/endpoints/tokenize.ts";
import { countBody, messagesBody } from "../../src/server/messages/request.ts";
import { refusals } from "../../src/server/openai/validate.ts";
import { responseBody } from "../../src/server/responses/request.ts";
import { gate, pauseAt } from "../helpers/gate.ts";
import { startTestServer } from "../helpers/listening-server.ts";
import {
  createTestServer,
  DEFAULT_SERVER_OPTIONS,
  runtimeFault,
  sseData,
  type TestServer,
} from "../helpers/server-deps.ts";

interface Schema {
  properties?: Record<string, Schema>;
  allOf?: Schema[];
  $ref?: string;
  [key: string]: unknown;
}
interface Document {
  paths: Record<string, Record<string, { responses?: Record<string, unknown> }>>;
  components: { schemas: Record<string, Schema> };
}

const document = parse(readFileSync(new URL("../../openapi.yaml", import.meta.url), "utf8")) as Document;
const { schemas } = document.components;

/** Answers may hold nothing that the document does not know. */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, strict(value)]));
  return "properties" in copy ? { additionalProperties: false, ...copy } : copy;
}

const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema({ $id: "lenient", ...document });
ajv.addSchema({ $id: "strict", ...(strict(document) as object) });

function expectValid(value: unknown, schemaName: string, mode: "strict" | "lenient" = "strict"): void {
  const validate = ajv.getSchema(`${mode}#/components/schemas/${schemaName}`);
  expect(validate, schemaName).toBeDefined();
  expect(validate!(value), `${ajv.errorsText(validate!.errors)}\n${JSON.stringify(value, null, 1)}`).toBe(true);
}

function propertyNames(schema: Schema): string[] {
  const resolved = schema.$ref === undefined ? schema : schemas[schema.$ref.split("/").at(-1)!]!;
  const inherited = (resolved.allOf ?? []).flatMap(propertyNames);
  return [...Object.keys(resolved.properties ?? {}), ...inherited];
}

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
});

describe("the document", () => {
  it("has the routes that are served, and no others", () => {
    const served = server.app.routes
      .filter(({ method }) => method !== "ALL")
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)(?:\{[^}]*\})?/g, "{$1}")}`);
    const documented = Object.entries(document.paths).flatMap(([path, item]) =>
      Object.keys(item)
        .filter((key) => key !== "parameters")
        .map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect([...new Set(documented)].sort()).toEqual([...new Set(served)].sort());
  });

  const bounds = { ...DEFAULT_SERVER_OPTIONS.limits, vocabSize: 512, trustRequestTemplates: false };
  it.each<[string, ZodObject]>([
    ["CompletionRequest", completionBody(bounds)],
    ["ChatCompletionRequest", chatBody(bounds)],
    ["ResponseRequest", responseBody(bounds)],
    ["ConversationRequest", conversationBody],
    ["ConversationUpdate", conversationUpdateBody],
    ["ConversationItemsRequest", itemsBody],
    ["SessionRequest", createBody],
    ["SessionFork", forkBody],
    ["SessionRename", renameBody],
    ["MessagesRequest", messagesBody(bounds)],
    ["MessagesCountRequest", countBody()],
    ["ScoreRequest", scoreBody(bounds)],
    ["EmbeddingsRequest", embeddingsBody(bounds, 8)],
    ["TokenizeRequest", tokenizeBody(bounds)],
    ["DetokenizeRequest", detokenizeBody(bounds)],
  ])("knows the fields of %s, and no others", (name, schema) => {
    const known = Object.keys({ ...schema.shape, ...refusals.get(schema) });
    expect([...new Set(propertyNames(schemas[name]!))].sort()).toEqual(known.sort());
  });

  it("refers to nothing that it lacks", () => {
    const references = JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g);
    for (const [, path] of references) {
      const target = path!
        .split("/")
        .reduce<unknown>((node, key) => (node as Record<string, unknown>)?.[key], document);
      expect(target, path).toBeDefined();
    }
  });

  it("is what the server serves", async () => {
    const response = await server.app.request("/openapi.yaml");
    expect(parse(await response.text())).toEqual(document);
  });
});

describe("answers fit their schemas:", () => {
  const messages = [{ role: "user", content: "Hi" }];

  it.each<[path: string, schema: string, body: object]>([
    ["/v1/completions", "Completion", { prompt: "a" }],
    ["/v1/completions", "Completion", { prompt: ["a", "b"], n: 2, echo: true, logprobs: 3, return_token_ids: true }],
    ["/v1/completions", "Completion", { prompt: [65, 66], prompt_logprobs: 2, max_tokens: 2, stop: "x" }],
    ["/v1/chat/completions", "ChatCompletion", { messages }],
    [
      "/v1/chat/completions",
      "ChatCompletion",
      { messages, n: 2, logprobs: true, top_logprobs: 2, return_token_ids: true, prompt_logprobs: 1 },
    ],
    ["/v1/messages", "Message", { messages, max_tokens: 8 }],
    ["/v1/responses", "Response", { input: "a" }],
    [
      "/v1/responses",
      "Response",
      {
        input: messages,
        instructions: "b",
        metadata: { a: "b" },
        max_output_tokens: 2,
        include: ["message.output_text.logprobs"],
        top_logprobs: 2,
        truncation: "auto",
      },
    ],
    ["/v1/sessions", "Session", {}],
    ["/tokenize", "Tokens", { prompt: "a", return_token_strs: true }],
    ["/detokenize", "DetokenizedText", { tokens: [65] }],
  ])("POST %s is a %s for %j", async (path, schema, body) => {
    const request = Object.entries(document.paths[path]!.post!).find(([key]) => key === "requestBody")?.[1];
    const reference = JSON.stringify(request).match(/#\/components\/schemas\/(\w+)/)![1]!;
    expectValid(body, reference, "lenient");
    const response = await server.post(path, body);
    expect(response.ok, await response.clone().text()).toBe(true);
    expect(document.paths[path]!.post!.responses).toHaveProperty(String(response.status));
    expectValid(await response.json(), schema);
  });

  it.each<[path: string, schema: string, body: object]>([
    ["/v1/completions", "CompletionChunk", { prompt: "a" }],
    [
      "/v1/completions",
      "CompletionChunk",
      { prompt: "a", n: 2, echo: true, logprobs: 2, return_token_ids: true, stream_options: { include_usage: true } },
    ],
    ["/v1/chat/completions", "ChatCompletionChunk", { messages }],
    [
      "/v1/chat/completions",
      "ChatCompletionChunk",
      { messages, logprobs: true, top_logprobs: 2, return_token_ids: true, stream_options: { include_usage: true } },
    ],
    ["/v1/responses", "ResponseEvent", { input: "a" }],
    ["/v1/responses", "ResponseEvent", { input: "a", background: true }],
    ["/v1/responses", "ResponseEvent", { input: "a", max_output_tokens: 1, include: ["message.output_text.logprobs"] }],
  ])("every chunk of a streamed POST %s is a %s for %j", async (path, schema, body) => {
    const response = await server.post(path, { ...body, stream: true });
    const chunks = sseData(await response.text()).filter((chunk) => chunk !== "[DONE]");
    expect(chunks.length).toBeGreaterThan(3);
    for (const chunk of chunks) expectValid(chunk, schema);
  });

  it("reasoning, asked for, answered, streamed and sent back", async () => {
    server.generator.script = { reply: ["So", " be", " it", "."], numReasoning: 2 };
    const reasoning = { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "b" }] };
    const cases = [
      [
        "/v1/chat/completions",
        ["ChatCompletionRequest", "ChatCompletion", "ChatCompletionChunk"],
        {
          messages: [{ role: "assistant", content: null, reasoning_content: "a", reasoning: null }, messages[0]],
          reasoning_effort: "low",
          reasoning: { effort: "none" },
          enable_thinking: false,
          logprobs: true,
        },
      ],
      [
        "/v1/responses",
        ["ResponseRequest", "Response", "ResponseEvent"],
        {
          input: [reasoning, { role: "assistant", content: "c" }, messages[0]],
          reasoning: { effort: "high", summary: "auto" },
        },
      ],
    ] as const;
    for (const [path, [given, whole, chunk], body] of cases) {
      expectValid(body, given, "lenient");
      const answer = await (await server.post(path, body)).json();
      expect(JSON.stringify(answer)).toContain('"reasoning_tokens":2');
      expectValid(answer, whole);
      const chunks = sseData(await (await server.post(path, { ...body, stream: true })).text());
      for (const each of chunks.filter((data) => data !== "[DONE]")) expectValid(each, chunk);
      if (path !== "/v1/responses") continue;
      const listed = await server.app.request(`/v1/responses/${(answer as { id: string }).id}/input_items`);
      expectValid(await listed.json(), "InputItemList");
    }
  });

  it("tools, asked for, called, streamed and answered", async () => {
    const calls = [
      { name: "add", arguments: ['{"a":', "1}"] },
      { name: "now", arguments: ["{}"] },
    ];
    server.generator.script = { reply: ["So", ":"], calls };
    const add = {
      name: "add",
      description: "a + b",
      parameters: { type: "object", properties: { a: {} } },
      strict: true,
    };
    const call = { id: "a", type: "function", function: { name: "add", arguments: "{}" } };
    const named = { type: "function", name: "now" };
    const chat = {
      messages: [
        { role: "assistant", content: null, tool_calls: [call] },
        { role: "tool", tool_call_id: "a", content: "5" },
      ],
      tools: [add, { name: "now" }].map((tool) => ({ type: "function", function: tool })),
    };
    const response = {
      input: [
        { type: "function_call", call_id: "a", name: "add", arguments: "{}", status: "completed" },
        { type: "function_call_output", call_id: "a", output: "5" },
        {
          type: "function_call_output",
          call_id: "a",
          output: [
            { type: "input_text", text: "5" },
            { type: "input_text", text: "6" },
          ],
        },
      ],
      tools: [add, { name: "now" }].map((tool) => ({ type: "function", ...tool })),
    };
    const allowed = { mode: "auto", tools: [named] };
    const allowedInChat = { mode: "auto", tools: [{ type: "function", function: { name: "now" } }] };
    const cases = [
      ["/v1/chat/completions", ["ChatCompletionRequest", "ChatCompletion", "ChatCompletionChunk"], chat],
      [
        "/v1/chat/completions",
        ["ChatCompletionRequest", "ChatCompletion", "ChatCompletionChunk"],
        { ...chat, tool_choice: { type: "allowed_tools", allowed_tools: allowedInChat }, parallel_tool_calls: false },
      ],
      ["/v1/responses", ["ResponseRequest", "Response", "ResponseEvent"], { ...response, tool_choice: named }],
      [
        "/v1/responses",
        ["ResponseRequest", "Response", "ResponseEvent"],
        { ...response, tool_choice: { type: "allowed_tools", ...allowed } },
      ],
    ] as const;
    for (const [path, [given, whole, chunk], body] of cases) {
      expectValid(body, given, "lenient");
      const posted = await server.post(path, body);
      expect(posted.status, await posted.clone().text()).toBe(200);
      const answer = await posted.json();
      expect(JSON.stringify(answer)).toContain("call_now");
      expectValid(answer, whole);
      const chunks = sseData(await (await server.post(path, { ...body, stream: true })).text());
      expect(JSON.stringify(chunks)).toContain("call_now");
      for (const each of chunks.filter((data) => data !== "[DONE]")) expectValid(each, chunk);
      if (path !== "/v1/responses") continue;
      const listed = await server.app.request(`/v1/responses/${(answer as { id: string }).id}/input_items`);
      expectValid(await listed.json(), "InputItemList");
    }
  });

  it("a failed response's events, and an error chunk", async () => {
    server.generator.script = { reply: ["a", "b"], failure: { afterDeltas: 1, error: runtimeFault() } };
    const response = await server.post("/v1/responses", { input: "a", stream: true });
    for (const event of sseData(await response.text())) expectValid(event, "ResponseEvent");
    const completion = await server.post("/v1/completions", { prompt: "a", stream: true });
    expectValid(sseData(await completion.text()).at(-1), "Error");
  });

  it("the messages of the WebSocket", async () => {
    await using listening = await startTestServer();
    const socket = new WebSocket(listening.webSocketUrl);
    const received: { type: string }[] = [];
    socket.on("message", (data) => received.push(JSON.parse(data.toString())));
    await once(socket, "open");
    for (const request of [
      { type: "response.create", input: "a", stream_id: "one" },
      { type: "response.attach", response_id: "resp_x", starting_after: 3, stream_id: "one" },
      { type: "response.cancel", response_id: "resp_x" },
    ]) {
      expectValid(request, "WebSocketRequest", "lenient");
      socket.send(JSON.stringify(request));
    }
    await expect
      .poll(() => received.map(({ type }) => type))
      .toEqual(expect.arrayContaining(["error", "response.completed"]));
    for (const message of received) {
      expectValid(message, message.type === "error" ? "WebSocketError" : "WebSocketEvent");
    }
    socket.close();
  });

  it("responses in the background, retrieved, followed, listed, cancelled and deleted", async () => {
    const held = gate();
    server.generator.script = { reply: ["a", "b"], pace: pauseAt(1, held) };
    const made = await server.post("/v1/responses", { input: "a", background: true });
    const response = (await made.json()) as { id: string };
    expectValid(response, "Response");
    const path = `/v1/responses/${response.id}`;
    const ask = async (method: string, suffix = "") => server.app.request(path + suffix, { method });
    expectValid(await (await ask("GET")).json(), "Response");
    const events = ask("GET", "?stream=true");
    expectValid(await (await ask("POST", "/cancel")).json(), "Response");
    for (const event of sseData(await (await events).text())) expectValid(event, "ResponseEvent");
    expectValid(await (await ask("GET", "/input_items")).json(), "InputItemList");
    expectValid(await (await ask("DELETE")).json(), "DeletedResponse");
    expectValid(await (await ask("GET")).json(), "Error");
  });

  it("sessions, forked, renamed, exported and imported", async () => {
    await server.post("/v1/sessions", { session_id: "s" });
    expectValid(await (await server.post("/v1/sessions/s/fork", { session_id: "t" })).json(), "Session");
    expectValid(await (await server.post("/v1/sessions/t", { session_id: "u" })).json(), "Session");
    const file = await (await server.app.request("/v1/sessions/u/export")).arrayBuffer();
    const headers = { "content-type": "application/octet-stream" };
    const imported = await server.app.request("/v1/sessions/import", { method: "POST", headers, body: file });
    expectValid(await imported.json(), "Session");
    const refused = await server.app.request("/v1/sessions/import", { method: "POST", headers, body: "x" });
    expectValid(await refused.json(), "Error");
  });

  it.each<[path: string, schema: string]>([
    ["/", "Index"],
    ["/health", "Health"],
    ["/ready", "Readiness"],
    ["/v1/models", "ModelList"],
    ["/v1/models/default", "Model"],
    ["/v1/sessions", "SessionList"],
    ["/tokenizer_info", "TokenizerInfo"],
  ])("GET %s is a %s", async (path, schema) => {
    await server.post("/v1/sessions", { session_id: "s" });
    expectValid(await (await server.app.request(path)).json(), schema);
  });

  it("sessions, looked at and deleted; readiness while it recovers", async () => {
    await server.post("/v1/sessions", { session_id: "s" });
    expectValid(await (await server.app.request("/v1/sessions/s")).json(), "Session");
    expectValid(await (await server.app.request("/v1/sessions/s", { method: "DELETE" })).json(), "DeletedSession");
    server.engine.status = { state: "recovering", error: "x" };
    expectValid(await (await server.app.request("/ready")).json(), "Readiness");
  });

  it.each<[path: string, body: object, status: number]>([
    ["/v1/completions", { prompt: "a", temperature: 9 }, 400],
    ["/v1/completions", { prompt: "a", model: "x" }, 404],
    ["/v1/chat/completions", { messages, session_id: "nope" }, 404],
    ["/v1/responses", { input: "a", previous_response_id: "nope" }, 400],
  ])("the error of %s for %j is documented", async (path, body, status) => {
    const response = await server.post(path, body);
    expect(response.status).toBe(status);
    expect(document.paths[path]!.post!.responses).toHaveProperty(String(status));
    expectValid(await response.json(), "Error");
  });
});
