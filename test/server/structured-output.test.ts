/**
 * Answers that must match a schema, a pattern, a list or a grammar, over the real engine, both
 * runtimes and the default model: whatever is sampled parses and validates.
 */
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { openRunner } from "../../src/runtime/open.ts";
import { SCHEMAS } from "../fixtures/json-schemas.ts";
import { numCases } from "../helpers/random-cases.ts";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { sseData } from "../helpers/server-deps.ts";

const CHAT = "/v1/chat/completions";
const COMPLETIONS = "/v1/completions";
const LIMITS = { maxBatch: 8, maxQueue: 1000, prefillChunk: 32 };
const PERSON = {
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", minimum: 0, maximum: 120 } },
  required: ["name", "age"],
};

const ajv = new Ajv2020({ strict: false });
formats.default(ajv);

let server: RealServer;

beforeAll(async () => {
  server = await startRealServer({ limits: LIMITS });
});
afterAll(() => server?.close());

interface Choice {
  readonly index: number;
  readonly text: string;
  readonly message: { readonly content: string };
  readonly finish_reason: string;
  readonly token_ids: number[];
  readonly logprobs: { readonly content: { readonly token: string; readonly logprob: number }[] };
}

async function send(route: string, body: object, to = server): Promise<{ status: number; body: never }> {
  const given: Record<string, object> = {
    [CHAT]: { messages: [{ role: "user", content: "Tell me of a king." }], max_tokens: 300 },
    [COMPLETIONS]: { prompt: "A king", max_tokens: 300 },
  };
  const response = await post(to.url + route, { ...given[route], ...body });
  return { status: response.status, body: (await response.json()) as never };
}

async function choices(route: string, body: object, to = server): Promise<Choice[]> {
  const { status, body: answer } = await send(route, body, to);
  expect(status, JSON.stringify(answer)).toBe(200);
  return (answer as { choices: Choice[] }).choices;
}

const asSchema = (schema: object, strict = false) => ({
  response_format: { type: "json_schema", json_schema: { name: "answer", strict, schema } },
});

/** Cut answers are the beginning of a value, which nothing checks; the others must be valid. */
function check(choice: Choice, schema: object): "complete" | "cut" {
  const text = choice.message?.content ?? choice.text;
  if (choice.finish_reason === "length") return "cut";
  expect(choice.finish_reason).toBe("stop");
  const value: unknown = JSON.parse(text);
  expect(ajv.validate(schema, value), `${text} ${ajv.errorsText()}`).toBe(true);
  return "complete";
}

it("answers match any schema, at temperatures from 0 to 2", async () => {
  let [numAnswers, numComplete] = [0, 0];
  const ask = async (schema: object) => {
    for (const temperature of [0, 2]) {
      const answers = await choices(CHAT, {
        ...asSchema(schema),
        temperature,
        n: temperature === 0 ? 1 : numCases(3),
        seed: 7,
        max_tokens: 60,
      });
      for (const answer of answers) if (check(answer, schema) === "complete") numComplete++;
      numAnswers += answers.length;
    }
  };
  await Promise.all(Object.values(SCHEMAS).map(ask));
  // A small model does not always find the end of what need not end.
  expect(numComplete).toBeGreaterThan(numAnswers / 2);
}, 120_000);

it("json_object is an object", async () => {
  for (const choice of await choices(CHAT, {
    response_format: { type: "json_object" },
    n: 4,
    temperature: 1,
    seed: 1,
  })) {
    if (check(choice, { type: "object" }) === "cut") expect(choice.message.content).toMatch(/^\{/);
  }
});

it.each([
  [{ guided_regex: "[a-c]{3,5}-\\d{1,3}x" }, /^[a-c]{3,5}-\d{1,3}x$/],
  [{ structured_outputs: { regex: "(yes|no)!" } }, /^(yes|no)!$/],
  [{ guided_choice: ["north", "northern", "south"] }, /^(north|northern|south)$/],
  [{ structured_outputs: { choice: ["日本", "é"] } }, /^(日本|é)$/],
  [{ guided_grammar: 'root ::= "a" list\nlist ::= ("," [0-9]){2,3} # digits' }, /^a(,\d){2,3}$/],
  [{ structured_outputs: { grammar: "root ::= [^\\x00-\\x7f]{2}" } }, /^\P{ASCII}{2}$/u],
  [{ grammar: 'root ::= "<" root ">" | "x"' }, /^<*x>*$/],
  [{ guided_json: JSON.stringify({ type: "boolean" }) }, /^(true|false)$/],
  [{ json_schema: { const: [1, "a"] } }, /^\[1, "a"\]$/],
])("completions hold to %j", async (fields, pattern) => {
  for (const temperature of [0, 1.5]) {
    const answers = await choices(COMPLETIONS, { ...fields, temperature, n: temperature === 0 ? 1 : 4, seed: 3 });
    for (const { text, finish_reason } of answers) {
      if (finish_reason === "stop") expect(text).toMatch(pattern);
    }
    expect(answers.some((answer) => answer.finish_reason === "stop")).toBe(true);
  }
});

describe("together with other fields", () => {
  const body = { ...asSchema(PERSON), temperature: 1, seed: 5 };

  it("max_tokens cuts it, with the reason length", async () => {
    const [whole] = await choices(CHAT, body);
    const [cut] = await choices(CHAT, { ...body, max_tokens: 6 });
    expect(cut!.finish_reason).toBe("length");
    expect(whole!.message.content.startsWith(cut!.message.content)).toBe(true);
  });

  it("ignore_eos and min_tokens do not keep it from its end", async () => {
    const [whole] = await choices(CHAT, body);
    for (const field of [{ ignore_eos: true }, { min_tokens: 250 }]) {
      const [answer] = await choices(CHAT, { ...body, ...field });
      expect(answer!.message.content).toBe(whole!.message.content);
      check(answer!, PERSON);
    }
  });

  it("min_tokens holds where more may follow", async () => {
    const [answer] = await choices(CHAT, {
      guided_regex: "a+",
      temperature: 0,
      min_tokens: 20,
      return_token_ids: true,
    });
    expect(answer!.token_ids.length).toBeGreaterThanOrEqual(20);
    expect(answer!.message.content).toMatch(/^a+$/);
  });

  it("logit_bias chooses among what is allowed", async () => {
    const { body: tokenized } = await send("/tokenize", { prompt: "yes" });
    const ids = (tokenized as { tokens: number[] }).tokens;
    const logit_bias = Object.fromEntries(ids.map((id) => [id, 100]));
    const [answer] = await choices(CHAT, { structured_outputs: { choice: ["no", "yes"] }, logit_bias, temperature: 0 });
    expect(answer!.message.content).toBe("yes");
  });

  it("log-probabilities are the model's own, one for each token, and change nothing", async () => {
    const [plain] = await choices(CHAT, { ...body, return_token_ids: true });
    const [scored] = await choices(CHAT, { ...body, logprobs: true, top_logprobs: 2, return_token_ids: true });
    expect(scored!.message.content).toBe(plain!.message.content);
    expect(scored!.token_ids).toEqual(plain!.token_ids);
    const { content } = scored!.logprobs;
    expect(content.map(({ token }) => token).join("")).toBe(scored!.message.content);
    expect(content.every(({ logprob }) => Number.isFinite(logprob) && logprob <= 0)).toBe(true);
    // The model alone would hardly begin a chat with a brace.
    expect(content[0]!.logprob).toBeLessThan(-1);
  });

  it("a stop string ends it", async () => {
    const [answer] = await choices(CHAT, { ...body, stop: ['", "age'] });
    expect(answer!.finish_reason).toBe("stop");
    expect(answer!.message.content).toMatch(/^\{"name": "[^"]*$/);
  });

  it("a stream has the same text", async () => {
    const [whole] = await choices(CHAT, body);
    const response = await post(server.url + CHAT, {
      messages: [{ role: "user", content: "Tell me of a king." }],
      ...body,
      max_tokens: 300,
      stream: true,
    });
    let text = "";
    for (const chunk of sseData(await response.text())) {
      if (chunk !== "[DONE]")
        text += (chunk as { choices: { delta: { content?: string } }[] }).choices[0]!.delta.content ?? "";
    }
    expect(text).toBe(whole!.message.content);
  });

  it("a conversation goes on, and so does an answer that was cut", async () => {
    const messages = [{ role: "user", content: "Tell me of a king." }];
    const [whole] = await choices(CHAT, { ...asSchema(PERSON), temperature: 0, messages });
    const [cut] = await choices(CHAT, { ...asSchema(PERSON), temperature: 0, messages, max_tokens: 7 });
    const begun = { role: "assistant", content: cut!.message.content };
    const [rest] = await choices(CHAT, {
      ...asSchema(PERSON),
      temperature: 0,
      messages: [...messages, begun],
      continue_final_message: true,
    });
    expect(ajv.validate(PERSON, JSON.parse(begun.content + rest!.message.content))).toBe(true);
    expect(whole!.finish_reason).toBe("stop");
    const other = { role: "assistant", content: "Once" };
    const refused = await send(CHAT, {
      ...asSchema(PERSON),
      messages: [...messages, other],
      continue_final_message: true,
    });
    expect(refused).toMatchObject({ status: 400, body: { error: { param: "response_format.json_schema.schema" } } });
  });
});

describe("responses", () => {
  const format = { type: "json_schema", name: "person", strict: true, schema: PERSON };

  it("have text.format", async () => {
    const { status, body } = await send("/v1/responses", { input: "A king", text: { format }, max_output_tokens: 300 });
    expect(status, JSON.stringify(body)).toBe(200);
    const { output, text } = body as { output: { content: { text: string }[] }[]; text: object };
    expect(ajv.validate(PERSON, JSON.parse(output[0]!.content[0]!.text))).toBe(true);
    expect(text).toEqual({ format });
  });

  it("have it over WebSocket too", async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/v1/responses`);
    await new Promise((resolve) => socket.once("open", resolve));
    const ended = new Promise<{ type: string; text: string }>((resolve) => {
      let text = "";
      socket.on("message", (data) => {
        const event = JSON.parse(data.toString());
        if (event.type === "response.output_text.delta") text += event.delta;
        if (/completed|incomplete|failed|error/.test(event.type)) resolve({ type: event.type, text });
      });
    });
    socket.send(JSON.stringify({ type: "response.create", input: "A king", text: { format }, max_output_tokens: 300 }));
    const { type, text } = await ended;
    socket.close();
    expect(type).toBe("response.completed");
    expect(ajv.validate(PERSON, JSON.parse(text))).toBe(true);
  });
});

it("neighbours keep their text, and the portable runtime says the same", async () => {
  const free = { prompt: "Once upon a time", temperature: 0, max_tokens: 60, ignore_eos: true };
  const held = { ...asSchema(PERSON), temperature: 1, seed: 9 };
  const [alone] = await choices(COMPLETIONS, free);
  const [[beside], ...others] = await Promise.all([
    choices(COMPLETIONS, free),
    ...[0, 1, 2].map(() => choices(COMPLETIONS, held)),
  ]);
  expect(beside!.text).toBe(alone!.text);
  const texts = others.map(([answer]) => answer!.text);
  expect(new Set(texts).size).toBe(1);

  const portable = await startRealServer({ limits: LIMITS, openRunner: (given) => openRunner("portable", given) });
  try {
    const [answer] = await choices(COMPLETIONS, held, portable);
    expect(answer!.text).toBe(texts[0]);
    check(answer!, PERSON);
  } finally {
    await portable.close();
  }
});

it("a session's answers match, and its state continues as any other", async () => {
  const { status } = await send("/v1/sessions", { session_id: "held" });
  expect(status).toBe(201);
  const first = await choices(CHAT, { ...asSchema(PERSON), session_id: "held", temperature: 0 });
  check(first[0]!, PERSON);
  const next = await choices(CHAT, {
    ...asSchema({ enum: ["red", "blue"] }),
    session_id: "held",
    temperature: 0,
    messages: [{ role: "user", content: "Which colour?" }],
  });
  const messages = [
    { role: "user", content: "Tell me of a king." },
    { role: "assistant", content: first[0]!.message.content },
    { role: "user", content: "Which colour?" },
  ];
  const fresh = await choices(CHAT, { ...asSchema({ enum: ["red", "blue"] }), temperature: 0, messages });
  expect(next[0]!.message.content).toBe(fresh[0]!.message.content);
});

describe("bad constraints", () => {
  it.each<[fields: object, code: string, param: string]>([
    [
      asSchema({ properties: { a: { not: {} } } }),
      "unsupported_value",
      "response_format.json_schema.schema.properties.a.not",
    ],
    [asSchema({ madeUp: 1 }), "unsupported_value", "response_format.json_schema.schema.madeUp"],
    [asSchema({ $ref: "https://example.com" }), "unsupported_value", "response_format.json_schema.schema.$ref"],
    [asSchema({ $ref: "#" }), "invalid_value", "response_format.json_schema.schema"],
    [
      asSchema({ type: "object", properties: { a: { $ref: "#" } }, required: ["a"] }),
      "invalid_value",
      "response_format.json_schema.schema",
    ],
    [
      asSchema({ enum: Array.from({ length: 50_000 }, (_, i) => `v${i}`) }),
      "unsupported_value",
      "response_format.json_schema.schema.enum",
    ],
    [asSchema({ description: "x".repeat(2 ** 20) }), "unsupported_value", "response_format.json_schema.schema"],
    [{ guided_json: { oneOf: [{}, {}] } }, "unsupported_value", "guided_json.oneOf[1]"],
    [{ structured_outputs: { json: { enum: [] } } }, "invalid_value", "structured_outputs.json.enum"],
    [{ guided_regex: "a(?=b)" }, "unsupported_value", "guided_regex"],
    [{ guided_regex: "[]" }, "invalid_value", "guided_regex"],
    [{ structured_outputs: { regex: "(" } }, "invalid_value", "structured_outputs.regex"],
    [{ guided_grammar: "a ::= b" }, "invalid_value", "guided_grammar"],
    [{ grammar: 'root ::= root "a" | "b"' }, "unsupported_value", "grammar"],
    [{ guided_regex: "(a?){0,9999}b" }, "invalid_value", "guided_regex"],
  ])("%j is refused", async (fields, code, param) => {
    const { status, body } = await send(COMPLETIONS, fields);
    expect(status).toBe(400);
    const { error } = body as { error: { code: string; param: string; message: string } };
    expect(error.code).toBe(code);
    expect(error.param.startsWith(param)).toBe(true);
    expect(error.message.startsWith(error.param)).toBe(true);
  });

  it("a grammar that becomes too ambiguous fails its own answer only", async () => {
    const grammar = `root ::= ("a"? ${'("a" | "b" root2)? '.repeat(60)})* "c"\nroot2 ::= "b" root2 "b" | "a"? root3\nroot3 ::= ("a" "b"?){0,500}`;
    const free = { prompt: "Once upon a time", temperature: 0, max_tokens: 60, ignore_eos: true };
    const [alone] = await choices(COMPLETIONS, free);
    const [held, [beside]] = await Promise.all([
      send(COMPLETIONS, { grammar, temperature: 2, seed: 1, max_tokens: 200 }),
      choices(COMPLETIONS, free),
    ]);
    expect([200, 400]).toContain(held.status);
    expect(beside!.text).toBe(alone!.text);
  });
});
