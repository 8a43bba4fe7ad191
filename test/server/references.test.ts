/** `item_reference`, and the tokens of an input, over the real generation, engine and model. */
import OpenAI from "openai";
import type { ResponseInputItem } from "openai/resources/responses/responses";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RealServer, startRealServer } from "../helpers/real-server.ts";
import { createTestServer } from "../helpers/server-deps.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

const ASK = { model: "fake-4m", temperature: 0, max_output_tokens: 8 } as const;

let server: RealServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startRealServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 });
});
afterAll(() => server?.close());

const user = (content: string) => ({ role: "user" as const, content });
const refer = (id: string): ResponseInputItem => ({ type: "item_reference", id });

describe("an item_reference", () => {
  it("stands for an item of a response's output or input", async () => {
    const first = await client.responses.create({ ...ASK, input: [user("Tell me of the sea.")] });
    const answer = { role: "assistant" as const, content: first.output_text };
    const whole = await client.responses.create({
      ...ASK,
      input: [user("Tell me of the sea."), answer, user("And then?")],
    });
    const { data } = await client.responses.inputItems.list(first.id);
    const input = [refer(data[0]!.id!), refer(first.output[0]!.id!), user("And then?")];
    const referring = await client.responses.create({ ...ASK, input });
    expect(referring.output_text).toBe(whole.output_text);
    expect(referring.usage!.input_tokens).toBe(whole.usage!.input_tokens);
    const listed = (await client.responses.inputItems.list(referring.id, { order: "asc" })).data;
    expect(listed).toMatchObject([
      { role: "user", content: [{ text: "Tell me of the sea." }] },
      { role: "assistant", content: [{ text: first.output_text }] },
      { role: "user", content: [{ text: "And then?" }] },
    ]);
  });

  it("on the WebSocket may name an item of the response that still runs in its stream", async () => {
    const socket = await open({ webSocketUrl: `ws://127.0.0.1:${server.port}/v1/responses` });
    const create = { ...ASK, stream_id: "a", ignore_eos: true };
    socket.create({ ...create, input: "Tell me of the sea.", max_output_tokens: 40 });
    await socket.until(({ type }) => type === "response.output_item.added");
    const [id] = socket.responseIds;
    const item = id!.replace("resp_", "msg_");
    socket.create({ ...create, input: [user("Tell me of the sea."), refer(item), user("And then?")] });
    const [first, second] = (await socket.until(isEnd, 2)).filter(isEnd);
    expect(first).toMatchObject({ response: { output: [{ id: item }] } });
    const alone = await client.responses.create({
      ...{ ...ASK, input: "And then?", previous_response_id: id! },
      ...{ ignore_eos: true },
    });
    expect(second).toMatchObject({ response: { output: [{ content: [{ text: alone.output_text }] }] } });
    socket.create({ ...create, input: [refer("msg_nope"), user("And then?")] });
    const refused = (await socket.until(isEnd, 3)).at(-1);
    expect(refused).toMatchObject({ status: 404, error: { code: "item_not_found" }, stream_id: "a" });
    socket.socket.close();
  });

  it("to nothing that is stored is a 404, as at OpenAI", async () => {
    const unstored = await client.responses.create({ ...ASK, input: "Hi", store: false });
    for (const id of ["msg_nope", "nope", "", "msg_1_in0", unstored.output[0]!.id!]) {
      const asking = client.responses.create({ ...ASK, input: [user("a"), refer(id)] });
      await expect(asking).rejects.toMatchObject({ status: 404, code: "item_not_found", param: "input[1].id" });
    }
    const malformed = client.responses.create({ ...ASK, input: [{ type: "item_reference" } as ResponseInputItem] });
    await expect(malformed).rejects.toMatchObject({ status: 400, param: "input[0].id" });
  });

  it("to an item of another key's response is a 404", async () => {
    const { post } = createTestServer({ apiKeys: ["ann", "bob"] });
    const respond = (key: string, input: object[]) =>
      post("/v1/responses", { input }, { authorization: `Bearer ${key}` });
    const made = (await (await respond("ann", [user("a")])).json()) as { output: { id: string }[] };
    const [item] = made.output;
    expect((await respond("ann", [refer(item!.id), user("b")])).status).toBe(200);
    expect((await respond("bob", [refer(item!.id), user("b")])).status).toBe(404);
  });

  it("cannot make a short body a long input", async () => {
    const { post, generator, deps } = createTestServer();
    generator.script = { reply: ["x".repeat(100_000)] };
    const made = await (await post("/v1/responses", { input: "a" })).json();
    const [item] = (made as { output: { id: string }[] }).output;
    const response = await post("/v1/responses", { input: Array(5000).fill(refer(item!.id)) });
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: { message: string } };
    expect(error.message).toContain(`more than ${deps.options.limits.maxBodyBytes} characters`);
    expect(generator.requests).toHaveLength(1);
  });
});

describe("the tokens of an input", () => {
  it("are counted as a response reads them, with those before it", async () => {
    const instructions = "Be brief.";
    const first = await client.responses.create({ ...ASK, input: "Tell me of the sea.", instructions });
    const counted = await client.responses.inputTokens.count({ input: "Tell me of the sea.", instructions });
    expect(counted).toEqual({ object: "response.input_tokens", input_tokens: first.usage!.input_tokens });
    const next = { input: [user("And then?")], previous_response_id: first.id };
    const second = await client.responses.create({ ...ASK, ...next });
    expect((await client.responses.inputTokens.count(next)).input_tokens).toBe(second.usage!.input_tokens);
    const referring = { input: [user("a"), refer(first.output[0]!.id!)] };
    expect((await client.responses.inputTokens.count(referring)).input_tokens).toBeGreaterThan(8);
  });

  it("of nothing that can be read are refused", async () => {
    const count = (body: object) => client.responses.inputTokens.count(body);
    await expect(count({ previous_response_id: "resp_nope", input: "a" })).rejects.toMatchObject({
      code: "previous_response_not_found",
    });
    await expect(count({})).rejects.toMatchObject({ status: 400, param: "input" });
    await expect(count({ input: "sea ".repeat(3000) })).rejects.toMatchObject({ code: "context_length_exceeded" });
  });
});
