/**
 * Clients from PyPI, unmodified, over the real generation, engine, runtime and default model. Run
 * where they are installed (`pip install -r test/clients/requirements.txt`); CI installs them.
 */
import { execFile, execFileSync } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";

const SCRIPT = path.join(import.meta.dirname, "clients.py");
const PYTHON = process.env.CLIENTS_PYTHON ?? "python3";
const TIMEOUT_MS = 180_000;

function hasClients(): boolean {
  try {
    execFileSync(PYTHON, ["-c", "import openai, agents, pydantic_ai, lm_eval"], { stdio: "ignore", timeout: 60_000 });
    return true;
  } catch {
    return false;
  }
}

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer();
});
afterAll(() => server?.close());

async function run<T>(name: string): Promise<T> {
  const { stdout } = await promisify(execFile)(PYTHON, [SCRIPT, name, server.url], { timeout: TIMEOUT_MS });
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as T;
}

describe.skipIf(!hasClients())("a client from PyPI", { timeout: TIMEOUT_MS }, () => {
  it("openai: chats, streams, responses, and errors", async () => {
    const found = await run<Record<string, unknown>>("openai");
    expect(found).toMatchObject({
      models: ["fake-4m", "default"],
      usage: 12,
      numLogprobs: 12,
      lastEvent: "response.incomplete",
      inputTokens: true,
      refusal: "context_length_exceeded",
    });
    expect(found.chat).not.toBe("");
    expect(found.streamed).toBe(found.chat);
    expect(found.response).toBe(found.chat);
    expect(found.streamedResponse).toBe(found.chat);
    expect(found.cachedTokens).toBeGreaterThan(12);
  });

  it("openai-agents: both APIs, tools, and conversations by its session and by their ids", async () => {
    type Said = { text: string; streamed: string };
    interface Found {
      OpenAIResponsesModel: Said;
      OpenAIChatCompletionsModel: Said;
      conversation: { roles: string[]; rolesAfterPop: string[]; text: string; sameText: string; cachedTokens: number };
      crowned: string[];
    }
    const { conversation, crowned, ...said } = await run<Found>("openai_agents");
    for (const { text, streamed } of Object.values(said)) {
      expect(text).not.toBe("");
      expect(streamed).toBe(text);
    }
    expect(crowned).toHaveLength(2);
    expect(conversation.roles).toEqual(["user", "assistant", "user", "assistant"]);
    expect(conversation.rolesAfterPop).toEqual(["user", "assistant", "user"]);
    // One repeats its items, the other goes on from the state.
    expect(conversation.sameText).toBe(conversation.text);
    expect(conversation.cachedTokens).toBeGreaterThan(12);
  });

  it("pydantic-ai: an agent on both APIs, with a history", async () => {
    type Found = Record<string, { text: string; streamed: string; grows: boolean }>;
    const found = await run<Found>("pydantic_ai");
    for (const api of ["OpenAIChatModel", "OpenAIResponsesModel"]) {
      const { text, streamed, grows } = found[api]!;
      expect(text).not.toBe("");
      expect(streamed).toBe(text);
      expect(grows).toBe(true);
    }
  });

  it("lm-evaluation-harness: with the server's tokenizer, scores as the server does, and generates", async () => {
    const { choices, texts } = await run<{ choices: number[][]; texts: string[] }>("lm_eval");
    const asked = [
      ["The king lived in a", [" castle", " puddle"]],
      ["The ship went over the", [" sea", " zebra crossing"]],
    ] as const;
    for (const [index, [text_1, text_2]] of asked.entries()) {
      // The harness adds no BOS.
      const response = await post(`${server.url}/v1/score`, { text_1, text_2, add_special_tokens: false });
      const { data } = (await response.json()) as { data: { score: number }[] };
      for (const [place, { score }] of data.entries()) expect(choices[index]![place]).toBeCloseTo(score, 2);
    }
    for (const text of texts) expect(text).not.toContain(".");
    expect(texts.join("")).not.toBe("");
  });
});
