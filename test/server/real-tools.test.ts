/**
 * Calls that must match, over the real generation, engine, runtime and default model, which knows
 * no tools: it is told of them, and held to their schemas.
 */
import { Ajv2020 } from "ajv/dist/2020.js";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RealServer, renameInTokenizer, startRealServer } from "../helpers/real-server.ts";

const WEATHER = {
  name: "get_weather",
  parameters: {
    type: "object",
    properties: {
      city: { type: "string", maxLength: 12 },
      unit: { enum: ["C", "F"] },
      days: { type: "integer", minimum: 1, maximum: 9 },
    },
    required: ["city", "unit"],
    additionalProperties: false,
  },
};
const TIME = { name: "get_time", parameters: { type: "object", properties: {}, additionalProperties: false } };
const TOOLS = [WEATHER, TIME].map((tool) => ({ type: "function" as const, function: tool }));
const FLAT_TOOLS = [WEATHER, TIME].map((tool) => ({ type: "function" as const, strict: null, ...tool }));
const USER = { role: "user" as const, content: "Is it warm in Paris?" };
const CHAT = { model: "fake-4m", messages: [USER], tools: TOOLS, max_tokens: 300 };
const NAMED = { type: "function" as const, function: { name: "get_weather" } };

const ajv = new Ajv2020();
const validators = new Map([WEATHER, TIME].map(({ name, parameters }) => [name, ajv.compile(parameters)]));

let server: RealServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startRealServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 });
});
afterAll(() => server?.close());

type Call = { readonly name: string; readonly arguments: string };

function expectValid(calls: readonly Call[]): void {
  expect(calls.length).toBeGreaterThan(0);
  for (const { name, arguments: json } of calls) {
    const validate = validators.get(name)!;
    expect(validate(JSON.parse(json)), `${name} ${json}`).toBe(true);
  }
}

function callsOf({ message }: OpenAI.ChatCompletion.Choice): Call[] {
  return (message.tool_calls ?? []).flatMap((call) => (call.type === "function" ? [call.function] : []));
}

describe("a chat", () => {
  it("that must call has valid calls and nothing else, at any temperature", async () => {
    for (const temperature of [0, 2]) {
      const sampling = { n: 3, temperature, seed: 1, max_tokens: 400 };
      const { choices } = await client.chat.completions.create({ ...CHAT, tool_choice: "required", ...sampling });
      for (const choice of choices) {
        expect(choice.message.content).toBeNull();
        const calls = callsOf(choice);
        // The last one may be cut off.
        expectValid(choice.finish_reason === "length" ? calls.slice(0, -1) : calls);
        if (choice.finish_reason !== "length") expect(choice.finish_reason).toBe("tool_calls");
      }
    }
  });

  it("that must call one function calls it once", async () => {
    for (const seed of [1, 2]) {
      const body = { ...CHAT, tool_choice: NAMED, seed };
      const { choices } = await client.chat.completions.create(body);
      expect(choices[0]).toMatchObject({ finish_reason: "tool_calls", message: { content: null } });
      const calls = callsOf(choices[0]!);
      expectValid(calls);
      expect(calls.map(({ name }) => name)).toEqual(["get_weather"]);
      const streamed = await client.chat.completions.stream(body).finalChatCompletion();
      expect(callsOf(streamed.choices[0]!)).toMatchObject(calls);
    }
  });

  it("calls once where parallel calls are not allowed, and only what is allowed", async () => {
    for (const seed of [1, 2]) {
      const once = { tool_choice: "required", parallel_tool_calls: false, seed } as const;
      const { choices } = await client.chat.completions.create({ ...CHAT, ...once });
      expectValid(callsOf(choices[0]!));
      expect(callsOf(choices[0]!)).toHaveLength(1);
      const allowed = await client.chat.completions.create({
        ...CHAT,
        ...{ seed, parallel_tool_calls: false },
        tool_choice: {
          type: "allowed_tools",
          allowed_tools: { mode: "required", tools: [{ type: "function", function: { name: "get_time" } }] },
        },
      });
      expect(callsOf(allowed.choices[0]!)).toEqual([{ name: "get_time", arguments: "{}" }]);
    }
  });

  it("answers with calls or with what the answer must match", async () => {
    const schema = {
      type: "object",
      properties: { warm: { type: "boolean" } },
      required: ["warm"],
      additionalProperties: false,
    };
    const format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } } as const;
    const validate = ajv.compile(schema);
    const strict = TOOLS.map((tool) => ({ ...tool, function: { ...tool.function, strict: true } }));
    const { choices } = await client.chat.completions.create({
      ...{ ...CHAT, tools: strict, response_format: format },
      ...{ n: 12, temperature: 2, seed: 1, parallel_tool_calls: false },
    });
    for (const choice of choices) {
      if (choice.finish_reason === "stop") expect(validate(JSON.parse(choice.message.content!))).toBe(true);
      else expectValid(callsOf(choice));
    }
    expect(new Set(choices.map(({ finish_reason }) => finish_reason))).toEqual(new Set(["tool_calls", "stop"]));
  });

  it("that must call goes on in its session with the result", async () => {
    const created = await fetch(`${server.url}/v1/sessions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ session_id: "s" }),
    });
    expect(created.status).toBe(201);
    const ask = (messages: unknown[], choice: unknown) =>
      client.chat.completions.create({
        ...CHAT,
        messages,
        session_id: "s",
        seed: 5,
        tool_choice: choice,
      } as typeof CHAT);
    const first = await ask([USER], NAMED);
    const [call] = first.choices[0]!.message.tool_calls!;
    const second = await ask([{ role: "tool", tool_call_id: call!.id, content: "21" }], "none");
    expect(second.choices[0]!.message.content).not.toBe("");
    expect(second.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(first.usage!.total_tokens - 2);
  });

  it.each<[body: object, param: string]>([
    [{ tool_choice: "required" }, "tools[1].function.parameters.properties.a.$ref"],
    [
      { tool_choice: { type: "function", function: { name: "bad" } } },
      "tools[1].function.parameters.properties.a.$ref",
    ],
  ])("that must match a schema which is not supported is refused by its place: %j", async (body, param) => {
    const bad = { name: "bad", parameters: { type: "object", properties: { a: { $ref: "https://a.example/b" } } } };
    const tools = [TOOLS[0]!, { type: "function" as const, function: bad }];
    const asking = client.chat.completions.create({ ...CHAT, tools, ...body });
    await expect(asking).rejects.toMatchObject({ status: 400, code: "unsupported_value", param });
    const free = await client.chat.completions.create({ ...CHAT, tools, max_tokens: 4 });
    expect(free.choices).toHaveLength(1);
  });
});

describe("a response", () => {
  const RESPONSE = { model: "fake-4m", input: USER.content, tools: FLAT_TOOLS, max_output_tokens: 300 };

  it("that must call has items of valid calls alone, streamed too", async () => {
    const body = { ...RESPONSE, tool_choice: { type: "function" as const, name: "get_weather" } };
    const response = await client.responses.create(body);
    expect(response).toMatchObject({ status: "completed", output: [{ type: "function_call", status: "completed" }] });
    expectValid(response.output.flatMap((item) => (item.type === "function_call" ? [item] : [])));
    let json = "";
    for await (const event of await client.responses.create({ ...body, stream: true })) {
      if (event.type === "response.function_call_arguments.delta") json += event.delta;
      if (event.type === "response.function_call_arguments.done") expect(event.arguments).toBe(json);
    }
    expectValid([{ name: "get_weather", arguments: json }]);
  });
});

describe("a model whose template has tags for calls, the opening one a special token", () => {
  const CALLS = /^<tool_call>\n\{"name": "get_(weather|time)", "arguments": \{.*\}\}\n<\/tool_call>$/s;
  const OPEN_ID = 0;
  const strict = TOOLS.map((tool) => ({ ...tool, function: { ...tool.function, strict: true } }));
  const ask = { ...CHAT, tools: strict, parallel_tool_calls: false, logprobs: true };
  const textOf = (choice: OpenAI.ChatCompletion.Choice) => choice.logprobs!.content!.map(({ token }) => token).join("");
  let own: RealServer;
  let hermes: OpenAI;

  beforeAll(async () => {
    const template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | tojson }}{# <tool_call> #}";
    own = await startRealServer({ tokenizerDir: await renameInTokenizer("<tool_call>", template) });
    hermes = new OpenAI({ baseURL: `${own.url}/v1`, apiKey: "unused", maxRetries: 0 });
  });
  afterAll(() => own?.close());

  it("must call in that form", async () => {
    const { choices } = await hermes.chat.completions.create({ ...ask, tool_choice: "required", seed: 4 });
    expectValid(callsOf(choices[0]!));
    expect(textOf(choices[0]!)).toMatch(CALLS);
  });

  it("is held to the schemas of strict tools once it calls one by its own choice", async () => {
    const biased = { logit_bias: { [OPEN_ID]: 14 }, temperature: 1, n: 4, seed: 1, ignore_eos: true };
    const { choices } = await hermes.chat.completions.create({ ...ask, ...biased } as typeof ask);
    const calling = choices.filter(({ finish_reason }) => finish_reason === "tool_calls");
    expect(calling.length).toBeGreaterThan(0);
    for (const choice of calling) {
      expectValid(callsOf(choice));
      const text = textOf(choice);
      expect(text.slice(text.indexOf("<tool_call>"))).toMatch(CALLS);
    }
  });
});
