/** Reasoning in requests and answers, over a scripted generator. */
import { beforeEach, describe, expect, it } from "vitest";
import type { Prompt } from "../../src/generation/events.ts";
import { createTestServer, sseData, type TestServer } from "../helpers/server-deps.ts";

const USER = { role: "user", content: "Hi" };

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
  server.generator.script = { reply: ["Why", "?", "So", "."], numReasoning: 2 };
});

async function post(path: string, body: object): Promise<Record<string, unknown>> {
  const response = await server.post(path, body);
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

const chat = (body: object = {}) => post("/v1/chat/completions", { messages: [USER], ...body });
const respond = (body: object = {}) => post("/v1/responses", { input: "Hi", ...body });
const lastPrompt = () => server.generator.requests.at(-1)!.prompts[0] as Extract<Prompt, { type: "chat" }>;

describe("a chat's answer", () => {
  it("has the reasoning beside the content", async () => {
    expect(await chat()).toMatchObject({
      choices: [{ message: { role: "assistant", content: "So.", reasoning_content: "Why?", reasoning: "Why?" } }],
      usage: { completion_tokens_details: { reasoning_tokens: 2 } },
    });
  });

  it("has empty content if it was cut off before, and no reasoning where there is none", async () => {
    expect(await chat({ max_tokens: 1 })).toMatchObject({
      choices: [{ message: { content: "", reasoning_content: "Why" }, finish_reason: "length" }],
    });
    server.generator.script = { reply: ["So", "."] };
    const plain = JSON.stringify(await chat());
    expect(plain).toContain('"message":{"role":"assistant","content":"So.","refusal":null}');
    expect(plain).not.toContain("reasoning");
  });

  it("streams it between the role and the content", async () => {
    const response = await server.post("/v1/chat/completions", { messages: [USER], stream: true });
    const chunks = sseData(await response.text()).slice(0, -1) as { choices: { delta: object }[] }[];
    expect(chunks.map(({ choices }) => choices[0]!.delta)).toEqual([
      { role: "assistant", content: "" },
      { reasoning_content: "Why", reasoning: "Why" },
      { reasoning_content: "?", reasoning: "?" },
      { content: "So" },
      { content: "." },
      {},
    ]);
  });

  it("lists log-probabilities of all tokens; a response those of its message", async () => {
    const answer = (await chat({ logprobs: true })) as { choices: { logprobs: { content: object[] } }[] };
    expect(answer.choices[0]!.logprobs.content).toHaveLength(4);
    const { output } = (await respond({ include: ["message.output_text.logprobs"] })) as { output: object[] };
    expect(output).toMatchObject([
      { type: "reasoning", content: [{ type: "reasoning_text", text: "Why?" }] },
      { type: "message", content: [{ text: "So.", logprobs: [{ token: "So" }, { token: "." }] }] },
    ]);
  });
});

describe("the template's variables", () => {
  it.each<[body: object, given: object | undefined]>([
    [{}, undefined],
    [{ reasoning_effort: null }, undefined],
    [{ reasoning_effort: "low" }, { reasoning_effort: "low", enable_thinking: true, thinking: true }],
    [{ reasoning_effort: "none" }, { reasoning_effort: "none", enable_thinking: false, thinking: false }],
    [{ reasoning: { effort: "none" } }, { reasoning_effort: "none", enable_thinking: false, thinking: false }],
    [{ enable_thinking: false }, { enable_thinking: false }],
    [
      { reasoning_effort: "high", chat_template_kwargs: { enable_thinking: false, a: 1 } },
      { reasoning_effort: "high", enable_thinking: false, thinking: true, a: 1 },
    ],
  ])("%j", async (body, given) => {
    await chat(body);
    expect(lastPrompt().templateArguments).toEqual(given);
  });

  it("of a response", async () => {
    await respond();
    expect(lastPrompt().templateArguments).toBeUndefined();
    const response = await respond({ reasoning: { effort: "none", summary: "auto" } });
    expect(lastPrompt().templateArguments).toEqual({
      reasoning_effort: "none",
      enable_thinking: false,
      thinking: false,
    });
    expect(response.reasoning).toEqual({ effort: "none", summary: null });
  });
});

describe("reasoning sent back", () => {
  const answer = { role: "assistant", content: "b" };

  it.each<[message: object, given: object]>([
    [
      { ...answer, reasoning_content: "a" },
      { ...answer, reasoning: "a" },
    ],
    [
      { ...answer, reasoning: "a" },
      { ...answer, reasoning: "a" },
    ],
    [
      { ...answer, reasoning_content: "a", reasoning: "a" },
      { ...answer, reasoning: "a" },
    ],
    [{ ...answer, reasoning_content: null, reasoning: "" }, answer],
    [
      { role: "assistant", content: null, reasoning_content: "a" },
      { role: "assistant", content: "", reasoning: "a" },
    ],
    [{ ...USER, reasoning_content: "a" }, USER],
  ])("as %j", async (message, given) => {
    await chat({ messages: [USER, message, USER] });
    expect(lastPrompt().messages[1]).toEqual(given);
  });

  const item = (...texts: string[]) => ({
    ...{ type: "reasoning", id: "rs_1", summary: [] as object[] },
    content: texts.map((text) => ({ type: "reasoning_text", text })),
  });
  it.each<[name: string, input: object[], messages: object[]]>([
    ["before its message", [USER, item("a"), answer], [USER, { ...answer, reasoning: "a" }]],
    ["in parts and items", [item("a", "c"), item("d"), answer], [{ ...answer, reasoning: "a\nc\nd" }]],
    [
      "before another's message, or none",
      [item("a"), USER, item("c")],
      [{ role: "assistant", content: "", reasoning: "a" }, USER, { role: "assistant", content: "", reasoning: "c" }],
    ],
    ["without text", [USER, item(), answer], [USER, answer]],
    [
      "as a summary",
      [{ ...item(), summary: [{ type: "summary_text", text: "a" }], encrypted_content: null }, answer],
      [{ ...answer, reasoning: "a" }],
    ],
  ])("as an item %s", async (_name, input, messages) => {
    await respond({ input });
    expect(lastPrompt().messages).toEqual(messages);
  });

  it("is listed as it was given", async () => {
    const { id } = await respond({ input: [USER, item("a"), answer] });
    const listed = await server.app.request(`/v1/responses/${id}/input_items?order=asc`);
    const { data } = (await listed.json()) as { data: { id: string; type: string }[] };
    expect(data.map(({ type }) => type)).toEqual(["message", "reasoning", "message"]);
    expect(data[1]).toMatchObject({ summary: [], content: [{ type: "reasoning_text", text: "a" }] });
    expect(data[1]!.id).toMatch(/^rs_/);
  });
});

describe("bad input is refused by name", () => {
  it.each<[path: string, body: object, message: string]>([
    [
      "/v1/chat/completions",
      { messages: [USER], reasoning_effort: "huge" },
      'reasoning_effort must be one of "none", "minimal", "low", "medium", "high", "xhigh", "max"; got "huge"',
    ],
    [
      "/v1/chat/completions",
      { messages: [{ role: "assistant", content: "a", reasoning_content: 3 }] },
      "messages[0].reasoning_content must be a string; got 3",
    ],
    [
      "/v1/chat/completions",
      { messages: [USER], enable_thinking: "no" },
      'enable_thinking must be a boolean; got "no"',
    ],
    ["/v1/responses", { input: "a", reasoning: { effort: 3 } }, "reasoning.effort must be one of"],
    ["/v1/responses", { input: "a", reasoning: "low" }, 'reasoning must be an object; got "low"'],
    [
      "/v1/responses",
      { input: [{ type: "reasoning", content: [{ text: 1 }] }] },
      "input[0].content[0].text must be a string; got 1",
    ],
    ["/v1/responses", { input: [{ type: "reasoning", summary: "a" }] }, 'input[0].summary must be a list; got "a"'],
    [
      "/v1/responses",
      { input: [{ type: "reasoning" }] },
      "input must have at least one message, or reasoning with text",
    ],
    [
      "/v1/responses",
      { input: [{ type: "reasoning", summary: [], encrypted_content: "x" }] },
      "input[0].encrypted_content is not supported",
    ],
  ])("%s %j", async (path, body, message) => {
    const response = await server.post(path, body);
    expect(response.status).toBe(400);
    expect(((await response.json()) as { error: { message: string } }).error.message).toContain(message);
    expect(server.generator.requests).toEqual([]);
  });
});
