/** Requests of several models, each with a fake generator: which of them gets which. */
import { expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { createApp } from "../../src/server/app.ts";
import { Responses } from "../../src/server/responses/responses.ts";
import { type ModelEntry, type ModelState, SeveralModels } from "../../src/server/several-models.ts";
import { createTestServer, type TestServer } from "../helpers/server-deps.ts";

interface FakeEntry extends ModelEntry {
  readonly kept: (number | undefined)[];
}

function entryOf(name: string, server: TestServer, more: Partial<TestServer["deps"]["model"]> = {}): FakeEntry {
  const model = { ...server.deps.model, name, aliases: [], ...more };
  const service = { deps: { ...server.deps, model }, responses: server.responses };
  const kept: (number | undefined)[] = [];
  const keepAlive = (ms: number | undefined) => void kept.push(ms);
  const state: ModelState = { value: "loaded" };
  return { name, state, isRefusing: false, service, open: async () => service, keepAlive, kept };
}

const BROKEN: ModelEntry = {
  name: "broken",
  state: { value: "failed", error: "no weights" },
  isRefusing: true,
  service: undefined,
  open: async () => {
    throw new DenseMambaError("model_load_failed", "no weights", { param: "model", retryAfterMs: 5000 });
  },
  keepAlive() {},
};

function serverOf(entries: readonly ModelEntry[], { deps, responses }: TestServer) {
  const app = createApp({ ...deps, model: entries[0]!.service!.deps.model }, responses, new SeveralModels(entries));
  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    app.request(path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  return { app, post };
}

const PROMPT = { prompt: "Hi", max_tokens: 4 };

it("keys, ids and logs are as with one model, whichever answers; each observes its own requests", async () => {
  const [first, second] = [createTestServer({ apiKeys: ["k"] }), createTestServer({ apiKeys: ["k"] })];
  const entries = [entryOf("a", first), entryOf("b", second)];
  const { post } = serverOf(entries, first);
  const refused = await post("/v1/completions", { model: "b", ...PROMPT });
  expect(refused.status).toBe(401);
  const headers = { authorization: "Bearer k", "x-request-id": "mine" };
  for (const model of ["a", "b"]) {
    const answer = await post("/v1/completions", { model, ...PROMPT }, headers);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("x-request-id")).toBe("mine");
    expect(await answer.json()).toMatchObject({ model });
  }
  expect([first.generator.requests.length, second.generator.requests.length]).toEqual([1, 1]);
  expect(second.generator.requests[0]!.owner).toBe(first.generator.requests[0]!.owner);
  const routes = ({ observed }: TestServer) => observed.map((one) => (one as { http: { route: string } }).http.route);
  expect([routes(first), routes(second)]).toEqual([["/v1/completions", "/v1/completions"], ["/v1/completions"]]);
  const lines = first.logLines.filter(({ message }) => message === "request");
  expect(lines.at(-1)!.fields).toMatchObject({ requestId: "mine", status: 200, promptTokens: expect.any(Number) });
});

it("a body is read once, and refused as with one model", async () => {
  const server = createTestServer();
  const { post } = serverOf([entryOf("a", server), entryOf("b", createTestServer())], server);
  for (const body of ["{", "[]", "5", '"b"', "null"]) expect((await post("/v1/completions", body)).status).toBe(400);
  expect((await post("/v1/completions", { model: ["b"], ...PROMPT })).status).toBe(400);
  const text = await post("/v1/completions", JSON.stringify({ model: "b", ...PROMPT }), {
    "content-type": "text/plain",
  });
  expect(text.status).toBe(415);
  const tooLong = JSON.stringify({ model: "b", prompt: "a".repeat(5 * 2 ** 20) });
  expect((await post("/v1/completions", tooLong)).status).toBe(413);
});

it("keep_alive is Ollama's: seconds, a time, 0 or below 0 for ever; without it the server's", async () => {
  const server = createTestServer();
  const entry = entryOf("b", createTestServer());
  const { post } = serverOf([entryOf("a", server), entry], server);
  for (const keep_alive of [30, "30", "1.5s", "5m", "2h", "100ms", 0, -1, "-1", null, undefined]) {
    expect((await post("/v1/completions", { model: "b", ...PROMPT, keep_alive })).status).toBe(200);
  }
  const ever = Number.POSITIVE_INFINITY;
  const expected = [30_000, 30_000, 1500, 300_000, 7_200_000, 100, 0, ever, ever, undefined, undefined];
  expect(entry.kept).toEqual(expected);
  for (const keep_alive of ["soon", "5 parsecs", {}, [], true, "", 1e12, "1e5"]) {
    const refused = await post("/v1/completions", { model: "b", ...PROMPT, keep_alive });
    expect(await refused.json()).toMatchObject({ error: { code: "invalid_value", param: "keep_alive" } });
  }
});

it("a model that cannot be served is listed with its error, and refused in the form of the endpoint", async () => {
  const server = createTestServer();
  const { app, post } = serverOf([entryOf("a", server), BROKEN], server);
  const list = (await (await app.request("/v1/models")).json()) as { data: unknown[] };
  expect(list.data[1]).toMatchObject({
    id: "broken",
    object: "model",
    status: { value: "failed", error: "no weights" },
  });
  const refused = await post("/v1/completions", { model: "broken", ...PROMPT });
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("5");
  const messages = await post("/v1/messages", { model: "broken", messages: [], max_tokens: 1 });
  expect(await messages.json()).toMatchObject({ type: "error", error: { message: "no weights" } });
  expect((await app.request("/ready")).status).toBe(200);
  expect((await post("/v1/completions", PROMPT)).status).toBe(200);
});

it("is ready if the first one is, loaded or not, unless loading it has just failed", async () => {
  const server = createTestServer();
  const ready = async (first: Partial<ModelEntry>) => {
    const { app } = serverOf([{ ...entryOf("a", server), ...first }, BROKEN], server);
    const answer = await app.request("/ready");
    return [answer.status, ((await answer.json()) as { status: string }).status];
  };
  server.engine.status = { state: "sleeping" };
  expect(await ready({ state: { value: "unloaded" } })).toEqual([200, "sleeping"]);
  const state = { value: "failed", error: "no memory" } as const;
  expect(await ready({ state, isRefusing: true })).toEqual([503, "failed"]);
  // The next request is to try again.
  expect(await ready({ state })).toEqual([200, "sleeping"]);
  server.engine.status = { state: "starting" };
  expect(await ready({ state: { value: "loading" } })).toEqual([503, "starting"]);
});

it("any other name means the first, if it takes any", async () => {
  const server = createTestServer();
  const entries = [entryOf("a", server, { takesAnyName: true, aliases: ["x"] }), entryOf("b", createTestServer())];
  const { post } = serverOf(entries, server);
  for (const [model, answering] of [
    ["a", "a"],
    ["x", "a"],
    ["b", "b"],
    ["claude", "a"],
  ]) {
    expect(await (await post("/v1/completions", { model, ...PROMPT })).json()).toMatchObject({ model: answering });
  }
});

it("a response that continues a copy of a session is made by the session's model", async () => {
  const [first, second] = [createTestServer(), createTestServer()];
  const { post } = serverOf([entryOf("a", first), entryOf("b", second)], first);
  await post("/v1/sessions", { model: "b", session_id: "tale" });
  expect((await post("/v1/responses", { previous_session_id: "tale", input: "Hi" })).status).toBe(200);
  expect([first.generator.requests.length, second.generator.requests.length]).toEqual([0, 1]);
});

it("a session or response that a store cannot tell of is looked for in no other model", async () => {
  const [first, second] = [createTestServer(), createTestServer()];
  second.generator.conversations.inspectSession = async () => {
    throw new DenseMambaError("store_unavailable", "the store does not answer");
  };
  const { app, post } = serverOf([entryOf("a", first), entryOf("b", second)], first);
  const answer = await post("/v1/completions", { session_id: "tale", ...PROMPT });
  expect(answer.status).toBe(503);
  expect(first.generator.requests).toEqual([]);
  expect((await app.request("/v1/sessions/tale")).status).toBe(503);
  second.generator.conversations.readRecord = second.generator.conversations.inspectSession;
  const response = await post("/v1/responses", { previous_response_id: "resp_1", input: "Hi" });
  expect(response.status).toBe(503);
  expect((await app.request("/v1/responses/resp_1")).status).toBe(503);
});

it("a conversation is known to all models: the last one goes on from its state, another reads its items", async () => {
  const servers = [createTestServer(), createTestServer()];
  const [first, second] = servers as [TestServer, TestServer];
  const conversations = first.responses.conversations;
  const entries = ["a", "b"].map((name, i) => {
    const entry = entryOf(name, servers[i]!);
    const { deps } = entry.service!;
    const service = { deps, responses: new Responses(deps, conversations) };
    return { ...entry, service, open: async () => service };
  });
  const { app, post } = serverOf(entries, { ...first, responses: entries[0]!.service.responses });
  const { id } = (await (await post("/v1/conversations", {})).json()) as { id: string };
  const say = async (body: object) => {
    const answer = await post("/v1/responses", { input: "Hi", conversation: id, ...body });
    expect(answer.status, await answer.clone().text()).toBe(200);
    return ((await answer.json()) as { model: string }).model;
  };
  const last = ({ generator }: TestServer) => {
    const { prompts, resumeFrom } = generator.requests.at(-1)!;
    const [prompt] = prompts;
    return { resumeFrom, numMessages: prompt?.type === "chat" ? prompt.messages.length : 0 };
  };
  expect(await say({})).toBe("a");
  expect(last(first)).toEqual({ resumeFrom: undefined, numMessages: 1 });
  expect(await say({ model: "b" })).toBe("b");
  expect(last(second)).toEqual({ resumeFrom: undefined, numMessages: 3 });
  expect(await say({ conversation: { id } })).toBe("b");
  expect(last(second)).toMatchObject({ resumeFrom: { type: "response" }, numMessages: 1 });
  const items = (await (await app.request(`/v1/conversations/${id}/items`)).json()) as { data: object[] };
  expect(items.data).toHaveLength(6);
  for (const gone of ["conv_none", { id: "conv_none" }]) {
    const refused = await post("/v1/responses", { input: "Hi", conversation: gone });
    expect(await refused.json()).toMatchObject({ error: { code: "conversation_not_found" } });
  }
});
