import { beforeEach, describe, expect, it } from "vitest";
import { FAKE_STATE_BYTES, FIRST_REPLY_ID } from "../helpers/fake-generator.ts";
import {
  createTestServer,
  FAKE_MODEL,
  NOW_MS,
  runtimeFault,
  sseData,
  type TestServer,
} from "../helpers/server-deps.ts";

const PATH = "/v1/completions";

interface Choice {
  index: number;
  text: string;
  finish_reason: string | null;
  logprobs: null | {
    tokens: string[];
    token_logprobs: (number | null)[];
    top_logprobs: (Record<string, number> | null)[];
    text_offset: number[];
  };
  [key: string]: unknown;
}
interface Completion {
  id: string;
  choices: Choice[];
  usage?: Record<string, unknown> | null;
  [key: string]: unknown;
}

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
});

async function complete(body: object): Promise<Completion> {
  const response = await server.post(PATH, { model: FAKE_MODEL, prompt: "Hi", ...body });
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as Completion;
}

async function stream(body: object): Promise<(Completion | "[DONE]")[]> {
  const response = await server.post(PATH, { model: FAKE_MODEL, prompt: "Hi", stream: true, ...body });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^text\/event-stream/);
  return sseData(await response.text()) as (Completion | "[DONE]")[];
}

const chunksOf = (events: (Completion | "[DONE]")[]) => events.filter((event) => event !== "[DONE]");

describe("a completion", () => {
  it("has OpenAI's shape, and usage with the bytes of the state", async () => {
    expect(await complete({})).toEqual({
      id: "cmpl-00000002",
      object: "text_completion",
      created: NOW_MS / 1000,
      model: FAKE_MODEL,
      system_fingerprint: "fp_0123456789_int8_fast",
      choices: [{ index: 0, text: "Once upon a time", logprobs: null, finish_reason: "stop", stop_reason: null }],
      usage: {
        prompt_tokens: 3,
        completion_tokens: 4,
        total_tokens: 7,
        prompt_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
        state_bytes: FAKE_STATE_BYTES,
      },
    });
  });

  it("defaults to 16 tokens, temperature 1 and no other sampling", async () => {
    await complete({});
    expect(server.generator.requests[0]).toMatchObject({
      maxTokens: 16,
      minTokens: 0,
      numChoices: 1,
      bestOf: 1,
      echo: false,
      addSpecialTokens: true,
      skipSpecialTokens: true,
      sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: undefined },
    });
    expect(server.generator.requests[0]).not.toHaveProperty("numLogprobs");
    expect(server.generator.requests[0]).not.toHaveProperty("resumeFrom");
  });

  it("streams a long prompt's log-probabilities in many chunks, and the same as without a stream", async () => {
    const body = { prompt: Array(1000).fill(65), echo: true, logprobs: 3, max_tokens: 1 };
    const [answer] = (await complete(body)).choices;
    const chunks = (await stream(body)).filter((chunk) => chunk !== "[DONE]");
    const parts = chunks.map(({ choices }) => choices[0]!);
    expect(parts.length).toBeGreaterThan(4);
    for (const { logprobs } of parts) expect(logprobs!.tokens.length).toBeLessThanOrEqual(256);
    expect(parts.map(({ text }) => text).join("")).toBe(answer!.text);
    for (const key of ["tokens", "token_logprobs", "top_logprobs", "text_offset"] as const) {
      expect(parts.flatMap(({ logprobs }) => logprobs![key] as unknown[])).toEqual(answer!.logprobs![key]);
    }
  });

  it("accepts every sampling field, and null as absent", async () => {
    await complete({
      temperature: 0.5,
      top_p: 0.9,
      top_k: -1,
      min_p: 0.1,
      repetition_penalty: 1.1,
      presence_penalty: -2,
      frequency_penalty: 2,
      logit_bias: { "7": -100, "8": 1.5 },
      seed: 42,
      stop: ["\n", "END"],
      stop_token_ids: [3, 4],
      min_tokens: 2,
      ignore_eos: true,
      include_stop_str_in_output: true,
      skip_special_tokens: false,
      n: null,
      best_of: null,
      logprobs: null,
      suffix: null,
      stream_options: null,
      user: null,
    });
    expect(server.generator.requests[0]).toMatchObject({
      minTokens: 2,
      stopStrings: ["\n", "END"],
      stopTokenIds: [3, 4],
      ignoreEos: true,
      includeStopString: true,
      skipSpecialTokens: false,
      sampling: {
        temperature: 0.5,
        topP: 0.9,
        topK: 0,
        minP: 0.1,
        repetitionPenalty: 1.1,
        presencePenalty: -2,
        frequencyPenalty: 2,
        logitBias: new Map([
          [7, -100],
          [8, 1.5],
        ]),
        seed: 42,
      },
    });
  });

  it.each([
    ["a text", "abc", [{ type: "text", text: "abc" }]],
    [
      "texts",
      ["a", "b"],
      [
        { type: "text", text: "a" },
        { type: "text", text: "b" },
      ],
    ],
    ["token ids", [1, 2], [{ type: "tokens", tokenIds: [1, 2] }]],
    [
      "lists of token ids",
      [[1], [2, 3]],
      [
        { type: "tokens", tokenIds: [1] },
        { type: "tokens", tokenIds: [2, 3] },
      ],
    ],
  ])("takes %s as its prompt", async (_name, prompt, expected) => {
    await complete({ prompt });
    expect(server.generator.requests[0]!.prompts).toEqual(expected);
  });

  it("numbers its choices prompt by prompt", async () => {
    const { choices } = await complete({ prompt: ["a", "b"], n: 2, best_of: 3 });
    expect(choices.map((choice) => choice.index)).toEqual([0, 1, 2, 3]);
    expect(server.generator.requests[0]).toMatchObject({ numChoices: 2, bestOf: 3 });
  });

  it("ends with length if max_tokens cuts it off", async () => {
    const { choices } = await complete({ max_tokens: 2 });
    expect(choices[0]).toMatchObject({ text: "Once upon", finish_reason: "length" });
  });

  it("returns token ids on request", async () => {
    const { choices } = await complete({ prompt: [5, 6], max_tokens: 2, return_token_ids: true });
    expect(choices[0]).toMatchObject({ token_ids: [FIRST_REPLY_ID, FIRST_REPLY_ID + 1], prompt_token_ids: [5, 6] });
  });

  it("returns prompt log-probabilities by token id, null for the first", async () => {
    const { choices } = await complete({ prompt: [65, 67], prompt_logprobs: 1, max_tokens: 1 });
    expect(choices[0]!.prompt_logprobs).toEqual([
      null,
      {
        "66": { logprob: -0.25, rank: 1, decoded_token: "B" },
        "67": { logprob: -1.5, rank: 2, decoded_token: "C" },
      },
    ]);
  });
});

describe("log-probabilities for lm-evaluation-harness", () => {
  const request = { prompt: [[72, 101, 121]], temperature: 0, max_tokens: 1, logprobs: 1, seed: 1234, echo: true };

  it("hold exactly one entry per prompt token and one for the generated token, null first", async () => {
    const { choices } = await complete(request);
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect(choices[0]!.text).toBe("HeyOnce");
    expect(tokens).toEqual(["H", "e", "y", "Once"]);
    expect(token_logprobs).toEqual([null, -1.5, -1.5, -0.25]);
    expect(top_logprobs).toEqual([null, { d: -0.25, e: -1.5 }, { x: -0.25, y: -1.5 }, { Once: -0.25 }]);
    expect(text_offset).toEqual([0, 1, 2, 3]);
  });

  it("have the argmax as the largest value, which shows whether a token is greedy", async () => {
    const { choices } = await complete(request);
    const { token_logprobs, top_logprobs } = choices[0]!.logprobs!;
    const isGreedy = token_logprobs.map(
      (value, i) => value === null || value === Math.max(...Object.values(top_logprobs[i]!)),
    );
    expect(isGreedy).toEqual([true, false, false, true]);
  });

  it("hold the prompt alone for max_tokens 0", async () => {
    const { choices } = await complete({ ...request, max_tokens: 0 });
    expect(choices[0]!.text).toBe("Hey");
    expect(choices[0]!.logprobs!.token_logprobs).toEqual([null, -1.5, -1.5]);
  });

  it("keep the larger number if two tokens have the same text", async () => {
    server.generator.script = { reply: ["x", "A"] };
    const { choices } = await complete({ logprobs: 2, max_tokens: 2 });
    // The second token is written "A" like the runner-up (-2.5), but has -1.5.
    expect(choices[0]!.logprobs!.top_logprobs[1]).toEqual({ x: -0.25, A: -1.5 });
  });

  it("count text offsets in characters, even across tokens that split one", async () => {
    const { choices } = await complete({
      prompt: [...new TextEncoder().encode("é!")],
      echo: true,
      logprobs: 0,
      max_tokens: 1,
    });
    expect(choices[0]!.logprobs!.text_offset).toEqual([0, 1, 1, 2]);
  });
});

describe("a streamed completion", () => {
  it("has one chunk per token, the last with the finish reason, then [DONE]", async () => {
    const events = await stream({});
    expect(events.at(-1)).toBe("[DONE]");
    const chunks = chunksOf(events);
    expect(chunks.map((chunk) => chunk.choices[0]!.text)).toEqual(["Once", " upon", " a", " time"]);
    expect(chunks.map((chunk) => chunk.choices[0]!.finish_reason)).toEqual([null, null, null, "stop"]);
    for (const chunk of chunks) {
      expect(chunk).toMatchObject({
        id: "cmpl-00000002",
        object: "text_completion",
        model: FAKE_MODEL,
        created: NOW_MS / 1000,
      });
      expect(chunk).not.toHaveProperty("usage");
    }
  });

  it("has the same choices as the answer without a stream", async () => {
    const body = { prompt: ["a", [66, 67]], n: 2, echo: true, logprobs: 2, return_token_ids: true };
    const whole = await complete(body);
    const folded = whole.choices.map((choice) => ({
      index: choice.index,
      text: "",
      finish: null as string | null,
      values: [] as unknown[],
    }));
    for (const chunk of chunksOf(await stream(body))) {
      const { index, text, finish_reason, logprobs } = chunk.choices[0]!;
      const choice = folded[index]!;
      choice.text += text;
      choice.finish ??= finish_reason;
      choice.values.push(...(logprobs?.token_logprobs ?? []), ...(logprobs?.text_offset ?? []));
    }
    for (const [index, choice] of whole.choices.entries()) {
      expect(folded[index]!.text).toBe(choice.text);
      expect(folded[index]!.finish).toBe(choice.finish_reason);
      const { token_logprobs, text_offset } = choice.logprobs!;
      expect([...folded[index]!.values].sort()).toEqual([...token_logprobs, ...text_offset].sort());
    }
  });

  it("ends with a usage chunk without choices when asked to", async () => {
    const chunks = chunksOf(await stream({ stream_options: { include_usage: true } }));
    expect(chunks.at(-1)!.choices).toEqual([]);
    expect(chunks.at(-1)!.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 });
    for (const chunk of chunks.slice(0, -1)) expect(chunk.usage).toBeNull();
  });

  it("never has an event line", async () => {
    const response = await server.post(PATH, { prompt: "Hi", stream: true });
    expect(await response.text()).not.toMatch(/^event:/m);
  });

  it("escapes text as JSON does", async () => {
    server.generator.script = { reply: ['"\n\\', "\u2028é🙂", "\ud83d"] };
    const chunks = chunksOf(await stream({}));
    expect(chunks.map((chunk) => chunk.choices[0]!.text)).toEqual(['"\n\\', "\u2028é🙂", "\ud83d"]);
  });

  it("leaves out deltas without text", async () => {
    server.generator.script = { reply: ["a", "", "b"] };
    const chunks = chunksOf(await stream({}));
    expect(chunks.map((chunk) => chunk.choices[0]!.text)).toEqual(["a", "b"]);
  });

  it("reports a failure in mid-stream as an error chunk and ends without [DONE]", async () => {
    server.generator.script = { reply: ["a", "b", "c"], failure: { afterDeltas: 2, error: runtimeFault() } };
    const events = await stream({});
    expect(events.slice(0, 2)).toMatchObject([{ choices: [{ text: "a" }] }, { choices: [{ text: "b" }] }]);
    expect(events.slice(2)).toEqual([
      { error: { message: "the runtime failed: injected", type: "server_error", param: null, code: "runtime_fault" } },
    ]);
    expect(server.logLines.filter((line) => line.level === "error")).toHaveLength(1);
  });

  it("stops generating when the client cancels", async () => {
    const reply = Array.from({ length: 10_000 }, () => "x");
    server.generator.script = { reply };
    const response = await server.post(PATH, { prompt: "Hi", stream: true, max_tokens: 10_000 });
    const reader = response.body!.getReader();
    await reader.read();
    await reader.cancel();
    await expect.poll(() => server.generator.numRunning).toBe(0);
    expect(server.generator.numAborted).toBe(1);
  });
});
