/** Answers on a bare socket, without a request for hono to answer: refused upgrades, and input that is not HTTP. */
import { STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { toHttpError } from "../openai/errors.ts";

/** Sends the error and closes the socket once it is out, whether the client closes its end or not. */
export function answerRaw(socket: Duplex, error: unknown, moreHeaders: Readonly<Record<string, string>> = {}): void {
  const { status, headers, body } = toHttpError(error);
  const json = JSON.stringify(body);
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    "connection: close",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(json)}`,
    ...Object.entries({ ...headers, ...moreHeaders }).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.once("finish", () => socket.destroy());
  socket.end(`${lines.join("\r\n")}\r\n\r\n${json}`);
}
