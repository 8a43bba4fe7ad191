/**
 * A connection that is closed with unread bytes is reset, and a client that is still sending its request never reads why it was
 * refused. So our end closes at once, and the client's when the rest of the request has come and been dropped, or too much of it, or
 * too late: nginx's lingering close.
 */
import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";

export interface LingerLimits {
  readonly maxMs: number;
  readonly maxBytes: number;
}

const CHECK_MS = 20;
const LIMITS: LingerLimits = { maxMs: 5000, maxBytes: 64 * 2 ** 20 };

/** To be called before anything answers requests of this server. */
export function lingerWhenClosing(server: Server, limits: LingerLimits = LIMITS): void {
  const newest = new WeakMap<Socket, IncomingMessage>();
  server.prependListener("request", (request) => newest.set(request.socket, request));
  server.prependListener("connection", (socket: Socket) => {
    const destroySoon = socket.destroySoon.bind(socket);
    // NOTE: by this method Node, and hono's adapter, close a connection behind its last answer.
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
  // Whoever had begun to read the body would hold up its end.
  request.removeAllListeners("data").removeAllListeners("readable").resume();
  request.once("end", () => socket.destroy());
  socket.end();
}

/** The same for a socket that is ended after its input turned out to be no HTTP. */
export function lingerAfterParserError(socket: Socket, limits = LIMITS): void {
  bound(socket, limits);
  socket.removeAllListeners("data").on("data", () => {});
  socket.once("end", () => socket.destroy());
}

function bound(socket: Socket, { maxMs, maxBytes }: LingerLimits): void {
  const mostRead = socket.bytesRead + maxBytes;
  const deadlineMs = performance.now() + maxMs;
  // NOTE: Node drops the rest of a body without an event for each piece, and takes it from the socket behind its back.
  const timer = setInterval(() => {
    if (socket.bytesRead > mostRead || performance.now() > deadlineMs) socket.destroy();
  }, CHECK_MS);
  socket.once("close", () => clearInterval(timer));
}
