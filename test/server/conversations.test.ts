/**
 * `/v1/conversations` over the real generation, engine, runtime and default model, by OpenAI's own
 * client: what is said in one is what a chain of responses says, from the same states.
 */
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

const ASK = { model: "fake-4m", temperature: 0, max_output_tokens: 8 } as const;
const TURNS = ["Tell me of the sea.", "And then?", "And the end?"];

const store = new MemoryStore({ maxBytes: 64 * 1024 * 1024 });
let server: RealServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startRealServer({ store });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 });
});
afterAll(() => server?.close());

const say = (conversation: string, input: OpenAI.Responses.ResponseInput | string) =>
  client.responses.create({ ...ASK, conversation, input });

async function textsOf(id: string): Promise<string[]> {
  const texts: string[] = [];
  for await (const item of client.conversations.items.list(id, { order: "asc" })) {
    if (item.type !== "message") throw new Error(`a ${item.type}`);
    texts.push(item.content.map((part) => ("text" in part ? part.text : "")).join("\n"));
  }
  return texts;
}

describe("a conversation", () => {
  it("is created, retrieved, changed and deleted", async () => {
    const made = await client.conversations.create({ metadata: { topic: "sea" } });
    expect(made).toMatchObject({ id: expect.stringMatching(/^conv_/), object: "conversation" });
    expect(made.created_at).toBeGreaterThan(1.7e9);
    expect(await client.conversations.retrieve(made.id)).toEqual(made);
    const changed = await client.conversations.update(made.id, { metadata: { topic: "land" } });
    expect(changed).toEqual({ ...made, metadata: { topic: "land" } });
    expect((await client.conversations.create()).metadata).toEqual({});
    const gone = await client.conversations.delete(made.id);
    expect(gone).toEqual({ id: made.id, object: "conversation.deleted", deleted: true });
    await expect(client.conversations.retrieve(made.id)).rejects.toMatchObject({
      status: 404,
      code: "conversation_not_found",
    });
  });

  it("lists its items in pages, from either end, and gives and deletes one", async () => {
    const user = (content: string) => ({ type: "message" as const, role: "user" as const, content });
    const { id } = await client.conversations.create({ items: [user("1"), user("2")] });
    const added = await client.conversations.items.create(id, { items: [user("3"), user("4"), user("5")] });
    expect(added.data).toHaveLength(3);
    expect(added).toMatchObject({ object: "list", first_id: added.data[0]!.id, last_id: added.data[2]!.id });
    expect(await textsOf(id)).toEqual(["1", "2", "3", "4", "5"]);
    const page = await client.conversations.items.list(id, { limit: 2 });
    expect(page.data.map((item) => item.id)).toEqual([added.data[2]!.id, added.data[1]!.id]);
    expect(page.has_more).toBe(true);
    const rest = await client.conversations.items.list(id, { limit: 5, after: page.last_id });
    expect([rest.data.length, rest.has_more]).toEqual([3, false]);
    const third = await client.conversations.items.retrieve(added.data[0]!.id!, { conversation_id: id });
    expect(third).toEqual(added.data[0]);
    expect(await client.conversations.items.delete(third.id!, { conversation_id: id })).toMatchObject({ id });
    expect(await textsOf(id)).toEqual(["1", "2", "4", "5"]);
    const missing = client.conversations.items.retrieve(third.id!, { conversation_id: id });
    await expect(missing).rejects.toMatchObject({ status: 404, code: "item_not_found" });
  });

  it("says what a chain of responses says, and reads only what is new", async () => {
    const { id } = await client.conversations.create();
    let previous: OpenAI.Responses.Response | undefined;
    const expected: string[] = [];
    for (const input of TURNS) {
      const response = await say(id, input);
      const chained = await client.responses.create({ ...ASK, input, previous_response_id: previous?.id ?? null });
      expect(response.output_text).toBe(chained.output_text);
      expect(response.conversation).toEqual({ id });
      expect(chained.conversation).toBeUndefined();
      expect(response.usage).toEqual(chained.usage);
      previous = chained;
      expected.push(input, response.output_text);
    }
    expect(previous!.usage!.input_tokens_details.cached_tokens).toBeGreaterThan(20);
    expect(await textsOf(id)).toEqual(expected);
    const items = (await client.conversations.items.list(id, { order: "asc" })).data;
    expect(new Set(items.map((item) => item.id)).size).toBe(6);
  });

  it("takes up items that were added since, and starts with those that it was made with", async () => {
    const story = { type: "message" as const, role: "user" as const, content: "There was a whale." };
    const { id } = await client.conversations.create({ items: [story] });
    const first = await say(id, TURNS[0]!);
    await client.conversations.items.create(id, { items: [{ ...story, content: "It sang." }] });
    const second = await say(id, TURNS[1]!);
    const whole = await client.responses.create({
      ...ASK,
      input: [
        story,
        { role: "user", content: TURNS[0]! },
        { role: "assistant", content: first.output_text },
        { ...story, content: "It sang." },
        { role: "user", content: TURNS[1]! },
      ],
    });
    expect(second.output_text).toBe(whole.output_text);
    expect(second.usage!.input_tokens_details.cached_tokens).toBeGreaterThan(first.usage!.input_tokens);
    expect(whole.usage!.input_tokens_details.cached_tokens).toBe(0);
  });

  it("is read again where its state is gone: an item was deleted, or the response", async () => {
    const { id } = await client.conversations.create();
    const answers: OpenAI.Responses.Response[] = [];
    for (const input of TURNS.slice(0, 2)) answers.push(await say(id, input));
    await client.responses.delete(answers[1]!.id);
    const counted = await client.responses.inputTokens.count({ ...ASK, input: TURNS[2]!, conversation: id });
    const third = await say(id, TURNS[2]!);
    expect(third.usage!.input_tokens_details.cached_tokens).toBe(0);
    expect(third.usage!.input_tokens).toBe(counted.input_tokens);
    const message = (role: "user" | "assistant", content: string) => ({ role, content });
    const input = [
      ...TURNS.slice(0, 2).flatMap((text, i) => [message("user", text), message("assistant", answers[i]!.output_text)]),
      message("user", TURNS[2]!),
    ];
    expect(third.output_text).toBe((await client.responses.create({ ...ASK, input })).output_text);
    const { data } = await client.conversations.items.list(id, { order: "asc", limit: 3 });
    for (const item of data.slice(0, 2)) await client.conversations.items.delete(item.id!, { conversation_id: id });
    const fourth = await say(id, "Why?");
    expect(fourth.usage!.input_tokens_details.cached_tokens).toBe(0);
    const shorter = [...input.slice(2), message("assistant", third.output_text), message("user", "Why?")];
    expect(fourth.output_text).toBe((await client.responses.create({ ...ASK, input: shorter })).output_text);
  });

  it("keeps calls of tools and their results", async () => {
    const call = { type: "function_call" as const, call_id: "c1", name: "tide", arguments: '{"at":"noon"}' };
    const result = { type: "function_call_output" as const, call_id: "c1", output: "high" };
    const { id } = await client.conversations.create({ items: [{ role: "user", content: "The tide?" }, call, result] });
    const { data } = await client.conversations.items.list(id, { order: "asc" });
    expect(data.slice(1)).toMatchObject([call, result]);
    expect((await say(id, "So?")).output_text).not.toBe("");
    const stray = await post(`${server.url}/v1/conversations`, { items: [{ type: "function_call", name: "tide" }] });
    expect(await stray.json()).toMatchObject({ error: { param: "items[0].call_id" } });
  });

  it("is streamed, in the background and over a WebSocket, as any response", async () => {
    const { id } = await client.conversations.create();
    const stream = await client.responses.create({ ...ASK, conversation: id, input: TURNS[0]!, stream: true });
    let last: unknown;
    for await (const event of stream) last = event;
    expect(last).toMatchObject({ type: "response.incomplete", response: { conversation: { id } } });
    const { id: responseId } = await client.responses.create({
      ...{ ...ASK, conversation: id, input: TURNS[1]!, background: true },
    });
    await expect.poll(async () => (await client.responses.retrieve(responseId)).status).not.toMatch(/queued|progress/);
    const socket = await open({ webSocketUrl: `${server.url.replace("http", "ws")}/v1/responses` });
    socket.create({ ...ASK, conversation: { id }, input: TURNS[2] });
    await socket.until(isEnd);
    socket.socket.close();
    expect(await textsOf(id)).toHaveLength(6);
  });

  it("is answered by one request at a time", async () => {
    const { id } = await client.conversations.create();
    const body = { ...ASK, conversation: id, input: "Hi", max_output_tokens: 1000, ignore_eos: true };
    const stream = await client.responses.create({ ...body, stream: true });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const refused = { status: 409, code: "conversation_locked", param: "conversation" };
    await expect(say(id, "And?")).rejects.toMatchObject(refused);
    await expect(client.conversations.items.create(id, { items: [] })).rejects.toMatchObject(refused);
    await expect(client.conversations.delete(id)).rejects.toMatchObject(refused);
    const { value: created } = await iterator.next();
    await client.responses.cancel((created as { response: { id: string } }).response.id);
    await iterator.return?.();
    // What was cancelled is not said.
    await expect.poll(() => textsOf(id)).toEqual([]);
    expect((await say(id, "And?")).status).not.toBe("failed");
    expect(await textsOf(id)).toHaveLength(2);
  });

  it("goes on at another server of the store, from the same state", async () => {
    const { id } = await client.conversations.create();
    const first = await say(id, TURNS[0]!);
    const other = await startRealServer({ store });
    try {
      const there = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: "unused", maxRetries: 0 });
      const second = await there.responses.create({ ...ASK, conversation: id, input: TURNS[1]! });
      const { input_tokens } = first.usage!;
      expect(second.usage!.input_tokens_details.cached_tokens).toBeGreaterThanOrEqual(input_tokens);
      expect(await textsOf(id)).toHaveLength(4);
    } finally {
      await other.close();
    }
  });
});

describe("is refused:", () => {
  const CALL = { type: "function_call", call_id: "c1", name: "f", arguments: "{}" };

  it.each<[body: object, status: number, error: object]>([
    [{ conversation: "conv_nope" }, 404, { code: "conversation_not_found", param: "conversation" }],
    [{ conversation: "resp_1" }, 404, { code: "conversation_not_found" }],
    [{ conversation: { id: "a b" } }, 404, { code: "conversation_not_found" }],
    [{ conversation: "" }, 400, { param: "conversation" }],
    [{ conversation: 5 }, 400, { param: "conversation" }],
    [{ conversation: "conv_nope", previous_response_id: "resp_1" }, 400, { param: "previous_response_id" }],
    [{ conversation: "conv_nope", store: false }, 400, { param: "store" }],
  ])("a response with %j", async (body, status, error) => {
    for (const route of ["/v1/responses", "/v1/responses/input_tokens"]) {
      const response = await post(server.url + route, { ...ASK, input: "Hi", ...body });
      expect(response.status).toBe(status);
      expect(await response.json()).toMatchObject({ error });
    }
  });

  it.each<[body: object, error: object]>([
    [{ items: "Hi" }, { param: "items", message: 'items must be a list; got "Hi"' }],
    [{ items: [{ role: "cat", content: "Hi" }] }, { param: "items[0].role" }],
    [{ items: [{ type: "image_generation_call" }] }, { code: "unsupported_value", param: "items[0].type" }],
    [{ items: [{ type: "item_reference", id: "msg_1" }] }, { code: "unsupported_value", param: "items[0].type" }],
    [{ items: [{ ...CALL, status: {} }] }, { param: "items[0].status", message: expect.stringContaining("a string") }],
    [{ items: [{ type: "reasoning", content: [{ type: {}, text: "" }] }] }, { param: "items[0].content[0].type" }],
    [{ items: [{ ...CALL, status: 5 }] }, { param: "items[0].status" }],
    [{ items: Array(10_001).fill({ role: "user", content: "a" }) }, { message: expect.stringContaining("10000") }],
    [{ metadata: { a: 5 } }, { param: "metadata.a" }],
    [{ metadata: Object.fromEntries([...Array(17).keys()].map((key) => [key, ""])) }, { param: "metadata" }],
  ])("a conversation: %#", async (body, error) => {
    const response = await post(`${server.url}/v1/conversations`, body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error });
  });

  it("more than a conversation can hold, before anything is read", async () => {
    const items = Array.from({ length: 9999 }, () => ({ role: "user" as const, content: "a" }));
    const { id } = await client.conversations.create({ items });
    await client.conversations.items.create(id, { items: items.slice(0, 1) });
    const full = {
      status: 400,
      message: expect.stringContaining("would have 10001 items; a conversation has at most"),
    };
    await expect(client.conversations.items.create(id, { items: items.slice(0, 1) })).rejects.toMatchObject(full);
    await expect(say(id, "a")).rejects.toMatchObject({ ...full, param: "conversation" });
    const long = { role: "user" as const, content: "a".repeat(2_000_000) };
    const { id: other } = await client.conversations.create({ items: [long] });
    await client.conversations.items.create(other, { items: [long] });
    const tooLong = { status: 400, message: expect.stringContaining("characters; a conversation has at most 4194304") };
    await expect(client.conversations.items.create(other, { items: [long] })).rejects.toMatchObject(tooLong);
  });

  it("an id of the other kind", async () => {
    const { id } = await client.conversations.create();
    for (const method of ["GET", "DELETE"]) {
      const response = await fetch(`${server.url}/v1/responses/${id}`, { method });
      expect(await response.json()).toMatchObject({ error: { code: "response_not_found" } });
    }
    const { id: responseId } = await client.responses.create({ ...ASK, input: "Hi" });
    await expect(client.conversations.retrieve(responseId)).rejects.toMatchObject({ code: "conversation_not_found" });
  });
});

it("belongs to its key", async () => {
  const keyed = await startRealServer({ store, options: { apiKeys: ["a", "b"] } });
  try {
    const clientOf = (apiKey: string) => new OpenAI({ baseURL: `${keyed.url}/v1`, apiKey, maxRetries: 0 });
    const { id } = await clientOf("a").conversations.create();
    const gone = { code: "conversation_not_found" };
    await expect(clientOf("b").conversations.retrieve(id)).rejects.toMatchObject(gone);
    await expect(clientOf("b").conversations.delete(id)).rejects.toMatchObject(gone);
    const asking = clientOf("b").responses.create({ ...ASK, conversation: id, input: "Hi" });
    await expect(asking).rejects.toMatchObject(gone);
  } finally {
    await keyed.close();
  }
});
