/** The page's connection against a real server: nothing is missed when it drops. */
import { describe, expect, it } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import type { ApiError } from "../../web/src/api/errors.ts";
import { type Listener, ResponseSocket, type SocketOptions } from "../../web/src/api/socket.ts";
import type { ResponseEvent } from "../../web/src/api/wire.ts";
import { gate, pauseAt } from "../helpers/gate.ts";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";

const REPLY = Array.from({ length: 20 }, (_, index) => ` word${index}`);

class Heard implements Listener {
  readonly events: ResponseEvent[] = [];
  failure: ApiError | undefined;

  onEvent(event: ResponseEvent): void {
    this.events.push(event);
  }

  onFailure(error: ApiError): void {
    this.failure = error;
  }

  get text(): string {
    return this.events.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join("");
  }

  async ended(): Promise<void> {
    await expect
      .poll(() => this.failure ?? this.events.at(-1)?.type)
      .toMatch(/^response\.(completed|incomplete|failed)$/);
    expect(this.events.map(({ sequence_number: number }) => number)).toEqual([...this.events.keys()]);
  }
}

function connect(server: ListeningServer, options: Partial<SocketOptions> = {}) {
  const opened: NodeSocket[] = [];
  const socket = new ResponseSocket({
    url: () => new URL(server.webSocketUrl),
    key: () => undefined,
    explain: async () => undefined,
    delay: async () => {},
    open: (url, protocols) => {
      const made = new NodeSocket(url, protocols);
      made.on("error", () => {});
      opened.push(made);
      return made as unknown as WebSocket;
    },
    ...options,
  });
  return { socket, opened, [Symbol.dispose]: () => opened.at(-1)?.terminate() };
}

describe("a response", () => {
  it.each([0, 1, 3, 9, 19])("misses nothing when the connection drops after event %i", async (last) => {
    await using server = await startTestServer();
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(last, held) };
    using client = connect(server);
    const heard = new Heard();
    client.socket.create({ input: "Hi" }, heard);
    await expect.poll(() => heard.events.length).toBeGreaterThan(last);
    client.opened[0]!.terminate();
    await expect.poll(() => client.opened.length).toBe(2);
    held.release();
    await heard.ended();
    expect(heard.text).toBe(REPLY.join(""));
    expect(server.generator.numAborted).toBe(0);
  });

  it("of another connection is read from its beginning", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY };
    using client = connect(server);
    const first = new Heard();
    client.socket.create({ input: "Hi" }, first);
    await first.ended();
    using other = connect(server);
    const again = new Heard();
    const created = first.events[0] as Extract<ResponseEvent, { type: "response.created" }>;
    other.socket.attach(created.response.id, again);
    await again.ended();
    expect(again.text).toBe(first.text);
  });

  it("that is refused fails with the server's words, and the others go on", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY };
    using client = connect(server);
    const [bad, good] = [new Heard(), new Heard()];
    client.socket.create({ input: "Hi", temperature: 9 }, bad);
    client.socket.create({ input: "Hi" }, good);
    await good.ended();
    expect(bad.failure).toMatchObject({ status: 400, message: "temperature must be at most 2; got 9" });
  });

  it("that closes every connection fails, and is not sent for ever", async () => {
    await using server = await startTestServer();
    using client = connect(server);
    const heard = new Heard();
    client.socket.create({ input: "x".repeat(2 ** 25) }, heard);
    await expect.poll(() => heard.failure).toBeDefined();
    expect(client.opened.length).toBeLessThanOrEqual(4);
  });

  it("beyond the most that run at once is refused", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY, pace: pauseAt(0, gate()) };
    using client = connect(server);
    const all = Array.from({ length: 17 }, () => new Heard());
    for (const heard of all) client.socket.create({ input: "Hi" }, heard);
    expect(all.map(({ failure }) => failure?.message)).toEqual([
      ...Array.from({ length: 16 }, () => undefined),
      "at most 16 answers can run at once; this is one more",
    ]);
  });
});

describe("without a connection", () => {
  it("a response fails once it is hopeless, and not before", async () => {
    const server = await startTestServer();
    await server[Symbol.asyncDispose]();
    let nowMs = 0;
    const delays: number[] = [];
    const delay = async (ms: number) => {
      delays.push(ms);
      nowMs += ms;
    };
    using client = connect(server, { now: () => nowMs, delay });
    const heard = new Heard();
    client.socket.create({ input: "Hi" }, heard);
    await expect.poll(() => heard.failure?.message).toBe("the server cannot be reached");
    expect(nowMs).toBeGreaterThan(60_000);
    expect(delays.slice(0, 3)).toEqual([100, 250, 500]);
  });

  it("a response that waits for one can be cancelled", async () => {
    const server = await startTestServer();
    await server[Symbol.asyncDispose]();
    using client = connect(server, { delay: () => new Promise(() => {}) });
    const heard = new Heard();
    client.socket.create({ input: "Hi" }, heard);
    client.socket.cancelWaiting(heard);
    expect(heard.failure).toMatchObject({ code: "aborted" });
  });

  it("a key that is refused is not tried again", async () => {
    await using server = await startTestServer({ apiKeys: ["right"] });
    const refusal = { status: 401, message: "the API key is not one of this server's" } as ApiError;
    let secret = "wrong";
    using client = connect(server, { key: () => secret, explain: async () => refusal });
    const heard = new Heard();
    client.socket.create({ input: "Hi" }, heard);
    await expect.poll(() => heard.failure).toBe(refusal);
    expect(client.opened).toHaveLength(1);
    secret = "right";
    const again = new Heard();
    client.socket.create({ input: "Hi" }, again);
    await again.ended();
  });
});
