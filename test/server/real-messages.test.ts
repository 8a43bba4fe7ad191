/** `/v1/messages` over the real engine and default model, through Anthropic's client. */
import Anthropic from "@anthropic-ai/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RealServer, startRealServer } from "../helpers/real-server.ts";

const SCHEMA = {
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", minimum: 1, maximum: 99 } },
  required: ["name", "age"],
  additionalProperties: false,
} as const;
const ASK = {
  model: "fake-4m",
  max_tokens: 200,
  messages: [{ role: "user" as const, content: "Name a king and his age." }],
};

let server: RealServer;
let client: Anthropic;
beforeAll(async () => {
  server = await startRealServer();
  client = new Anthropic({ baseURL: server.url, apiKey: "unused", maxRetries: 0 });
});
afterAll(() => server?.close());

describe("an answer of the default model", () => {
  it("matches the schema that it is asked to match", async () => {
    const format = { type: "json_schema" as const, schema: SCHEMA };
    const message = await client.messages.create({ ...ASK, output_config: { format } });
    expect(message.stop_reason).toBe("end_turn");
    const [block] = message.content;
    const { name, age } = JSON.parse(block?.type === "text" ? block.text : "null") as { name: string; age: number };
    expect(name.length).toBeLessThanOrEqual(12);
    expect(age).toBeGreaterThanOrEqual(1);
    expect(age).toBeLessThanOrEqual(99);
  });

  it("calls a tool if it must, with input that matches", async () => {
    const tools = [
      { name: "crown", description: "Crowns a king", input_schema: SCHEMA as unknown as Anthropic.Tool.InputSchema },
    ];
    for (const tool_choice of [{ type: "any" }, { type: "tool", name: "crown" }] as const) {
      const stream = client.messages.stream({ ...ASK, tools, tool_choice });
      const message = await stream.finalMessage();
      expect(message.stop_reason).toBe("tool_use");
      expect(message.content[0]).toMatchObject({
        type: "tool_use",
        name: "crown",
        input: { name: expect.any(String), age: expect.any(Number) },
      });
    }
  });

  it("has its prompt counted before", async () => {
    const { usage } = await client.messages.create({ ...ASK, max_tokens: 8, system: "Be brief." });
    const counted = await client.messages.countTokens({
      model: ASK.model,
      messages: ASK.messages,
      system: "Be brief.",
    });
    expect(counted.input_tokens).toBe(usage.input_tokens);
    expect(usage.output_tokens).toBeLessThanOrEqual(8);
  });

  it("continues the assistant's words", async () => {
    const messages = [...ASK.messages, { role: "assistant" as const, content: "Once upon" }];
    const message = await client.messages.create({ ...ASK, max_tokens: 8, messages });
    expect(message.usage.output_tokens).toBe(8);
    expect(message.stop_reason).toBe("max_tokens");
  });
});

describe("the list of models", () => {
  it("has what Anthropic's client reads, for it alone", async () => {
    const listed: Anthropic.Models.ModelInfo[] = [];
    for await (const model of client.models.list()) listed.push(model);
    expect(listed.map(({ id }) => id)).toEqual(["fake-4m", "default"]);
    const info = { id: "fake-4m", type: "model", display_name: "fake-4m", max_input_tokens: expect.any(Number) };
    expect(listed[0]).toMatchObject(info);
    expect(Date.parse(listed[0]!.created_at)).not.toBeNaN();
    expect(await client.models.retrieve("fake-4m")).toEqual(listed[0]);
    await expect(client.models.retrieve("none")).rejects.toBeInstanceOf(Anthropic.NotFoundError);
    const plain = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: object[] };
    expect(Object.keys(plain)).toEqual(["object", "data"]);
    expect(plain.data[0]).not.toHaveProperty("type");
  });
});
