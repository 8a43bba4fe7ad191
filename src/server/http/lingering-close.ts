/**
 * If a connection is closed with unread bytes, it is reset, and a client that is still sending its
 * request never reads why it was refused. So we close our end at once, drop the rest of the request
 * as it arrives, and then close the connection, within limits of time and size. nginx calls this a
 * lingering close.
 */
import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";

export interface LingerLimits {
  readonly maxMs: number;
  readonly maxBytes: number;
}

const CHECK_MS = 20;
const LIMITS: LingerLimits = { maxMs: 5000, maxBytes: 64 * 2 ** 20 };

/** Call this before anything answers requests of the server. */
export function lingerWhenClosing(server: Server, limits: LingerLimits = LIMITS): void {
  const newest = new WeakMap<Socket, IncomingMessage>();
  server.prependListener("request", (request) => newest.set(request.socket, request));
  server.prependListener("connection", (socket: Socket) => {
    const destroySoon = socket.destroySoon.bind(socket);
    // NOTE: Node and hono's adapter call this method to close a connection after its last answer.
    socket.destroySoon = () => {
      const request = newest.get(socket);
      if (request === undefined || request.complete || socket.destroyed) return destroySoon();
      socket.destroySoon = () => {};
      linger(socket, request, limits);
    };
  });
}

function linger(socket: Socket, request: IncomingMessage, limits: LingerLimits): void {
  bound(socket, limits);
  // A reader that has begun on the body would delay its end.
  request.removeAllListeners("data").removeAllListeners("readable").resume();
  request.once("end", () => socket.destroy());
  socket.end();
}

/** The same for a socket that is closed because its input is not valid HTTP. */
export function lingerAfterParserError(socket: Socket, limits = LIMITS): void {
  bound(socket, limits);
  socket.removeAllListeners("data").on("data", () => {});
  socket.once("end", () => socket.destroy());
}

function bound(socket: Socket, { maxMs, maxBytes }: LingerLimits): void {
  const mostRead = socket.bytesRead + maxBytes;
  const deadlineMs = performance.now() + maxMs;
  // NOTE: Node drops the rest of a body without an event per chunk, and reads it past the socket's
  // own events.
  const timer = setInterval(() => {
    if (socket.bytesRead > mostRead || performance.now() > deadlineMs) socket.destroy();
  }, CHECK_MS);
  socket.once("close", () => clearInterval(timer));
}
