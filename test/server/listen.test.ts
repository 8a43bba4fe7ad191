import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { setImmediate } from "node:timers/promises";
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { gate, pauseAt } from "../helpers/gate.ts";
import { startTestServer } from "../helpers/listening-server.ts";
import { FAKE_MODEL, runtimeFault } from "../helpers/server-deps.ts";

const MESSAGES = [{ role: "user" as const, content: "Hi" }];

const clientOf = (url: string, options: { apiKey?: string; maxRetries?: number } = {}) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0, ...options });

describe("OpenAI's client, unmodified,", () => {
  it("completes, whole and streamed", async () => {
    await using server = await startTestServer();
    const client = clientOf(server.url);
    const whole = await client.completions.create({ model: FAKE_MODEL, prompt: "Hi" });
    expect(whole.choices[0]!.text).toBe("Once upon a time");
    let text = "";
    let usage: unknown;
    const stream = await client.completions.create({
      model: FAKE_MODEL,
      prompt: "Hi",
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.text ?? "";
      usage = chunk.usage;
    }
    expect(text).toBe("Once upon a time");
    expect(usage).toMatchObject({ completion_tokens: 4 });
  });

  it("chats, whole and streamed, also through its stream helper", async () => {
    await using server = await startTestServer();
    const client = clientOf(server.url);
    const whole = await client.chat.completions.create({ model: FAKE_MODEL, messages: MESSAGES });
    expect(whole.choices[0]!.message).toMatchObject({ role: "assistant", content: "Once upon a time" });
    let text = "";
    for await (const chunk of await client.chat.completions.create({
      model: FAKE_MODEL,
      messages: MESSAGES,
      stream: true,
    })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    expect(text).toBe("Once upon a time");
    const helper = client.chat.completions.stream({ model: FAKE_MODEL, messages: MESSAGES });
    const final = await helper.finalChatCompletion();
    expect(final.choices[0]).toMatchObject({ finish_reason: "stop", message: { content: "Once upon a time" } });
  });

  it("creates responses, whole and streamed, and continues from one", async () => {
    await using server = await startTestServer();
    const client = clientOf(server.url);
    const first = await client.responses.create({ model: FAKE_MODEL, input: "Hi" });
    expect(first.output_text).toBe("Once upon a time");
    const second = await client.responses.create({ model: FAKE_MODEL, input: "More", previous_response_id: first.id });
    expect(second.usage!.input_tokens_details.cached_tokens).toBeGreaterThan(0);
    const types: string[] = [];
    const stream = client.responses.stream({ model: FAKE_MODEL, input: "Hi" });
    for await (const event of stream) types.push(event.type);
    expect(types.at(-1)).toBe("response.completed");
    expect((await stream.finalResponse()).output_text).toBe("Once upon a time");
  });

  it("lists and retrieves models", async () => {
    await using server = await startTestServer();
    const client = clientOf(server.url);
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(ids).toEqual([FAKE_MODEL, "default"]);
    expect((await client.models.retrieve(FAKE_MODEL)).owned_by).toBe("densemamba");
  });

  it("sees its own error classes", async () => {
    await using server = await startTestServer({ apiKeys: ["right"] });
    const wrong = clientOf(server.url);
    await expect(wrong.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const client = clientOf(server.url, { apiKey: "right" });
    const complete = (body: object) => client.completions.create({ model: FAKE_MODEL, prompt: "a", ...body });
    await expect(complete({ model: "nope" })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(complete({ temperature: 3 })).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      param: "temperature",
      code: "invalid_value",
    });
    for (const [code, errorClass] of [
      ["queue_full", OpenAI.RateLimitError],
      ["session_busy", OpenAI.ConflictError],
      ["not_ready", OpenAI.InternalServerError],
    ] as const) {
      server.generator.script = { reply: [], refusal: new DenseMambaError(code, "told so") };
      await expect(complete({})).rejects.toBeInstanceOf(errorClass);
    }
  });

  it("gets a mid-stream failure as an error", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: ["a", "b"], failure: { afterDeltas: 1, error: runtimeFault() } };
    const stream = await clientOf(server.url).completions.create({ model: FAKE_MODEL, prompt: "a", stream: true });
    const read = async () => {
      for await (const _chunk of stream);
    };
    await expect(read()).rejects.toThrow("the runtime failed: injected");
  });

  it("retries after a full queue when the server says so", async () => {
    await using server = await startTestServer();
    const full = new DenseMambaError("queue_full", "full", { retryAfterMs: 30 });
    const refusals = [full, full];
    server.generator.script = {
      reply: ["ok"],
      get refusal() {
        return refusals.shift();
      },
    };
    const client = clientOf(server.url, { maxRetries: 2 });
    expect((await client.completions.create({ model: FAKE_MODEL, prompt: "a" })).choices[0]!.text).toBe("ok");
    expect(server.generator.requests).toHaveLength(3);
  });
});

describe("a client that goes away", () => {
  const endless = { reply: Array.from({ length: 1_000_000 }, () => "x ") };

  it.each([
    ["/v1/completions", { prompt: "a", max_tokens: 16_000 }],
    ["/v1/chat/completions", { messages: MESSAGES }],
    ["/v1/responses", { input: "a", store: false }],
  ])("ends its stream on %s", async (path, body) => {
    await using server = await startTestServer();
    server.generator.script = endless;
    const abort = new AbortController();
    const response = await fetch(server.url + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, stream: true }),
      signal: abort.signal,
    });
    expect(response.status).toBe(200);
    await response.body!.getReader().read();
    expect(server.generator.numRunning).toBe(1);
    abort.abort();
    await expect.poll(() => server.generator.numRunning).toBe(0);
    expect(server.generator.numAborted).toBe(1);
    await expect
      .poll(() => server.logLines.at(-1))
      .toMatchObject({ message: "request", fields: { path, status: 499 } });
    expect(server.observed).toContainEqual({ http: expect.objectContaining({ route: path, status: 499 }) });
  });

  it("ends its unstreamed request", async () => {
    await using server = await startTestServer();
    server.generator.script = endless;
    const abort = new AbortController();
    const answer = fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", max_tokens: 16_000 }),
      signal: abort.signal,
    });
    await expect.poll(() => server.generator.numRunning).toBe(1);
    abort.abort();
    await expect(answer).rejects.toThrow();
    await expect.poll(() => server.generator.numRunning).toBe(0);
  });

  it("while it sends its request causes no error", async () => {
    await using server = await startTestServer();
    for (const head of ["content-length: 1000", "transfer-encoding: chunked"]) {
      const lines = ["POST /v1/completions HTTP/1.1", "host: localhost", "content-type: application/json", head];
      const request = [...lines, "expect: 100-continue", "", ""].join("\r\n");
      const socket = connect(server.listener.port, "127.0.0.1", () => socket.write(request));
      await once(socket, "data"); // the server waits for the body
      socket.destroy();
    }
    await expect.poll(() => server.logLines.map(({ fields }) => fields.status)).toEqual([499, 499]);
    expect(server.logLines.map(({ level }) => level)).toEqual(["info", "info"]);
  });

  it("or does not read pauses generation, and loses its stream in the end", async () => {
    await using server = await startTestServer({ stallTimeoutMs: 300 });
    const pulled: number[] = [];
    server.generator.script = {
      reply: Array.from({ length: 2000 }, () => "x".repeat(64 * 1024)),
      pace: async (index) => {
        pulled.push(index);
        await setImmediate();
      },
    };
    const request = httpRequest(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
    });
    request.on("error", () => {});
    request.on("response", (response) => response.pause());
    request.end(JSON.stringify({ prompt: "a", stream: true, max_tokens: 2000 }));
    await expect.poll(() => server.generator.numAborted, { timeout: 10_000 }).toBe(1);
    expect(pulled.length).toBeLessThan(1000);
    expect(server.generator.numRunning).toBe(0);
  });
});

describe("a stream", () => {
  it("has heartbeats while nothing is ready, which clients do not see", async () => {
    await using server = await startTestServer({ heartbeatMs: 20 });
    const { held, release } = gate();
    server.generator.script = { reply: ["a"], pace: () => held };
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", stream: true }),
    });
    let text = "";
    for await (const bytes of response.body!.pipeThrough(new TextDecoderStream())) {
      text += bytes;
      if (text.split(": heartbeat\n\n").length > 2) release();
    }
    expect(text.replaceAll(": heartbeat\n\n", "")).toMatch(/^data: \{.*\}\n\ndata: \[DONE\]\n\n$/);
  });

  it("sends everything that one tick made in one write", async () => {
    await using server = await startTestServer();
    const gates = [gate(), gate()];
    server.generator.script = { reply: ["a", "b"], pace: (index) => gates[index]?.held ?? Promise.resolve() };
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: ["a", "b", "c", "d"], stream: true }),
    });
    const pieces: string[] = [];
    const decoder = new TextDecoder();
    gates[0]!.release();
    for await (const bytes of response.body!) {
      pieces.push(decoder.decode(bytes));
      gates[1]!.release();
    }
    expect(pieces.map((piece) => piece.split("data: ").length - 1)).toEqual([4, 5]);
  });

  it("is cut into chunks that end with it, so that the connection serves the next request", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: ["Übermut ", "tut ", "selten gut."] };
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
    const received = socket.setEncoding("utf8").iterator();
    const body = JSON.stringify({ prompt: "Hi", stream: true });
    const ask = `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    for (const _turn of [1, 2]) {
      socket.write(ask);
      const answer = await readUntil(received, "\r\n0\r\n\r\n");
      const [head, ...rest] = answer.split("\r\n\r\n");
      expect(head).toContain("Transfer-Encoding: chunked");
      expect(dechunk(rest.join("\r\n\r\n"))).toMatch(/^data: .*Übermut .*data: \[DONE\]\n\n$/s);
    }
    socket.destroy();
  });

  it("comes without chunks to a client of HTTP/1.0", async () => {
    await using server = await startTestServer();
    const body = JSON.stringify({ prompt: "Hi", stream: true });
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1").setEncoding("utf8");
    socket.write(
      `POST /v1/completions HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    let answer = "";
    for await (const text of socket) answer += text;
    expect(answer.slice(answer.indexOf("\r\n\r\n") + 4)).toMatch(/^data: \{.*data: \[DONE\]\n\n$/s);
  });

  it("carries the headers that the middleware has set, and is logged when it ends", async () => {
    await using server = await startTestServer({ corsOrigins: ["https://a.example"] });
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-request-id": "r1", origin: "https://a.example" },
      body: JSON.stringify({ prompt: "a", stream: true }),
    });
    expect(response.headers.get("x-request-id")).toBe("r1");
    expect(response.headers.get("access-control-allow-origin")).toBe("https://a.example");
    await response.text();
    await expect
      .poll(() => server.logLines.find(({ message }) => message === "request")?.fields)
      .toMatchObject({ requestId: "r1", status: 200, completionTokens: 4 });
  });
});

describe("the socket", () => {
  it("takes no chunked body over the limit", async () => {
    await using server = await startTestServer();
    const { limits } = server.deps.options;
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += 65_536;
        controller.enqueue(new Uint8Array(65_536).fill(32));
      },
    });
    const answer = fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
      duplex: "half",
    } as RequestInit);
    expect((await answer).status).toBe(413);
    expect(sent).toBeLessThan(limits.maxBodyBytes * 4);
  });

  it("refuses headers over the limit and garbage, and still serves others", async () => {
    await using server = await startTestServer();
    const { maxHeaderBytes } = server.deps.options;
    const large = await server.rawRequest(
      `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${"y".repeat(maxHeaderBytes)}\r\n\r\n`,
    );
    expect(large).toMatch(/^HTTP\/1.1 431 /);
    expect(await server.rawRequest("what is this\r\n\r\n")).toMatch(/^HTTP\/1.1 400 /);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it("serves a request that offers another protocol as if it had not", async () => {
    await using server = await startTestServer();
    const body = JSON.stringify({ prompt: "a" });
    const text = await server.rawRequest(
      "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n" +
        `http2-settings: AAMAAABk\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n` +
        // The answer ends the connection: rawRequest waits for that.
        `\r\n${body}GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`,
    );
    expect(text).toMatch(/^HTTP\/1.1 200 /);
    expect(text).toContain("Once upon a time");
  });
});

describe("closing", () => {
  it("lets running requests finish and refuses new ones", async () => {
    const server = await startTestServer();
    const { held, release } = gate();
    server.generator.script = { reply: ["a", "b"], pace: () => held };
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", stream: true }),
    });
    const closed = server.listener.close(5000);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    const ready = await fetch(`${server.url}/ready`);
    expect([ready.status, ready.headers.get("retry-after")]).toEqual([503, "2"]);
    expect(await ready.json()).toMatchObject({ status: "stopping" });
    const refused = await fetch(`${server.url}/v1/models`);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "2"]);
    expect(refused.headers.get("connection")).toBe("close");
    expect(await refused.json()).toMatchObject({ error: { code: "shutting_down" } });
    release();
    expect((await response.text()).trim().endsWith("data: [DONE]")).toBe(true);
    const startedAt = performance.now();
    await closed;
    expect(performance.now() - startedAt).toBeLessThan(3000); // far from the deadline
    expect(server.generator.numAborted).toBe(0);
    await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  });

  it("cuts off at the deadline whatever has not finished", async () => {
    const server = await startTestServer();
    server.generator.script = {
      reply: ["a"],
      pace: pauseAt(0, gate()),
    };
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", stream: true }),
    });
    await server.listener.close(50);
    await expect(response.text()).rejects.toThrow();
    await expect.poll(() => server.generator.numAborted).toBe(1);
  });
});

async function readUntil(texts: AsyncIterator<string>, end: string): Promise<string> {
  let text = "";
  while (!text.endsWith(end)) {
    const { done, value } = await texts.next();
    if (done) throw new Error(`the connection ended after ${JSON.stringify(text)}`);
    text += value;
  }
  return text;
}

/** @throws if a chunk is not as long as it says */
function dechunk(body: string): string {
  let rest = Buffer.from(body);
  let text = "";
  for (;;) {
    const lineEnd = rest.indexOf("\r\n");
    const length = Number.parseInt(rest.toString("latin1", 0, lineEnd), 16);
    const end = lineEnd + 2 + length;
    expect(rest.toString("latin1", end, end + 2)).toBe("\r\n");
    if (length === 0) return text;
    text += rest.toString("utf8", lineEnd + 2, end);
    rest = rest.subarray(end + 2);
  }
}
