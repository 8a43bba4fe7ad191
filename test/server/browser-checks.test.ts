/** What a web page can do to a server that its visitor reaches: nothing, unless it is invited. */
import { request } from "node:http";
import { describe, expect, it, vi } from "vitest";
import { serverOptions } from "../../src/app/server-options.ts";
import { loadConfig } from "../../src/config/load.ts";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";
import { createTestServer } from "../helpers/server-deps.ts";

type Answer = { status: number; headers: Record<string, unknown>; body: string };

/** fetch would send its own host. */
function send(server: ListeningServer, path: string, headers: Record<string, string>, body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const method = body === undefined ? "GET" : "POST";
    const outgoing = request({ port: server.listener.port, host: "127.0.0.1", path, method, headers }, (incoming) => {
      let text = "";
      incoming.setEncoding("utf8").on("data", (data: string) => (text += data));
      incoming.on("end", () => resolve({ status: incoming.statusCode!, headers: incoming.headers, body: text }));
    });
    outgoing.on("error", reject).end(body);
  });
}

const optionsOf = (...flags: Record<string, unknown>[]) =>
  serverOptions(loadConfig({ flags: Object.assign({}, ...flags), env: {} }));

describe("a server for local use only", () => {
  it.each([
    "localhost",
    "localhost:8080",
    "LOCALHOST.",
    "api.localhost",
    "127.0.0.1:1",
    "127.1.2.3",
    "[::1]:8080",
    "[::1]",
  ])("answers to %s", async (host) => {
    await using server = await startTestServer(optionsOf());
    expect((await send(server, "/v1/models", { host })).status).toBe(200);
  });

  it.each([
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "0.0.0.0",
  ])("does not answer to %s, and says how to allow it", async (host) => {
    await using server = await startTestServer(optionsOf());
    for (const path of ["/v1/models", "/health", "/nowhere"]) {
      const { status, body } = await send(server, path, { host });
      expect(status).toBe(403);
      expect(JSON.parse(body)).toMatchObject({
        error: { code: "host_not_allowed", message: expect.stringContaining("--allowed-host") },
      });
    }
  });

  it("answers to the configured names", async () => {
    await using server = await startTestServer(optionsOf({ allowedHosts: ["llm.example", "10.0.0.7"] }));
    expect((await send(server, "/v1/models", { host: "LLM.example:443" })).status).toBe(200);
    expect((await send(server, "/v1/models", { host: "10.0.0.7" })).status).toBe(200);
    expect((await send(server, "/v1/models", { host: "other.example" })).status).toBe(403);
    await using any = await startTestServer(optionsOf({ allowedHosts: ["*"] }));
    expect((await send(any, "/v1/models", { host: "other.example" })).status).toBe(200);
  });

  it.each([{ host: "0.0.0.0" }, { host: "192.168.1.5" }, { apiKeys: ["k"] }])("is not one with %j", async (flags) => {
    await using server = await startTestServer(optionsOf(flags));
    expect((await send(server, "/health", { host: "any.example" })).status).toBe(200);
  });
});

describe("a page of another origin", () => {
  const json = { "content-type": "application/json" };
  const foreign = [
    { origin: "https://evil.example" },
    { origin: "null" },
    { origin: "https://evil.example", "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "cross-site" },
    { origin: "http://localhost:3000", "sec-fetch-site": "same-site" },
  ];

  it.each(foreign)("makes no session, with or without a body: %j", async (headers) => {
    const server = createTestServer();
    for (const body of ["", "{}"]) {
      const response = await server.post("/v1/sessions", body, headers as Record<string, string>);
      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({ error: { code: "origin_not_allowed", param: "origin" } });
    }
    expect(await server.generator.conversations.listSessions("")).toEqual([]);
  });

  it("can if its origin is listed, as can the server's own pages, the address bar and other clients", async () => {
    await using server = await startTestServer({ corsOrigins: ["https://a.example"] });
    const own = `127.0.0.1:${server.listener.port}`;
    for (const headers of [
      { origin: "https://a.example", "sec-fetch-site": "cross-site" },
      { host: own, origin: `http://${own}` },
      // Behind a proxy that passes its own name for the server on.
      { origin: "https://chat.example", "sec-fetch-site": "same-origin" },
      { "sec-fetch-site": "none" },
      {},
    ]) {
      const answer = await send(server, "/v1/sessions", { ...json, ...headers } as Record<string, string>, "{}");
      expect(answer.status, JSON.stringify(headers)).toBe(201);
    }
  });

  it("may call with a key, which pages do not have", async () => {
    const server = createTestServer({ apiKeys: ["k"] });
    const headers = { authorization: "Bearer k", origin: "app://assistant" };
    expect((await server.post("/v1/sessions", {}, headers)).status).toBe(201);
  });

  it("can't send a body of a type that needs no preflight", async () => {
    await using server = await startTestServer();
    const paths = [
      "/v1/sessions",
      "/v1/completions",
      "/v1/chat/completions",
      "/v1/responses",
      "/tokenize",
      "/detokenize",
    ];
    for (const path of [...paths, "/v1/sessions/x/fork", "/v1/sessions/x", "/v1/sessions/import"]) {
      for (const headers of [{}, { "content-type": "text/plain" }, { "transfer-encoding": "chunked" }]) {
        const { status, body } = await send(server, path, headers as Record<string, string>, '{"session_id":"blob"}');
        expect(status, path).toBe(415);
        expect(JSON.parse(body)).toMatchObject({ error: { code: "unsupported_media_type" } });
      }
    }
    expect(await (await fetch(`${server.url}/v1/sessions`)).json()).toMatchObject({ data: [] });
  });
});

describe("CORS", () => {
  it("sends the same headers on streams as elsewhere, once", async () => {
    const complaints = vi.spyOn(console, "error");
    await using server = await startTestServer({ corsOrigins: ["http://app.example"] });
    const json = { "content-type": "application/json" };
    for (const origin of [{ origin: "http://app.example" }, {}]) {
      const headers = { ...json, ...origin } as Record<string, string>;
      for (const body of ['{"prompt":"a"}', '{"prompt":"a","stream":true}', "{"]) {
        const answer = await send(server, "/v1/completions", headers, body);
        expect(answer.headers.vary, body).toBe("Origin");
        expect(answer.headers["access-control-expose-headers"]).toContain("x-should-retry");
      }
    }
    const created = await send(server, "/v1/responses", json, '{"input":"a"}');
    const { id } = JSON.parse(created.body) as { id: string };
    expect((await send(server, `/v1/responses/${id}?stream=true`, {})).headers.vary).toBe("Origin");
    await using open = await startTestServer({ corsOrigins: ["*"] });
    expect((await send(open, "/v1/completions", json, '{"prompt":"a","stream":true}')).headers.vary).toBeUndefined();
    expect(complaints).not.toHaveBeenCalled();
  });
});
