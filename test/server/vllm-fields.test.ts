/**
 * Fields that vLLM's and llama.cpp's clients send, over the real generation, engine, runtime and
 * default model.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { DEFAULT_SERVER_OPTIONS, sseData } from "../helpers/server-deps.ts";

const PROMPT = "Once upon a time there was a king who";
const EOS = 2;

let server: RealServer;
beforeAll(async () => {
  // As the generator's here.
  const options = { limits: { ...DEFAULT_SERVER_OPTIONS.limits, maxPromptTokens: 2000, maxOutputTokens: 2000 } };
  server = await startRealServer({ options });
});
afterAll(() => server?.close());

interface Logprobs {
  tokens: string[];
  token_logprobs: number[];
  top_logprobs: (Record<string, number> | null)[];
}
interface Answer {
  choices: {
    text: string;
    token_ids: number[];
    prompt_token_ids: number[];
    finish_reason: string;
    logprobs: Logprobs | null;
    prompt_logprobs: (Record<string, { logprob: number; rank: number }> | null)[];
  }[];
  usage: { prompt_tokens: number; completion_tokens: number };
}

async function ask<T>(route: string, body: object): Promise<T> {
  const response = await post(server.url + route, body);
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as T;
}

async function complete(body: object): Promise<Answer["choices"][number]> {
  const fields = { prompt: PROMPT, temperature: 0, max_tokens: 12, return_token_ids: true, ...body };
  return (await ask<Answer>("/v1/completions", fields)).choices[0]!;
}

async function tokenize(prompt: string): Promise<number[]> {
  return (await ask<{ tokens: number[] }>("/tokenize", { prompt, add_special_tokens: false })).tokens;
}

describe("bad_words", () => {
  it("are not written, as whole words, parts of words, or several words", async () => {
    const { text } = await complete({});
    const words = text.trim().split(" ");
    for (const bad of [words[1]!, ` ${words[2]}`, `${words[0]} ${words[1]}`]) {
      const { text: other } = await complete({ bad_words: [bad] });
      expect(other).not.toContain(bad);
    }
    const several = await complete({ bad_words: words.slice(0, 3), temperature: 1, seed: 3, max_tokens: 40 });
    for (const bad of words.slice(0, 3)) expect(several.text.split(/\W+/)).not.toContain(bad);
  });

  it("are left out of chats and responses too", async () => {
    const input = [{ role: "user", content: "Tell me of the sea." }];
    const common = { temperature: 0, bad_words: ["the"], seed: 1 };
    const chat = await ask<{ choices: { message: { content: string } }[] }>("/v1/chat/completions", {
      ...{ messages: input, max_tokens: 40 },
      ...common,
    });
    expect(chat.choices[0]!.message.content.split(/\W+/)).not.toContain("the");
    const made = await ask<{ output: { content: { text: string }[] }[] }>("/v1/responses", {
      ...{ input, max_output_tokens: 40 },
      ...common,
    });
    expect(made.output[0]!.content[0]!.text.split(/\W+/)).not.toContain("the");
  });
});

it("allowed_token_ids are the only ones", async () => {
  const allowed = await tokenize(" yes no");
  const { token_ids } = await complete({ allowed_token_ids: allowed, temperature: 1.5, seed: 1 });
  expect(token_ids).toHaveLength(12);
  expect(token_ids.filter((id) => !allowed.includes(id))).toEqual([]);
});

it("repeat_penalty is repetition_penalty", async () => {
  const [plain, one, other] = [
    await complete({ max_tokens: 60 }),
    await complete({ max_tokens: 60, repeat_penalty: 1.5 }),
    await complete({ max_tokens: 60, repetition_penalty: 1.5 }),
  ];
  expect(one.text).toBe(other.text);
  expect(one.text).not.toBe(plain.text);
});

it("truncation_side decides which end of the prompt is left out", async () => {
  const ids = await tokenize(PROMPT);
  const kept = async (side: object) =>
    (await complete({ prompt: [ids], truncate_prompt_tokens: 4, max_tokens: 1, ...side })).prompt_token_ids;
  expect(await kept({})).toEqual(ids.slice(-4));
  expect(await kept({ truncation_side: "left" })).toEqual(ids.slice(-4));
  expect(await kept({ truncation_side: "right" })).toEqual(ids.slice(0, 4));
  expect((await complete({ truncate_prompt_tokens: -1, prompt: "sea ".repeat(3000), max_tokens: 1 })).text).toBeTypeOf(
    "string",
  );
  const text = await complete({ truncate_prompt_tokens: 4, truncation_side: "right", echo: true, max_tokens: 1 });
  expect(text.prompt_token_ids).toHaveLength(4);
});

it("return_tokens_as_token_ids names tokens by their ids", async () => {
  const body = { logprobs: 3, echo: true, max_tokens: 4, return_tokens_as_token_ids: true };
  const { prompt_token_ids, token_ids, logprobs } = await complete(body);
  const names = [...prompt_token_ids, ...token_ids].map((id) => `token_id:${id}`);
  expect(logprobs!.tokens).toEqual(names);
  for (const [place, top] of logprobs!.top_logprobs.entries()) {
    if (top === null) continue;
    expect(Object.keys(top).every((name) => /^token_id:\d+$/.test(name))).toBe(true);
    expect(top[names[place]!]).toBe(logprobs!.token_logprobs[place]);
  }
  const streamed = await post(`${server.url}/v1/completions`, {
    prompt: PROMPT,
    temperature: 0,
    stream: true,
    ...body,
  });
  const chunks = sseData(await streamed.text()).slice(0, -1) as Answer[];
  expect(chunks.flatMap(({ choices }) => choices[0]!.logprobs?.tokens ?? [])).toEqual(names);

  const messages = [{ role: "user", content: "Hi" }];
  const chat = { messages, logprobs: true, top_logprobs: 2, max_tokens: 3, return_tokens_as_token_ids: true };
  const { choices } = await ask<{ choices: { logprobs: { content: { token: string; top_logprobs: object[] }[] } }[] }>(
    "/v1/chat/completions",
    { ...chat, temperature: 0, return_token_ids: true },
  );
  for (const { token, top_logprobs } of choices[0]!.logprobs.content) {
    expect(token).toMatch(/^token_id:\d+$/);
    expect(top_logprobs).toContainEqual(expect.objectContaining({ token }));
  }
});

it("continuous_usage_stats has the usage so far in each chunk, which ends as the usage", async () => {
  const options = { include_usage: true, continuous_usage_stats: true };
  for (const [route, prompt] of [
    ["/v1/completions", { prompt: PROMPT }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: PROMPT }] }],
  ] as const) {
    const body = { ...prompt, max_tokens: 6, temperature: 0, ignore_eos: true, stream: true, stream_options: options };
    const chunks = sseData(await (await post(server.url + route, body)).text()).slice(0, -1) as Answer[];
    const counts = chunks.map(({ usage }) => usage.completion_tokens);
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect(counts[0]).toBeLessThan(2);
    expect(counts.slice(-2)).toEqual([6, 6]);
    expect(new Set(chunks.map(({ usage }) => usage.prompt_tokens)).size).toBe(1);
  }
});

it("prompt_logprobs has the rank of every token among all tokens", async () => {
  const { prompt_logprobs, prompt_token_ids } = await complete({
    prompt: "zebra qux 77",
    prompt_logprobs: 2,
    max_tokens: 1,
  });
  let numUnlikely = 0;
  for (const [place, entries] of prompt_logprobs.entries()) {
    if (entries === null) continue;
    const own = entries[prompt_token_ids[place]!]!;
    const better = Object.values(entries).filter(({ logprob }) => logprob > own.logprob).length;
    expect(own.rank).toBeGreaterThan(better);
    if (own.rank > 2) numUnlikely++;
  }
  expect(numUnlikely).toBeGreaterThan(0);
});

it("echo shows the special tokens of a prompt of token ids, and not those that the tokenizer adds", async () => {
  const ids = [EOS, ...(await tokenize("Once")), EOS];
  const { choices } = await ask<Answer>("/v1/completions", { prompt: [ids], echo: true, max_tokens: 0 });
  const shown = await ask<{ prompt: string }>("/detokenize", { tokens: ids });
  expect(choices[0]!.text).toBe(shown.prompt);
  expect(choices[0]!.text.length).toBeGreaterThan("Once".length);
  expect((await complete({ prompt: "Once", echo: true, max_tokens: 1 })).text).toMatch(/^Once/);
});

describe("the token that ended an answer", () => {
  const ending = { logit_bias: { [EOS]: 100 }, min_tokens: 2, temperature: 0 };

  it("is not among a chat's log-probabilities, streamed or not", async () => {
    const body = { messages: [{ role: "user", content: "Hi" }], logprobs: true, max_tokens: 8, ...ending };
    type Chat = { choices: { logprobs: { content: { token: string }[] } | null; finish_reason: string }[] };
    const { choices, usage } = await ask<Chat & Pick<Answer, "usage">>("/v1/chat/completions", body);
    expect(choices[0]!.finish_reason).toBe("stop");
    expect(usage.completion_tokens).toBe(3);
    expect(choices[0]!.logprobs!.content).toHaveLength(2);
    const streamed = await post(`${server.url}/v1/chat/completions`, { ...body, stream: true });
    const chunks = sseData(await streamed.text()).slice(0, -1) as Chat[];
    expect(chunks.flatMap((chunk) => chunk.choices[0]!.logprobs?.content ?? [])).toEqual(choices[0]!.logprobs!.content);
  });

  it("is not among a response's", async () => {
    const include = ["message.output_text.logprobs"];
    const body = { input: "Hi", include, max_output_tokens: 8, ...ending };
    const { output } = await ask<{ output: { content: { logprobs: object[] }[] }[] }>("/v1/responses", body);
    expect(output[0]!.content[0]!.logprobs).toHaveLength(2);
  });

  it("is shown, with its log-probability, where it belongs to the text", async () => {
    const shown = { include_stop_str_in_output: true, skip_special_tokens: false };
    const messages = [{ role: "user", content: "Hi" }];
    const { choices } = await ask<{ choices: { logprobs: { content: object[] } }[] }>("/v1/chat/completions", {
      ...{ messages, logprobs: true, max_tokens: 8 },
      ...ending,
      ...shown,
    });
    expect(choices[0]!.logprobs.content).toHaveLength(3);
  });

  it("is among a completion's, as lm-evaluation-harness needs it", async () => {
    expect((await complete({ logprobs: 0, ...ending })).logprobs!.tokens).toHaveLength(3);
  });
});

it("/tokenize renders messages as a chat does", async () => {
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Tell me of the sea." },
    { role: "assistant", content: "It is" },
  ];
  for (const fields of [{ messages }, { messages, continue_final_message: true }]) {
    const { tokens } = await ask<{ tokens: number[] }>("/tokenize", fields);
    const chat = { ...fields, max_tokens: 1, return_token_ids: true };
    const { prompt_token_ids } = await ask<{ prompt_token_ids: number[] }>("/v1/chat/completions", chat);
    expect(tokens).toEqual(prompt_token_ids);
  }
});

it("add_special_tokens: true adds the tokenizer's own to a chat", async () => {
  const messages = [{ role: "user", content: "Hi" }];
  const idsWith = async (add_special_tokens: boolean) => {
    const body = { messages, add_special_tokens, max_tokens: 1, return_token_ids: true };
    return (await ask<{ prompt_token_ids: number[] }>("/v1/chat/completions", body)).prompt_token_ids;
  };
  const special = (await ask<{ tokens: number[] }>("/tokenize", { prompt: "" })).tokens;
  expect(special.length).toBeGreaterThan(0);
  expect(await idsWith(true)).toEqual([...special, ...(await idsWith(false))]);
});

it("a prompt that is too long has OpenAI's words and code", async () => {
  const messages = [{ role: "user", content: "sea ".repeat(3000) }];
  const response = await post(`${server.url}/v1/chat/completions`, { messages });
  expect(response.status).toBe(400);
  const { error } = (await response.json()) as { error: { code: string; message: string } };
  expect(error.code).toBe("context_length_exceeded");
  expect(error.message).toMatch(
    /^This model's maximum context length is 2000 tokens\. However, your messages resulted in \d{4} tokens/,
  );
});
