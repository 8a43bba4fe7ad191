/**
 * Tools over real sockets, generation, sessions and OpenAI's client; the model says what it is told
 * to.
 */
import OpenAI from "openai";
import type { ResponseStreamEvent } from "openai/resources/responses/responses";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ScriptedServer, startScriptedServer } from "../helpers/scripted-server.ts";
import { sseData } from "../helpers/server-deps.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

/** As Qwen's. */
const TEMPLATE = `{% if tools %}[tools]{% for tool in tools %}{{ tool | tojson }}{% endfor %}[end]{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}
{%- for call in m.tool_calls or [] %}{{ '\\n' if m.content or not loop.first }}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;

const WEATHER = {
  name: "get_weather",
  description: "The weather now.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const TIME = { name: "get_time", parameters: { type: "object", properties: {} } };
const TOOLS = [WEATHER, TIME].map((tool) => ({ type: "function" as const, function: tool }));
const FLAT_TOOLS = [WEATHER, TIME].map((tool) => ({ type: "function" as const, strict: null, ...tool }));
const USER = { role: "user" as const, content: "Is it warm in Paris?" };

const callText = (name: string, json: string) => `<tool_call>\n{"name": "${name}", "arguments": ${json}}\n</tool_call>`;
const PARIS = '{"city": "Paris"}';
const CALL = callText("get_weather", PARIS);
const TWO_CALLS = `Let me see.\n${CALL}\n${callText("get_time", "{}")}`;

let server: ScriptedServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startScriptedServer(TEMPLATE);
  client = clientOf(server);
});
afterAll(() => server[Symbol.asyncDispose]());

function clientOf({ url }: ScriptedServer): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
}

const CHAT = { model: "", messages: [USER], tools: TOOLS, max_tokens: 500 };

async function chunksOf(body: object, from = server) {
  const response = await from.post("/v1/chat/completions", { ...CHAT, stream: true, ...body });
  expect(response.status, await response.clone().text()).toBe(200);
  const data = sseData(await response.text());
  expect(data.at(-1)).toBe("[DONE]");
  return (data.slice(0, -1) as OpenAI.ChatCompletionChunk[]).map(({ choices }) => choices[0]!);
}

async function* eventsOf(events: AsyncIterable<ResponseStreamEvent>) {
  for await (const event of events) yield event;
}

describe("a chat", () => {
  it("answers with text and calls", async () => {
    await server.says(TWO_CALLS);
    const { choices } = await client.chat.completions.create(CHAT);
    expect(choices).toMatchObject([
      {
        message: {
          role: "assistant",
          content: "Let me see.",
          refusal: null,
          tool_calls: [
            {
              id: expect.stringMatching(/^call_\w{32}$/),
              type: "function",
              function: { name: "get_weather", arguments: PARIS },
            },
            {
              id: expect.stringMatching(/^call_\w{32}$/),
              type: "function",
              function: { name: "get_time", arguments: "{}" },
            },
          ],
        },
        finish_reason: "tool_calls",
      },
    ]);
    const [first, second] = choices[0]!.message.tool_calls!;
    expect(first!.id).not.toBe(second!.id);
  });

  it("without text has null content, and the model sees the tools as transformers shows them", async () => {
    await server.says(CALL);
    const { choices } = await client.chat.completions.create(CHAT);
    expect(choices[0]!.message.content).toBeNull();
    const weather =
      '{"type": "function", "function": {"name": "get_weather", "description": "The weather now.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}';
    const time =
      '{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}';
    expect(server.lastPrompt()).toBe(`[tools]${weather}${time}[end][user]${USER.content}[end][assistant]`);
  });

  it("streams a call's id and name, then its arguments in pieces", async () => {
    await server.says(TWO_CALLS);
    const choices = await chunksOf({});
    const deltas = choices.map(({ delta }) => delta);
    expect(deltas.map(({ content }) => content ?? "").join("")).toBe("Let me see.");
    const calls = deltas.flatMap(({ tool_calls }) => tool_calls ?? []);
    const begun = calls.filter(({ id }) => id !== undefined);
    expect(begun).toMatchObject([
      { index: 0, type: "function", function: { name: "get_weather", arguments: "" } },
      { index: 1, type: "function", function: { name: "get_time", arguments: "" } },
    ]);
    const pieces = (index: number) =>
      calls.filter((call) => call.index === index).map((call) => call.function!.arguments!);
    expect(pieces(0).join("")).toBe(PARIS);
    expect(pieces(0).length).toBeGreaterThan(5);
    expect(pieces(1).join("")).toBe("{}");
    for (const call of calls) if (call.id === undefined) expect(call.function).not.toHaveProperty("name");
    expect(choices.map(({ finish_reason }) => finish_reason).filter(Boolean)).toEqual(["tool_calls"]);
  });

  it("is what OpenAI's client makes of a stream", async () => {
    await server.says(TWO_CALLS);
    const stream = client.chat.completions.stream(CHAT);
    const { choices } = await stream.finalChatCompletion();
    expect(choices[0]).toMatchObject({ finish_reason: "tool_calls", message: { content: "Let me see." } });
    expect(choices[0]!.message.tool_calls).toMatchObject([
      { function: { name: "get_weather", arguments: PARIS } },
      { function: { name: "get_time", arguments: "{}" } },
    ]);
  });

  it("goes round in OpenAI's client until there is an answer", async () => {
    await server.says(TWO_CALLS, "It is warm.");
    const asked: unknown[] = [];
    const tool = (definition: typeof WEATHER | typeof TIME, result: string) => ({
      type: "function" as const,
      function: {
        description: "",
        ...definition,
        parse: (json: string): object => JSON.parse(json),
        function: (given: object) => {
          asked.push(given);
          return result;
        },
      },
    });
    const runner = client.chat.completions.runTools({ ...CHAT, tools: [tool(WEATHER, "21 °C"), tool(TIME, "noon")] });
    expect(await runner.finalContent()).toBe("It is warm.");
    expect(asked).toEqual([{ city: "Paris" }, {}]);
    expect(server.lastPrompt()).toContain(`[assistant]${TWO_CALLS}[end][tool]21 °C[end][tool]noon[end][assistant]`);
  });

  it("is not searched for calls with tool_choice none, though the template has the tools", async () => {
    await server.says(CALL);
    const { choices } = await client.chat.completions.create({ ...CHAT, tool_choice: "none" });
    expect(choices[0]).toMatchObject({ message: { content: CALL }, finish_reason: "stop" });
    expect(choices[0]!.message).not.toHaveProperty("tool_calls");
    expect(server.lastPrompt()).toMatch(/^\[tools\]/);
    const untold = await client.chat.completions.create({ model: "", messages: [USER], max_tokens: 500 });
    expect(untold.choices[0]).toMatchObject({ message: { content: CALL }, finish_reason: "stop" });
  });

  it("calls only the tools that are allowed", async () => {
    await server.says(TWO_CALLS);
    const { choices } = await client.chat.completions.create({
      ...CHAT,
      tool_choice: {
        type: "allowed_tools",
        allowed_tools: { mode: "auto", tools: [{ type: "function", function: { name: "get_time" } }] },
      },
    });
    expect(choices[0]!.message).toMatchObject({
      content: `Let me see.\n${CALL}`,
      tool_calls: [{ function: { name: "get_time" } }],
    });
    expect(server.lastPrompt()).toContain("get_weather");
  });

  it("ends with its first call if parallel calls are not allowed", async () => {
    await server.says(TWO_CALLS);
    const { choices, usage } = await client.chat.completions.create({ ...CHAT, parallel_tool_calls: false });
    expect(choices[0]).toMatchObject({
      message: { content: "Let me see.", tool_calls: [{ function: { name: "get_weather", arguments: PARIS } }] },
      finish_reason: "tool_calls",
    });
    expect(choices[0]!.message.tool_calls).toHaveLength(1);
    const numUpToCall = (await server.tokenizer.encodeContinuation(`Let me see.\n${CALL}`))!.length;
    expect(usage!.completion_tokens).toBe(numUpToCall);
    const deltas = await chunksOf({ parallel_tool_calls: false });
    expect(deltas.flatMap(({ delta }) => delta.tool_calls ?? []).every(({ index }) => index === 0)).toBe(true);
  });

  it("that is cut off within a call has what there is of it", async () => {
    await server.says(CALL);
    const numTokens = (await server.tokenizer.encodeContinuation(CALL.slice(0, -20)))!.length;
    const { choices } = await client.chat.completions.create({ ...CHAT, max_tokens: numTokens });
    expect(choices[0]).toMatchObject({ finish_reason: "length", message: { tool_calls: [{ type: "function" }] } });
    const [call] = choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
    expect(PARIS.startsWith(call!.function.arguments)).toBe(true);
    expect(call!.function.arguments.length).toBeGreaterThan(2);
  });

  it("gives a malformed call as text, streamed or not", async () => {
    const malformed = `So: ${callText("get_weather", '{"city": }')}`;
    await server.says(malformed);
    const { choices } = await client.chat.completions.create(CHAT);
    expect(choices[0]).toMatchObject({ message: { content: malformed }, finish_reason: "stop" });
    expect(choices[0]!.message).not.toHaveProperty("tool_calls");
    const streamed = await chunksOf({});
    expect(streamed.map(({ delta }) => delta.content ?? "").join("")).toBe(malformed);
    expect(streamed.at(-1)!.finish_reason).toBe("stop");
  });

  it("has calls in each of several choices, and in the best of them", async () => {
    await server.says("", TWO_CALLS, CALL);
    const { choices } = await client.chat.completions.create({ ...CHAT, n: 2 });
    const names = choices.map(({ message }) =>
      message.tool_calls!.map((call) => (call.type === "function" ? call.function.name : "")),
    );
    expect(names).toEqual([["get_weather", "get_time"], ["get_weather"]]);
  });

  it("lists the log-probabilities of all tokens, those of calls too", async () => {
    await server.says(TWO_CALLS);
    const numTokens = (await server.tokenizer.encodeContinuation(TWO_CALLS))!.length;
    const { choices } = await client.chat.completions.create({ ...CHAT, logprobs: true, max_tokens: numTokens });
    expect(choices[0]!.logprobs!.content!.map(({ token }) => token).join("")).toBe(TWO_CALLS);
    const streamed = await chunksOf({ logprobs: true, max_tokens: numTokens });
    const tokens = streamed.flatMap(({ logprobs }) => logprobs?.content ?? []).map(({ token }) => token);
    expect(tokens.join("")).toBe(TWO_CALLS);
  });

  it("reads calls and results in the history as clients write them", async () => {
    await server.says("It is warm.");
    const call = (id: string, json: unknown) => ({
      id,
      type: "function",
      function: { name: "get_weather", arguments: json },
    });
    const messages = [
      USER,
      { role: "assistant", content: null, tool_calls: [call("a", PARIS), call("b", { city: "Oslo" }), call("c", "")] },
      { role: "tool", tool_call_id: "a", content: "21" },
      { role: "tool", tool_call_id: "b", content: [{ type: "text", text: "9" }] },
      { role: "tool", tool_call_id: "c", content: "" },
      { role: "assistant", content: [{ type: "refusal", refusal: "No." }], tool_calls: [] },
      { role: "assistant", tool_calls: null, function_call: null, refusal: "Never." },
      { role: "user", content: "And now?" },
    ];
    const response = await server.post("/v1/chat/completions", { messages, tools: TOOLS, tool_choice: "none" });
    expect(response.status, await response.clone().text()).toBe(200);
    const calls = [PARIS, '{"city": "Oslo"}', "{}"].map((json) => callText("get_weather", json)).join("\n");
    expect(server.lastPrompt()).toContain(
      `[assistant]${calls}[end][tool]21[end][tool]9[end][tool][end][assistant]No.[end][assistant]Never.[end][user]And now?[end][assistant]`,
    );
  });

  it("goes on from a session's state after a call, whether or not the client repeats it", async () => {
    for (const repeats of [false, true]) {
      await server.says(TWO_CALLS, "It is warm.");
      const session = `s-${repeats}`;
      expect((await server.post("/v1/sessions", { session_id: session })).status).toBe(201);
      const ask = (messages: unknown[]) =>
        client.chat.completions.create({ ...CHAT, messages, session_id: session } as typeof CHAT);
      const first = await ask([USER]);
      const numRead = first.usage!.total_tokens;
      const message = first.choices[0]!.message;
      const results = message.tool_calls!.map(({ id }, i) => ({ role: "tool", tool_call_id: id, content: `r${i}` }));
      const second = await ask(repeats ? [USER, message, ...results] : results);
      expect(second.choices[0]!.message.content).toBe("It is warm.");
      expect(server.lastPrompt()).toContain(`[assistant]${TWO_CALLS}[end][tool]r0[end][tool]r1[end][assistant]`);
      expect(second.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(numRead - 2);
    }
  });
});

describe("a response", () => {
  const RESPONSE = { model: "", input: USER.content, tools: FLAT_TOOLS, max_output_tokens: 500 };
  const ITEMS = [
    { type: "message", content: [{ type: "output_text", text: "Let me see." }], status: "completed" },
    { type: "function_call", name: "get_weather", arguments: PARIS, status: "completed" },
    { type: "function_call", name: "get_time", arguments: "{}", status: "completed" },
  ];

  it("has an item for each call", async () => {
    await server.says(TWO_CALLS);
    const response = await client.responses.create(RESPONSE);
    expect(response).toMatchObject({
      status: "completed",
      output: ITEMS,
      tool_choice: "auto",
      output_text: "Let me see.",
    });
    expect(response.tools).toEqual([
      { type: "function", strict: false, ...WEATHER },
      { type: "function", strict: false, description: null, ...TIME },
    ]);
    const calls = response.output.filter((item) => item.type === "function_call");
    expect(calls.map(({ id }) => id)).toEqual([expect.stringMatching(/^fc_/), expect.stringMatching(/^fc_/)]);
    expect(new Set(calls.flatMap(({ id, call_id }) => [id, call_id])).size).toBe(4);
    expect(await client.responses.retrieve(response.id)).toMatchObject({ output: response.output });
  });

  it("streams the same over SSE and WebSocket, and again from any event", async () => {
    await server.says(TWO_CALLS);
    const events: ResponseStreamEvent[] = [];
    for await (const event of eventsOf(await client.responses.create({ ...RESPONSE, stream: true })))
      events.push(event);
    const types = events.map(({ type }) => type.replace("response.", ""));
    expect(types.filter((type, i) => type !== types[i - 1] || type.endsWith("added"))).toEqual([
      ...["created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"],
      ...["output_text.done", "content_part.done", "output_item.done"],
      ...["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"],
      ...["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"],
      "completed",
    ]);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual([...events.keys()]);
    const of = <T extends ResponseStreamEvent["type"]>(type: T) =>
      events.filter((event): event is Extract<ResponseStreamEvent, { type: T }> => event.type === type);
    const added = of("response.output_item.added").map(({ output_index, item }) => ({ output_index, item }));
    expect(added.slice(1)).toMatchObject([
      { output_index: 1, item: { type: "function_call", name: "get_weather", arguments: "", status: "in_progress" } },
      { output_index: 2, item: { type: "function_call", name: "get_time", arguments: "", status: "in_progress" } },
    ]);
    const deltas = of("response.function_call_arguments.delta").filter(({ output_index }) => output_index === 1);
    expect(deltas.map(({ delta }) => delta).join("")).toBe(PARIS);
    expect(deltas.length).toBeGreaterThan(5);
    const [done] = of("response.function_call_arguments.done");
    expect(done).toMatchObject({ name: "get_weather", arguments: PARIS, output_index: 1, item_id: added[1]!.item.id });
    expect(of("response.output_item.done").map(({ item }) => item)).toMatchObject(ITEMS);

    const { id } = of("response.completed")[0]!.response;
    for (let after = 0; after < events.length; after += 7) {
      const rest: ResponseStreamEvent[] = [];
      const stream = await client.responses.retrieve(id, { stream: true, starting_after: after });
      for await (const event of stream) rest.push(event);
      expect(rest).toEqual(events.slice(after + 1));
    }

    await server.says(TWO_CALLS);
    const socket = await open({ webSocketUrl: `${server.url.replace("http", "ws")}/v1/responses` });
    socket.send({ type: "response.create", ...RESPONSE });
    const sent = await socket.until(isEnd);
    const stable = (given: readonly object[]) =>
      given.map((event) => JSON.stringify(event).replaceAll(/_[0-9a-f]{32}|"(created|completed)_at":\d+/g, ""));
    expect(stable(sent)).toEqual(stable(events));
    socket.socket.close();
  });

  it("goes on from its state with the results", async () => {
    await server.says(TWO_CALLS, "It is warm.");
    const first = await client.responses.create(RESPONSE);
    const calls = first.output.filter((item) => item.type === "function_call");
    const results = calls.map(({ call_id }, i) => ({
      type: "function_call_output" as const,
      call_id,
      output: i === 0 ? "r0" : [{ type: "input_text" as const, text: "r1" }],
    }));
    const next = { ...RESPONSE, previous_response_id: first.id, input: results };
    const second = await client.responses.create(next);
    expect(second.output_text).toBe("It is warm.");
    expect(server.lastPrompt()).toContain(`[assistant]${TWO_CALLS}[end][tool]r0[end][tool]r1[end][assistant]`);
    expect(second.usage!.input_tokens_details.cached_tokens).toBeGreaterThanOrEqual(first.usage!.total_tokens - 2);
    const { data } = await client.responses.inputItems.list(second.id, { order: "asc" });
    expect(data).toMatchObject([
      { type: "function_call_output", call_id: calls[0]!.call_id, output: "r0" },
      { type: "function_call_output", call_id: calls[1]!.call_id, output: "r1" },
    ]);
  });

  it("reads the items of earlier answers as chat messages give them", async () => {
    await server.says("It is warm.");
    const call = (call_id: string, name: string, json: string) => ({
      ...{ type: "function_call" as const, id: `fc_${call_id}`, call_id, name, arguments: json },
      status: "completed" as const,
    });
    const input = [
      USER,
      { type: "message", role: "assistant", content: [{ type: "output_text", text: "Let me see." }] },
      call("a", "get_weather", PARIS),
      call("b", "get_time", "{}"),
      { type: "function_call_output", call_id: "a", output: "21" },
      { type: "function_call_output", call_id: "b", output: "noon" },
      { type: "reasoning", summary: [], content: [{ type: "reasoning_text", text: "Once more." }] },
      call("c", "get_time", "{}"),
      { ...call("d", "get_time", "{"), status: "incomplete" as const },
      { type: "function_call_output", call_id: "c", output: "one" },
    ] as OpenAI.Responses.ResponseInput;
    const { id } = await client.responses.create({ ...RESPONSE, input });
    const time = callText("get_time", "{}");
    expect(server.lastPrompt()).toContain(
      `[assistant]${TWO_CALLS}[end][tool]21[end][tool]noon[end][assistant]${time}[end][tool]one[end][assistant]`,
    );
    const { data } = await client.responses.inputItems.list(id, { order: "asc" });
    expect(data.map(({ type }) => type)).toEqual(
      input.map((item) => ("type" in item ? item.type : "message") ?? "message"),
    );
    expect(data[2]).toMatchObject({ type: "function_call", call_id: "a", name: "get_weather", arguments: PARIS });
  });

  it("shows a malformed call as incomplete, and all of it as text", async () => {
    const malformed = callText("get_weather", '{"city": }');
    await server.says(malformed);
    const events: ResponseStreamEvent[] = [];
    for await (const event of eventsOf(await client.responses.create({ ...RESPONSE, stream: true })))
      events.push(event);
    expect(events.at(-1)).toMatchObject({
      type: "response.completed",
      response: {
        output: [
          { type: "function_call", status: "incomplete" },
          { type: "message", status: "completed", content: [{ text: malformed }] },
        ],
      },
    });
  });

  it("that is cut off within a call is incomplete, and so is the call", async () => {
    await server.says(CALL);
    const numTokens = (await server.tokenizer.encodeContinuation(CALL.slice(0, -20)))!.length;
    const response = await client.responses.create({ ...RESPONSE, max_output_tokens: numTokens });
    expect(response).toMatchObject({
      status: "incomplete",
      output: [{ type: "function_call", name: "get_weather", status: "incomplete" }],
    });
  });

  it("repeats the choice of tools", async () => {
    await server.says("Hello.");
    const named = { type: "function" as const, name: "get_time" };
    const allowed = { type: "allowed_tools" as const, mode: "auto" as const, tools: [named] };
    const response = await client.responses.create({ ...RESPONSE, tool_choice: allowed });
    expect(response.tool_choice).toEqual(allowed);
    expect((await client.responses.create({ ...RESPONSE, tool_choice: "none" })).tool_choice).toBe("none");
  });
});

describe("a model whose template knows no tools", () => {
  it("is told of them in the system message, calls in JSON, and reads results as messages", async () => {
    await using plain = await startScriptedServer();
    const json = `{"name": "get_weather", "arguments": ${PARIS}}`;
    await plain.says(` I'll look.\n${json}`, " It is warm.");
    const own = clientOf(plain);
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "system", content: "Be brief." }, USER];
    const { choices } = await own.chat.completions.create({ ...CHAT, messages });
    expect(choices[0]).toMatchObject({
      message: { content: " I'll look.", tool_calls: [{ function: { name: "get_weather", arguments: PARIS } }] },
      finish_reason: "tool_calls",
    });
    const told = plain.lastPrompt();
    expect(told).toMatch(/^Be brief\.\n\nYou can call these tools:\n/);
    expect(told).toContain(JSON.stringify(WEATHER));
    expect(told).toContain('{"name": "NAME", "arguments": {ARGUMENTS}}');
    expect(told.endsWith(`\n\nUser: ${USER.content}\n\nAssistant:`)).toBe(true);

    const { message } = choices[0]!;
    const result = { role: "tool" as const, tool_call_id: message.tool_calls![0]!.id, content: "21" };
    const next = await own.chat.completions.create({ ...CHAT, messages: [...messages, message, result] });
    expect(next.choices[0]!.message.content).toBe(" It is warm.");
    const read = `${told} I'll look.\n${json}\n\nUser: Result of the tool:\n21\n\nAssistant:`;
    expect(plain.lastPrompt()).toBe(read);
  });

  it("goes on from a session's state", async () => {
    await using plain = await startScriptedServer();
    await plain.says(` {"name": "get_weather", "arguments": ${PARIS}}`, " It is warm.");
    expect((await plain.post("/v1/sessions", { session_id: "s" })).status).toBe(201);
    const own = clientOf(plain);
    const ask = (messages: unknown[]) =>
      own.chat.completions.create({ ...CHAT, messages, session_id: "s" } as unknown as typeof CHAT);
    const first = await ask([USER]);
    const [call] = first.choices[0]!.message.tool_calls!;
    const second = await ask([{ role: "tool", tool_call_id: call!.id, content: "21" }]);
    expect(second.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(first.usage!.total_tokens - 2);
    expect(plain.lastPrompt()).toContain(
      `{"name": "get_weather", "arguments": ${PARIS}}\n\nUser: Result of the tool:\n21`,
    );
  });
});

it("Mistral's marks count though they are special tokens, and its ids have nine characters", async () => {
  const template = `{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for call in m.tool_calls or [] %}
    {%- if call.id | length != 9 %}{{ raise_exception("ids have 9 characters") }}{% endif %}
    {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + call.function.arguments | tojson }}{% endfor %}{% endfor %}[assistant]`;
  await using mistral = await startScriptedServer(template, { special: ["[TOOL_CALLS]", "[ARGS]"] });
  await mistral.says(`[TOOL_CALLS]get_weather[ARGS]${PARIS}[TOOL_CALLS]get_time[ARGS]{}`, "[ARGS]Warm.");
  const own = clientOf(mistral);
  const { choices } = await own.chat.completions.create(CHAT);
  const { message } = choices[0]!;
  expect(message).toMatchObject({
    content: null,
    tool_calls: [{ function: { name: "get_weather", arguments: PARIS } }, { function: { name: "get_time" } }],
  });
  expect(message.tool_calls!.map(({ id }) => id.length)).toEqual([9, 9]);
  const next = await own.chat.completions.create({ ...CHAT, messages: [USER, message], tools: [] });
  expect(next.choices[0]!.message.content).toBe("Warm.");
  expect(mistral.lastPrompt()).toContain(`[TOOL_CALLS]get_weather[ARGS]${PARIS}[TOOL_CALLS]get_time[ARGS]{}`);
});

describe("what is refused", () => {
  const tool = (fields: object) => ({ type: "function", function: { name: "a", ...fields } });
  const many = Array.from({ length: 129 }, (_, i) => tool({ name: `a${i}` }));
  const named = (name: string) => ({ type: "function", function: { name } });

  it.each<[body: object, param: string, message: RegExp, code?: string]>([
    [{ tools: many }, "tools", /must have at most 128 items; got 129/],
    [{ tools: {} }, "tools", /must be a list/],
    [{ tools: ["a"] }, "tools[0]", /must be an object; got "a"/],
    [{ tools: [{ function: { name: "a" } }] }, "tools[0].type", /is required/],
    [{ tools: [{ type: "function" }] }, "tools[0].function", /is required/],
    [
      { tools: [{ type: "custom", custom: { name: "a" } }] },
      "tools[0].type",
      /"custom" is not supported/,
      "unsupported_value",
    ],
    [{ tools: [{ type: "web_search" }] }, "tools[0].type", /is not supported/, "unsupported_value"],
    [{ tools: [tool({ name: undefined })] }, "tools[0].function.name", /is required/],
    [{ tools: [tool({ name: "" })] }, "tools[0].function.name", /1 to 64 letters.*; got ""/],
    [{ tools: [tool({ name: "a.b" })] }, "tools[0].function.name", /got "a.b"/],
    [{ tools: [tool({ name: 'a", "x": "' })] }, "tools[0].function.name", /1 to 64 letters/],
    [{ tools: [tool({ name: "a".repeat(65) })] }, "tools[0].function.name", /got 65 characters/],
    [{ tools: [tool({ name: 5 })] }, "tools[0].function.name", /got 5/],
    [{ tools: [tool({}), tool({ name: "b" }), tool({})] }, "tools[2].function.name", /the name of two tools: "a"/],
    [{ tools: [tool({ description: 5 })] }, "tools[0].function.description", /must be a string; got 5/],
    [{ tools: [tool({ strict: "yes" })] }, "tools[0].function.strict", /must be a boolean; got "yes"/],
    [{ tools: [tool({ parameters: "x" })] }, "tools[0].function.parameters", /must be a JSON schema; got "x"/],
    [{ tools: [tool({ parameters: [] })] }, "tools[0].function.parameters", /must be a JSON schema/],
    [
      { tools: [tool({ parameters: { type: "string" } })] },
      "tools[0].function.parameters.type",
      /must be "object".*got "string"/,
    ],
    [
      { tools: [tool({ parameters: { properties: [] } })] },
      "tools[0].function.parameters.properties",
      /must be an object/,
    ],
    [
      { tools: [tool({ parameters: { properties: { a: "string" } } })] },
      "tools[0].function.parameters.properties.a",
      /must be a JSON schema; got "string"/,
    ],
    [{ tools: [tool({ parameters: { required: "a" } })] }, "tools[0].function.parameters.required", /list of strings/],
    [{ tool_choice: "required", tools: [] }, "tool_choice", /needs tools/],
    [{ tool_choice: named("a"), tools: null }, "tool_choice", /needs tools/],
    [{ tool_choice: "any" }, "tool_choice", /must be "none", "auto", "required" or an object; got "any"/],
    [{ tool_choice: named("get_rain") }, "tool_choice", /"get_rain", which is not among the 2 tools/],
    [{ tool_choice: { type: "function" } }, "tool_choice.function.name", /is required/],
    [{ tool_choice: { type: "custom" } }, "tool_choice.type", /is not supported/, "unsupported_value"],
    [{ tool_choice: { type: "allowed_tools" } }, "tool_choice.allowed_tools.mode", /"auto" or "required"/],
    [
      { tool_choice: { type: "allowed_tools", allowed_tools: { mode: "auto", tools: [] } } },
      "tool_choice.allowed_tools.tools",
      /list of 1 to 128 tools/,
    ],
    [
      { tool_choice: { type: "allowed_tools", allowed_tools: { mode: "auto", tools: [named("x")] } } },
      "tool_choice",
      /"x", which is not among/,
    ],
    [{ parallel_tool_calls: "no" }, "parallel_tool_calls", /must be a boolean/],
    [{ functions: [{ name: "a" }] }, "functions", /use tools/, "unsupported_value"],
    [{ function_call: { name: "a" } }, "function_call", /use tool_choice/, "unsupported_value"],
    [
      { messages: [{ role: "user", content: "a", tool_calls: [{ id: "a", function: { name: "a", arguments: "" } }] }] },
      "messages[0].tool_calls",
      /only an assistant/,
    ],
    [
      { messages: [{ role: "assistant", tool_calls: [{ function: { name: "a", arguments: "{}" } }] }] },
      "messages[0].tool_calls[0].id",
      /is required/,
    ],
    [
      { messages: [{ role: "assistant", tool_calls: [{ id: "a", type: "custom" }] }] },
      "messages[0].tool_calls[0].type",
      /not supported/,
      "unsupported_value",
    ],
    [
      { messages: [{ role: "assistant", tool_calls: [{ id: "a", function: { name: "a", arguments: 5 } }] }] },
      "messages[0].tool_calls[0].function.arguments",
      /must be a string or an object; got 5/,
    ],
    [
      { messages: [USER, { role: "tool", tool_call_id: "call_x", content: "21" }] },
      "messages",
      /no message before it makes: "call_x"/,
    ],
    [
      {
        messages: [
          { role: "tool", tool_call_id: "a", content: "21" },
          { role: "assistant", tool_calls: [{ id: "a", function: { name: "get_time", arguments: "{}" } }] },
        ],
      },
      "messages",
      /no message before it makes: "a"/,
    ],
  ])("a chat with %j", async (body, param, message, code = "invalid_value") => {
    const response = await server.post("/v1/chat/completions", { ...CHAT, ...body });
    const { error } = (await response.json()) as { error: { message: string; param: string; code: string } };
    expect({ status: response.status, code: error?.code, param: error?.param }, error?.message).toEqual({
      status: 400,
      code,
      param,
    });
    expect(error.message).toMatch(message);
  });

  it.each<[body: object, param: string, message: RegExp, code?: string]>([
    [{ tools: [{ type: "function", name: "a b" }] }, "tools[0].name", /got "a b"/],
    [{ tools: [{ type: "web_search" }] }, "tools[0].type", /is not supported/, "unsupported_value"],
    [
      { tools: FLAT_TOOLS, tool_choice: { type: "function", name: "x" } },
      "tool_choice",
      /"x", which is not among the 2/,
    ],
    [{ tools: FLAT_TOOLS, tool_choice: { type: "mcp" } }, "tool_choice.type", /is not supported/, "unsupported_value"],
    [{ input: [{ type: "function_call_output", output: "" }] }, "input[0].call_id", /is required/],
    [{ input: [{ type: "function_call_output", call_id: "a", output: 5 }] }, "input[0].output", /must be a string/],
    [
      { input: [{ type: "function_call_output", call_id: "a", output: "5" }] },
      "input",
      /no message before it makes: "a"/,
    ],
    [{ input: [{ type: "function_call", call_id: "a", arguments: "{}" }] }, "input[0].name", /is required/],
    [{ input: [{ type: "computer_call" }] }, "input[0].type", /is not supported/, "unsupported_value"],
  ])("a response with %j", async (body, param, message, code = "invalid_value") => {
    const response = await server.post("/v1/responses", { input: "Hi", ...body });
    const { error } = (await response.json()) as { error: { message: string; param: string; code: string } };
    expect({ status: response.status, code: error?.code, param: error?.param }, error?.message).toEqual({
      status: 400,
      code,
      param,
    });
    expect(error.message).toMatch(message);
  });

  it("a result of a call that a session does not have", async () => {
    await server.says(CALL, "Hello.", "Warm.");
    expect((await server.post("/v1/sessions", { session_id: "results" })).status).toBe(201);
    const ask = async (messages: unknown[]) => {
      const response = await server.post("/v1/chat/completions", { ...CHAT, messages, session_id: "results" });
      return { status: response.status, body: (await response.json()) as OpenAI.ChatCompletion };
    };
    const { body } = await ask([USER]);
    const result = (id: string) => ({ role: "tool", tool_call_id: id, content: "21" });
    expect((await ask([result("call_x")])).status).toBe(400);
    expect((await ask([{ role: "user", content: "Hi" }])).status).toBe(200);
    // Earlier than the last answer.
    expect((await ask([result(body.choices[0]!.message.tool_calls![0]!.id)])).status).toBe(200);
  });
});
