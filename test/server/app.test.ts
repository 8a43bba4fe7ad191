import { describe, expect, it } from "vitest";
import { createApp } from "../../src/server/app.ts";
import { listen } from "../../src/server/listen.ts";
import { Responses } from "../../src/server/responses/responses.ts";
import { createTestServer, FAKE_MODEL, NOW_MS, runtimeFault } from "../helpers/server-deps.ts";

const COMPLETION = { prompt: "a" };

describe("routes", () => {
  it("that do not exist are a 404 in OpenAI's shape", async () => {
    const { app } = createTestServer();
    const response = await app.request("/v1/rerank", { method: "POST" });
    expect(response.status).toBe(404);
    expect(await response.json()).toEqual({
      error: {
        message: "there is no route POST /v1/rerank",
        type: "invalid_request_error",
        param: null,
        code: "route_not_found",
      },
    });
  });

  it.each([
    ["GET", "/v1/completions", "POST"],
    ["DELETE", "/v1/models", "GET, HEAD"],
    ["PUT", "/v1/sessions/abc", "DELETE, GET, HEAD, POST"],
    ["POST", "/v1/models/org/name", "GET, HEAD"],
    ["POST", "/health", "GET, HEAD"],
  ])("do not take %s %s, and say what they take", async (method, path, allow) => {
    const { app } = createTestServer();
    const response = await app.request(path, { method });
    expect(response.status).toBe(405);
    expect(response.headers.get("allow")).toBe(allow);
    expect(await response.json()).toMatchObject({ error: { code: "method_not_allowed" } });
  });
});

describe("a path that is not there", () => {
  it.each([
    ["POST", "/v1/v1/completions", "/v1/completions"],
    ["POST", "/v1/chat/completions/chat/completions", "/v1/chat/completions"],
    ["POST", "/api/v1/chat/completions", "/v1/chat/completions"],
    ["POST", "/v1/tokenize", "/tokenize"],
    ["GET", "/v1/health", "/health"],
  ])("suggests the right one: %s %s", async (method, path, meant) => {
    const { app } = createTestServer();
    const response = await app.request(path, { method });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({
      error: { code: "route_not_found", message: expect.stringMatching(`; did you mean ${meant}\\?$`) },
    });
  });

  it.each(["/", "/v1", "/v1/", "/v1/rerank", "/completions/x", `/${"a/".repeat(5000)}`])(
    "suggests none: %s",
    async (path) => {
      const response = await createTestServer().app.request(path, { method: "POST" });
      expect([404, 405]).toContain(response.status);
      expect(await response.text()).not.toContain("did you mean");
    },
  );

  it("is not mistaken for a route that exists", async () => {
    const { app, post, generator } = createTestServer();
    for (const [method, path, status, allow] of [
      ["GET", "/v1/models/%0A", 404, null],
      ["GET", "/v1/models/a%0Ab", 404, null],
      ["GET", "/v1/responses/input_tokens", 405, "POST"],
      ["DELETE", "/v1/responses/input_tokens", 405, "POST"],
      ["GET", "/v1/responses/compact", 404, null],
      ["POST", "/v1/responses/compact", 404, null],
      ["GET", "/v1/sessions/import", 405, "POST"],
      ["DELETE", "/v1/sessions/import", 405, "POST"],
      ["PATCH", "/v1/sessions/import", 405, "POST"],
    ] as const) {
      const response = await app.request(path, { method });
      expect([response.status, response.headers.get("allow")], `${method} ${path}`).toEqual([status, allow]);
      if (!path.endsWith("/compact")) continue;
      const { error } = (await response.json()) as { error: { code: string; message: string } };
      expect(error).toMatchObject({ code: "route_not_found", message: expect.stringContaining("; ") });
    }
    const named = await post("/v1/sessions", { session_id: "import" });
    expect(named.status).toBe(400);
    expect(await generator.conversations.listSessions("")).toEqual([]);
  });
});

describe("a path of a route", () => {
  const completion = ["POST", "/v1/completions", { prompt: "a" }] as const;

  it.each([
    ["/completions", completion],
    ["/v1/completions/", completion],
    ["//v1///completions//", completion],
    ["/completions/", completion],
    ["/chat/completions", ["POST", "/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }]],
    ["/responses", ["POST", "/v1/responses", { input: "a" }]],
    ["/models", ["GET", "/v1/models"]],
    ["/models/default", ["GET", "/v1/models/:model"]],
    ["/sessions/", ["GET", "/v1/sessions"]],
    ["/health/", ["GET", "/health"]],
    ["//tokenize", ["POST", "/tokenize", { prompt: "a" }]],
  ] as const)("may be written as %s", async (path, [method, route, body]) => {
    const { app, post, observed } = createTestServer();
    const response = body === undefined ? await app.request(path, { method }) : await post(path, body);
    expect(response.status, await response.text()).toBe(200);
    expect(observed).toMatchObject([{ http: { method, route } }]);
  });

  it("needs its key in every spelling", async () => {
    const { app } = createTestServer({ apiKeys: ["k"], rootPath: "/health" });
    for (const path of ["/models", "//v1/models/", "/health/v1/models", "/health/models", "/docs/../models"]) {
      expect((await app.request(path)).status, path).toBe(401);
    }
  });

  it("may stand behind the root path of a proxy, or without it", async () => {
    const { app, post } = createTestServer({ rootPath: "/llm/a" });
    for (const path of [
      "/llm/a/v1/models",
      "/llm/a/models/",
      "//llm//a/v1/models",
      "/v1/models",
      "/llm/a",
      "/llm/a/",
    ]) {
      expect((await app.request(path)).status, path).toBe(200);
    }
    expect((await post("/llm/a/v1/completions", COMPLETION)).status).toBe(200);
    for (const path of ["/llm/v1/models", "/llm/ab/v1/models", "/llm/a/llm/a/v1/models"]) {
      expect((await app.request(path)).status, path).toBe(404);
    }
  });

  it("leads to the documents' page, whose links are relative, without a final slash", async () => {
    const { app } = createTestServer();
    const response = await app.request("/docs/");
    expect([response.status, response.headers.get("location")]).toEqual([302, "../docs"]);
  });
});

describe("models", () => {
  it("are listed under their name and aliases, with a description of the model", async () => {
    const { app } = createTestServer();
    const list = await (await app.request("/v1/models")).json();
    expect(list).toMatchObject({
      object: "list",
      data: [
        {
          id: FAKE_MODEL,
          object: "model",
          created: NOW_MS / 1000,
          owned_by: "densemamba",
          max_model_len: 131_072,
          context_length: 131_072,
          max_output_tokens: 16_384,
          densemamba: { family: "dense_mamba", precision: "int8", vocab_size: 512, state_bytes: 4096 },
        },
        { id: "default", root: FAKE_MODEL },
      ],
    });
  });

  it("are found by a name with a slash, bare or encoded", async () => {
    const { deps } = createTestServer();
    const named = { ...deps, model: { ...deps.model, name: "org/name" } };
    const app = createApp(named, new Responses(named));
    for (const path of ["/v1/models/org/name", "/v1/models/org%2Fname"]) {
      expect(await (await app.request(path)).json(), path).toMatchObject({ id: "org/name" });
    }
    expect((await app.request("/v1/models/org/other")).status).toBe(404);
  });

  it("may have any other name, if the server is told so", async () => {
    const { deps } = createTestServer();
    const lenient = { ...deps, model: { ...deps.model, takesAnyName: true } };
    const app = createApp(lenient, new Responses(lenient));
    const body = JSON.stringify({ ...COMPLETION, model: "gpt-5" });
    const headers = { "content-type": "application/json" };
    const response = await app.request("/v1/completions", { method: "POST", headers, body });
    expect(await response.json()).toMatchObject({ model: FAKE_MODEL });
    expect(await (await app.request("/v1/models/gpt-5")).json()).toMatchObject({ id: "gpt-5", root: FAKE_MODEL });
  });

  it("are found by name and by alias", async () => {
    const { app, post } = createTestServer();
    expect(await (await app.request("/v1/models/default")).json()).toMatchObject({ id: "default" });
    expect((await app.request("/v1/models/other")).status).toBe(404);
    expect((await post("/v1/completions", { ...COMPLETION, model: "default" })).status).toBe(200);
    expect((await post("/v1/completions", COMPLETION)).status).toBe(200);
  });
});

describe("tokenizer endpoints", () => {
  it("tokenize and detokenize, under both spellings", async () => {
    const { post } = createTestServer();
    const tokens = [72, 105];
    const tokenize = async (body: object) => (await post("/tokenize", body)).json();
    expect(await tokenize({ prompt: "Hi", add_special_tokens: false })).toMatchObject({ tokens, count: 2 });
    expect(await tokenize({ content: "Hi", add_special: false })).toMatchObject({ tokens });
    expect(await tokenize({ prompt: "Hi" })).toMatchObject({ tokens: [0, ...tokens] });
    expect(await tokenize({ prompt: "Hi", add_special_tokens: false, return_token_strs: true })).toMatchObject({
      token_strs: ["H", "i"],
    });
    expect(await (await post("/detokenize", { tokens })).json()).toEqual({ prompt: "Hi", content: "Hi" });
  });

  it("tokenize a chat as it would be read", async () => {
    const { post } = createTestServer();
    const messages = [{ role: "user", content: "Hi" }];
    const tokens = [...Buffer.from("user: Hi\n")];
    expect(await (await post("/tokenize", { messages })).json()).toMatchObject({ tokens, count: tokens.length });
    for (const body of [
      { messages, prompt: "a" },
      { messages, content: "a" },
    ]) {
      const response = await post("/tokenize", body);
      expect(await response.json()).toMatchObject({ error: { code: "invalid_value", param: "messages" } });
    }
  });

  it("refuse values that are not texts or tokens", async () => {
    const { post } = createTestServer();
    for (const [path, body, param] of [
      ["/tokenize", {}, "prompt"],
      ["/tokenize", { prompt: 5 }, "prompt"],
      ["/tokenize", { messages: [] }, "messages"],
      ["/tokenize", { messages: [{ role: "king", content: "a" }] }, "messages[0].role"],
      ["/detokenize", {}, "tokens"],
      ["/detokenize", { tokens: "a" }, "tokens"],
      ["/detokenize", { tokens: [1, 512] }, "tokens[1]"],
    ] as const) {
      const response = await post(path, body);
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { param } });
    }
  });

  it("answer the questions of lm-evaluation-harness", async () => {
    const { app } = createTestServer();
    expect(await (await app.request("/tokenizer_info")).json()).toEqual({
      tokenizer_class: "FakeTokenizer",
      bos_token: null,
      eos_token: "<eos>",
      pad_token: null,
      unk_token: null,
      chat_template: "{{ messages }}",
      vocab_size: 512,
    });
  });
});

describe("health and readiness", () => {
  it("differ: the process lives while the engine recovers", async () => {
    const { app, engine } = createTestServer();
    expect(await (await app.request("/ready")).json()).toEqual({
      status: "ready",
      model: FAKE_MODEL,
      runner: "fake runner",
    });
    engine.status = { state: "recovering", error: "the worker died" };
    const response = await app.request("/ready");
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("2");
    expect(await response.json()).toMatchObject({ status: "recovering", error: "the worker died" });
    expect((await app.request("/health")).status).toBe(200);
  });

  it.each(["starting", "closed"] as const)("is not there while the engine is %s", async (state) => {
    const { app, engine } = createTestServer();
    engine.status = { state };
    const response = await app.request("/ready");
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ status: state });
  });

  it("tell the version and the load", async () => {
    const { app, engine } = createTestServer();
    engine.load = { numRunning: 3, numWaiting: 2 };
    expect(await (await app.request("/version")).json()).toEqual({ version: "1.2.3" });
    expect(await (await app.request("/load")).json()).toEqual({ server_load: 5, running: 3, waiting: 2 });
  });

  it("metrics are served as the backend renders them", async () => {
    const response = await createTestServer().app.request("/metrics");
    expect(await response.text()).toBe("# fake metrics\n");
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  });
});

describe("request ids", () => {
  it("are echoed when they are plain tokens", async () => {
    const { post } = createTestServer();
    const response = await post("/v1/completions", COMPLETION, { "x-request-id": "trace-1" });
    expect(response.headers.get("x-request-id")).toBe("trace-1");
  });

  it.each(["", "a b", "x".repeat(129), "ä"])("are made when the client's is %j", async (given) => {
    const { app } = createTestServer();
    const response = await app.request("/health", { headers: { "x-request-id": given } });
    expect(response.headers.get("x-request-id")).toMatch(/^req_\d+$/);
  });
});

describe("keys", () => {
  const options = { apiKeys: ["key-one", "key-two"] };

  it.each(["Bearer key-one", "Bearer key-two", "bearer key-two"])("let %s in", async (authorization) => {
    const { post } = createTestServer(options);
    expect((await post("/v1/completions", COMPLETION, { authorization })).status).toBe(200);
  });

  it.each<Record<string, string>>([
    { "api-key": "key-one" },
    { "x-api-key": "key-two" },
    { authorization: "Basic abc", "x-api-key": "key-one" },
    { authorization: "Bearer token-of-a-proxy", "api-key": "key-one" },
    { "api-key": "", "x-api-key": "key-one" },
  ])("let %j in", async (headers) => {
    const { post } = createTestServer(options);
    expect((await post("/v1/completions", COMPLETION, headers)).status).toBe(200);
  });

  it("own the same in every header", async () => {
    const { post, app } = createTestServer(options);
    await post("/v1/sessions", { session_id: "s" }, { "x-api-key": "key-one" });
    const statusFor = async (headers: Record<string, string>) =>
      (await app.request("/v1/sessions/s", { headers })).status;
    expect(await statusFor({ authorization: "Bearer key-one" })).toBe(200);
    expect(await statusFor({ "api-key": "key-one" })).toBe(200);
    expect(await statusFor({ "api-key": "key-two" })).toBe(404);
  });

  it.each<Record<string, string>>([{ "api-key": "key-three" }, { "x-api-key": "Bearer key-one" }, { "x-api-key": "" }])(
    "keep %j out",
    async (headers) => {
      const { post } = createTestServer(options);
      expect((await post("/v1/completions", COMPLETION, headers)).status).toBe(401);
    },
  );

  it.each(["", "Bearer", "Bearer ", "Bearer key-three", "Bearer key-one2", "Basic key-one", "key-one"])(
    "keep %j out",
    async (authorization) => {
      const { post, generator } = createTestServer(options);
      const response = await post("/v1/completions", COMPLETION, { authorization });
      expect(response.status).toBe(401);
      expect(response.headers.get("www-authenticate")).toBe("Bearer");
      expect(await response.json()).toMatchObject({ error: { code: "invalid_api_key" } });
      expect(generator.requests).toEqual([]);
    },
  );

  it("are not needed for probes and documents, nor for metrics unless configured", async () => {
    const { app } = createTestServer(options);
    for (const path of ["/", "/health", "/ready", "/metrics", "/docs", "/openapi.yaml"]) {
      expect((await app.request(path)).status, path).toBe(200);
    }
    expect((await app.request("/v1/models")).status).toBe(401);
    expect((await app.request("/v1/sessions")).status).toBe(401);
    expect((await createTestServer({ ...options, metricsNeedKey: true }).app.request("/metrics")).status).toBe(401);
  });

  it("may be anything if none are configured, even empty", async () => {
    const { post } = createTestServer();
    for (const authorization of ["Bearer ", "Bearer sk-x", "Basic x"]) {
      expect((await post("/v1/completions", COMPLETION, { authorization })).status).toBe(200);
    }
  });
});

describe("CORS", () => {
  const preflight = {
    method: "OPTIONS",
    headers: { origin: "https://a.example", "access-control-request-method": "POST" },
  };

  it("is off unless configured", async () => {
    const response = await createTestServer().app.request("/v1/completions", preflight);
    expect(response.status).toBe(204);
    expect(response.headers.get("allow")).toBe("POST");
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  it("answers a preflight, which has no key, also behind keys", async () => {
    for (const [path, allow] of [
      ["/v1/responses/input_tokens", "POST"],
      ["/v1/sessions/import", "POST"],
      ["/v1/sessions/a", "DELETE, GET, HEAD, POST"],
    ] as const) {
      const response = await createTestServer({ apiKeys: ["k"] }).app.request(path, preflight);
      expect([response.status, response.headers.get("allow")]).toEqual([204, allow]);
    }
    for (const corsOrigins of [[], ["https://a.example"]]) {
      const { app } = createTestServer({ apiKeys: ["k"], corsOrigins });
      for (const path of ["/v1/completions", "/chat/completions/", "/v1/models/default"]) {
        expect((await app.request(path, preflight)).status, path).toBe(204);
      }
    }
    const { app } = createTestServer({ apiKeys: ["k"] });
    expect((await app.request("/nowhere", preflight)).status).toBe(401);
  });

  it("allows the headers that clients put keys into", async () => {
    const { app } = createTestServer({ corsOrigins: ["https://a.example"], apiKeys: ["k"] });
    const asked = { ...preflight.headers, "access-control-request-headers": "api-key,x-api-key,content-type" };
    const response = await app.request("/v1/completions", { method: "OPTIONS", headers: asked });
    expect(response.headers.get("access-control-allow-headers")).toBe("api-key,x-api-key,content-type");
  });

  it("allows the listed origins, without credentials, on streams as well", async () => {
    const { app, post } = createTestServer({ corsOrigins: ["https://a.example"], apiKeys: ["k"] });
    const allowed = await app.request("/v1/completions", preflight);
    expect(allowed.status).toBe(204);
    expect(allowed.headers.get("access-control-allow-origin")).toBe("https://a.example");
    expect(allowed.headers.get("access-control-allow-credentials")).toBeNull();
    const headers = { origin: "https://a.example", authorization: "Bearer k" };
    const stream = await post("/v1/completions", { ...COMPLETION, stream: true }, headers);
    expect(stream.headers.get("access-control-allow-origin")).toBe("https://a.example");
    expect(stream.headers.get("x-request-id")).toBeTruthy();
    await stream.text();
    const failed = await post("/v1/completions", {}, headers);
    expect(failed.status).toBe(400);
    expect(failed.headers.get("access-control-allow-origin")).toBe("https://a.example");
  });

  it("names no other origin", async () => {
    const { app } = createTestServer({ corsOrigins: ["https://a.example"] });
    const headers = { ...preflight.headers, origin: "https://b.example" };
    const response = await app.request("/v1/completions", { method: "OPTIONS", headers });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("the log", () => {
  it("has one line per request, with its tokens, and reports the route to the observer", async () => {
    const { post, app, logLines, observed } = createTestServer();
    await post("/v1/completions", COMPLETION, { "x-request-id": "r1" });
    await app.request("/v1/models/secret-name");
    await app.request("/nowhere/at/all");
    expect(logLines.filter(({ message }) => message === "request").map(({ fields }) => fields)).toMatchObject([
      { requestId: "r1", method: "POST", path: "/v1/completions", status: 200, promptTokens: 2, completionTokens: 4 },
      { method: "GET", path: "/v1/models/secret-name", status: 404 },
      { method: "GET", path: "/nowhere/at/all", status: 404 },
    ]);
    expect(observed).toMatchObject([
      { http: { method: "POST", route: "/v1/completions", status: 200 } },
      { http: { method: "GET", route: "/v1/models/:model", status: 404 } },
      { http: { method: "GET", route: "unmatched", status: 404 } },
    ]);
  });

  it("says who asked and what came of it", async () => {
    const { deps, app, responses, logLines, generator } = createTestServer({ apiKeys: ["secret-key"] });
    const listener = await listen({ app, deps, responses, host: "127.0.0.1", port: 0 });
    const ask = (body: object, headers: Record<string, string> = {}) =>
      fetch(`http://127.0.0.1:${listener.port}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify(body),
      }).then((response) => response.text());
    await ask(COMPLETION, { authorization: "Bearer secret-key", "x-forwarded-for": `10.0.0.7, ${"1".repeat(500)}` });
    await ask(COMPLETION);
    generator.script = { reply: ["a", "b"], failure: { afterDeltas: 1, error: runtimeFault() } };
    await ask({ ...COMPLETION, stream: true }, { authorization: "Bearer secret-key" });
    await listener.close(0);
    const [first, refused, failed] = logLines.filter(({ message }) => message === "request");
    expect(first!.fields).toMatchObject({
      client: "127.0.0.1",
      forwardedFor: expect.stringMatching(/^10\.0\.0\.7, 1{118}$/),
      key: expect.stringMatching(/^[0-9a-f]{16}$/),
      finishReason: "stop",
      ttftMs: 1.5,
    });
    expect(first!.fields).not.toHaveProperty("errorCode");
    expect(refused!.fields).toMatchObject({ client: "127.0.0.1", status: 401, errorCode: "invalid_api_key" });
    expect(refused!.fields).not.toHaveProperty("key");
    expect(failed!.fields).toMatchObject({ key: first!.fields.key, errorCode: "runtime_fault" });
  });

  it("has probes at debug level and no keys or prompts", async () => {
    const { app, post, logLines } = createTestServer({ apiKeys: ["secret-key"] });
    await app.request("/health");
    await post("/v1/completions", { prompt: "private words" }, { authorization: "Bearer secret-key" });
    expect(logLines.map(({ level }) => level)).toEqual(["debug", "info"]);
    expect(JSON.stringify(logLines)).not.toMatch(/secret-key|private words/);
  });
});

describe("documents", () => {
  it("are served from local files, under a policy that forbids other sources", async () => {
    const { app } = createTestServer();
    const page = await app.request("/docs");
    expect(page.headers.get("content-security-policy")).toContain("script-src 'self'");
    const html = await page.text();
    expect(html).not.toMatch(/https?:\/\//);
    const linked = [...html.matchAll(/(?:src|href)="\.(\/[^"]+)"/g)].map((match) => match[1]!);
    expect(linked).toHaveLength(3);
    for (const path of linked) expect((await app.request(path)).status, path).toBe(200);
    expect(await (await app.request("/docs/init.js")).text()).toContain("./openapi.yaml");
    expect((await app.request("/docs/package.json")).status).toBe(404);
    expect((await app.request("/docs/..%2f..%2fpackage.json")).status).toBe(404);
  });
});
