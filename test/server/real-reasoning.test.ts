/**
 * Reasoning over the real generation, engine, runtime and default model, whose template here opens
 * a tag and whose padding token closes it, and through OpenAI's client.
 */
import OpenAI from "openai";
import type { ResponseStreamEvent } from "openai/resources/responses/responses";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RealServer, renameInTokenizer, startRealServer } from "../helpers/real-server.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

const TEMPLATE = [
  "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role + '\n' }}",
  "{% if m.reasoning_content %}<think> {{ m.reasoning_content }}</think> {% endif %}{{ m.content }}<|im_end|>{{ '\n' }}",
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n",
  "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{% endif %}",
].join("");
const CLOSE_ID = 0;

let server: RealServer;
let client: OpenAI;

beforeAll(async () => {
  server = await startRealServer({ tokenizerDir: await renameInTokenizer("</think>", TEMPLATE) });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 });
});

afterAll(() => server?.close());

const ASK = "Tell me of the sea.";
/** Closes the tag after some tokens, and writes no other special token. */
const BIASES = { [CLOSE_ID]: 15.5, 1: -100, 2: -100, 3: -100, 4: -100 };
const SAMPLING = { model: "fake-4m", temperature: 1, logit_bias: BIASES, ignore_eos: true } as const;
const NUM_TOKENS = 40;

interface Parts {
  readonly reasoning: string;
  readonly content: string;
  readonly numReasoning: number;
  readonly numCached: number;
}

async function askChat(body: object): Promise<Parts & OpenAI.ChatCompletion.Choice> {
  const messages = [{ role: "user" as const, content: ASK }];
  const answer = await client.chat.completions.create({
    ...SAMPLING,
    messages,
    max_completion_tokens: NUM_TOKENS,
    ...body,
    stream: false,
  });
  const message = answer.choices[0]!.message as { content: string; reasoning_content?: string; reasoning?: string };
  expect(message.reasoning).toBe(message.reasoning_content);
  const numReasoning = answer.usage!.completion_tokens_details!.reasoning_tokens!;
  const numCached = answer.usage!.prompt_tokens_details!.cached_tokens!;
  const { reasoning_content: reasoning = "", content } = message;
  return { ...answer.choices[0]!, reasoning, content, numReasoning, numCached };
}

/** A seed whose answer has both parts, with white space as the template shows it. */
let seed: number;
let whole: Parts;

beforeAll(async () => {
  for (seed = 30; seed < 100; seed++) {
    const answer = await askChat({ seed, logprobs: true });
    whole = answer;
    const text = answer.logprobs!.content!.map(({ token }) => token).join("");
    const isShownAgain = text === ` ${whole.reasoning}</think> ${whole.content}`;
    if (isShownAgain && whole.reasoning.length > 8 && whole.content.length > 8) return;
  }
  throw new Error("no seed gives both parts");
});

describe("a chat", () => {
  it("streams reasoning, then content, as it answers with both", async () => {
    const stream = await client.chat.completions.create({
      ...SAMPLING,
      ...{ seed, messages: [{ role: "user", content: ASK }], max_completion_tokens: NUM_TOKENS },
      ...{ stream: true, stream_options: { include_usage: true } },
    });
    const [reasoning, content, kinds] = [[] as string[], [] as string[], [] as string[]];
    let numReasoning: number | undefined;
    for await (const { choices, usage } of stream as AsyncIterable<OpenAI.ChatCompletionChunk>) {
      numReasoning = usage?.completion_tokens_details?.reasoning_tokens ?? numReasoning;
      const delta = choices[0]?.delta as
        | { content?: string; reasoning_content?: string; reasoning?: string }
        | undefined;
      if (delta?.reasoning_content) {
        expect(delta.reasoning).toBe(delta.reasoning_content);
        reasoning.push(delta.reasoning_content);
        kinds.push("reasoning");
      }
      if (delta?.content) {
        content.push(delta.content);
        kinds.push("content");
      }
    }
    expect(reasoning.length).toBeGreaterThan(1);
    expect([reasoning.join(""), content.join(""), numReasoning]).toEqual([
      whole.reasoning,
      whole.content,
      whole.numReasoning,
    ]);
    expect(kinds.join()).toMatch(/^(reasoning,)+(content,?)+$/);
  });

  it("lists the log-probabilities of both, the reasoning's first", async () => {
    const { logprobs, numReasoning } = await askChat({ seed, logprobs: true, return_token_ids: true });
    expect(logprobs!.content).toHaveLength(NUM_TOKENS);
    expect(logprobs!.content![numReasoning - 1]!.token).toBe("</think>");
  });

  it("that is cut off in its reasoning has no content", async () => {
    const cut = await askChat({ seed, max_completion_tokens: 3 });
    expect(cut).toMatchObject({ content: "", finish_reason: "length", numReasoning: 3 });
    expect(whole.reasoning.startsWith(cut.reasoning)).toBe(true);
  });

  it("goes on with reasoning that was cut off as if it had not been", async () => {
    const messages = [
      { role: "user", content: ASK },
      { role: "assistant", content: "", reasoning_content: "the sea is" },
    ];
    const body = { seed, messages, continue_final_message: true };
    const going = await askChat(body);
    const completion = await client.completions.create({
      ...{ ...SAMPLING, seed, max_tokens: NUM_TOKENS, skip_special_tokens: false, add_special_tokens: false },
      prompt: `<s><|im_start|>user\n${ASK}<|im_end|>\n<|im_start|>assistant\n<think> the sea is`,
    } as OpenAI.CompletionCreateParamsNonStreaming);
    const text = completion.choices[0]!.text;
    expect(text.startsWith(going.reasoning)).toBe(true);
    expect(completion.usage).not.toHaveProperty("completion_tokens_details");
  });

  it("does not reason if its template is told not to", async () => {
    for (const off of [
      { reasoning_effort: "none" },
      { enable_thinking: false },
      { chat_template_kwargs: { enable_thinking: false } },
      { reasoning_effort: "high", chat_template_kwargs: { enable_thinking: false } },
    ]) {
      const answer = await askChat({ seed, ...off });
      expect(answer, JSON.stringify(off)).toMatchObject({ reasoning: "", numReasoning: 0 });
    }
    expect(await askChat({ seed, reasoning_effort: "high" })).toMatchObject({ reasoning: whole.reasoning });
  });

  it("in a session goes on with its reasoning from the state", async () => {
    const created = await fetch(`${server.url}/v1/sessions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ session_id: "s" }),
    });
    expect(created.status).toBe(201);
    const user = { role: "user", content: ASK };
    const first = await askChat({ seed, messages: [user], session_id: "s", max_completion_tokens: 3 });
    const soFar = { role: "assistant", content: "", reasoning_content: first.reasoning };
    const next = { messages: [user, soFar], continue_final_message: true, session_id: "s" };
    const rest = await askChat({ seed, ...next, max_completion_tokens: NUM_TOKENS - 3 });
    expect(first.reasoning + rest.reasoning).toBe(whole.reasoning);
    expect(rest.content).toBe(whole.content);
    expect(rest.numCached).toBeGreaterThan(20);
  });
});

describe("a response", () => {
  const body = () => ({ ...SAMPLING, seed, input: ASK, max_output_tokens: NUM_TOKENS });

  it("has an item for its reasoning", async () => {
    const response = await client.responses.create(body());
    const [reasoning, message] = response.output;
    expect(reasoning).toMatchObject({
      type: "reasoning",
      summary: [],
      content: [{ type: "reasoning_text", text: whole.reasoning }],
      status: "completed",
    });
    expect(message).toMatchObject({ type: "message", content: [{ type: "output_text", text: whole.content }] });
    expect(response.output_text).toBe(whole.content);
    expect(response.usage!.output_tokens_details.reasoning_tokens).toBe(whole.numReasoning);
    expect(await client.responses.retrieve(response.id)).toMatchObject({ output: response.output });
  });

  it("streams the same over SSE and WebSocket, and again from any event", async () => {
    const events: ResponseStreamEvent[] = [];
    for await (const event of await client.responses.create({ ...body(), stream: true })) events.push(event);
    const types = events.map(({ type }) => type.replace("response.", ""));
    expect(types.filter((type, i) => type !== types[i - 1])).toEqual([
      ...["created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta"],
      ...["reasoning_text.done", "content_part.done", "output_item.done", "output_item.added", "content_part.added"],
      ...["output_text.delta", "output_text.done", "content_part.done", "output_item.done", "incomplete"],
    ]);
    const of = (type: string) =>
      events.flatMap((event) => (event.type === type && "delta" in event ? [event.delta] : []));
    expect(of("response.reasoning_text.delta").join("")).toBe(whole.reasoning);
    expect(of("response.output_text.delta").join("")).toBe(whole.content);

    const { id } = (events[0] as { response: { id: string } }).response;
    for (const starting_after of [0, 4, 6, events.length - 6]) {
      const rest: ResponseStreamEvent[] = [];
      for await (const event of await client.responses.retrieve(id, { stream: true, starting_after })) rest.push(event);
      expect(rest).toEqual(events.slice(starting_after + 1));
    }

    const socket = await open({ webSocketUrl: `${server.url.replace("http", "ws")}/v1/responses` });
    socket.send({ type: "response.create", ...body() });
    const sent = await socket.until(isEnd);
    const withoutIds = (given: readonly object[]) =>
      given.map((event) => JSON.stringify(event).replaceAll(/_[0-9a-f]{32}/g, ""));
    const stable = (given: readonly object[]) =>
      withoutIds(given).map((json) => json.replaceAll(/"(created_at|completed_at)":\d+/g, ""));
    expect(stable(sent)).toEqual(stable(events));
    socket.socket.close();
  });

  it("that is cut off in its reasoning has no message", async () => {
    const response = await client.responses.create({ ...body(), max_output_tokens: 3 });
    expect(response.output).toMatchObject([{ type: "reasoning", status: "incomplete" }]);
    expect(response).toMatchObject({ status: "incomplete", incomplete_details: { reason: "max_output_tokens" } });
    expect(response.output_text).toBe("");
  });

  it("reads the reasoning of earlier answers as chat messages give it", async () => {
    const [reasoning, content] = ["Deep thoughts.", "A tale."];
    const tokens = { max_output_tokens: 8, temperature: 0 };
    const items = await client.responses.create({
      ...{ ...body(), ...tokens },
      input: [
        { role: "user", content: ASK },
        { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: reasoning }] },
        {
          type: "message",
          id: "msg_1",
          role: "assistant",
          status: "completed",
          content: [{ type: "output_text", text: content, annotations: [] }],
        },
        { role: "user", content: "And then?" },
      ],
    });
    const messages = [
      { role: "user", content: ASK },
      { role: "assistant", content, reasoning },
      { role: "user", content: "And then?" },
    ];
    const chat = await askChat({ messages, max_completion_tokens: 8, temperature: 0, seed });
    expect(items.usage!.input_tokens).toBeGreaterThan(30);
    expect(textOf(items)).toBe(chat.reasoning);
    const { data } = await client.responses.inputItems.list(items.id, { order: "asc" });
    expect(data.map(({ type }) => type)).toEqual(["message", "reasoning", "message", "message"]);
    expect(data[1]).toMatchObject({ content: [{ type: "reasoning_text", text: reasoning }] });
  });

  it("that continues one with reasoning reads only what is new if the template shows it again", async () => {
    const first = await client.responses.create(body());
    const next = await client.responses.create({ ...body(), previous_response_id: first.id, input: "And then?" });
    const numRead = first.usage!.input_tokens + NUM_TOKENS;
    expect(next.usage!.input_tokens_details.cached_tokens).toBe(numRead - 1);
    expect(next.usage!.input_tokens - numRead).toBeLessThan(20);
  });

  it("repeats the effort that was asked for", async () => {
    const response = await client.responses.create({ ...body(), reasoning: { effort: "none", summary: "auto" } });
    expect(response.reasoning).toEqual({ effort: "none", summary: null });
    expect(response.output.map(({ type }) => type)).toEqual(["message"]);
  });
});

function textOf({ output }: OpenAI.Responses.Response): string {
  return output
    .flatMap((item) => (item.type === "reasoning" ? (item.content ?? []).map(({ text }) => text) : []))
    .join("");
}

it("a constraint begins after the reasoning", async () => {
  const schema = { type: "object", properties: { wet: { type: "boolean" } }, required: ["wet"] };
  const response_format = { type: "json_schema", json_schema: { name: "sea", strict: true, schema } };
  const free = await askChat({ seed: 2 });
  const held = await askChat({ seed: 2, response_format });
  expect(held.reasoning).toBe(free.reasoning);
  expect(free.content).not.toMatch(/^\{/);
  expect(held.content).toMatch(/^\{"wet": (?:true|false)\}$/);
  // Nothing but the end of the reasoning ends it.
  const endless = await askChat({ seed: 3, response_format });
  expect(endless).toMatchObject({ content: "", finish_reason: "length" });
});
