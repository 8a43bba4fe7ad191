import { beforeEach, describe, expect, it } from "vitest";
import { DenseMambaError, type ErrorCode } from "../../src/errors.ts";
import { createTestServer, DEFAULT_SERVER_OPTIONS, type TestServer } from "../helpers/server-deps.ts";

const { limits } = DEFAULT_SERVER_OPTIONS;
const COMPLETIONS = "/v1/completions";
const CHAT = "/v1/chat/completions";
const RESPONSES = "/v1/responses";

interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
});

async function refusal(path: string, body: unknown, status = 400): Promise<ErrorBody["error"]> {
  const response = await server.post(path, body);
  expect(response.status, await response.clone().text()).toBe(status);
  expect(response.headers.get("x-request-id")).toBeTruthy();
  const { error } = (await response.json()) as ErrorBody;
  expect(server.generator.requests).toEqual([]);
  return error;
}

type Row = [field: string, value: unknown, message: string];

describe.each<[path: string, base: object, rows: Row[]]>([
  [
    COMPLETIONS,
    { prompt: "a" },
    [
      ["temperature", 2.1, "temperature must be at most 2; got 2.1"],
      ["temperature", -1, "temperature must be at least 0; got -1"],
      ["temperature", "hot", 'temperature must be a number; got "hot"'],
      ["top_p", -0.1, "top_p must be at least 0; got -0.1"],
      ["top_p", 1.5, "top_p must be at most 1; got 1.5"],
      ["top_k", -2, "top_k must be at least -1; got -2"],
      ["top_k", 1.5, "top_k must be an integer; got 1.5"],
      ["min_p", 1.1, "min_p must be at most 1; got 1.1"],
      ["repetition_penalty", 0, "repetition_penalty must be greater than 0; got 0"],
      ["presence_penalty", 2.5, "presence_penalty must be at most 2; got 2.5"],
      ["frequency_penalty", -2.5, "frequency_penalty must be at least -2; got -2.5"],
      ["n", 0, "n must be at least 1; got 0"],
      ["n", 129, "n must be at most 128; got 129"],
      ["n", 1e300, "n must be at most 128; got 1e+300"],
      ["best_of", 1_000_000, "best_of must be at most 128; got 1000000"],
      ["max_tokens", -2, "max_tokens must be at least 0, or -1 for the server's limit; got -2"],
      ["max_tokens", 2.5, "max_tokens must be an integer; got 2.5"],
      ["max_tokens", 0, "max_tokens must be at least 1 unless echo is true or prompt_logprobs is set; got 0"],
      ["min_tokens", 1e12, `min_tokens must be at most ${limits.maxOutputTokens}; got 1000000000000`],
      ["logprobs", 21, "logprobs must be at most 20; got 21"],
      ["logprobs", -1, "logprobs must be at least 0; got -1"],
      ["logprobs", true, "logprobs must be a number; got true"],
      ["prompt_logprobs", 21, "prompt_logprobs must be at most 20; got 21"],
      ["seed", 0.5, "seed must be an integer; got 0.5"],
      ["seed", "5", 'seed must be an integer; got "5"'],
      ["seed", 2 ** 64, "seed must be an integer from -2^63 to 2^64 - 1; got 18446744073709552000"],
      ["seed", 1e300, "seed must be an integer from -2^63 to 2^64 - 1; got 1000"],
      ["echo", "yes", 'echo must be a boolean; got "yes"'],
      ["stream", 1, "stream must be a boolean; got 1"],
      ["stop", 5, "stop must be a string or a list; got 5"],
      ["stop", "x".repeat(257), "stop must have at most 256 characters; got 257"],
      ["stop", Array(33).fill("x"), "stop must have at most 32 items; got 33"],
      ["stop_token_ids", [512], "stop_token_ids[0] must be a token id, an integer from 0 to 511; got 512"],
      ["logit_bias", [1], "logit_bias must be an object from token ids to biases; got [1]"],
      ["logit_bias", { "512": 1 }, 'logit_bias has keys that are token ids from 0 to 511; got "512"'],
      ["logit_bias", { x: 1 }, 'logit_bias has keys that are token ids from 0 to 511; got "x"'],
      ["truncate_prompt_tokens", 0, "truncate_prompt_tokens must be at least 1, or -1 for the longest prompt; got 0"],
      ["truncation_side", "middle", 'truncation_side must be one of "left", "right"; got "middle"'],
      ["allowed_token_ids", [512], "allowed_token_ids[0] must be a token id, an integer from 0 to 511; got 512"],
      ["allowed_token_ids", Array(513).fill(1), "allowed_token_ids must have at most 512 items; got 513"],
      ["bad_words", ["a", ""], "bad_words[1] must have at least 1 character; got 0"],
      ["bad_words", ["a".repeat(257)], "bad_words[0] must have at most 256 characters; got 257"],
      ["bad_words", Array(257).fill("a"), "bad_words must have at most 256 items; got 257"],
      ["repeat_penalty", 0, "repeat_penalty must be greater than 0; got 0"],
      ["return_tokens_as_token_ids", "no", 'return_tokens_as_token_ids must be a boolean; got "no"'],
      ["stream_options", { include_usage: true }, "stream_options is only allowed when stream is true"],
      ["session_id", "../../etc/passwd", "session_id must be of letters"],
      ["session_id", "x".repeat(129), "session_id must have at most 128 characters; got 129"],
      ["model", 5, "model must be a string; got 5"],
      ["prompt", "", "prompt must not be empty"],
      ["prompt", [], "prompt must not be empty"],
      ["prompt", null, "prompt is required"],
      ["prompt", 5, "prompt must be a string, a list of strings, a list of token ids or a list of such lists; got 5"],
      ["prompt", { text: "a" }, "prompt must be a string, a list of strings"],
      ["prompt", Array(129).fill("a"), "prompt must have at most 128 prompts; got 129"],
    ],
  ],
  [
    CHAT,
    { messages: [{ role: "user", content: "a" }] },
    [
      ["messages", null, "messages is required"],
      ["messages", [], "messages must have at least 1 item; got 0"],
      ["messages", "hi", 'messages must be a list; got "hi"'],
      ["max_tokens", 0, "max_tokens must be at least 1, or -1 for the server's limit; got 0"],
      ["max_completion_tokens", -5, "max_completion_tokens must be at least 1, or -1 for the server's limit; got -5"],
      ["top_logprobs", 21, "top_logprobs must be at most 20; got 21"],
      ["top_logprobs", 3, "top_logprobs is only allowed when logprobs is true"],
      ["n", 200, "n must be at most 128; got 200"],
      ["chat_template_kwargs", [], "chat_template_kwargs must be an object; got []"],
    ],
  ],
  [
    RESPONSES,
    { input: "a" },
    [
      ["input", null, "input is required"],
      ["input", "", "input must not be empty"],
      ["input", [], "input must not be empty"],
      ["input", 7, "input must be a string or a list of at most 10000 items; got 7"],
      ["max_output_tokens", 0, "max_output_tokens must be at least 1, or -1 for the server's limit; got 0"],
      ["truncation", "some", 'truncation must be one of "auto", "disabled"; got "some"'],
      [
        "metadata",
        Object.fromEntries([...Array(17).keys()].map((i) => [i, "x"])),
        "metadata must have at most 16 pairs; got 17",
      ],
      ["metadata", { ["k".repeat(65)]: "v" }, "metadata must have keys of at most 64 characters; got one of 65"],
      ["top_logprobs", 2, 'top_logprobs needs "message.output_text.logprobs" in include'],
      ["instructions", 5, "instructions must be a string; got 5"],
    ],
  ],
])("%s refuses, naming the bound and the value,", (path, base, rows) => {
  it.each(rows)("%s: %j", async (field, value, message) => {
    const error = await refusal(path, { ...base, [field]: value });
    expect(error.message).toContain(message);
    expect(error).toMatchObject({ type: "invalid_request_error", code: "invalid_value" });
    expect(error.param).toMatch(new RegExp(`^${field}(\\[|\\.|$)`));
  });
});

it.each<[path: string, body: object, param: string, message: string]>([
  [COMPLETIONS, { prompt: [1, 512] }, "prompt[1]", "must be a token id, an integer from 0 to 511; got 512"],
  [COMPLETIONS, { prompt: [1, -1] }, "prompt[1]", "got -1"],
  [COMPLETIONS, { prompt: [0.5] }, "prompt[0]", "got 0.5"],
  [COMPLETIONS, { prompt: [[1], [2, 1e9]] }, "prompt[1][1]", "got 1000000000"],
  [COMPLETIONS, { prompt: [[1], []] }, "prompt[1]", "must not be empty"],
  [COMPLETIONS, { prompt: ["a", 5] }, "prompt[1]", "must be a string or a list of token ids; got 5"],
  [COMPLETIONS, { prompt: [1, "a"] }, "prompt[1]", 'got "a"'],
  [COMPLETIONS, { prompt: "a", stop: ["a", 3] }, "stop[1]", "must be a string; got 3"],
  [
    COMPLETIONS,
    { prompt: "a", logit_bias: { "5": 101 } },
    "logit_bias.5",
    "must be a number from -100 to 100; got 101",
  ],
  [COMPLETIONS, { prompt: "a", n: 3, best_of: 2 }, "best_of", "must be at least n (3); got 2"],
  [COMPLETIONS, { prompt: "a", best_of: 2, stream: true }, "best_of", "must equal n (1) when stream is true; got 2"],
  [COMPLETIONS, { prompt: ["a", "b", "c"], n: 50 }, "n", "prompts x best_of must be at most 128; got 150"],
  [COMPLETIONS, { prompt: ["a", "b"], session_id: "s" }, "session_id", "needs exactly one prompt; got 2"],
  [COMPLETIONS, { prompt: "a", n: 2, session_id: "s" }, "session_id", "needs n and best_of to be 1; got 2"],
  [
    COMPLETIONS,
    { prompt: "a", stream: true, prompt_logprobs: 1 },
    "prompt_logprobs",
    "not allowed when stream is true",
  ],
  [CHAT, { messages: [{ role: "user" }] }, "messages[0].content", "is required"],
  [
    CHAT,
    { messages: [{ role: "user", content: 5 }] },
    "messages[0].content",
    "must be a string or a list of text parts; got 5",
  ],
  [CHAT, { messages: [{ content: "a" }] }, "messages[0].role", "must be one of"],
  [CHAT, { messages: [{ role: "robot", content: "a" }] }, "messages[0].role", 'got "robot"'],
  [CHAT, { messages: ["a"] }, "messages[0]", 'must be an object; got "a"'],
  [
    CHAT,
    { messages: [{ role: "user", content: [{ type: "text" }] }] },
    "messages[0].content[0].text",
    "must be a string",
  ],
  [
    CHAT,
    { messages: [{ role: "user", content: "a" }], continue_final_message: true, add_generation_prompt: true },
    "continue_final_message",
    "can't be true together with add_generation_prompt",
  ],
  [
    CHAT,
    { messages: [{ role: "user", content: "a" }], chat_template_kwargs: { messages: [] } },
    "chat_template_kwargs.messages",
    "is set by the server",
  ],
  [CHAT, { messages: [{ role: "user", content: null }] }, "messages[0].content", "got null"],
  [
    CHAT,
    { messages: [{ role: "assistant", content: [{ type: "refusal" }] }] },
    "messages[0].content[0].refusal",
    "string",
  ],
  [RESPONSES, { input: [{ role: "user", content: 5 }] }, "input[0].content", "got 5"],
  [RESPONSES, { input: [{ role: "robot", content: "a" }] }, "input[0].role", "must be one of"],
  [RESPONSES, { input: "a", metadata: { a: 5 } }, "metadata.a", "must be a string; got 5"],
  [CHAT, { messages: [{ role: "user", content: "a" }], response_format: {} }, "response_format.type", "json_schema"],
  [
    CHAT,
    { messages: [{ role: "user", content: "a" }], response_format: { type: "json_schema" } },
    "response_format.json_schema",
    "must be an object",
  ],
  [
    RESPONSES,
    { input: "a", text: { format: { type: "json_schema", schema: 5 } } },
    "text.format.schema",
    "must be a JSON schema; got 5",
  ],
  [COMPLETIONS, { prompt: "a", guided_json: "{" }, "guided_json", "must be a JSON schema, or one as a string"],
  [COMPLETIONS, { prompt: "a", guided_choice: [] }, "guided_choice", "at least 1 item"],
  [COMPLETIONS, { prompt: "a", structured_outputs: {} }, "structured_outputs", "must have one of json, regex"],
  [COMPLETIONS, { prompt: "a", structured_outputs: { json: {}, regex: "a" } }, "structured_outputs.regex", "with json"],
  [
    COMPLETIONS,
    { prompt: "a", guided_regex: "a", grammar: "b" },
    "grammar",
    "can't be given together with guided_regex",
  ],
  [RESPONSES, { input: "a", metadata: { a: "x".repeat(513) } }, "metadata.a", "at most 512 characters; got 513"],
])("%s %j is refused at %s", async (path, body, param, message) => {
  const error = await refusal(path, body);
  expect(error.message).toContain(message);
  expect(error).toMatchObject({ code: "invalid_value", param });
});

it.each<[path: string, body: object, param: string]>([
  [COMPLETIONS, { prompt: "a", suffix: "b" }, "suffix"],
  [COMPLETIONS, { prompt: "a", use_beam_search: true }, "use_beam_search"],
  [COMPLETIONS, { prompt: "a", max_completion_tokens: 5 }, "max_completion_tokens"],
  [COMPLETIONS, { prompt: "a", typical_p: 0.5 }, "typical_p"],
  [COMPLETIONS, { prompt: "a", mirostat: 2 }, "mirostat"],
  [COMPLETIONS, { prompt: "a", instructions: "Be brief." }, "instructions"],
  [COMPLETIONS, { prompt: "a", previous_response_id: "resp_1" }, "previous_response_id"],
  [COMPLETIONS, { prompt: "a", messages: [{ role: "user", content: "b" }] }, "messages"],
  [COMPLETIONS, { prompt: "a", stop_sequences: ["b"] }, "stop_sequences"],
  [COMPLETIONS, { prompt: "a", random_seed: 1 }, "random_seed"],
  [COMPLETIONS, { prompt: "a", num_predict: 5 }, "num_predict"],
  [CHAT, { messages: [{ role: "user", content: "a" }], instructions: "Be brief." }, "instructions"],
  [CHAT, { messages: [{ role: "user", content: "a" }], previous_response_id: "r" }, "previous_response_id"],
  [CHAT, { messages: [{ role: "user", content: "a" }], text: { format: { type: "json_object" } } }, "text"],
  [CHAT, { messages: [{ role: "user", content: "a" }], input: "b" }, "input"],
  [COMPLETIONS, { prompt: "a", do_sample: false }, "do_sample"],
  [COMPLETIONS, { prompt: "a", n_predict: 5 }, "n_predict"],
  [CHAT, { messages: [{ role: "user", content: "a" }], best_of: 2 }, "best_of"],
  [CHAT, { messages: [{ role: "user", content: "a" }], echo: true }, "echo"],
  [CHAT, { messages: [{ role: "user", content: "a" }], xtc_probability: 0.5 }, "xtc_probability"],
  [CHAT, { messages: [{ role: "assistant", function_call: {} }] }, "messages[0].function_call"],
  [CHAT, { messages: [{ role: "user", content: [{ type: "refusal", refusal: "a" }] }] }, "messages[0].content[0].type"],
  [RESPONSES, { input: "a", max_tokens: 5 }, "max_tokens"],
  [RESPONSES, { input: "a", max_completion_tokens: 5 }, "max_completion_tokens"],
  [RESPONSES, { input: "a", n: 2 }, "n"],
  [RESPONSES, { input: "a", session_id: "s" }, "session_id"],
  [RESPONSES, { input: "a", logprobs: true }, "logprobs"],
  [RESPONSES, { input: "a", guided_regex: "x" }, "guided_regex"],
  [CHAT, { messages: [{ role: "user", content: "a" }], functions: [{}] }, "functions"],
  [CHAT, { messages: [{ role: "user", content: "a" }], modalities: ["text", "audio"] }, "modalities"],
  [CHAT, { messages: [{ role: "user", content: "a" }], audio: { voice: "x" } }, "audio"],
  [CHAT, { messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages[0].content[0].type"],
  [CHAT, { messages: [{ role: "user", content: "a" }], chat_template: "{{ x }}" }, "chat_template"],
  [RESPONSES, { input: "a", tools: [{ type: "web_search" }] }, "tools[0].type"],
  [COMPLETIONS, { prompt: "a", conversation: "c" }, "conversation"],
  [CHAT, { messages: [{ role: "user", content: "a" }], conversation: "c" }, "conversation"],
  [RESPONSES, { input: [{ type: "computer_call_output", output: "" }] }, "input[0].type"],
  [RESPONSES, { input: [{ role: "user", content: [{ type: "input_image" }] }] }, "input[0].content[0].type"],
])("%s %j is refused as unsupported at %s", async (path, body, param) => {
  const error = await refusal(path, body);
  expect(error).toMatchObject({ code: "unsupported_value", type: "invalid_request_error", param });
  expect(error.message).toContain("is not supported");
});

it.each<[path: string, body: object]>([
  [
    COMPLETIONS,
    { prompt: "a", typical_p: 1, mirostat: 0, repeat_penalty: 1, do_sample: true, bad_words: [], suffix: "" },
  ],
  [CHAT, { messages: [{ role: "user", content: "a" }], best_of: 1, echo: false, tfs_z: 1, dry_multiplier: 0.0 }],
  [RESPONSES, { input: "a", n: 1, logprobs: false, text: { format: null }, top_n_sigma: -1 }],
  [COMPLETIONS, { prompt: "a", top_p: 0, stop: "", model: "" }],
  [COMPLETIONS, { prompt: "a", stop: ["", "b"] }],
  [CHAT, { messages: [{ role: "user", content: "a" }], tools: [], tool_choice: "auto" }],
])("%s %j asks for nothing that is not done", async (path, body) => {
  const response = await server.post(path, body);
  expect(response.status, await response.clone().text()).toBe(200);
});

it.each([
  "9007199254740991",
  "-9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "4611686018427387904",
  "9223372036854775807",
  "-9223372036854775808",
  "9223372036854775808",
  "18446744073709551615",
  "9.007199254740992e15",
])("a seed of %s is taken to the last digit, on every endpoint", async (digits) => {
  const message = { role: "user", content: '"seed": 9007199254740993, \\' };
  for (const [path, body] of [
    [COMPLETIONS, { prompt: message.content }],
    [CHAT, { messages: [message], chat_template_kwargs: { seed: 5 } }],
    [RESPONSES, { input: [message] }],
  ] as const) {
    const json = JSON.stringify({ ...body, n: null }).replace(/,"n":null\}$/, `, "seed" : ${digits} }`);
    const response = await server.post(path, json);
    expect(response.status, await response.clone().text()).toBe(200);
  }
  // One of unsigned 64 bits is the signed one with the same bits.
  const exact = BigInt.asIntN(64, digits.includes("e") ? BigInt(Number(digits)) : BigInt(digits));
  expect(server.generator.requests.map(({ sampling }) => BigInt(sampling.seed!))).toEqual([exact, exact, exact]);
});

it.each([
  [COMPLETIONS, { prompt: "a" }, "max_tokens"],
  [CHAT, { messages: [{ role: "user", content: "a" }] }, "max_tokens"],
  [CHAT, { messages: [{ role: "user", content: "a" }] }, "max_completion_tokens"],
  [RESPONSES, { input: "a" }, "max_output_tokens"],
])("%s %j takes a %s of -1, and one beyond the server's limit, as that limit", async (path, body, field) => {
  for (const given of [-1, 32_000, 1e9]) {
    const response = await server.post(path, { ...body, [field]: given });
    expect(response.status, await response.clone().text()).toBe(200);
    expect(server.generator.requests.at(-1)!.maxTokens).toBe(limits.maxOutputTokens);
  }
});

it("an empty stop string stops nothing", async () => {
  await server.post(COMPLETIONS, { prompt: "a", stop: ["", "b", ""] });
  await server.post(COMPLETIONS, { prompt: "a", stop: "" });
  expect(server.generator.requests.map(({ stopStrings }) => stopStrings)).toEqual([["b"], []]);
});

describe("a body", () => {
  it.each([COMPLETIONS, CHAT, RESPONSES, "/tokenize", "/detokenize", "/v1/sessions"])(
    "of %s must be JSON",
    async (path) => {
      const error = await refusal(path, '{"prompt":');
      expect(error).toMatchObject({ code: "invalid_value" });
      expect(error.message).toContain("the body is not valid JSON");
    },
  );

  it.each(["[]", "5", '"a"', "null"])("must be an object, not %s", async (body) => {
    expect((await refusal(COMPLETIONS, body)).message).toBe(`the body must be a JSON object; got ${body}`);
  });

  it("must be declared as JSON", async () => {
    const response = await server.post(COMPLETIONS, { prompt: "a" }, { "content-type": "text/plain" });
    expect(response.status).toBe(415);
    expect(((await response.json()) as ErrorBody).error.message).toBe(
      'the content-type must be application/json; got "text/plain"',
    );
  });

  it("over the limit is refused by its announced length", async () => {
    const response = await server.post(
      COMPLETIONS,
      { prompt: "a" },
      { "content-length": String(limits.maxBodyBytes + 1) },
    );
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ error: { code: "body_too_large" } });
  });

  it("over the limit and without a length is refused while it arrives", async () => {
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += 1024 * 1024;
        controller.enqueue(new Uint8Array(1024 * 1024).fill(32));
      },
    });
    const request = new Request(`http://localhost${COMPLETIONS}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
      duplex: "half",
    } as RequestInit);
    const response = await server.app.fetch(request);
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(limits.maxBodyBytes + 4 * 1024 * 1024);
  });

  it("may have unknown fields, which are logged, and hostile names change nothing", async () => {
    const response = await server.post(COMPLETIONS, '{"prompt":"a","__proto__":{"n":5},"constructor":1,"whatever":1}');
    expect(response.status).toBe(200);
    expect(server.generator.requests[0]!.numChoices).toBe(1);
    expect(server.logLines.find((line) => line.level === "debug")?.fields).toEqual({
      fields: ["__proto__", "constructor", "whatever"],
    });
  });
});

it("an unknown model is a 404 that names the served one", async () => {
  const error = await refusal(COMPLETIONS, { model: "gpt-9", prompt: "a" }, 404);
  expect(error).toMatchObject({ code: "model_not_found", param: "model" });
  expect(error.message).toContain('"fake-4m"');
});

it.each([
  [CHAT, { messages: [{ role: "user", content: "a" }] }],
  [COMPLETIONS, { prompt: "a" }],
])("an unknown session is a 404 on %s", async (path, body) => {
  const response = await server.post(path, { ...body, session_id: "nope" });
  expect(response.status).toBe(404);
  expect(await response.json()).toMatchObject({ error: { code: "session_not_found", param: "session_id" } });
});

it("an unknown previous response is a 400 with OpenAI's code", async () => {
  const response = await server.post(RESPONSES, { input: "a", previous_response_id: "resp_nope" });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({
    error: { code: "previous_response_not_found", param: "previous_response_id" },
  });
});

it.each<[ErrorCode, number, string, Record<string, string | null>]>([
  ["queue_full", 429, "rate_limit_error", { "retry-after": "1", "retry-after-ms": "1000" }],
  ["not_ready", 503, "server_error", { "retry-after": "2", "retry-after-ms": "2000" }],
  ["shutting_down", 503, "server_error", { "retry-after": "2" }],
  ["session_busy", 409, "invalid_request_error", { "retry-after-ms": "500" }],
  ["session_exists", 409, "invalid_request_error", { "x-should-retry": "false" }],
  ["runtime_fault", 500, "server_error", { "retry-after": null }],
])("%s is answered with %i", async (code, status, type, headers) => {
  server.generator.script = { reply: [], refusal: new DenseMambaError(code, "told so") };
  const response = await server.post(COMPLETIONS, { prompt: "a" });
  expect(response.status).toBe(status);
  expect(await response.json()).toEqual({ error: { message: "told so", type, param: null, code } });
  for (const [name, value] of Object.entries(headers)) expect(response.headers.get(name)).toBe(value);
});

it("a prompt over the limit has OpenAI's code for it", async () => {
  server.generator.script = { reply: [], refusal: new DenseMambaError("prompt_too_long", "at most 5; got 6") };
  const error = await (await server.post(COMPLETIONS, { prompt: "a" })).json();
  expect(error).toMatchObject({ error: { code: "context_length_exceeded", type: "invalid_request_error" } });
});

it("an error's own retry time overrides the default", async () => {
  const refusal = new DenseMambaError("queue_full", "full", { retryAfterMs: 2300 });
  server.generator.script = { reply: [], refusal };
  const { headers } = await server.post(COMPLETIONS, { prompt: "a" });
  expect([headers.get("retry-after"), headers.get("retry-after-ms")]).toEqual(["3", "2300"]);
});

it("an unexpected error reveals nothing and is logged with the request id", async () => {
  server.generator.script = { reply: [], refusal: new Error("secret path /home/x") };
  const response = await server.post(COMPLETIONS, { prompt: "a" }, { "x-request-id": "abc" });
  expect(response.status).toBe(500);
  expect(await response.text()).not.toContain("secret");
  const line = server.logLines.find(({ level }) => level === "error")!;
  expect(line.fields).toMatchObject({ requestId: "abc", err: { message: "secret path /home/x" } });
});
