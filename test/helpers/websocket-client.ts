/** A plain ws client that collects what it is sent. */
import { once } from "node:events";
import { expect } from "vitest";
import { type ClientOptions, WebSocket } from "ws";
import type { ListeningServer } from "./listening-server.ts";
import { FAKE_MODEL } from "./server-deps.ts";

export interface Message {
  type: string;
  [key: string]: unknown;
}

export const isEnd = ({ type }: Message) => /^(error|response\.(completed|incomplete|failed))$/.test(type);

export class Client {
  readonly socket: WebSocket;
  readonly messages: Message[] = [];
  closed: { code: number; reason: string } | undefined;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data) => this.messages.push(JSON.parse(data.toString())));
    socket.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString() };
    });
    socket.on("error", () => {});
  }

  send(message: unknown): void {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  create(body: object = {}): void {
    this.send({ type: "response.create", model: FAKE_MODEL, input: "Hi", ...body });
  }

  /** Resolves when the server has handled all messages sent before: it handles them in order. */
  async handled(): Promise<void> {
    this.socket.ping();
    await once(this.socket, "pong");
  }

  /** All messages up to the n-th that ends a response. */
  async until(isLast: (message: Message) => boolean, count = 1): Promise<Message[]> {
    await expect.poll(() => this.messages.filter(isLast).length, { timeout: 5000 }).toBeGreaterThanOrEqual(count);
    return this.messages;
  }

  /** The ids of the responses that have begun, in their order. */
  get responseIds(): string[] {
    const begun = this.messages.filter(({ type }) => type === "response.created");
    return begun.map(({ response }) => (response as { id: string }).id);
  }
}

export async function open(
  server: Pick<ListeningServer, "webSocketUrl">,
  options: ClientOptions = {},
): Promise<Client> {
  const socket = new WebSocket(server.webSocketUrl, options);
  const client = new Client(socket);
  await once(socket, "open");
  return client;
}
