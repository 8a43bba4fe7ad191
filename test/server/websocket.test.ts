import { once } from "node:events";
import { setImmediate } from "node:timers/promises";
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";
import { describe, expect, it } from "vitest";
import { type ClientOptions, WebSocket } from "ws";
import type { ServerOptions } from "../../src/server/deps.ts";
import { gate } from "../helpers/gate.ts";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";
import { DEFAULT_SERVER_OPTIONS, FAKE_MODEL, runtimeFault } from "../helpers/server-deps.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

/** The status of a refused handshake. */
async function refused(url: string, options: ClientOptions = {}): Promise<{ status: number; body: string }> {
  const socket = new WebSocket(url, options);
  socket.on("error", () => {});
  const [, response] = await once(socket, "unexpected-response");
  let body = "";
  for await (const part of response) body += part;
  return { status: response.statusCode, body };
}

const webSocketOptions = (changes: Partial<ServerOptions["webSocket"]>) => ({
  webSocket: { ...DEFAULT_SERVER_OPTIONS.webSocket, ...changes },
});

/** The server logs it last. */
async function untilClosed({ logLines }: ListeningServer): Promise<void> {
  await expect.poll(() => logLines.some(({ message }) => message === "websocket closed")).toBe(true);
}

describe("a response over the WebSocket", () => {
  it("sends the events that SSE sends", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    client.create();
    const messages = await client.until(isEnd);
    const response = await server.post("/v1/responses", { model: FAKE_MODEL, input: "Hi", stream: true });
    const events = (await response.text()).match(/^data: .*$/gm)!.map((line) => JSON.parse(line.slice(6)));
    const anonymous = (value: unknown) => JSON.stringify(value).replace(/(resp|msg)_\d+/g, "$1_x");
    expect(messages.map(anonymous)).toEqual(events.map(anonymous));
    client.socket.close();
  });

  it("works with OpenAI's own client", async () => {
    await using server = await startTestServer({ apiKeys: ["key"] });
    const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "key" });
    const client = new ResponsesWS(openai);
    const types: string[] = [];
    client.on("event", (event) => types.push(event.type));
    client.send({ type: "response.create", model: FAKE_MODEL, input: "Hi" });
    await expect.poll(() => types.at(-1)).toBe("response.completed");
    client.close();
  });

  it("waits for earlier responses of its stream", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    for (const input of ["first", "second", "third"]) client.create({ input, stream_id: "one" });
    const messages = await client.until(isEnd, 3);
    expect(messages.map(({ stream_id }) => stream_id)).toEqual(messages.map(() => "one"));
    const numbers = messages.map(({ sequence_number }) => sequence_number as number);
    expect(numbers).toEqual([...Array(3)].flatMap(() => [...Array(numbers.length / 3).keys()]));
    expect(server.generator.requests.map(({ prompts }) => prompts[0])).toMatchObject(
      ["first", "second", "third"].map((content) => ({ messages: [{ content }] })),
    );
    client.socket.close();
  });

  it("is continued by its id, on its own connection even if it is not stored", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    client.create({ store: false });
    await client.until(isEnd);
    const { id } = client.messages.at(-1)!.response as { id: string };
    client.create({ previous_response_id: id, store: false });
    await client.until(isEnd, 2);
    expect(client.messages.at(-1)).toMatchObject({
      type: "response.completed",
      response: { previous_response_id: id },
    });
    expect(server.generator.conversations.unstored.size).toBe(2);
    expect(server.generator.conversations.responses.size).toBe(0);
    client.socket.close();
    await expect.poll(() => server.generator.conversations.unstored.size).toBe(0);
  });

  it("outlives its connection if it is stored", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    client.create();
    await client.until(isEnd);
    client.socket.close();
    await untilClosed(server);
    expect(server.generator.conversations.responses.size).toBe(1);
  });

  it("can be cancelled, and the next one runs", async () => {
    await using server = await startTestServer();
    const { held, release } = gate();
    server.generator.script = { reply: ["a", "b", "c"], pace: (index) => (index === 1 ? held : Promise.resolve()) };
    const client = await open(server);
    client.create();
    await client.until(({ type }) => type === "response.output_text.delta");
    const { id } = client.messages[0]!.response as { id: string };
    client.create();
    client.send({ type: "response.cancel", response_id: id });
    await client.handled();
    release();
    const ends = (await client.until(isEnd, 2)).filter(isEnd);
    expect(ends).toMatchObject([
      { type: "response.incomplete", response: { id, status: "cancelled", output: [{ content: [{ text: "a" }] }] } },
      { type: "response.completed" },
    ]);
    client.socket.close();
  });

  it("fails if its generation fails, and the connection stays open", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: ["a", "b"], failure: { afterDeltas: 1, error: runtimeFault() } };
    const client = await open(server);
    client.create();
    await client.until(isEnd);
    expect(client.messages.at(-1)).toMatchObject({ type: "response.failed", response: { status: "failed" } });
    server.generator.script = { reply: ["ok"] };
    client.create();
    await client.until(({ type }) => type === "response.completed");
    client.socket.close();
  });
});

const CREATE = { type: "response.create", input: "a" };
const INVALID_STREAM_ID = { code: "invalid_stream_id", param: "stream_id" };

describe("a bad message", () => {
  it.each<[name: string, message: unknown, status: number, error: object]>([
    ["that is not JSON", "{nope", 400, { code: "invalid_value" }],
    ["that is no object", "[1]", 400, { code: "invalid_value" }],
    ["without a type", {}, 400, { code: "invalid_value", param: "type" }],
    ["of an unknown type", { type: "session.update" }, 400, { code: "invalid_value", param: "type" }],
    ["without input", { type: "response.create" }, 400, { code: "invalid_value", param: "input" }],
    [
      "with a value out of bounds",
      { type: "response.create", input: "a", temperature: 9 },
      400,
      { code: "invalid_value", param: "temperature", message: "temperature must be at most 2; got 9" },
    ],
    ["for another model", { type: "response.create", input: "a", model: "x" }, 404, { code: "model_not_found" }],
    [
      "that continues an unknown response",
      { type: "response.create", input: "a", previous_response_id: "resp_x" },
      400,
      { code: "previous_response_not_found", param: "previous_response_id" },
    ],
    [
      "with a tool that is no function",
      { type: "response.create", input: "a", tools: [{ type: "web_search" }] },
      400,
      { code: "unsupported_value", param: "tools[0].type" },
    ],
    ["that cancels nothing", { type: "response.cancel" }, 404, { code: "response_not_found" }],
    [
      "that cancels in an unused stream",
      { type: "response.cancel", stream_id: "x" },
      404,
      { code: "response_not_found", message: "no response is running on this connection" },
    ],
    ["with a stream_id that is no text", { ...CREATE, stream_id: 5 }, 400, INVALID_STREAM_ID],
    ["with an empty stream_id", { ...CREATE, stream_id: "" }, 400, INVALID_STREAM_ID],
    ["with a stream_id of other characters", { ...CREATE, stream_id: "a b" }, 400, INVALID_STREAM_ID],
    ["with a long stream_id", { ...CREATE, stream_id: "x".repeat(257) }, 400, INVALID_STREAM_ID],
  ])("%s is answered with an error event, and the connection stays open", async (_name, message, status, error) => {
    await using server = await startTestServer();
    const client = await open(server);
    client.send(message);
    client.create();
    const ends = (await client.until(isEnd, 2)).filter(isEnd);
    expect(ends).toMatchObject([{ type: "error", status, error }, { type: "response.completed" }]);
    client.socket.close();
  });

  it("is answered under its stream_id", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    client.create({ stream_id: "one", temperature: 9 });
    expect(await client.until(isEnd)).toMatchObject([{ type: "error", stream_id: "one" }]);
    client.socket.close();
  });

  it("closes the connection with 1003 if it is binary, with 1009 if it is too large", async () => {
    await using server = await startTestServer(webSocketOptions({ maxMessageBytes: 1000 }));
    const binary = await open(server);
    binary.socket.send(Buffer.from("{}"), { binary: true });
    await expect.poll(() => binary.closed?.code).toBe(1003);
    const oversized = await open(server);
    oversized.send("x".repeat(1001));
    await expect.poll(() => oversized.closed?.code).toBe(1009);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it("closes the connection with 1008 once a hundred have come in a row", async () => {
    await using server = await startTestServer();
    const patient = await open(server);
    for (let round = 0; round < 2; round++) {
      for (let message = 0; message < 99; message++) patient.send("x");
      patient.create();
    }
    await patient.until(({ type }) => type === "response.completed", 2);
    const closed = await open(server);
    for (let message = 0; message < 200; message++) closed.send("x");
    await expect.poll(() => closed.closed?.code).toBe(1008);
    expect(closed.messages).toHaveLength(100);
    expect(patient.closed).toBeUndefined();
    patient.socket.close();
  });

  it("cancels a response that is not admitted yet", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    for (const stream_id of ["a", "b"]) {
      client.create({ stream_id });
      client.send({ type: "response.cancel", stream_id });
    }
    const ends = (await client.until(isEnd, 2)).filter(isEnd);
    for (const { type, error, response } of ends) {
      if (type === "error") expect(error).toMatchObject({ code: "aborted" });
      else expect(response).toMatchObject({ status: "cancelled" });
    }
    client.create();
    await client.until(({ type }) => type === "response.completed");
    client.socket.close();
  });

  it("cancels a response that waits in its stream", async () => {
    await using server = await startTestServer(webSocketOptions({ maxInFlight: 1 }));
    const { held, release } = gate();
    server.generator.script = { reply: ["a"], pace: () => held };
    const client = await open(server);
    client.create({ stream_id: "a" });
    client.create({ stream_id: "b" });
    client.send({ type: "response.cancel", stream_id: "b" });
    const [refused] = (await client.until(isEnd)).filter(isEnd);
    expect(refused).toMatchObject({ type: "error", status: 499, stream_id: "b", error: { code: "aborted" } });
    release();
    await client.until(({ type }) => type === "response.completed");
    expect(server.generator.requests).toHaveLength(1);
    client.socket.close();
  });

  it("is refused if the queue is full, and queued ones still run", async () => {
    await using server = await startTestServer(webSocketOptions({ maxQueued: 2 }));
    const { held, release } = gate();
    server.generator.script = { reply: ["a"], pace: () => held };
    const client = await open(server);
    for (let i = 0; i < 4; i++) client.create();
    await client.until(({ type }) => type === "error");
    expect(client.messages.find(({ type }) => type === "error")).toMatchObject({
      status: 429,
      error: { code: "queue_full", message: "a connection may have at most 2 responses waiting; got one more" },
    });
    release();
    await client.until(({ type }) => type === "response.completed", 3);
    client.socket.close();
  });
});

describe("streams", () => {
  it("run at once, each with its own events under its own id", async () => {
    await using server = await startTestServer();
    const { held, release } = gate();
    server.generator.script = { reply: ["a", "b"], pace: (index) => (index === 1 ? held : Promise.resolve()) };
    const client = await open(server);
    const streamIds = ["a", "b", undefined];
    for (const stream_id of streamIds) client.create(stream_id === undefined ? {} : { stream_id });
    await client.until(({ type }) => type === "response.output_text.delta", 3);
    expect(server.generator.numRunning).toBe(3);
    release();
    const messages = await client.until(isEnd, 3);
    for (const streamId of streamIds) {
      const own = messages.filter(({ stream_id }) => stream_id === streamId);
      expect(own.map(({ sequence_number }) => sequence_number)).toEqual([...own.keys()]);
      expect(own.at(-1)!.type).toBe("response.completed");
    }
    client.socket.close();
  });

  it("fork: two streams can continue from one response", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    client.create({ stream_id: "main", store: false });
    await client.until(isEnd);
    const parent = client.responseIds[0]!;
    client.create({ stream_id: "main", store: false, previous_response_id: parent });
    client.create({ stream_id: "critic", store: false, previous_response_id: parent });
    const ends = (await client.until(isEnd, 3)).filter(isEnd).slice(1);
    for (const { type, response } of ends) {
      expect({ type, response }).toMatchObject({
        type: "response.completed",
        response: { previous_response_id: parent, usage: { input_tokens_details: { cached_tokens: 13 } } },
      });
    }
    client.socket.close();
  });

  it("wait while the most that a connection may run are running", async () => {
    await using server = await startTestServer(webSocketOptions({ maxInFlight: 2 }));
    const { held, release } = gate();
    server.generator.script = { reply: ["a"], pace: () => held };
    const client = await open(server);
    for (const stream_id of ["a", "b", "c"]) client.create({ stream_id });
    await client.until(({ type }) => type === "response.in_progress", 2);
    await client.handled();
    expect(server.generator.numRunning).toBe(2);
    release();
    await client.until(({ type }) => type === "response.completed", 3);
    client.socket.close();
  });

  it("have at most so many ids; known ones, and messages without an id, still run", async () => {
    await using server = await startTestServer(webSocketOptions({ maxStreams: 2 }));
    const client = await open(server);
    for (const stream_id of ["a", "b", "c", "a"]) client.create({ stream_id });
    client.create();
    const ends = (await client.until(isEnd, 5)).filter(isEnd);
    expect(ends.find(({ type }) => type === "error")).toMatchObject({
      status: 400,
      stream_id: "c",
      error: {
        code: "websocket_stream_limit_reached",
        param: "stream_id",
        message: expect.stringContaining("at most 2 stream ids"),
      },
    });
    expect(ends.filter(({ type }) => type === "response.completed")).toHaveLength(4);
    client.socket.close();
  });

  it("fail alone: an error names its stream, and other streams run on", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    client.create({ stream_id: "a", previous_response_id: "resp_x" });
    client.create({ stream_id: "b" });
    const ends = (await client.until(isEnd, 2)).filter(isEnd);
    expect(ends.map(({ type, stream_id }) => [type, stream_id]).sort()).toEqual([
      ["error", "a"],
      ["response.completed", "b"],
    ]);
    client.socket.close();
  });

  it("are cancelled one by one, by stream id or by response id", async () => {
    await using server = await startTestServer();
    const { held, release } = gate();
    server.generator.script = { reply: ["a", "b"], pace: (index) => (index === 1 ? held : Promise.resolve()) };
    const client = await open(server);
    for (const stream_id of ["a", "b", "c"]) client.create({ stream_id });
    await client.until(({ type }) => type === "response.output_text.delta", 3);
    const idOf = (streamId: string) =>
      (client.messages.find(({ stream_id }) => stream_id === streamId)!.response as { id: string }).id;
    client.send({ type: "response.cancel", stream_id: "a" });
    client.send({ type: "response.cancel", response_id: idOf("b") });
    client.send({ type: "response.cancel" });
    await client.until(({ type }) => type === "error");
    await client.handled();
    release();
    const ends = (await client.until(isEnd, 4)).filter(isEnd);
    expect(Object.fromEntries(ends.map(({ type, stream_id }) => [stream_id ?? "none", type]))).toEqual({
      none: "error",
      a: "response.incomplete",
      b: "response.incomplete",
      c: "response.completed",
    });
    client.socket.close();
  });
});

describe("a response that is not stored", () => {
  it("can be continued on its own connection only", async () => {
    await using server = await startTestServer();
    const [one, other] = [await open(server), await open(server)];
    one.create({ store: false });
    await one.until(isEnd);
    const previous_response_id = one.responseIds[0]!;
    other.create({ previous_response_id });
    expect((await other.until(isEnd)).at(-1)).toMatchObject({
      type: "error",
      status: 400,
      error: { code: "previous_response_not_found", param: "previous_response_id" },
    });
    const overHttp = await server.post("/v1/responses", { input: "a", previous_response_id });
    expect(overHttp.status).toBe(400);
    expect((await server.app.request(`/v1/responses/${previous_response_id}`)).status).toBe(404);
    one.create({ previous_response_id });
    expect((await one.until(isEnd, 2)).at(-1)!.type).toBe("response.completed");
    one.socket.close();
    other.socket.close();
  });

  it("is held with the last few of its stream, and dropped when the connection closes", async () => {
    await using server = await startTestServer(webSocketOptions({ maxUnstoredPerStream: 2 }));
    const client = await open(server);
    for (let n = 0; n < 4; n++) client.create({ store: false, stream_id: "a" });
    client.create({ store: false, stream_id: "b" });
    await client.until(isEnd, 5);
    const { unstored, responses } = server.generator.conversations;
    await expect.poll(() => unstored.size).toBe(3);
    expect(responses.size).toBe(0);
    client.socket.close();
    await expect.poll(() => unstored.size).toBe(0);
    expect(server.generator.conversations.records.size).toBe(0);
  });

  it("ends when its connection closes, and leaves nothing", async () => {
    await using server = await startTestServer();
    const { held, release } = gate();
    server.generator.script = { reply: ["a", "b"], pace: (index) => (index === 1 ? held : Promise.resolve()) };
    const client = await open(server);
    client.create({ store: false });
    await client.until(({ type }) => type === "response.output_text.delta");
    client.socket.terminate();
    await expect.poll(() => server.observed).toContain("websocket close");
    release();
    await expect.poll(() => server.responses.numRunning).toBe(0);
    expect(server.generator.numAborted).toBe(1);
    expect(server.generator.conversations.unstored.size).toBe(0);
  });
});

describe("the handshake", () => {
  it("needs a key whenever HTTP does", async () => {
    await using server = await startTestServer({ apiKeys: ["right"] });
    const { status, body } = await refused(server.webSocketUrl, { headers: { authorization: "Bearer wrong" } });
    expect(status).toBe(401);
    expect(JSON.parse(body)).toMatchObject({ error: { code: "invalid_api_key" } });
    expect((await refused(server.webSocketUrl)).status).toBe(401);
    const client = await open(server, { headers: { authorization: "Bearer right" } });
    client.socket.close();
  });

  it("takes the key in the headers that HTTP takes it in", async () => {
    await using server = await startTestServer({ apiKeys: ["right"] });
    for (const headers of [{ "x-api-key": "right" }, { "api-key": "right" }]) {
      (await open(server, { headers })).socket.close();
    }
    expect((await refused(server.webSocketUrl, { headers: { "x-api-key": "wrong" } })).status).toBe(401);
  });

  it("works on one path only, in its spellings", async () => {
    await using server = await startTestServer({ rootPath: "/llm" });
    expect((await refused(`${server.webSocketUrl}/other`)).status).toBe(404);
    const origin = server.webSocketUrl.replace("/v1/responses", "");
    for (const path of ["/responses", "/v1//responses/", "/llm/v1/responses", "/llm/responses"]) {
      (await open({ webSocketUrl: origin + path })).socket.close();
    }
  });

  it("accepts pages of other origins only if they are listed", async () => {
    await using server = await startTestServer({ corsOrigins: ["https://a.example"] });
    expect((await refused(server.webSocketUrl, { origin: "https://b.example" })).status).toBe(403);
    const listed = await open(server, { origin: "https://a.example" });
    const own = await open(server, { origin: server.url });
    listed.socket.close();
    own.socket.close();
  });

  it("has a limit of connections", async () => {
    await using server = await startTestServer(webSocketOptions({ maxConnections: 1 }));
    const client = await open(server);
    const { status, body } = await refused(server.webSocketUrl);
    expect(status).toBe(429);
    expect(JSON.parse(body)).toMatchObject({ error: { code: "websocket_connection_limit_reached" } });
    client.socket.close();
    await once(client.socket, "close");
    await expect.poll(() => server.observed).toContain("websocket close");
    (await open(server)).socket.close();
  });

  const head = "host: localhost\r\nconnection: Upgrade\r\n";
  const key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  it.each([
    ["no key", `GET /v1/responses HTTP/1.1\r\n${head}upgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n`, 400],
    [
      "a malformed key",
      `GET /v1/responses HTTP/1.1\r\n${head}upgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n`,
      400,
    ],
    [
      "an unknown version",
      `GET /v1/responses HTTP/1.1\r\n${head}upgrade: websocket\r\n${key}sec-websocket-version: 99\r\n\r\n`,
      400,
    ],
    [
      "another method",
      `POST /v1/responses HTTP/1.1\r\n${head}upgrade: websocket\r\n${key}sec-websocket-version: 13\r\n\r\n`,
      405,
    ],
    [
      "a target that is no path",
      `GET //[ HTTP/1.1\r\n${head}upgrade: websocket\r\n${key}sec-websocket-version: 13\r\n\r\n`,
      400,
    ],
  ])("with %s is refused cleanly", async (_name, request, status) => {
    await using server = await startTestServer();
    expect(await server.rawRequest(request)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it("survives a client that breaks the protocol afterwards", async () => {
    await using server = await startTestServer();
    const client = await open(server);
    const { _socket } = client.socket as unknown as { _socket: import("node:net").Socket };
    _socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff]));
    await expect.poll(() => client.closed).toBeDefined();
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });
});

describe("a connection", () => {
  const endless = { reply: Array.from({ length: 1_000_000 }, () => "x ") };

  it("cancels running and drops waiting responses when it closes", async () => {
    await using server = await startTestServer();
    server.generator.script = endless;
    const client = await open(server);
    client.create({ store: false });
    client.create({ store: false });
    await client.until(({ type }) => type === "response.output_text.delta");
    client.socket.terminate();
    await untilClosed(server);
    await expect.poll(() => server.generator.numRunning).toBe(0);
    expect(server.generator.requests).toHaveLength(1);
    expect(server.generator.numAborted).toBe(1);
  });

  it("pauses generation while its client does not read, and is cut off in the end", async () => {
    await using server = await startTestServer({ stallTimeoutMs: 300 });
    let numPulled = 0;
    server.generator.script = {
      reply: Array.from({ length: 2000 }, () => "x".repeat(64 * 1024)),
      pace: async () => {
        numPulled++;
        await setImmediate();
      },
    };
    const client = await open(server);
    for (const stream_id of ["a", "b", "c"]) client.create({ store: false, stream_id });
    client.socket.pause();
    await expect.poll(() => server.generator.numAborted, { timeout: 10_000 }).toBe(3);
    expect(server.responses.numRunning).toBe(0);
    expect(numPulled).toBeLessThan(1000);
    client.socket.terminate();
  });

  it("closes at its age limit, and its responses can be attached to elsewhere", async () => {
    await using server = await startTestServer(webSocketOptions({ maxConnectionMs: 300 }));
    const { held, release } = gate();
    server.generator.script = { reply: ["a", "b"], pace: (index) => (index === 1 ? held : Promise.resolve()) };
    const client = await open(server);
    client.create();
    await expect.poll(() => client.closed?.code, { timeout: 5000 }).toBe(1001);
    expect(client.messages.at(-1)).toMatchObject({
      type: "error",
      status: 400,
      error: {
        code: "websocket_connection_limit_reached",
        message: expect.stringContaining("lasts at most 0.005 minutes"),
      },
    });
    const last = client.messages.at(-2)!.sequence_number;
    const path = `/v1/responses/${client.responseIds[0]}?stream=true&starting_after=${last}`;
    const rest = fetch(server.url + path);
    release();
    expect(await (await rest).text()).toContain("event: response.completed");
  });

  it("is closed if it answers no ping", async () => {
    await using server = await startTestServer(webSocketOptions({ pingIntervalMs: 50 }));
    const alive = await open(server);
    const dead = await open(server, { autoPong: false });
    await expect.poll(() => dead.closed?.code).toBe(1006);
    expect(alive.closed).toBeUndefined();
    alive.socket.close();
  });

  it("is closed when the server shuts down: at once if idle, else after its response", async () => {
    const server = await startTestServer();
    const { held, release } = gate();
    server.generator.script = { reply: ["a"], pace: () => held };
    const idle = await open(server);
    const busy = await open(server);
    busy.create();
    await busy.until(({ type }) => type === "response.created");
    const closed = server.listener.close(5000);
    await expect.poll(() => idle.closed).toMatchObject({ code: 1001 });
    expect(busy.closed).toBeUndefined();
    release();
    await closed;
    expect(busy.closed).toMatchObject({ code: 1001 });
    expect(busy.messages.at(-1)!.type).toBe("response.completed");
  });
});
