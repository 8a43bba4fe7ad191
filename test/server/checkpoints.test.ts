/** Checkpoints of sessions over HTTP, with the default model. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";

interface Checkpoint {
  readonly id: string;
  readonly name: string | null;
  readonly parent: string | null;
  readonly num_tokens: number;
  readonly current: boolean;
}

let server: RealServer;
beforeAll(async () => {
  const limits = { maxBatch: 4, maxQueue: 16, prefillChunk: 256 };
  server = await startRealServer({ limits });
}, 120_000);
afterAll(() => server?.close());

const send = async (path: string, body: object) => {
  const response = await post(`${server.url}${path}`, body);
  return { status: response.status, body: (await response.json()) as Record<string, never> };
};

async function list(id: string): Promise<Checkpoint[]> {
  const response = await fetch(`${server.url}/v1/sessions/${id}/checkpoints`);
  expect(response.status).toBe(200);
  return ((await response.json()) as { data: Checkpoint[] }).data;
}

async function complete(id: string, prompt: string, more: object = {}): Promise<string> {
  const fields = { prompt, session_id: id, max_tokens: 8, temperature: 0, ignore_eos: true, ...more };
  const { status, body } = await send("/v1/completions", fields);
  expect(status, JSON.stringify(body)).toBe(200);
  return (body as unknown as { choices: { text: string }[] }).choices[0]!.text;
}

describe("a session", () => {
  it("goes back, and says the same again", async () => {
    await send("/v1/sessions", { session_id: "s" });
    await complete("s", "Once upon a time there was a king.", { checkpoint: "king" });
    const first = await complete("s", " One day he");
    const [king, second] = await list("s");
    expect(king).toMatchObject({ name: "king", parent: null, current: false });
    expect(second).toMatchObject({ name: null, parent: king!.id, current: true });
    const { status, body } = await send("/v1/sessions/s/rollback", { to: "king" });
    expect(status).toBe(200);
    expect(body).toMatchObject({ id: "s", object: "session", num_tokens: king!.num_tokens, checkpoint: king!.id });
    expect(await complete("s", " One day he")).toBe(first);
    expect((await list("s")).map(({ parent, current }) => [parent, current])).toEqual([
      [null, false],
      [king!.id, false],
      [king!.id, true],
    ]);
  });

  it("that is a chat is forked from a checkpoint, which a streamed answer made", async () => {
    await send("/v1/sessions", { session_id: "chat" });
    const say = (content: string, more: object = {}, id = "chat") =>
      post(`${server.url}/v1/chat/completions`, {
        messages: [{ role: "user", content }],
        session_id: id,
        max_tokens: 8,
        temperature: 0,
        ...more,
      });
    await (await say("Tell me of the sea.", { stream: true, checkpoint: "sea" })).text();
    const first = (await (await say("And then?")).json()) as { choices: unknown; usage: unknown };
    const { status } = await send("/v1/sessions/chat/fork", { session_id: "other", checkpoint: "sea" });
    expect(status).toBe(201);
    const other = (await (await say("And then?", {}, "other")).json()) as { choices: unknown; usage: unknown };
    expect([other.choices, other.usage]).toEqual([first.choices, first.usage]);
  });

  it("is downloaded as it was, and imported with all of its checkpoints or with none", async () => {
    const before = await list("s");
    const bytesOf = async (query: string) =>
      (await fetch(`${server.url}/v1/sessions/s/export${query}`)).arrayBuffer() as Promise<ArrayBuffer>;
    const put = async (id: string, body: ArrayBuffer) => {
      const headers = { "content-type": "application/octet-stream" };
      const url = `${server.url}/v1/sessions/import?session_id=${id}`;
      expect((await fetch(url, { method: "POST", headers, body })).status).toBe(201);
      return list(id);
    };
    const all = await put("all", await bytesOf(""));
    expect(all.map(({ num_tokens, name }) => [num_tokens, name])).toEqual(
      before.map(({ num_tokens, name }) => [num_tokens, name]),
    );
    expect(await put("none", await bytesOf("?checkpoints=false"))).toHaveLength(1);
    expect(await put("king", await bytesOf("?checkpoint=king"))).toMatchObject([{ num_tokens: before[0]!.num_tokens }]);
  });

  it("has its states named, and listed in pages", async () => {
    await send("/v1/sessions", { session_id: "named" });
    for (const prompt of ["One", " two", " three"]) await complete("named", prompt, { max_tokens: 1 });
    const [first] = await list("named");
    expect((await send("/v1/sessions/named/checkpoints", { name: "here" })).body).toMatchObject({
      object: "session.checkpoint",
      name: "here",
      current: true,
    });
    const moved = await send("/v1/sessions/named/checkpoints", { name: "here", checkpoint: first!.id });
    expect(moved.body).toMatchObject({ id: first!.id, name: "here" });
    expect((await list("named")).map(({ name }) => name)).toEqual(["here", null, null]);
    const page = await fetch(`${server.url}/v1/sessions/named/checkpoints?limit=2&order=desc`);
    expect(await page.json()).toMatchObject({ data: [{ current: true }, {}], has_more: true });
  });

  it("reads as little after going back to its beginning as after going back to its end", async () => {
    await send("/v1/sessions", { session_id: "long" });
    const many = "The king went to the sea and looked for his daughter. ".repeat(12);
    for (let turn = 0; turn < 40; turn++) {
      await complete("long", turn % 10 === 0 ? many : " And then", { max_tokens: 1 });
    }
    const all = await list("long");
    expect(all).toHaveLength(40);
    for (const at of [0, 20, 38]) {
      expect((await send("/v1/sessions/long/rollback", { to: all[at]!.id })).status).toBe(200);
      const fields = { prompt: " so", session_id: "long", max_tokens: 1 };
      const { usage } = (await send("/v1/completions", fields)).body as unknown as {
        usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
      };
      expect(usage.prompt_tokens).toBe(all[at]!.num_tokens + 1);
      // That, and the token that was sampled last.
      expect(usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens).toBe(2);
    }
  });
});

describe("refused", () => {
  it.each([
    [404, "checkpoint_not_found", "/v1/sessions/s/rollback", { to: "nope" }],
    [404, "checkpoint_not_found", "/v1/sessions/s/fork", { checkpoint: "nope" }],
    [404, "session_not_found", "/v1/sessions/nope/rollback", { to: "king" }],
    [400, "invalid_value", "/v1/sessions/s/rollback", {}],
    [400, "invalid_value", "/v1/sessions/s/rollback", { to: 5 }],
    [400, "invalid_value", "/v1/sessions/s/checkpoints", { name: "ckpt_1" }],
    [400, "invalid_value", "/v1/sessions/s/checkpoints", { name: "<script>" }],
    [400, "invalid_value", "/v1/completions", { prompt: "x", checkpoint: "a" }],
    [400, "invalid_value", "/v1/completions", { prompt: "x", session_id: "s", checkpoint: "a".repeat(129) }],
  ])("%i %s: %s %j", async (status, code, path, body) => {
    const answer = await send(path, body);
    expect(answer.status).toBe(status);
    expect(answer.body).toMatchObject({ error: { code } });
  });

  it("going back while the session answers; afterwards it can", async () => {
    const response = await post(`${server.url}/v1/completions`, {
      prompt: " And",
      session_id: "s",
      max_tokens: 2000,
      ignore_eos: true,
      stream: true,
    });
    const reader = response.body!.getReader();
    await reader.read();
    for (const [path, body] of [
      ["rollback", { to: "king" }],
      ["checkpoints", { name: "now" }],
    ] as const) {
      expect(await send(`/v1/sessions/s/${path}`, body)).toMatchObject({
        status: 409,
        body: { error: { code: "session_busy" } },
      });
    }
    await reader.cancel();
    await expect.poll(async () => (await send("/v1/sessions/s/rollback", { to: "king" })).status).toBe(200);
  });
});
