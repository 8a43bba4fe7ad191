/** Personas over HTTP, with an RWKV-7 whose logits are the authors' package's. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { writeTokenizer } from "../helpers/tiny-tokenizers.ts";

const FIXTURE = path.join(import.meta.dirname, "../fixtures/rwkv7-tiny");
const FILE = readFileSync(path.join(FIXTURE, "persona.pth"));
const { persona, sequences } = JSON.parse(readFileSync(path.join(FIXTURE, "expected.json"), "utf8")) as Record<
  "persona",
  { token_ids: number[]; logits: number[][] }
> & { sequences: { token_ids: number[]; logits: number[][] }[] };

/** The model has 64 tokens: a character each. */
const CHARACTERS = ["?", ..." .,!'[]|_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01"];
const TEMPLATE =
  "{% for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

function writeCharacters(): Promise<string> {
  const vocab = Object.fromEntries(CHARACTERS.map((character, id) => [character, id]));
  const model = { type: "BPE", vocab, merges: [], unk_token: "?", fuse_unk: false };
  const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: { type: "Fuse" } };
  const json = { version: "1.0", truncation: null, padding: null, added_tokens: [], ...absent, model };
  return writeTokenizer({ json, config: { chat_template: TEMPLATE } });
}

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer({ modelDir: FIXTURE, tokenizerDir: await writeCharacters() });
}, 120_000);
afterAll(() => server?.close());

const put = (name: string, body: Uint8Array, contentType = "application/octet-stream") =>
  fetch(`${server.url}/v1/personas/${name}`, {
    method: "PUT",
    headers: { "content-type": contentType },
    body: body as Uint8Array<ArrayBuffer>,
  });
const json = async (response: Response) => (await response.json()) as Record<string, never>;
const send = async (route: string, body: object) => {
  const response = await post(`${server.url}${route}`, body);
  return { status: response.status, body: await json(response) };
};

function logprobsOf({ token_ids, logits }: { token_ids: number[]; logits: number[][] }): number[] {
  return token_ids.slice(1).map((id, i) => {
    const row = logits[i]!;
    const max = Math.max(...row);
    return row[id]! - max - Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
  });
}

async function scored(tokenIds: number[], more: object): Promise<number[]> {
  const fields = { prompt: tokenIds, echo: true, logprobs: 0, max_tokens: 0, ...more };
  const { status, body } = await send("/v1/completions", fields);
  expect(status, JSON.stringify(body)).toBe(200);
  return (
    body as unknown as { choices: { logprobs: { token_logprobs: number[] } }[] }
  ).choices[0]!.logprobs.token_logprobs.slice(1);
}

function expectSame(actual: number[], expected: number[]): void {
  expect(actual).toHaveLength(expected.length);
  for (const [i, value] of actual.entries()) expect(value).toBeCloseTo(expected[i]!, 3);
}

describe("a tuned state", () => {
  beforeAll(async () => {
    const response = await put("pirate", FILE);
    expect(response.status).toBe(200);
    expect(await json(response)).toMatchObject({ id: "pirate", object: "persona", num_tokens: 0, uploaded: true });
  });

  it("is what the authors' package begins with", async () => {
    expectSame(await scored(persona.token_ids, { persona: "pirate" }), logprobsOf(persona));
    expectSame(await scored(sequences[0]!.token_ids, {}), logprobsOf(sequences[0]!));
  });

  it("begins sessions, and what continues them, as one text would", async () => {
    await send("/v1/sessions", { session_id: "s", persona: "pirate" });
    const [first, rest] = [persona.token_ids.slice(0, 9), persona.token_ids.slice(9)];
    const fields = { session_id: "s", max_tokens: 0, echo: true };
    await send("/v1/completions", { prompt: first, ...fields });
    await send("/v1/sessions/s/fork", { session_id: "t" });
    // Its first token has a score, since the state has read those before it.
    expectSame(await scored(rest, { session_id: "t" }), logprobsOf(persona).slice(9));
  });

  it("is under a conversation that has to be read again, or that is refused", async () => {
    await send("/v1/sessions", { session_id: "again", persona: "pirate" });
    const say = (more: object) =>
      send("/v1/completions", { session_id: "again", temperature: 0, max_tokens: 4, ...more });
    await say({ prompt: persona.token_ids, max_tokens: 0, echo: true });
    // Nothing is left to read: all of it is read again.
    const again = await say({ prompt: "" });
    const direct = { prompt: persona.token_ids, persona: "pirate", temperature: 0, max_tokens: 4 };
    expect(again.body).toMatchObject({ choices: [{ text: textOf((await send("/v1/completions", direct)).body) }] });
    await send("/v1/sessions", { session_id: "orphan", persona: "pirate" });
    await send("/v1/completions", { session_id: "orphan", prompt: [1, 2, 3], max_tokens: 0, echo: true });
    await fetch(`${server.url}/v1/personas/pirate`, { method: "DELETE" });
    expect(await send("/v1/completions", { session_id: "orphan", prompt: "", max_tokens: 4 })).toMatchObject({
      status: 404,
      body: { error: { code: "persona_not_found" } },
    });
    expect((await send("/v1/completions", { session_id: "orphan", prompt: "x", max_tokens: 1 })).status).toBe(200);
    await put("pirate", FILE);
  });

  it("begins responses, chats, and several choices at once", async () => {
    const input = { input: "Hi", temperature: 0, max_output_tokens: 6, persona: "pirate" };
    const response = await send("/v1/responses", input);
    expect(response.status, JSON.stringify(response.body)).toBe(200);
    const plain = await send("/v1/responses", { ...input, persona: null });
    const { output, id } = response.body;
    expect(output).not.toEqual(plain.body.output);
    const next = await send("/v1/responses", { input: "And?", max_output_tokens: 2, previous_response_id: id });
    expect(next.status).toBe(200);
    const messages = [{ role: "user", content: "Hi" }];
    const chat = { messages, temperature: 0, max_tokens: 6, n: 2, persona: "pirate" };
    const { body } = (await send("/v1/chat/completions", chat)) as unknown as {
      body: { choices: { message: { content: string } }[] };
    };
    const [said] = (output as unknown as { content: { text: string }[] }[]).map(({ content }) => content[0]!.text);
    expect(body.choices.map(({ message }) => message.content)).toEqual([said, said]);
  });
});

it("a session's file is one too", async () => {
  await send("/v1/sessions", { session_id: "told" });
  const first = { session_id: "told", messages: [{ role: "system", content: "You tell tales." }], max_tokens: 1 };
  expect((await send("/v1/chat/completions", first)).status).toBe(200);
  const file = await (await fetch(`${server.url}/v1/sessions/told/export`)).arrayBuffer();
  const made = await put("teller", new Uint8Array(file));
  expect(made.status).toBe(200);
  const next = { messages: [{ role: "user", content: "Hi" }], temperature: 0, max_tokens: 6 };
  const { body: fromPersona } = await send("/v1/chat/completions", { ...next, persona: "teller" });
  const { body: again } = await send("/v1/chat/completions", { ...next, persona: "teller" });
  const { body: fromSession } = await send("/v1/chat/completions", { ...next, session_id: "told" });
  expect(fromPersona.choices).toEqual(fromSession.choices);
  expect(again.choices).toEqual(fromPersona.choices);
  expect(fromPersona.usage).toEqual(fromSession.usage);
});

describe("personas", () => {
  it("are listed, looked at and deleted", async () => {
    await put("a", FILE);
    await put("b", FILE);
    const list = async () => {
      const { data } = await json(await fetch(`${server.url}/v1/personas`));
      return (data as unknown as { id: string }[]).map(({ id }) => id);
    };
    expect(await list()).toEqual(expect.arrayContaining(["a", "b"]));
    expect(await json(await fetch(`${server.url}/v1/personas/a`))).toMatchObject({ id: "a", uploaded: true });
    const deleted = await fetch(`${server.url}/v1/personas/a`, { method: "DELETE" });
    expect(await json(deleted)).toEqual({ id: "a", object: "persona.deleted", deleted: true });
    expect(await list()).not.toContain("a");
    for (const method of ["GET", "DELETE"]) {
      const response = await fetch(`${server.url}/v1/personas/a`, { method });
      expect(response.status).toBe(404);
      expect(await json(response)).toMatchObject({ error: { code: "persona_not_found" } });
    }
  });

  it.each<[string, Uint8Array]>([
    ["text", Buffer.from("You are a pirate.")],
    ["half a file", FILE.subarray(0, 4000)],
    ["another's session", Buffer.concat([Buffer.from("DSMSTATE"), Buffer.alloc(300)])],
    ["nothing", new Uint8Array(0)],
  ])("are not made of %s", async (_, bytes) => {
    const response = await put("bad", bytes);
    expect(response.status).toBe(400);
    expect(await json(response)).toMatchObject({ error: { code: "invalid_snapshot" } });
  });

  it.each([
    [404, "persona_not_found", "/v1/completions", { prompt: "x", persona: "nope" }],
    [404, "persona_not_found", "/v1/sessions", { persona: "nope" }],
    [404, "persona_not_found", "/v1/responses", { input: "x", persona: "nope" }],
    [400, "invalid_value", "/v1/completions", { prompt: "x", persona: "a b" }],
    [400, "invalid_value", "/v1/completions", { prompt: "x", persona: "b", session_id: "s" }],
    [400, "invalid_value", "/v1/responses", { input: "x", persona: "b", previous_response_id: "resp_1" }],
    [400, "invalid_value", "/v1/sessions", { persona: "b", previous_response_id: "resp_1" }],
  ])("%i %s: %s %j", async (status, code, route, body) => {
    expect(await send(route, body)).toMatchObject({ status, body: { error: { code } } });
  });

  it("have names that a path can have, and bytes as their content", async () => {
    expect((await put("a%20b", FILE)).status).toBe(400);
    expect((await put("a", FILE, "application/json")).status).toBe(415);
  });
});

function textOf(body: Record<string, never>): string {
  return (body as unknown as { choices: { text: string }[] }).choices[0]!.text;
}
