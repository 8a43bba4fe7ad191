/** `/v1/sessions`: fork, rename, download, upload, pages of a list, and whose a session is. */
import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { beforeEach, describe, expect, it } from "vitest";
import { startTestServer } from "../helpers/listening-server.ts";
import { createTestServer, DEFAULT_SERVER_OPTIONS, type TestServer } from "../helpers/server-deps.ts";

const PATH = "/v1/sessions";
const OCTETS = { "content-type": "application/octet-stream" };

let server: TestServer;
beforeEach(() => {
  server = createTestServer();
});

const get = (path: string, headers: Record<string, string> = {}) => server.app.request(path, { headers });
const put = (path: string, body: Uint8Array | string, headers: Record<string, string> = OCTETS) =>
  server.app.request(path, { method: "POST", headers, body: body as Uint8Array<ArrayBuffer> });

async function json(response: Response): Promise<Record<string, unknown>> {
  return (await response.json()) as Record<string, unknown>;
}

/** A session with some tokens. */
async function makeSession(id: string, headers: Record<string, string> = {}): Promise<void> {
  expect((await server.post(PATH, { session_id: id }, headers)).status).toBe(201);
  expect((await server.post("/v1/completions", { prompt: "abc", session_id: id }, headers)).status).toBe(200);
}

describe("a session", () => {
  it("is forked into one with the same past, under a given or a generated id", async () => {
    await makeSession("s");
    const original = await json(await get(`${PATH}/s`));
    const named = await server.post(`${PATH}/s/fork`, { session_id: "t" });
    expect(named.status).toBe(201);
    expect(await json(named)).toEqual({ ...original, id: "t" });
    const unnamed = await server.app.request(`${PATH}/s/fork`, { method: "POST" });
    expect(unnamed.status).toBe(201);
    await server.post("/v1/completions", { prompt: "more", session_id: "t" });
    expect(await json(await get(`${PATH}/s`))).toEqual(original);
  });

  it("is renamed, and its old id is free again", async () => {
    await makeSession("s");
    const renamed = await server.post(`${PATH}/s`, { session_id: "t" });
    expect(renamed.status).toBe(200);
    expect(await json(renamed)).toMatchObject({ id: "t", num_tokens: 8 });
    expect((await get(`${PATH}/s`)).status).toBe(404);
    expect((await server.post(PATH, { session_id: "s" })).status).toBe(201);
  });

  it("is created from a response, and continues where that ended", async () => {
    const { id } = await json(await server.post("/v1/responses", { input: "Hi" }));
    const made = await server.post(PATH, { session_id: "s", previous_response_id: id });
    expect(made.status).toBe(201);
    expect(await json(made)).toMatchObject({ id: "s", num_tokens: 13 });
    const unknown = await server.post(PATH, { previous_response_id: "resp_x" });
    expect(unknown.status).toBe(400);
    expect(await json(unknown)).toMatchObject({ error: { code: "previous_response_not_found" } });
  });

  it("is downloaded as a file and uploaded on another server", async () => {
    await makeSession("a:b");
    const download = await get(`${PATH}/a:b/export`);
    expect(download.status).toBe(200);
    const bytes = new Uint8Array(await download.arrayBuffer());
    expect(Object.fromEntries(download.headers)).toMatchObject({
      "content-type": "application/octet-stream",
      "content-disposition": 'attachment; filename="a_b.session"',
      "content-length": String(bytes.length),
      "x-content-type-options": "nosniff",
    });
    server = createTestServer();
    const uploaded = await put(`${PATH}/import?session_id=c`, bytes);
    expect(uploaded.status).toBe(201);
    expect(await json(uploaded)).toMatchObject({ id: "c", num_tokens: 8 });
    expect((await put(`${PATH}/import`, bytes)).status).toBe(201);
  });

  it("that is busy can be forked, but not deleted or renamed", async () => {
    await makeSession("s");
    server.generator.conversations.sessions.get(":s")!.busy = true;
    expect((await server.app.request(`${PATH}/s`, { method: "DELETE" })).status).toBe(409);
    const renamed = await server.post(`${PATH}/s`, { session_id: "t" });
    expect(renamed.status).toBe(409);
    expect(await json(renamed)).toMatchObject({ error: { code: "session_busy" } });
    expect((await server.post(`${PATH}/s/fork`, { session_id: "t" })).status).toBe(201);
  });

  it.each([
    ["fork", () => server.post(`${PATH}/s/fork`, { session_id: "t" })],
    ["rename", () => server.post(`${PATH}/s`, { session_id: "t" })],
    ["import", () => put(`${PATH}/import?session_id=t`, '{"numTokens":1}')],
  ])("does not take another's name: %s", async (_name, act) => {
    await makeSession("s");
    await makeSession("t");
    const response = await act();
    expect(response.status).toBe(409);
    expect(await json(response)).toMatchObject({ error: { code: "session_exists" } });
  });

  it.each([
    ["POST", "/fork", "{}"],
    ["POST", "", '{"session_id":"t"}'],
    ["GET", "/export", undefined],
    ["DELETE", "", undefined],
  ])("that is unknown is a 404: %s %s", async (method, path, body) => {
    const headers = { "content-type": "application/json" };
    const response = await server.app.request(`${PATH}/nope${path}`, { method, headers, ...(body ? { body } : {}) });
    expect(response.status).toBe(404);
    expect(await json(response)).toMatchObject({ error: { code: "session_not_found" } });
  });

  it.each([["/nope/fork"], ["/nope"]])("is never called ../../etc/x: %s", async (path) => {
    const response = await server.post(PATH + path, { session_id: "../../etc/x" });
    expect(response.status).toBe(400);
    expect(await json(response)).toMatchObject({ error: { param: "session_id" } });
    const imported = await put(`${PATH}/import?session_id=../../etc/x`, "{}");
    expect(imported.status).toBe(400);
  });

  it("needs a new id to be renamed", async () => {
    await makeSession("s");
    const response = await server.post(`${PATH}/s`, {});
    expect(response.status).toBe(400);
    expect(await json(response)).toMatchObject({ error: { message: "session_id is required" } });
  });
});

describe("the list", () => {
  it("comes in pages, the last used first, or in reverse order", async () => {
    for (const id of ["a", "b", "c", "d", "e"]) await server.post(PATH, { session_id: id });
    const page = async (query: string) => {
      const { data, first_id, last_id, has_more } = await json(await get(`${PATH}${query}`));
      return [(data as { id: string }[]).map(({ id }) => id).join(""), first_id, last_id, has_more];
    };
    expect(await page("")).toEqual(["edcba", "e", "a", false]);
    expect(await page("?limit=2")).toEqual(["ed", "e", "d", true]);
    expect(await page("?limit=2&after=d")).toEqual(["cb", "c", "b", true]);
    expect(await page("?limit=2&after=b")).toEqual(["a", "a", "a", false]);
    expect(await page("?after=a")).toEqual(["", null, null, false]);
    expect(await page("?order=asc&limit=3")).toEqual(["abc", "a", "c", true]);
    expect((await get(`${PATH}?after=nope`)).status).toBe(400);
    expect((await get(`${PATH}?limit=1001`)).status).toBe(400);
  });
});

describe("another key's session", () => {
  it("does not exist", async () => {
    server = createTestServer({ apiKeys: ["mine", "theirs"] });
    const [mine, theirs] = ["mine", "theirs"].map((key) => ({ authorization: `Bearer ${key}` }));
    await makeSession("s", mine!);
    const unknown = async (response: Response) => {
      expect(response.status).toBe(404);
      const { error } = (await response.json()) as { error: { code: string; message: string } };
      expect(error).toMatchObject({ code: "session_not_found" });
      return error.message.replace(/ \w$/, " ?");
    };
    expect(await unknown(await get(`${PATH}/s`, theirs!))).toBe(await unknown(await get(`${PATH}/n`, theirs!)));
    await unknown(await get(`${PATH}/s/export`, theirs!));
    await unknown(await server.post(`${PATH}/s`, { session_id: "t" }, theirs!));
    await unknown(await server.post(`${PATH}/s/fork`, { session_id: "t" }, theirs!));
    await unknown(await server.app.request(`${PATH}/s`, { method: "DELETE", headers: theirs! }));
    await unknown(await server.post("/v1/completions", { prompt: "a", session_id: "s" }, theirs!));
    expect(await json(await get(PATH, theirs!))).toMatchObject({ data: [] });
    // The name is theirs to use.
    await makeSession("s", theirs!);
    expect(await json(await get(PATH, mine!))).toMatchObject({ data: [{ id: "s", num_tokens: 8 }] });
  });

  it("is identified by a prefix of the key's hash", async () => {
    server = createTestServer({ apiKeys: ["sk-1"] });
    await server.post("/v1/completions", { prompt: "a" }, { authorization: "Bearer sk-1" });
    // printf sk-1 | sha256sum
    expect(server.generator.requests[0]!.owner).toBe("0f2c10bf3d128c71");
    server = createTestServer();
    await server.post("/v1/completions", { prompt: "a" }, { authorization: "Bearer sk-1" });
    expect(server.generator.requests[0]!.owner).toBe("");
  });
});

describe("an upload", () => {
  const limited = { limits: { ...DEFAULT_SERVER_OPTIONS.limits, maxHistoryBytes: 904, maxCheckpointBytes: 0 } };

  it.each([
    ["that is truncated", new TextEncoder().encode('{"numTok')],
    ["that is empty", new Uint8Array()],
    ["that is something else", new TextEncoder().encode("hello")],
  ])("%s is the client's mistake", async (_name, bytes) => {
    const response = await put(`${PATH}/import`, bytes);
    expect(response.status).toBe(400);
    expect(await json(response)).toMatchObject({
      error: { code: "invalid_snapshot", message: `${bytes.length} bytes are no snapshot` },
    });
    expect(server.generator.conversations.sessions.size).toBe(0);
  });

  it.each([[{ "content-type": "application/json" }], [{ "content-type": "text/plain" }]])(
    "of another content type is refused: %j",
    async (headers) => {
      const response = await put(`${PATH}/import`, "{}", headers);
      expect(response.status).toBe(415);
      expect(await json(response)).toMatchObject({
        error: { message: expect.stringContaining("must be application/octet-stream; got") },
      });
    },
  );

  it("may be as large as a session can be, and no larger", async () => {
    server = createTestServer(limited);
    const fits = new Uint8Array(5000).fill(32);
    fits.set(new TextEncoder().encode('{"numTokens":1}'));
    expect((await put(`${PATH}/import`, fits)).status).toBe(201);
    const response = await put(`${PATH}/import`, new Uint8Array(5001));
    expect(response.status).toBe(413);
    expect(await json(response)).toMatchObject({
      error: { code: "body_too_large", message: "the body must have at most 5000 bytes; got 5001 or more" },
    });
  });

  it("that announces 10 GB is refused before any of it is read", async () => {
    await using listening = await startTestServer(limited);
    const request = httpRequest(`${listening.url}${PATH}/import`, {
      method: "POST",
      headers: { ...OCTETS, "content-length": String(10 * 2 ** 30) },
    });
    request.on("error", () => {});
    request.write("x");
    const [response] = await once(request, "response");
    expect(response.statusCode).toBe(413);
    request.destroy();
  });

  it("of unknown length is refused while it arrives", async () => {
    await using listening = await startTestServer(limited);
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += 65_536;
        controller.enqueue(new Uint8Array(65_536));
      },
    });
    const response = await fetch(`${listening.url}${PATH}/import`, {
      method: "POST",
      headers: OCTETS,
      body,
      duplex: "half",
    } as RequestInit);
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(64 * 1024 * 1024);
  });
});

describe("cache_salt", () => {
  it.each<[string, object]>([
    ["/v1/completions", { prompt: "a" }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
    ["/v1/responses", { input: "a" }],
  ])("goes with a request to %s; it is a text that is not empty", async (path, body) => {
    await server.post(path, { ...body, cache_salt: "tenant" });
    await server.post(path, { ...body, cache_salt: null });
    expect(server.generator.requests.map(({ cacheSalt }) => cacheSalt)).toEqual(["tenant", undefined]);
    for (const cache_salt of ["", "x".repeat(257), 5]) {
      const response = await server.post(path, { ...body, cache_salt });
      expect(response.status).toBe(400);
      expect(await json(response)).toMatchObject({ error: { param: "cache_salt" } });
    }
  });
});
