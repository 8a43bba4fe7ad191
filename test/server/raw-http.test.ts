/** What no client library sends: byte for byte, on real sockets. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";

const END = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/** The answers on a connection that the server closes, in their order. */
async function answers(server: ListeningServer, text: string): Promise<{ status: number; body: string }[]> {
  const received = await server.rawRequest(text);
  return received
    .split(/(?=HTTP\/1\.1 \d{3} )/)
    .map((answer) => ({ status: Number(answer.slice(9, 12)), body: answer.slice(answer.indexOf("\r\n\r\n") + 4) }));
}

async function sessionIds(server: ListeningServer): Promise<string[]> {
  const { data } = (await (await fetch(`${server.url}/v1/sessions`)).json()) as { data: { id: string }[] };
  return data.map(({ id }) => id);
}

describe("a body", () => {
  const inner = '{"session_id":"smuggled"}';
  const hidden =
    `POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n` +
    `content-length: ${inner.length}\r\n\r\n${inner}`;

  // Node's own list of headers ends after 2,000.
  it.each([0, 1990, 2000, 2100, 3000])(
    "after an offer of h2c and %i headers is never run as a request",
    async (num) => {
      await using server = await startTestServer();
      const [first, last, ...others] = await answers(
        server,
        `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n${"a:\r\n".repeat(num)}` +
          `content-type: application/json\r\ncontent-length: ${hidden.length}\r\n\r\n${hidden}${END}`,
      );
      expect(first).toMatchObject({ status: 400, body: expect.stringContaining("not valid JSON") });
      // Where Node itself ignores the offer, it reads no further.
      if (last !== undefined) expect(last).toMatchObject({ status: 200, body: '{"status":"ok"}' });
      expect(others).toEqual([]);
      expect(await sessionIds(server)).toEqual([]);
    },
  );

  it.each([
    ["two lengths", "content-length: 5\r\ncontent-length: 6\r\n"],
    ["a length and chunks", `content-length: ${hidden.length}\r\ntransfer-encoding: chunked\r\n`],
    ["chunks and something else", "transfer-encoding: chunked, identity\r\n"],
    ["a space in the header's name", "transfer-encoding : chunked\r\n"],
    ["a length that is no number", "content-length: +5\r\n"],
    ["a folded header", "transfer-encoding:\r\n chunked\r\ncontent-length: 5\r\n"],
  ])("of %s is refused, and nothing of it is run", async (_what, headers) => {
    await using server = await startTestServer();
    const head = `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n${headers}\r\n`;
    const all = await answers(server, `${head}0\r\n\r\n${hidden}`);
    expect(all).toHaveLength(1);
    expect(all[0]!.status).toBe(400);
    expect(JSON.parse(all[0]!.body)).toMatchObject({ error: { code: "malformed_request" } });
    expect(await sessionIds(server)).toEqual([]);
  });
});

describe("invalid HTTP gets an error in JSON:", () => {
  it.each<[string, string, number, string]>([
    ["garbage", "what is this\r\n\r\n", 400, "malformed_request"],
    ["two hosts", "GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "malformed_request"],
    ["the same host twice", "GET /health HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400, "malformed_request"],
    ["no host", "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "malformed_request"],
    ["a host that is none", "GET /health HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n", 400, "malformed_request"],
    ["large headers", `GET / HTTP/1.1\r\nhost: a\r\nx: ${"y".repeat(20_000)}\r\n\r\n`, 431, "headers_too_large"],
    [
      "an expectation",
      "POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: money\r\ncontent-length: 0\r\n\r\n",
      417,
      "expectation_failed",
    ],
    [
      "chunks with long extensions",
      `POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n` +
        `5;${"x".repeat(17_000)}\r\nhello\r\n0\r\n\r\n`,
      413,
      "body_too_large",
    ],
  ])("%s", async (_what, text, status, code) => {
    await using server = await startTestServer();
    const all = await answers(server, text);
    expect(all).toHaveLength(1);
    expect(all[0]!.status).toBe(status);
    expect(JSON.parse(all[0]!.body)).toMatchObject({ error: { code, type: "invalid_request_error", param: null } });
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it("headers that do not end in time", async () => {
    await using server = await startTestServer({ timeouts: { headersMs: 50, requestMs: 100, keepAliveMs: 1000 } });
    const [answer] = await answers(server, "GET /health HTTP/1.1\r\nhost: a\r\n");
    expect(answer!.status).toBe(408);
    expect(JSON.parse(answer!.body)).toMatchObject({ error: { code: "request_timeout" } });
  });
});

describe("an upgrade", () => {
  const handshake =
    "GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

  it("to another protocol does not hang where it is offered twice", async () => {
    await using server = await startTestServer();
    const offer = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    const all = await answers(server, `${offer}${offer}${END}`);
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([200]));
  });

  it("waits for the answers before it", async () => {
    await using server = await startTestServer();
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    server.generator.script = { reply: ["a"], pace: () => held };
    const body = '{"prompt":"a"}';
    const received = server.rawRequest(
      `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n` +
        `content-length: ${body.length}\r\n\r\n${body}${handshake}origin: https://other.example\r\n\r\n`,
    );
    await expect.poll(() => server.generator.numRunning).toBe(1); // the upgrade arrived in the same packet
    release();
    expect((await received).match(/HTTP\/1\.1 \d{3}/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 403"]);
  });

  it("twice at once ends the connection", async () => {
    await using server = await startTestServer();
    expect(await server.rawRequest(`${handshake}\r\n${handshake}\r\n`)).toMatch(/^HTTP\/1\.1 101 /);
  });

  it.each<[number, string, Parameters<typeof startTestServer>[0]]>([
    [401, `${handshake}\r\n`, { apiKeys: ["k"] }],
    [403, `${handshake}origin: https://other.example\r\n\r\n`, {}],
    [403, handshake.replace("localhost", "rebound.example").concat("\r\n"), { allowedHosts: [] }],
    [404, handshake.replace("/v1/responses", "/other").concat("\r\n"), {}],
    [400, handshake.replace("version: 13", "version: 99").concat("\r\n"), {}],
  ])("that is refused with %i leaves nothing behind, whatever the client does", async (status, text, options) => {
    const server = await startTestServer(options);
    const sockets: Socket[] = [];
    for (let index = 0; index < 20; index++) {
      const socket = connect({ port: server.listener.port, host: "127.0.0.1", allowHalfOpen: true });
      socket.on("error", () => {});
      sockets.push(socket);
      socket.write(text);
      const [head] = (await once(socket, "data")) as [Buffer];
      expect(head.toString()).toMatch(new RegExp(`^HTTP/1.1 ${status} [^]*application/json`));
    }
    const startedAt = performance.now();
    await server.listener.close(30_000);
    expect(performance.now() - startedAt).toBeLessThan(2000);
    for (const socket of sockets) socket.destroy();
  });
});
