/** What one API key can learn about another: a real process that accepts two. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

const KEYS = ["key-of-ann", "key-of-bob"] as const;
type Key = (typeof KEYS)[number];
const [ANN, BOB] = KEYS;
const PROMPT = `${"Once upon a time there was a king who had three sons. ".repeat(8)}The eldest`;

let folder: ServingFolder;
let apart: ServedProcess;
let together: ServedProcess;

beforeAll(async () => {
  folder = await ServingFolder.make();
  const keys = KEYS.flatMap((key) => ["--api-key", key]);
  [apart, together] = await Promise.all([folder.serve(keys), folder.serve([...keys, "--prefix-scope", "all"])]);
});
afterAll(async () => {
  for (const server of [apart, together]) server?.kill("SIGKILL");
  await folder.remove();
});

async function ask(server: ServedProcess, key: Key, method: string, route: string, body?: object) {
  const response = await fetch(server.url + route, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body && { "content-type": "application/json" }) },
    ...(body && { body: JSON.stringify(body) }),
  });
  return { status: response.status, text: await response.text() };
}

async function cachedTokens(server: ServedProcess, key: Key, more: object = {}): Promise<number> {
  const body = { prompt: PROMPT, max_tokens: 2, temperature: 0, ...more };
  const { status, text } = await ask(server, key, "POST", "/v1/completions", body);
  expect(status, text).toBe(200);
  return JSON.parse(text).usage.prompt_tokens_details.cached_tokens;
}

it("a prompt that one key has sent is not cached for another, with any salt", async () => {
  expect(await cachedTokens(apart, ANN)).toBe(0);
  expect(await cachedTokens(apart, ANN)).toBeGreaterThan(64);
  expect(await cachedTokens(apart, BOB)).toBe(0);
  expect(await cachedTokens(apart, ANN, { cache_salt: "team" })).toBe(0);
  expect(await cachedTokens(apart, BOB, { cache_salt: "team" })).toBe(0);
  expect(await cachedTokens(apart, BOB, { cache_salt: "team" })).toBeGreaterThan(64);
});

it("with --prefix-scope all, keys share cached prefixes, and salts still separate them", async () => {
  expect(await cachedTokens(together, ANN)).toBe(0);
  expect(await cachedTokens(together, BOB)).toBeGreaterThan(64);
  expect(await cachedTokens(together, BOB, { cache_salt: "team" })).toBe(0);
});

it("what belongs to another key answers like what does not exist", async () => {
  await ask(apart, ANN, "POST", "/v1/sessions", { session_id: "tale" });
  await ask(apart, ANN, "POST", "/v1/completions", { session_id: "tale", prompt: PROMPT, max_tokens: 2 });
  const made = await ask(apart, ANN, "POST", "/v1/responses", { input: "Tell me.", max_output_tokens: 2 });
  const response = JSON.parse(made.text).id as string;
  const questions = (session: string, id: string): [string, string, object?][] => [
    ["GET", `/v1/sessions/${session}`],
    ["DELETE", `/v1/sessions/${session}`],
    ["POST", `/v1/sessions/${session}`, { session_id: "mine" }],
    ["POST", `/v1/sessions/${session}/fork`, {}],
    ["GET", `/v1/sessions/${session}/export`],
    ["POST", "/v1/completions", { session_id: session, prompt: "a", max_tokens: 1 }],
    [
      "POST",
      "/v1/chat/completions",
      { session_id: session, messages: [{ role: "user", content: "a" }], max_tokens: 1 },
    ],
    ["GET", `/v1/responses/${id}`],
    ["GET", `/v1/responses/${id}?stream=true`],
    ["GET", `/v1/responses/${id}/input_items`],
    ["POST", `/v1/responses/${id}/cancel`],
    ["DELETE", `/v1/responses/${id}`],
    ["POST", "/v1/responses", { previous_response_id: id, input: "a", max_output_tokens: 1 }],
  ];
  const [theirs, nobodys] = [questions("tale", response), questions("none", `resp_${"0".repeat(32)}`)];
  for (const [i, question] of theirs.entries()) {
    const [seen, unseen] = [await ask(apart, BOB, ...question), await ask(apart, BOB, ...nobodys[i]!)];
    expect({ question, ...seen }).toEqual({
      question,
      status: unseen.status,
      text: unseen.text.replaceAll("none", "tale").replaceAll(`resp_${"0".repeat(32)}`, response),
    });
    expect(seen.status).toBe(question[1] === "/v1/responses" ? 400 : 404);
  }
  // A name is free for each key.
  expect((await ask(apart, BOB, "POST", "/v1/sessions", { session_id: "tale" })).status).toBe(201);
  expect((await ask(apart, ANN, "GET", "/v1/sessions/tale")).status).toBe(200);
});

it("one key's flood of responses evicts its own, the oldest first, and no other key's session", async () => {
  const small = await folder.serve([...KEYS.flatMap((key) => ["--api-key", key]), "--session-bytes", "3MiB"]);
  try {
    const turn = { session_id: "tale", prompt: PROMPT, max_tokens: 2 };
    await ask(small, ANN, "POST", "/v1/sessions", { session_id: "tale" });
    await ask(small, ANN, "POST", "/v1/completions", turn);
    const ids: string[] = [];
    for (let i = 0; i < 30; i++) {
      const { text } = await ask(small, BOB, "POST", "/v1/responses", { input: "Tell me.", max_output_tokens: 2 });
      ids.push(JSON.parse(text).id);
    }
    expect(JSON.parse((await ask(small, ANN, "GET", "/v1/sessions/tale")).text).num_tokens).toBeGreaterThan(64);
    const goesOn = (id: string) =>
      ask(small, BOB, "POST", "/v1/responses", { input: "And?", max_output_tokens: 2, previous_response_id: id });
    expect((await goesOn(ids.at(-1)!)).status).toBe(200);
    expect((await goesOn(ids[0]!)).status).toBe(400);
  } finally {
    await small.stop();
  }
});
