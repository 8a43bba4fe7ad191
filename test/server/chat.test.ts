import { beforeEach, describe, expect, it } from "vitest";
import {
  createTestServer,
  FAKE_MODEL,
  NOW_MS,
  runtimeFault,
  sseData,
  type TestServer,
} from "../helpers/server-deps.ts";

const PATH = "/v1/chat/completions";
const USER = { role: "user", content: "Hi" };

interface Chunk {
  choices: {
    index: number;
    delta: { role?: string; content?: string };
    finish_reason: string | null;
    logprobs: unknown;
  }[];
  usage?: unknown;
}

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
});

async function chat(body: object): Promise<Record<string, unknown>> {
  const response = await server.post(PATH, { model: FAKE_MODEL, messages: [USER], ...body });
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

async function stream(body: object): Promise<Chunk[]> {
  const response = await server.post(PATH, { model: FAKE_MODEL, messages: [USER], stream: true, ...body });
  expect(response.status).toBe(200);
  const events = sseData(await response.text());
  expect(events.pop()).toBe("[DONE]");
  return events as Chunk[];
}

describe("an assistant's message", () => {
  it.each<[name: string, message: object, content: string]>([
    ["without content", {}, ""],
    ["with null for content", { content: null }, ""],
    ["with empty calls", { content: null, tool_calls: [], function_call: null }, ""],
    ["that refused", { content: null, refusal: "No." }, "No."],
    ["that wrote and refused", { content: "Yes.", refusal: "No." }, "Yes."],
    ["with a part that refuses", { content: [{ type: "refusal", refusal: "No." }] }, "No."],
    [
      "with parts of both kinds",
      {
        content: [
          { type: "text", text: "Yes." },
          { type: "refusal", refusal: "No." },
        ],
      },
      "Yes.\nNo.",
    ],
    ["without parts", { content: [] }, ""],
  ])("%s is a turn", async (_name, message, content) => {
    await chat({ messages: [USER, { role: "assistant", ...message }, USER] });
    expect(server.generator.requests[0]!.prompts).toMatchObject([
      { messages: [USER, { role: "assistant", content }, USER] },
    ]);
  });
});

it("passes tools that may not be called on, for the template to show", async () => {
  const tools = [{ type: "function", function: { name: "add" } }];
  await chat({ tools, tool_choice: "none", chat_template_kwargs: { a: 1 } });
  const definitions = [{ name: "add", parameters: { type: "object", properties: {} }, strict: false }];
  expect(server.generator.requests[0]!.prompts).toMatchObject([
    { templateArguments: { a: 1 }, tools: { definitions, allowed: [] } },
  ]);
});

describe("a chat completion", () => {
  it("has OpenAI's shape", async () => {
    expect(await chat({})).toMatchObject({
      id: "chatcmpl-00000002",
      object: "chat.completion",
      created: NOW_MS / 1000,
      model: FAKE_MODEL,
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: "Once upon a time", refusal: null },
          logprobs: null,
          finish_reason: "stop",
        },
      ],
      usage: { completion_tokens: 4 },
    });
  });

  it("joins text parts, treats developer as system and drops unknown keys", async () => {
    await chat({
      messages: [
        { role: "developer", content: "Be brief." },
        {
          role: "user",
          content: [
            { type: "text", text: "a" },
            { type: "text", text: "b" },
          ],
          name: "ann",
        },
        { role: "assistant", content: "c", tool_calls: null, type: "text" },
      ],
    });
    expect(server.generator.requests[0]!.prompts).toEqual([
      {
        type: "chat",
        messages: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "a\nb", name: "ann" },
          { role: "assistant", content: "c" },
        ],
        addGenerationPrompt: true,
        continueFinalMessage: false,
      },
    ]);
  });

  it("takes its length from the new field before the old, and else from the server's limit", async () => {
    await chat({});
    await chat({ max_tokens: 3 });
    await chat({ max_tokens: 3, max_completion_tokens: 2 });
    expect(server.generator.requests.map((request) => request.maxTokens)).toEqual([undefined, 3, 2]);
  });

  it("continues the final message instead of opening a new one", async () => {
    await chat({ continue_final_message: true, messages: [USER, { role: "assistant", content: "Once" }] });
    expect(server.generator.requests[0]!.prompts[0]).toMatchObject({
      addGenerationPrompt: false,
      continueFinalMessage: true,
    });
  });

  it("passes on a template and its arguments if the server trusts them", async () => {
    server = createTestServer({ trustRequestTemplates: true });
    await chat({ chat_template: "{{ x }}", chat_template_kwargs: { x: 1 } });
    expect(server.generator.requests[0]!.prompts[0]).toMatchObject({
      template: "{{ x }}",
      templateArguments: { x: 1 },
    });
  });

  it("accepts fields that ask for nothing beyond text", async () => {
    await chat({
      tools: [],
      tool_choice: "none",
      response_format: { type: "text" },
      modalities: ["text"],
      parallel_tool_calls: false,
    });
  });

  it("has log-probabilities with bytes", async () => {
    server.generator.script = { reply: ["é"] };
    const answer = await chat({ logprobs: true, top_logprobs: 2 });
    expect(answer.choices).toMatchObject([
      {
        logprobs: {
          content: [
            {
              token: "é",
              logprob: -0.25,
              bytes: [0xc3, 0xa9],
              top_logprobs: [
                { token: "é", logprob: -0.25, bytes: [0xc3, 0xa9] },
                { token: "A", logprob: -2.5, bytes: [65] },
              ],
            },
          ],
          refusal: null,
        },
      },
    ]);
  });
});

describe("a streamed chat completion", () => {
  it("begins with the role, and ends with the reason, both without text", async () => {
    const chunks = await stream({});
    expect(chunks.map((chunk) => chunk.choices[0]!.delta)).toEqual([
      { role: "assistant", content: "" },
      { content: "Once" },
      { content: " upon" },
      { content: " a" },
      { content: " time" },
      {},
    ]);
    expect(chunks.map((chunk) => chunk.choices[0]!.finish_reason)).toEqual([null, null, null, null, null, "stop"]);
  });

  it("gives an empty answer a role, empty content and a reason", async () => {
    server.generator.script = { reply: [] };
    const chunks = await stream({});
    expect(chunks.map((chunk) => chunk.choices[0])).toMatchObject([
      { delta: { role: "assistant", content: "" }, finish_reason: null },
      { delta: {}, finish_reason: "stop" },
    ]);
  });

  it("names the role of each choice before its text", async () => {
    const roles: (string | undefined)[][] = [[], []];
    for (const chunk of await stream({ n: 2 })) {
      const { index, delta } = chunk.choices[0]!;
      roles[index]!.push(delta.role);
    }
    for (const [first, ...others] of roles) {
      expect(first).toBe("assistant");
      expect(others.filter((role) => role !== undefined)).toEqual([]);
    }
  });

  it("has the prompt's ids with the role, and those of each token", async () => {
    const chunks = (await stream({ return_token_ids: true, max_tokens: 2 })) as (Chunk & {
      prompt_token_ids?: number[];
      choices: { token_ids: number[] }[];
    })[];
    expect(chunks.map(({ choices }) => choices[0]!.token_ids.length)).toEqual([0, 1, 1, 0]);
    expect(chunks.map(({ prompt_token_ids }) => prompt_token_ids !== undefined)).toEqual([true, false, false, false]);
  });

  it("keeps the choices apart", async () => {
    const texts = ["", ""];
    for (const chunk of await stream({ n: 2 })) {
      const { index, delta } = chunk.choices[0]!;
      texts[index] += delta.content ?? "";
    }
    expect(texts).toEqual(["Once upon a time", "Once upon a time"]);
  });

  it("ends with usage when asked to", async () => {
    const chunks = await stream({ stream_options: { include_usage: true } });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 4 } });
  });

  it("answers a refusal with its own status, not with a stream", async () => {
    server.generator.script = { reply: [], refusal: runtimeFault() };
    const response = await server.post(PATH, { messages: [USER], stream: true });
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ error: { code: "runtime_fault" } });
  });
});

describe("a session", () => {
  it("is continued and stored under one id, and its tokens are reported as cached", async () => {
    await server.post("/v1/sessions", { session_id: "s1" });
    await chat({ session_id: "s1" });
    expect(server.generator.requests[0]).toMatchObject({
      resumeFrom: { type: "session", id: "s1" },
      saveAs: { type: "session", id: "s1" },
    });
    const { usage } = await chat({ session_id: "s1" });
    expect(usage).toMatchObject({ prompt_tokens_details: { cached_tokens: 13 } });
  });

  it("can be created, listed, retrieved and deleted", async () => {
    const made = await server.post("/v1/sessions", { session_id: "s1" });
    expect(made.status).toBe(201);
    const session = {
      id: "s1",
      object: "session",
      model: FAKE_MODEL,
      created_at: 1,
      last_used_at: 2,
      num_tokens: 0,
      position: 0,
      state_bytes: 4096,
      expires_at: null,
      busy: false,
      checkpoint: null,
    };
    expect(await made.json()).toEqual(session);
    expect(await (await server.app.request("/v1/sessions")).json()).toEqual({
      object: "list",
      data: [session],
      first_id: "s1",
      last_id: "s1",
      has_more: false,
    });
    expect(await (await server.app.request("/v1/sessions/s1")).json()).toEqual(session);
    const deleted = await server.app.request("/v1/sessions/s1", { method: "DELETE" });
    expect(await deleted.json()).toEqual({ id: "s1", object: "session.deleted", deleted: true });
    expect((await server.app.request("/v1/sessions/s1")).status).toBe(404);
  });

  it("can be continued with an empty prompt, which is refused elsewhere", async () => {
    await server.post("/v1/sessions", { session_id: "s" });
    const goOn = await server.post("/v1/completions", { prompt: "", session_id: "s" });
    expect(goOn.status).toBe(200);
    expect(server.generator.requests[0]!.prompts).toEqual([{ type: "text", text: "" }]);
    expect((await server.post("/v1/completions", { prompt: "" })).status).toBe(400);
  });

  it("gets a generated id if the request is empty", async () => {
    const made = await server.app.request("/v1/sessions", { method: "POST" });
    expect(await made.json()).toMatchObject({ object: "session", id: "sess0" });
  });

  it("answers one request at a time", async () => {
    await server.post("/v1/sessions", { session_id: "s1" });
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    server.generator.script = { reply: ["a"], pace: () => held };
    const first = chat({ session_id: "s1" });
    await expect.poll(() => server.generator.numRunning).toBe(1);
    const second = await server.post(PATH, { messages: [USER], session_id: "s1" });
    release();
    await first;
    expect(second.status).toBe(409);
    expect(await second.json()).toMatchObject({ error: { code: "session_busy", param: "session_id" } });
  });
});
