/**
 * Clients that send all of their request before they read anything, or wait to be asked for its
 * body, on real sockets.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { lingerWhenClosing } from "../../src/server/http/lingering-close.ts";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";

/** Far more than the system's buffers take. */
const NUM_MIB = 24;
const MIB = Buffer.alloc(2 ** 20, "x");
const JSON_TYPE = "content-type: application/json\r\n";
const LENGTH = `content-length: ${NUM_MIB * MIB.length}\r\n`;
const CHUNKED = "transfer-encoding: chunked\r\n";

function head(path: string, headers: string): string {
  return `POST ${path} HTTP/1.1\r\nhost: localhost\r\n${headers}\r\n`;
}

/** As Python's urllib and many others do. @throws what they would: EPIPE or ECONNRESET */
async function sendAllThenRead(port: number, text: string, isChunked: boolean): Promise<string> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  let received = "";
  socket.setEncoding("latin1").on("data", (data: string) => {
    received += data;
  });
  socket.pause();
  const failed = new Promise<never>((_, reject) => socket.once("error", reject));
  const ended = once(socket, "end");
  const write = (data: string | Buffer) => new Promise<void>((resolve) => socket.write(data, () => resolve()));
  const send = async () => {
    await write(text);
    for (let i = 0; i < NUM_MIB; i++) {
      if (isChunked) await write("100000\r\n");
      await write(MIB);
      if (isChunked) await write("\r\n");
    }
    if (isChunked) await write("0\r\n\r\n");
    socket.resume();
    await ended;
  };
  try {
    await Promise.race([send(), failed]);
    return received;
  } finally {
    socket.destroy();
  }
}

// Much of it is waiting for the server to close.
describe.concurrent.each(["close", "keep-alive"])(
  "a large body that is refused early (connection: %s)",
  (connection) => {
    it.each<[number, string, string]>([
      [401, "/v1/completions", JSON_TYPE + LENGTH],
      [404, "/nope", `authorization: Bearer k\r\n${JSON_TYPE}${LENGTH}`],
      [405, "/v1/models", `authorization: Bearer k\r\n${JSON_TYPE}${LENGTH}`],
      [415, "/v1/completions", `authorization: Bearer k\r\n${LENGTH}`],
      [413, "/v1/completions", `authorization: Bearer k\r\n${JSON_TYPE}${LENGTH}`],
      [413, "/v1/completions", `authorization: Bearer k\r\n${JSON_TYPE}${CHUNKED}`],
      [400, "/v1/completions", `host: again\r\n${JSON_TYPE}${LENGTH}`],
    ])("with %i on %s is read to its end, and its sender reads why", async (status, path, headers) => {
      await using server = await startTestServer({
        apiKeys: ["k"],
        timeouts: { headersMs: 30_000, requestMs: 60_000, keepAliveMs: 50 },
      });
      const text = head(path, `connection: ${connection}\r\n${headers}`);
      const received = await sendAllThenRead(server.listener.port, text, headers.includes(CHUNKED));
      expect(received.slice(0, 12)).toBe(`HTTP/1.1 ${status}`);
      expect(JSON.parse(received.slice(received.indexOf("\r\n\r\n") + 4))).toHaveProperty("error");
    });
  },
);

it("large headers are read to their end too", async () => {
  await using server = await startTestServer();
  const received = await sendAllThenRead(server.listener.port, "GET / HTTP/1.1\r\nhost: localhost\r\nx: ", false);
  expect(received).toMatch(/^HTTP\/1.1 431 .*headers_too_large/s);
});

describe("the rest of a refused body", () => {
  async function refusing(limits: Parameters<typeof lingerWhenClosing>[1]) {
    const server = createServer((_, response) =>
      response.writeHead(413, { connection: "close", "content-length": 2 }).end("no"),
    );
    lingerWhenClosing(server, limits);
    await once(server.listen(0, "127.0.0.1"), "listening");
    const socket = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => {});
    socket.write(head("/", "content-length: 1000000000000\r\n"));
    let received = "";
    socket.on("data", (data) => {
      received += data;
    });
    await once(socket, "end");
    expect(received).toMatch(/^HTTP\/1.1 413 .*no$/s);
    return { server, socket };
  }

  it("is dropped up to a size limit", async () => {
    const { server, socket } = await refusing({ maxMs: 60_000, maxBytes: 4 * MIB.length });
    const closed = new Promise((resolve) => socket.once("close", resolve));
    const send = () => void (socket.writable && socket.write(MIB, send));
    send();
    await closed;
    // What the system's buffers hold comes on top.
    expect(socket.bytesWritten).toBeGreaterThan(4 * MIB.length);
    server.close();
  });

  it("is awaited up to a time limit", async () => {
    const { server, socket } = await refusing({ maxMs: 50, maxBytes: MIB.length });
    await expect.poll(() => numConnections(server)).toBe(0);
    socket.destroy();
    server.close();
  });
});

describe("a client that waits to be asked for its body", () => {
  const BODY = '{"prompt":"a"}';
  const expecting = (path: string, headers: string) => head(path, `expect: 100-continue\r\n${headers}`);

  async function open({ listener }: ListeningServer): Promise<{ socket: Socket; next: () => Promise<string> }> {
    const socket = connect(listener.port, "127.0.0.1").setEncoding("latin1");
    await once(socket, "connect");
    return { socket, next: async () => (await once(socket, "data"))[0] as string };
  }

  it.each<[number, string, string]>([
    [413, "/v1/completions", JSON_TYPE + LENGTH],
    [413, "/v1/sessions/import", `content-type: application/octet-stream\r\ncontent-length: 1000000000000\r\n`],
    [415, "/v1/completions", "content-length: 14\r\n"],
    [404, "/nope", `${JSON_TYPE}content-length: 14\r\n`],
  ])("gets %i on %s at once, and its next bytes are not taken for a request", async (status, path, headers) => {
    await using server = await startTestServer();
    const { socket, next } = await open(server);
    socket.write(expecting(path, headers));
    const answer = await next();
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} [^]*\r\nconnection: close\r\n`, "i"));
    socket.on("error", () => {}).write(`${head("/v1/sessions", `${JSON_TYPE}content-length: 0\r\n`)}`);
    await once(socket, "close");
    expect((await (await fetch(`${server.url}/v1/sessions`)).json()) as object).toMatchObject({ data: [] });
  });

  it.each(["/v1/completions", "/tokenize"])(
    "is asked on %s and answered, and can send its next request",
    async (path) => {
      await using server = await startTestServer();
      const { socket, next } = await open(server);
      for (const _ of [1, 2]) {
        socket.write(expecting(path, `${JSON_TYPE}content-length: ${BODY.length}\r\n`));
        expect(await next()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
        socket.write(BODY);
        expect(await next()).toMatch(/^HTTP\/1.1 200 /);
      }
      socket.destroy();
    },
  );
});

function numConnections(server: ReturnType<typeof createServer>): Promise<number> {
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  );
}
