import { beforeEach, describe, expect, it } from "vitest";
import { createTestServer, FAKE_MODEL, NOW_MS, runtimeFault, type TestServer } from "../helpers/server-deps.ts";

const PATH = "/v1/responses";

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
});

async function respond(body: object): Promise<Record<string, unknown>> {
  const response = await server.post(PATH, { model: FAKE_MODEL, input: "Hi", ...body });
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

interface SseEvent {
  event: string;
  data: Record<string, unknown>;
}

async function stream(body: object): Promise<SseEvent[]> {
  const response = await server.post(PATH, { model: FAKE_MODEL, input: "Hi", stream: true, ...body });
  expect(response.status).toBe(200);
  const blocks = (await response.text()).trim().split("\n\n");
  return blocks.map((block) => {
    const [event, data] = block.split("\n") as [string, string];
    return { event: event.slice("event: ".length), data: JSON.parse(data.slice("data: ".length)) };
  });
}

describe("a response", () => {
  it("repeats the tools of the request", async () => {
    const tools = [{ type: "function", name: "add", parameters: {}, strict: true }];
    expect(await respond({ tools, tool_choice: "none" })).toMatchObject({ tools, tool_choice: "none" });
  });

  it("continues from refusals and empty turns of an assistant", async () => {
    const refused = { type: "message", role: "assistant", content: [{ type: "refusal", refusal: "No." }] };
    await respond({ input: [refused, { role: "assistant", content: null }, { role: "user", content: "Why?" }] });
    expect(server.generator.requests[0]!.prompts).toMatchObject([
      { messages: [{ content: "No." }, { role: "assistant", content: "" }, { content: "Why?" }] },
    ]);
  });

  it("has OpenAI's shape", async () => {
    expect(await respond({ metadata: { a: "b" }, temperature: 0.5, instructions: "Be brief." })).toEqual({
      id: "resp_00000002",
      object: "response",
      created_at: NOW_MS / 1000,
      completed_at: NOW_MS / 1000,
      status: "completed",
      background: false,
      error: null,
      frequency_penalty: 0,
      incomplete_details: null,
      instructions: "Be brief.",
      max_output_tokens: null,
      max_tool_calls: null,
      metadata: { a: "b" },
      model: FAKE_MODEL,
      output: [
        {
          id: "msg_00000002",
          type: "message",
          role: "assistant",
          status: "completed",
          content: [{ type: "output_text", text: "Once upon a time", annotations: [], logprobs: [] }],
        },
      ],
      parallel_tool_calls: true,
      presence_penalty: 0,
      previous_response_id: null,
      prompt_cache_key: null,
      reasoning: { effort: null, summary: null },
      safety_identifier: null,
      service_tier: "default",
      store: true,
      temperature: 0.5,
      text: { format: { type: "text" } },
      tool_choice: "auto",
      tools: [],
      top_logprobs: 0,
      top_p: 1,
      truncation: "disabled",
      usage: {
        input_tokens: 18,
        input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
        output_tokens: 4,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: 22,
        state_bytes: 4096,
      },
      user: null,
    });
  });

  it("is incomplete if max_output_tokens cuts it off", async () => {
    expect(await respond({ max_output_tokens: 2 })).toMatchObject({
      status: "incomplete",
      completed_at: null,
      incomplete_details: { reason: "max_output_tokens" },
      output: [{ status: "incomplete", content: [{ text: "Once upon" }] }],
    });
  });

  it("reads a string as a user message, and items as messages", async () => {
    await respond({ input: "Hi" });
    await respond({
      input: [
        { role: "developer", content: "d" },
        { type: "message", role: "user", content: [{ type: "input_text", text: "a" }] },
        {
          type: "message",
          id: "msg_1",
          status: "completed",
          role: "assistant",
          content: [{ type: "output_text", text: "b", annotations: [] }],
        },
      ],
    });
    expect(server.generator.requests.map((request) => request.prompts[0])).toMatchObject([
      { messages: [{ role: "user", content: "Hi" }] },
      {
        messages: [
          { role: "system", content: "d" },
          { role: "user", content: "a" },
          { role: "assistant", content: "b" },
        ],
      },
    ]);
  });

  it("is stored unless store is false, and can be continued", async () => {
    const first = await respond({});
    await respond({ store: false });
    const second = await respond({ previous_response_id: first.id });
    expect(server.generator.requests.map(({ resumeFrom, saveAs }) => [resumeFrom, saveAs])).toEqual([
      [undefined, { type: "response", id: first.id }],
      [undefined, undefined],
      [
        { type: "response", id: first.id },
        { type: "response", id: second.id },
      ],
    ]);
    expect(second).toMatchObject({ usage: { input_tokens_details: { cached_tokens: 13 } } });
  });

  it("truncates a long input only if truncation is auto", async () => {
    await respond({ truncation: "disabled" });
    await respond({ truncation: "auto" });
    const limits = server.generator.requests.map((request) => request.truncatePromptTokens);
    expect(limits).toEqual([undefined, server.deps.options.limits.maxPromptTokens]);
  });

  it("has log-probabilities if they are included", async () => {
    const response = await respond({
      include: ["message.output_text.logprobs"],
      top_logprobs: 1,
      max_output_tokens: 1,
    });
    expect(response.output).toMatchObject([
      { content: [{ logprobs: [{ token: "Once", logprob: -0.25, top_logprobs: [{ token: "Once" }] }] }] },
    ]);
  });
});

describe("a streamed response", () => {
  it("has OpenAI's events in order, numbered from 0, each under its own event line", async () => {
    const events = await stream({});
    expect(events.map(({ event }) => event)).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.delta",
      "response.output_text.delta",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
    expect(events.map(({ data }) => data.type)).toEqual(events.map(({ event }) => event));
    expect(events.map(({ data }) => data.sequence_number)).toEqual([...events.keys()]);
  });

  it("ends with the response that POST without a stream returns", async () => {
    const events = await stream({ max_output_tokens: 3 });
    const whole = await respond({ max_output_tokens: 3 });
    const last = events.at(-1)!.data.response as typeof whole;
    const output = (last.output as { id: string }[])[0]!;
    expect(events.at(-1)!.event).toBe("response.incomplete");
    expect({ ...last, id: whole.id, output: [{ ...output, id: (whole.output as { id: string }[])[0]!.id }] }).toEqual(
      whole,
    );
  });

  it("adds up to its text", async () => {
    const events = await stream({});
    const deltas = events.filter(({ event }) => event === "response.output_text.delta").map(({ data }) => data.delta);
    const done = events.find(({ event }) => event === "response.output_text.done");
    expect(deltas.join("")).toBe("Once upon a time");
    expect(done!.data.text).toBe("Once upon a time");
  });

  it("ends with response.failed when the generation fails", async () => {
    server.generator.script = { reply: ["a", "b"], failure: { afterDeltas: 1, error: runtimeFault() } };
    const events = await stream({});
    expect(events.at(-1)).toMatchObject({
      event: "response.failed",
      data: {
        response: {
          status: "failed",
          error: { code: "server_error", message: "the runtime failed: injected" },
          output: [{ status: "incomplete", content: [{ text: "a" }] }],
        },
      },
    });
  });
});

it("GET answers that the WebSocket needs an upgrade", async () => {
  const response = await server.app.request(PATH);
  expect(response.status).toBe(426);
  expect(response.headers.get("upgrade")).toBe("websocket");
});
