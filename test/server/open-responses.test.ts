/**
 * Open Responses (openresponses.org): the cases of its compliance test, over the real generation,
 * engine, runtime and default model. That every event fits its schema is in openapi.test.ts; here
 * is what that specification requires besides.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { sseData } from "../helpers/server-deps.ts";

/** Members that a response must have, whatever their value. */
const REQUIRED = [
  ...["id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"],
  ...["instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"],
  ...["presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "user", "usage"],
  ...["max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"],
  ...["prompt_cache_key"],
];

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer();
});
afterAll(() => server?.close());

/** The model ends its answers itself, sooner or later. */
const ENDING = { logit_bias: { "2": 100 }, min_tokens: 3, seed: 1 };
const message = (role: string, content: unknown) => ({ type: "message", role, content });

const MESSAGE = [
  { type: "message", role: "assistant", status: "completed", content: [{ type: "output_text", annotations: [] }] },
];

function expectComplete(response: Record<string, unknown>, output: readonly object[] = MESSAGE): void {
  expect(REQUIRED.filter((name) => !(name in response))).toEqual([]);
  const numbers = ["presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "top_p"];
  for (const name of numbers) expect(response[name], name).toBeTypeOf("number");
  expect(response.service_tier).toBeTypeOf("string");
  expect(response).toMatchObject({ object: "response", status: "completed", error: null });
  expect(response.output).toMatchObject(output);
}

describe("a response", () => {
  it.each([
    ["to a text", [message("user", "Say hello.")]],
    ["under a system message", [message("system", "Speak like a pirate."), message("user", "Say hello.")]],
    [
      "with a history",
      [message("user", "I am Ann."), message("assistant", "Hello Ann!"), message("user", "Who am I?")],
    ],
  ])("%s has all members", async (_name, input) => {
    const answer = await post(`${server.url}/v1/responses`, { model: "fake-4m", input, ...ENDING });
    expect(answer.status).toBe(200);
    expectComplete((await answer.json()) as Record<string, unknown>);
  });

  it("that is streamed has them in each of its events", async () => {
    const input = [message("user", "Count to five.")];
    const answer = await post(`${server.url}/v1/responses`, { model: "fake-4m", input, stream: true, ...ENDING });
    const events = sseData(await answer.text()) as { response?: Record<string, unknown> }[];
    const whole = events.flatMap(({ response }) => (response === undefined ? [] : [response]));
    expect(whole).toHaveLength(3);
    for (const response of whole) expect(REQUIRED.filter((name) => !(name in response))).toEqual([]);
    expectComplete(whole.at(-1)!);
  });

  it("that must call a tool has the call, streamed or not", async () => {
    const parameters = {
      type: "object",
      properties: { location: { type: "string", maxLength: 20 } },
      required: ["location"],
    };
    const tools = [{ type: "function", name: "get_weather", description: "The weather now.", parameters }];
    const asked = { tools, tool_choice: "required", parallel_tool_calls: false, seed: 1 };
    const body = { model: "fake-4m", input: [message("user", "Is it warm in Paris?")], ...asked };
    const call = {
      ...{ type: "function_call", name: "get_weather", status: "completed" },
      ...{ id: expect.stringMatching(/^fc_/), call_id: expect.stringMatching(/^call_/) },
      arguments: expect.stringMatching(/^\{"location": ?".*"/s),
    };
    const answer = await post(`${server.url}/v1/responses`, body);
    expectComplete((await answer.json()) as Record<string, unknown>, [call]);
    const streamed = await post(`${server.url}/v1/responses`, { ...body, stream: true });
    const events = sseData(await streamed.text()) as { type: string; response?: Record<string, unknown> }[];
    expect(events.map(({ type }) => type)).toContain("response.function_call_arguments.delta");
    expectComplete(events.at(-1)!.response!, [call]);
  });

  it("repeats what it was asked with", async () => {
    const asked = {
      ...{ presence_penalty: 0.5, frequency_penalty: -0.25, max_tool_calls: 3, user: "ann", prompt_cache_key: "k" },
      ...{ safety_identifier: "s", max_output_tokens: 20 },
    };
    const answer = await post(`${server.url}/v1/responses`, { input: "Hi", ...asked, ...ENDING });
    const response = (await answer.json()) as { id: string };
    expect(response).toMatchObject(asked);
    expect(await (await fetch(`${server.url}/v1/responses/${response.id}`)).json()).toEqual(response);
  });
});

it("an image is refused with an error object", async () => {
  const image = { type: "input_image", image_url: "data:image/png;base64,AAAA" };
  const input = [message("user", [{ type: "input_text", text: "What is this?" }, image])];
  const answer = await post(`${server.url}/v1/responses`, { model: "fake-4m", input });
  expect(answer.status).toBe(400);
  expect(await answer.json()).toEqual({
    error: {
      type: "invalid_request_error",
      code: "unsupported_value",
      param: "input[0].content[1].type",
      message: 'input[0].content[1].type "input_image" is not supported: this model reads text only',
    },
  });
});
