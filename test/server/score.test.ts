/** `/v1/score` over the real generation, engine, runtime and default model. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";

const CONTEXT = "Once upon a time there was a king who lived in a";
const TEXTS = [" castle", " house by the sea", " puddle", "zzz"];

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer({ limits: { maxBatch: 3, maxQueue: 200, prefillChunk: 16 } });
});
afterAll(() => server?.close());

interface ScoreList {
  data: { index: number; score: number; num_tokens: number }[];
  usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
}

async function ask<T>(route: string, body: object): Promise<T> {
  const response = await post(server.url + route, body);
  expect(response.status, await response.clone().text()).toBeLessThan(300);
  return (await response.json()) as T;
}
const score = (body: object) => ask<ScoreList>("/v1/score", body);
const tokenize = async (prompt: string, add_special_tokens = false) =>
  (await ask<{ tokens: number[] }>("/tokenize", { prompt, add_special_tokens })).tokens;

/** By echo, which reads everything for each text. */
async function expected(before: readonly number[], text: readonly number[]): Promise<number> {
  const body = { prompt: [[...before, ...text]], max_tokens: 0, echo: true, logprobs: 0 };
  type Echoed = { choices: { logprobs: { token_logprobs: number[] } }[] };
  const { choices } = await ask<Echoed>("/v1/completions", body);
  return choices[0]!.logprobs.token_logprobs.slice(before.length).reduce((sum, logprob) => sum + logprob, 0);
}

it("is the log-probability of each text after the first one", async () => {
  const { data, usage } = await score({ text_1: CONTEXT, text_2: TEXTS });
  const before = await tokenize(CONTEXT, true);
  let numTokens = before.length;
  for (const [index, text] of TEXTS.entries()) {
    const ids = await tokenize(text);
    numTokens += ids.length;
    expect(data[index]).toMatchObject({ index, num_tokens: ids.length });
    expect(data[index]!.score).toBeCloseTo(await expected(before, ids), 3);
  }
  expect(usage.prompt_tokens).toBe(numTokens);
  expect(data[0]!.score).toBeGreaterThan(data[3]!.score);
});

it("of one text is that in a list", async () => {
  const [{ data: one }, { data: listed }] = [
    await score({ text_1: CONTEXT, text_2: TEXTS[0] }),
    await score({ text_1: CONTEXT, text_2: TEXTS }),
  ];
  expect(one).toEqual(listed.slice(0, 1));
});

it("after a session starts from its state, and changes nothing", async () => {
  await ask("/v1/sessions", { session_id: "s" });
  await ask("/v1/completions", { session_id: "s", prompt: CONTEXT, max_tokens: 4, ignore_eos: true, temperature: 0 });
  const whole = await ask<{ choices: { text: string }[] }>("/v1/completions", {
    ...{ prompt: CONTEXT, max_tokens: 4, ignore_eos: true, temperature: 0 },
  });
  const inSession = await score({ session_id: "s", text_2: TEXTS });
  const behindText = await score({ session_id: "s", text_1: " and", text_2: TEXTS });
  const past = [...(await tokenize(CONTEXT, true)), ...(await tokenize(whole.choices[0]!.text))];
  for (const [index, text] of TEXTS.entries()) {
    const ids = await tokenize(text);
    expect(inSession.data[index]!.score).toBeCloseTo(await expected(past, ids), 3);
    expect(behindText.data[index]!.score).toBeCloseTo(await expected([...past, ...(await tokenize(" and"))], ids), 3);
  }
  expect(inSession.usage.prompt_tokens_details.cached_tokens).toBeGreaterThanOrEqual(past.length - 1);
  const again = await score({ session_id: "s", text_2: TEXTS });
  expect(again.data).toEqual(inSession.data);
  expect(await (await fetch(`${server.url}/v1/sessions/s`)).json()).toMatchObject({ num_tokens: past.length });
});

it("after a response starts from its state", async () => {
  const made = { input: "Tell me of the sea.", max_output_tokens: 4, ignore_eos: true };
  const { id, usage } = await ask<{ id: string; usage: { total_tokens: number } }>("/v1/responses", made);
  const { data, usage: read } = await score({ previous_response_id: id, text_2: [" waves", " stones"] });
  expect(data).toHaveLength(2);
  expect(read.prompt_tokens_details.cached_tokens).toBeGreaterThanOrEqual(usage.total_tokens - 1);
});

it("reads what comes before once, however many texts follow", async () => {
  const context = "The sea was calm. ".repeat(40);
  const texts = Array.from({ length: 100 }, (_, index) => ` ${index}`);
  const { usage } = await score({ text_1: context, text_2: texts });
  const numTexts = (await Promise.all(texts.map((text) => tokenize(text)))).flat().length;
  expect(usage.prompt_tokens).toBe((await tokenize(context, true)).length + numTexts);
  await expect.poll(() => server.engine.load).toMatchObject({ slotsInUse: 0, numWaiting: 0 });
});

it.each<[body: object, status: number, error: object]>([
  [{ text_1: "a" }, 400, { param: "text_2", message: "text_2 is required" }],
  [{ text_2: "a" }, 400, { param: "text_1", message: "text_1 must not be empty" }],
  [{ text_1: "a", text_2: [] }, 400, { message: "text_2 must have at least 1 item; got 0" }],
  [{ text_1: "a", text_2: ["b", ""] }, 400, { param: "text_2[1]" }],
  [{ text_1: "a", text_2: Array(129).fill("b") }, 400, { message: "text_2 must have at most 128 items; got 129" }],
  [{ text_1: "a", text_2: ["b", "sea ".repeat(3000)] }, 400, { code: "context_length_exceeded", param: "text_2[1]" }],
  [{ text_1: "sea ".repeat(3000), text_2: "b" }, 400, { code: "context_length_exceeded", param: "text_1" }],
  [{ session_id: "nope", text_2: "b" }, 404, { code: "session_not_found" }],
  [{ previous_response_id: "resp_nope", text_2: "b" }, 400, { code: "previous_response_not_found" }],
  [{ session_id: "s", previous_response_id: "resp_1", text_2: "b" }, 400, { param: "session_id" }],
  [{ text_1: "a", text_2: "b", documents: ["c"] }, 400, { code: "unsupported_value", param: "documents" }],
])("%j is refused", async (body, status, error) => {
  const response = await post(`${server.url}/v1/score`, body);
  expect(response.status).toBe(status);
  expect(await response.json()).toMatchObject({ error });
});
