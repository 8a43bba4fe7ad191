/**
 * Clients from npm that call tools, unmodified, in their own loops; the model says what it is told
 * to. OpenAI's own is in `test/server/tools.test.ts`.
 */
import { createOpenAI } from "@ai-sdk/openai";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langChainTool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as z from "zod";
import { type ScriptedServer, startScriptedServer } from "../helpers/scripted-server.ts";

const MODEL = "fake-4m";
const ASK = "Is it warm in Paris?";
const TEMPLATE = `{% if tools %}[tools]{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;
const CALL = `<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>`;
const SCHEMA = z.object({ city: z.string() });
const DESCRIPTION = "The weather now.";

let server: ScriptedServer;
beforeAll(async () => {
  server = await startScriptedServer(TEMPLATE);
});
afterAll(() => server[Symbol.asyncDispose]());
beforeEach(() => server.says(CALL, "It is warm."));

/** What the model has read by the end of the loop. */
const expectRead = () => {
  expect(server.lastPrompt()).toContain(`[user]${ASK}[end][assistant]${CALL}[end][tool]`);
  expect(server.lastPrompt()).toContain("21 degrees");
};

describe("Vercel's ai", () => {
  const provider = () => createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-test" });
  const asked: unknown[] = [];
  const settings = {
    prompt: ASK,
    maxOutputTokens: 500,
    maxRetries: 0,
    stopWhen: stepCountIs(3),
    tools: {
      get_weather: tool({
        description: DESCRIPTION,
        inputSchema: SCHEMA,
        execute: async (input) => {
          asked.push(input);
          return "21 degrees";
        },
      }),
    },
  };
  beforeEach(() => {
    asked.length = 0;
  });

  it.each(["responses", "chat"] as const)("calls a tool and goes on with its result, over %s", async (api) => {
    const { text, steps } = await generateText({ model: provider()[api](MODEL), ...settings });
    expect({ text, asked }).toEqual({ text: "It is warm.", asked: [{ city: "Paris" }] });
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(["tool-calls", "stop"]);
    expectRead();
  });

  it.each(["responses", "chat"] as const)("streams the arguments of a call, over %s", async (api) => {
    const { fullStream } = streamText({ model: provider()[api](MODEL), ...settings });
    let [text, json] = ["", ""];
    const names: string[] = [];
    for await (const part of fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "tool-input-start") names.push(part.toolName);
      if (part.type === "tool-input-delta") json += part.delta;
      if (part.type === "text-delta") text += part.text;
    }
    expect({ text, names, json, asked }).toEqual({
      text: "It is warm.",
      names: ["get_weather"],
      json: '{"city": "Paris"}',
      asked: [{ city: "Paris" }],
    });
    expectRead();
  });
});

describe("LangChain", () => {
  it.each([false, true])("binds a tool and reads its call (Responses: %s)", async (useResponsesApi) => {
    const weather = langChainTool(async () => "21 degrees", {
      name: "get_weather",
      description: DESCRIPTION,
      schema: SCHEMA,
    });
    const model = new ChatOpenAI({
      ...{ model: MODEL, apiKey: "sk-test", maxTokens: 500, maxRetries: 0, useResponsesApi },
      configuration: { baseURL: `${server.url}/v1` },
    }).bindTools([weather]);
    const question = new HumanMessage(ASK);
    const answer = await model.invoke([question]);
    expect(answer.tool_calls).toMatchObject([{ name: "get_weather", args: { city: "Paris" } }]);
    const [call] = answer.tool_calls!;
    const result = new ToolMessage({
      content: await weather.invoke(call!.args as { city: string }),
      tool_call_id: call!.id!,
    });
    expect((await model.invoke([question, answer, result])).text).toBe("It is warm.");
    expectRead();

    await server.says(CALL);
    let streamed: Awaited<ReturnType<typeof model.invoke>> | undefined;
    for await (const chunk of await model.stream([question]))
      streamed = streamed === undefined ? chunk : streamed.concat(chunk);
    expect(streamed!.tool_calls).toMatchObject([{ name: "get_weather", args: { city: "Paris" } }]);
  });
});
