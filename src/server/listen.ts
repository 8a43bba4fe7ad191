/**
 * The TCP side: Node's HTTP server with its timeouts and limits, the WebSocket upgrade, and a close that lets running
 * requests end before a deadline.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import type { App } from "./context.ts";
import type { ServerDeps } from "./deps.ts";
import type { Responses } from "./responses/responses.ts";
import { createWebSocketEndpoint } from "./websocket/upgrade.ts";

const CLOSE_POLL_MS = 20;
/** For what has been told to end, which takes a step of the model: a runtime that hangs must not hang the shutdown. */
const CLOSE_GRACE_MS = 1000;

export interface Listener {
  readonly port: number;
  /**
   * Refuses what comes from now on, waits for what is running, and after `deadlineMs` ends what is left. The port is open
   * as long as something runs, so that whoever asks is told.
   */
  close(deadlineMs: number): Promise<void>;
}

/** @throws the system's error when the address can't be listened on */
export async function listen(args: {
  readonly app: App;
  readonly deps: ServerDeps;
  readonly responses: Responses;
  readonly host: string;
  readonly port: number;
}): Promise<Listener> {
  const { app, deps, responses, host, port } = args;
  const { timeouts, maxHeaderBytes } = deps.options;
  const server = createServer(
    {
      headersTimeout: timeouts.headersMs,
      requestTimeout: timeouts.requestMs,
      keepAliveTimeout: timeouts.keepAliveMs,
      maxHeaderSize: maxHeaderBytes,
      noDelay: true,
    },
    getRequestListener(app.fetch),
  );
  const inFlight = new Set<ServerResponse>();
  server.prependListener("request", (_request, response) => {
    inFlight.add(response);
    response.once("close", () => inFlight.delete(response));
  });
  const webSockets = createWebSocketEndpoint(deps, responses);
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (request.headers.upgrade?.toLowerCase() === "websocket") webSockets.handleUpgrade(request, socket, head);
    else serveWithoutUpgrade(server, request, socket, head);
  });

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });

  let closing: Promise<void> | undefined;
  const close = async (deadlineMs: number) => {
    deps.stopping.abort();
    const deadline = performance.now() + deadlineMs;
    const admitted = [...inFlight];
    // A response that nobody reads is kept when it has ended, and can be retrieved from the next server.
    const isBusy = () =>
      admitted.some((response) => inFlight.has(response)) || webSockets.numConnections > 0 || responses.numRunning > 0;
    do {
      // One that was busy when closing began becomes idle later: look again until none is left.
      webSockets.drain();
      if (isBusy()) await pause(CLOSE_POLL_MS);
    } while (isBusy() && performance.now() < deadline);
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    await Promise.race([responses.close(), pause(CLOSE_GRACE_MS)]);
    // Those that are being refused.
    if (inFlight.size > 0 && performance.now() < deadline) await pause(CLOSE_POLL_MS);
    webSockets.terminate();
    server.closeAllConnections();
    await closed;
  };
  return {
    port: (server.address() as AddressInfo).port,
    close: (deadlineMs) => {
      closing ??= close(deadlineMs);
      return closing;
    },
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Some clients offer another protocol on every request (Java's HttpClient: h2c). HTTP lets a server ignore the offer, but
 * Node hands the bare socket over: give it back to the server as a fresh connection, without the offer.
 */
function serveWithoutUpgrade(server: Server, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let index = 0; index < request.rawHeaders.length; index += 2) {
    const name = request.rawHeaders[index]!;
    if (!/^(?:upgrade|connection|http2-settings)$/i.test(name)) lines.push(`${name}: ${request.rawHeaders[index + 1]}`);
  }
  const rest = Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), head]);
  socket.unshift(rest);
  server.emit("connection", socket);
}
