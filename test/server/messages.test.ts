/** `/v1/messages` through Anthropic's own client: over a fake generator, and over a real server. */
import Anthropic from "@anthropic-ai/sdk";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type ScriptedServer, startScriptedServer } from "../helpers/scripted-server.ts";
import { createTestServer, FAKE_MODEL, runtimeFault, type TestServer } from "../helpers/server-deps.ts";

const ASK = { model: FAKE_MODEL, max_tokens: 20, messages: [{ role: "user" as const, content: "Hi" }] };

let server: TestServer;
let client: Anthropic;
beforeEach(() => {
  server = createTestServer();
  client = clientOf(server);
});

function clientOf({ app }: TestServer): Anthropic {
  const fetch = async (url: string | URL | Request, init?: RequestInit) => app.request(String(url), init);
  return new Anthropic({ baseURL: "http://localhost", apiKey: "key", maxRetries: 0, fetch });
}

/** @returns the chat that the generator was asked to answer */
function askedChat() {
  const prompt = server.generator.requests.at(-1)!.prompts[0]!;
  if (prompt.type !== "chat") throw new Error(`a prompt of type ${prompt.type}`);
  return prompt;
}

async function refusal(body: object): Promise<{ status: number; type: string; message: string }> {
  const response = await server.post("/v1/messages", { ...ASK, ...body });
  const { type, error } = (await response.json()) as { type: string; error: { type: string; message: string } };
  expect(type).toBe("error");
  return { status: response.status, ...error };
}

describe("an answer", () => {
  it("is a message of text", async () => {
    const message = await client.messages.create(ASK);
    expect(message).toMatchObject({
      type: "message",
      role: "assistant",
      model: FAKE_MODEL,
      content: [{ type: "text", text: "Once upon a time" }],
      stop_reason: "end_turn",
      stop_sequence: null,
      usage: { cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 4 },
    });
    expect(message.id).toMatch(/^msg_/);
    expect(message.usage.input_tokens).toBeGreaterThan(0);
  });

  it("streams the same message", async () => {
    const { id: _, ...whole } = await client.messages.create(ASK);
    const stream = client.messages.stream(ASK);
    const types: string[] = [];
    stream.on("streamEvent", ({ type }) => types.push(type));
    expect(await stream.finalMessage()).toMatchObject(whole);
    expect([types[0], types[1], types.at(-3), types.at(-2), types.at(-1)]).toEqual([
      "message_start",
      "content_block_start",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
  });

  it("has what the model thought in a block before its text", async () => {
    server.generator.script = { reply: ["A", " tale", " Once", " more"], numReasoning: 2 };
    const expected = [
      { type: "thinking", thinking: "A tale", signature: "" },
      { type: "text", text: " Once more", citations: null },
    ];
    expect((await client.messages.create(ASK)).content).toEqual(expected);
    expect((await client.messages.stream(ASK).finalMessage()).content).toEqual(expected);
  });

  it("ends with an error event if it fails in mid-stream", async () => {
    server.generator.script.failure = { afterDeltas: 2, error: runtimeFault() };
    await expect(client.messages.stream(ASK).finalMessage()).rejects.toThrow(Anthropic.APIError);
    const response = await server.post("/v1/messages", { ...ASK, stream: true });
    const last = (await response.text()).trim().split("\n\n").at(-1)!;
    expect(last).toMatch(/^event: error\ndata: \{"type":"error","error":\{"type":"api_error",/);
  });
});

describe("a request", () => {
  it("passes its settings on", async () => {
    const stop_sequences = ["END"];
    const settings = { temperature: 0.5, top_k: 3, top_p: 0.9, stop_sequences };
    await client.messages.create({ ...ASK, ...settings });
    const request = server.generator.requests.at(-1)!;
    expect(request.sampling).toMatchObject({ temperature: 0.5, topK: 3, topP: 0.9 });
    expect(request).toMatchObject({ maxTokens: 20, stopStrings: ["END"], numChoices: 1 });
  });

  it("gives instructions as the first message", async () => {
    const system = [
      { type: "text" as const, text: "Be kind." },
      { type: "text" as const, text: "Be brief." },
    ];
    await client.messages.create({ ...ASK, system });
    expect(askedChat().messages).toEqual([
      { role: "system", content: "Be kind.\nBe brief." },
      { role: "user", content: "Hi" },
    ]);
  });

  it("has its blocks read: text, thoughts, calls and their results", async () => {
    await client.messages.create({
      ...ASK,
      messages: [
        { role: "user", content: [{ type: "text", text: "What time is it?", cache_control: { type: "ephemeral" } }] },
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "Look.", signature: "x" },
            { type: "text", text: "I'll look." },
            { type: "tool_use", id: "call_1", name: "clock", input: { zone: "UTC" } },
          ],
        },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "call_1", content: [{ type: "text", text: "Noon" }] },
            { type: "text", text: "Well?" },
          ],
        },
      ],
    });
    expect(askedChat().messages).toEqual([
      { role: "user", content: "What time is it?" },
      {
        role: "assistant",
        content: "I'll look.",
        reasoning: "Look.",
        toolCalls: [{ id: "call_1", name: "clock", arguments: '{"zone":"UTC"}' }],
      },
      { role: "tool", content: "Noon", toolCallId: "call_1" },
      { role: "user", content: "Well?" },
    ]);
  });

  it("that ends with words of the assistant has them continued", async () => {
    await client.messages.create({ ...ASK, messages: [...ASK.messages, { role: "assistant", content: "Once" }] });
    expect(askedChat()).toMatchObject({ addGenerationPrompt: false, continueFinalMessage: true });
    await client.messages.create(ASK);
    expect(askedChat()).toMatchObject({ addGenerationPrompt: true, continueFinalMessage: false });
  });

  it.each<[name: string, body: Partial<Anthropic.MessageCreateParams>, args: object | undefined]>([
    ["nothing of thinking", {}, undefined],
    ["thinking", { thinking: { type: "enabled", budget_tokens: 2048 } }, { enable_thinking: true, thinking: true }],
    ["no thinking", { thinking: { type: "disabled" } }, { enable_thinking: false, thinking: false }],
    ["an effort", { output_config: { effort: "low" } }, { reasoning_effort: "low" }],
  ])("tells the template %s", async (_name, body, args) => {
    await client.messages.create({ ...ASK, ...body, stream: false });
    const { templateArguments } = askedChat();
    if (args === undefined) expect(templateArguments).toBeUndefined();
    else expect(templateArguments).toMatchObject(args);
  });

  it("is counted as it would be read", async () => {
    const { max_tokens: _, ...counted } = { ...ASK, system: "Be kind." };
    const { input_tokens } = await client.messages.countTokens(counted);
    const { usage } = await client.messages.create({ ...ASK, system: "Be kind." });
    expect(input_tokens).toBe(usage.input_tokens);
  });

  it.each<[name: string, body: object, message: string]>([
    ["without max_tokens", { max_tokens: undefined }, "max_tokens is required"],
    ["without messages", { messages: [] }, "messages must have at least 1 item; got 0"],
    ["with another role", { messages: [{ role: "tool", content: "x" }] }, "messages[0].role must be one of"],
    ["without content", { messages: [{ role: "user" }] }, "messages[0].content is required"],
    [
      "with a number for content",
      { messages: [{ role: "user", content: 3 }] },
      "messages[0].content must be a string or",
    ],
    [
      "with a block without type",
      { messages: [{ role: "user", content: [{}] }] },
      "messages[0].content[0] must be an object with a type",
    ],
    [
      "with an image",
      { messages: [{ role: "user", content: [{ type: "image" }] }] },
      'messages[0].content[0].type "image" is not supported',
    ],
    [
      "with a result of no call",
      { messages: [{ role: "user", content: [{ type: "tool_result" }] }] },
      "messages[0].content[0].tool_use_id is required",
    ],
    [
      "with a call without input",
      { messages: [{ role: "assistant", content: [{ type: "tool_use", id: "a", name: "b" }] }] },
      "messages[0].content[0].input is required",
    ],
    ["with instructions of numbers", { system: [{ type: "text", text: 1 }] }, "system[0].text must be a string; got 1"],
    [
      "with a tool that the server would run",
      { tools: [{ type: "web_search_20250305", name: "web_search" }] },
      'tools[0].type "web_search_20250305" is not supported',
    ],
    ["with a bad name for a tool", { tools: [{ name: "a b", input_schema: {} }] }, "tools[0].name must be of"],
    ["with a schema that is none", { tools: [{ name: "a", input_schema: 3 }] }, "tools[0].input_schema must be"],
    ["with a choice of no tool", { tool_choice: { type: "tool", name: "a" } }, "tool_choice needs tools"],
    [
      "with a choice without a name",
      { tools: [{ name: "a" }], tool_choice: { type: "tool" } },
      "tool_choice.name is required",
    ],
    ["with OpenAI's stop", { stop: ["x"] }, "stop is not supported: use stop_sequences"],
    ["with several answers", { n: 2 }, "n is not supported"],
    ["with servers of tools", { mcp_servers: [{}] }, "mcp_servers is not supported"],
  ])("%s is refused, and named", async (_name, body, message) => {
    const refused = await refusal(body);
    expect(refused).toMatchObject({ status: 400, type: "invalid_request_error" });
    expect(refused.message).toContain(message);
  });
});

describe("errors", () => {
  it("have Anthropic's names", async () => {
    server = createTestServer({ apiKeys: ["secret"] });
    await expect(clientOf(server).messages.create(ASK)).rejects.toThrow(Anthropic.AuthenticationError);
    server = createTestServer();
    client = clientOf(server);
    await expect(client.messages.create({ ...ASK, model: "another" })).rejects.toThrow(Anthropic.NotFoundError);
    await expect(client.messages.create({ ...ASK, max_tokens: 0 })).rejects.toThrow(Anthropic.BadRequestError);
    expect(await (await server.app.request("/v1/messages")).json()).toMatchObject({ type: "error" });
    const unknown = await server.app.request("/v1/messages/batches");
    expect(await unknown.json()).toMatchObject({ type: "error", error: { type: "not_found_error" } });
  });

  it("elsewhere have OpenAI's", async () => {
    expect(await (await server.app.request("/v1/message")).json()).toMatchObject({
      error: { code: "route_not_found" },
    });
  });
});

describe("tools", () => {
  const TOOL: Anthropic.Tool = {
    name: "get_weather",
    description: "The weather of a city",
    input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  };
  let real: ScriptedServer;
  let anthropic: Anthropic;
  beforeAll(async () => {
    real = await startScriptedServer();
    anthropic = new Anthropic({ baseURL: real.url, apiKey: "key", maxRetries: 0 });
  });
  afterAll(() => real?.[Symbol.asyncDispose]());

  const ask = { ...ASK, max_tokens: 200, tools: [TOOL] };

  it("are called, and their results are read", async () => {
    await real.says('I will look.\n{"name": "get_weather", "arguments": {"city": "Oslo"}}', "Snow.");
    const asked = await anthropic.messages.create(ask);
    expect(asked.stop_reason).toBe("tool_use");
    const call = asked.content.at(-1)!;
    expect(call).toMatchObject({ type: "tool_use", name: "get_weather", input: { city: "Oslo" } });
    expect(real.lastPrompt()).toContain("The weather of a city");

    const results = [
      { type: "tool_result" as const, tool_use_id: (call as { id: string }).id, content: "-3 and snow" },
    ];
    const told = await anthropic.messages.create({
      ...ask,
      messages: [...ask.messages, { role: "assistant", content: asked.content }, { role: "user", content: results }],
    });
    expect(told.content).toMatchObject([{ type: "text", text: "Snow." }]);
    expect(real.lastPrompt()).toContain("-3 and snow");
  });

  it("are called in a stream", async () => {
    await real.says('{"name": "get_weather", "arguments": {"city": "Oslo"}}');
    const stream = anthropic.messages.stream(ask);
    const pieces: string[] = [];
    stream.on("inputJson", (piece) => pieces.push(piece));
    const message = await stream.finalMessage();
    expect(message.stop_reason).toBe("tool_use");
    expect(message.content).toMatchObject([{ type: "tool_use", name: "get_weather", input: { city: "Oslo" } }]);
    expect(JSON.parse(pieces.join(""))).toEqual({ city: "Oslo" });
  });

  it("that may not be called are text", async () => {
    await real.says('{"name": "get_weather", "arguments": {"city": "Oslo"}}');
    const message = await anthropic.messages.create({ ...ask, tool_choice: { type: "none" } });
    expect(message).toMatchObject({ stop_reason: "end_turn", content: [{ type: "text" }] });
  });
});
