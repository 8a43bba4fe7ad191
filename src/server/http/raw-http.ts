/**
 * Requests that do not reach the application: refused upgrades, and input that is not valid HTTP.
 * They are answered on the bare socket, with OpenAI's error object; Node would answer without a
 * body.
 */
import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { DenseMambaError } from "../../errors.ts";
import type { ServerOptions } from "../deps.ts";
import { toHttpError } from "../openai/errors.ts";

interface RawAnswerOptions {
  readonly moreHeaders?: Readonly<Record<string, string>>;
  /** Closes the client's end. Default: once the answer is out. */
  readonly close?: (socket: Duplex) => void;
}

/** Sends the error and closes our end of the socket. */
export function answerRaw(
  socket: Duplex,
  error: unknown,
  { moreHeaders = {}, close = closeWhenSent }: RawAnswerOptions = {},
): void {
  const { status, headers, body } = toHttpError(error);
  const json = JSON.stringify(body);
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    "connection: close",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(json)}`,
    ...Object.entries({ ...headers, ...moreHeaders }).map(([name, value]) => `${name}: ${value}`),
  ];
  close(socket);
  socket.end(`${lines.join("\r\n")}\r\n\r\n${json}`);
}

function closeWhenSent(socket: Duplex): void {
  socket.once("finish", () => socket.destroy());
}

/** @param error of the server's `clientError` event */
export function explainParserError(
  error: Error & { readonly code?: string; readonly reason?: string },
  { timeouts, maxHeaderBytes }: Pick<ServerOptions, "timeouts" | "maxHeaderBytes">,
): DenseMambaError {
  switch (error.code) {
    case "ERR_HTTP_REQUEST_TIMEOUT": {
      const { headersMs, requestMs } = timeouts;
      const message = `a request must arrive within ${requestMs} ms, its headers within ${headersMs} ms`;
      return new DenseMambaError("request_timeout", message);
    }
    case "HPE_HEADER_OVERFLOW":
      return new DenseMambaError("headers_too_large", `the headers must have at most ${maxHeaderBytes} bytes`);
    case "HPE_CHUNK_EXTENSIONS_OVERFLOW":
      return new DenseMambaError("body_too_large", "the chunk extensions of the body are too long");
    default:
      return new DenseMambaError(
        "malformed_request",
        `the request is not valid HTTP: ${error.reason ?? error.message}`,
      );
  }
}

/**
 * @throws `malformed_request` unless there is one host header: a proxy might use another than we do
 */
export function checkHostHeader(request: IncomingMessage): void {
  const { rawHeaders, httpVersion } = request;
  const hosts = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]!.toLowerCase() === "host");
  if (hosts.length === 1 || (hosts.length === 0 && httpVersion === "1.0")) return;
  throw new DenseMambaError("malformed_request", `a request must have one host header; got ${hosts.length}`);
}
