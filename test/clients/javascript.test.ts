/**
 * Clients from npm, unmodified, over the real generation, engine, runtime and default model.
 * OpenAI's own is used throughout `test/server`.
 */
import { createOpenAI } from "@ai-sdk/openai";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import { ChatOpenAI, OpenAI as LangChainOpenAI } from "@langchain/openai";
import { APICallError, generateText, type ModelMessage, streamText } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RealServer, startRealServer } from "../helpers/real-server.ts";

const MODEL = "fake-4m";
const ASK = "Tell me of the sea.";

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer({ options: { apiKeys: ["sk-test"] } });
});
afterAll(() => server?.close());

/** Its type depends on the kind of message. */
const usageOf = ({ usage_metadata }: { usage_metadata?: unknown }) =>
  usage_metadata as { input_tokens: number; output_tokens: number };

const user = (content: string) => ({ role: "user" as const, content });

describe("Vercel's ai", () => {
  const provider = () => createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-test" });
  const settings = { temperature: 0, maxOutputTokens: 12, maxRetries: 0 };

  it("continues a conversation on Responses, its default, whose turns it names by their ids", async () => {
    const sent: string[] = [];
    const recording: typeof fetch = (url, init) => {
      sent.push(String(init?.body));
      return fetch(url, init);
    };
    const model = createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-test", fetch: recording })(MODEL);
    const messages: ModelMessage[] = [user(ASK)];
    for (const next of ["And then?", "And the end?"]) {
      const { text, response } = await generateText({ model, messages, ...settings });
      expect(text).not.toBe("");
      messages.push(...response.messages, user(next));
    }
    const { text, usage } = await generateText({ model, messages, ...settings });
    expect(sent.map((body) => body.split("item_reference").length - 1)).toEqual([0, 1, 2]);
    const plain = messages.map(({ role, content }) => ({
      role: role as "user" | "assistant",
      content:
        typeof content === "string" ? content : content.map((part) => ("text" in part ? part.text : "")).join(""),
    }));
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-test", maxRetries: 0 });
    const whole = await client.responses.create({ model: MODEL, input: plain, temperature: 0, max_output_tokens: 12 });
    expect(text).toBe(whole.output_text);
    expect(usage.inputTokens).toBe(whole.usage!.input_tokens);
  });

  it("streams responses and chats, text by text, and has the reason and the usage", async () => {
    for (const model of [provider()(MODEL), provider().chat(MODEL)]) {
      const { textStream, finishReason, usage } = streamText({ model, messages: [user(ASK)], ...settings });
      const texts: string[] = [];
      for await (const text of textStream) texts.push(text);
      expect(texts.length).toBeGreaterThan(1);
      const whole = await generateText({ model, messages: [user(ASK)], ...settings });
      expect(texts.join("")).toBe(whole.text);
      expect(await finishReason).toBe(whole.finishReason);
      expect((await usage).outputTokens).toBe(whole.usage.outputTokens);
    }
  });

  it("completes prompts", async () => {
    const { text } = await generateText({
      model: provider().completion(MODEL),
      prompt: "Once upon a time",
      ...settings,
    });
    expect(text).not.toBe("");
  });

  it("shows what was refused, and why", async () => {
    const messages = [user("sea ".repeat(3000))];
    const failing = generateText({ model: provider()(MODEL), messages, ...settings });
    const error: unknown = await failing.catch((caught: unknown) => caught);
    expect(APICallError.isInstance(error)).toBe(true);
    expect((error as APICallError).message).toContain("maximum context length is 2000 tokens");
    expect((error as APICallError).statusCode).toBe(400);
  });
});

describe("LangChain", () => {
  const fields = () => ({
    ...{ model: MODEL, apiKey: "sk-test", temperature: 0, maxTokens: 12, maxRetries: 0 },
    configuration: { baseURL: `${server.url}/v1` },
  });

  it("answers chats, whole and streamed, on both APIs", async () => {
    for (const useResponsesApi of [false, true]) {
      const model = new ChatOpenAI({ ...fields(), useResponsesApi });
      const history = [new HumanMessage(ASK)];
      const answer = await model.invoke(history);
      expect(answer.text).not.toBe("");
      const texts: string[] = [];
      for await (const chunk of await model.stream(history)) texts.push(chunk.text);
      expect(texts.join("")).toBe(answer.text);
      expect(usageOf(answer).output_tokens).toBeGreaterThan(0);
      const next = await model.invoke([...history, new AIMessage(answer.text), new HumanMessage("And then?")]);
      expect(usageOf(next).input_tokens).toBeGreaterThan(usageOf(answer).input_tokens);
    }
  });

  it("completes prompts", async () => {
    const model = new LangChainOpenAI(fields());
    expect(await model.invoke("Once upon a time")).not.toBe("");
  });

  it("tells a prompt that is too long by its words", async () => {
    const model = new ChatOpenAI(fields());
    const failing = model.invoke([new HumanMessage("sea ".repeat(3000))]);
    await expect(failing).rejects.toMatchObject({ name: "ContextOverflowError" });
  });
});
