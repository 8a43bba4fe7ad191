/**
 * The WebSocket handshake on `/v1/responses`: path, origin, key and connection limit are checked before the upgrade, and a
 * refusal is a plain HTTP answer with OpenAI's error object. Also pings every peer and ends the ones that are gone.
 */
import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import { keyCheck } from "../middleware/auth.ts";
import { chooseRequestId } from "../middleware/request-id.ts";
import { toHttpError } from "../openai/error.ts";
import { responseBody } from "../openai/responses.ts";
import type { Responses } from "../responses/responses.ts";
import { boundsOf } from "../routes/serving.ts";
import { ResponsesConnection } from "./connection.ts";

const PATH = "/v1/responses";
const GOING_AWAY = 1001;

export interface WebSocketEndpoint {
  /** For the HTTP server's `upgrade` event. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Accepts no more and closes the idle connections with 1001; the others when they are idle. */
  drain(): void;
  readonly numConnections: number;
  terminate(): void;
}

export function createWebSocketEndpoint(deps: ServerDeps, responses: Responses): WebSocketEndpoint {
  const { options, log, observer } = deps;
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: options.webSocket.maxMessageBytes,
  });
  const schema = responseBody(boundsOf(deps));
  const checkKey = keyCheck(options.apiKeys);
  const connections = new Map<WebSocket, ResponsesConnection>();
  const answeredPing = new WeakSet<WebSocket>();
  let draining = false;

  const pinger = setInterval(() => {
    for (const socket of connections.keys()) {
      if (!answeredPing.delete(socket)) socket.terminate();
      else socket.ping();
    }
  }, options.webSocket.pingIntervalMs);
  pinger.unref();

  /** @returns the owner */
  const checkRequest = (request: IncomingMessage): string => {
    const path = pathOf(request);
    if (path !== PATH) {
      throw new DenseMambaError("route_not_found", `there is no WebSocket at ${path}; it is at ${PATH}`);
    }
    checkOrigin(request, options.corsOrigins);
    const owner = checkKey(request.headers.authorization);
    if (draining) throw new DenseMambaError("shutting_down", "the server is shutting down");
    if (connections.size >= options.webSocket.maxConnections) {
      throw new DenseMambaError(
        "websocket_connection_limit_reached",
        `the server has at most ${options.webSocket.maxConnections} WebSocket connections; got one more`,
      );
    }
    return owner;
  };

  return {
    handleUpgrade(request, socket, head) {
      const ignore = () => {};
      socket.on("error", ignore);
      let owner: string;
      try {
        owner = checkRequest(request);
      } catch (error) {
        refuse(socket, error);
        return;
      }
      // ws itself answers 400 or 405 to a malformed handshake.
      server.handleUpgrade(request, socket, head, (webSocket) => {
        socket.off("error", ignore);
        const requestId = chooseRequestId(request.headers["x-request-id"]?.toString(), deps.newId);
        const context = { deps, responses, schema, owner, requestId };
        connections.set(webSocket, new ResponsesConnection(webSocket, socket, context));
        answeredPing.add(webSocket);
        webSocket.on("pong", () => answeredPing.add(webSocket));
        observer?.onWebSocketOpen?.();
        log.info({ requestId, numConnections: connections.size }, "websocket open");
        webSocket.on("close", (code) => {
          connections.delete(webSocket);
          observer?.onWebSocketClose?.();
          log.info({ requestId, code, numConnections: connections.size }, "websocket closed");
        });
      });
    },

    drain() {
      draining = true;
      clearInterval(pinger);
      for (const [socket, connection] of connections) {
        if (connection.isIdle) socket.close(GOING_AWAY, "the server is shutting down");
      }
    },

    get numConnections() {
      return connections.size;
    },

    terminate() {
      for (const socket of connections.keys()) socket.terminate();
    },
  };
}

/** A page of another origin may not use the visitor's way to this server: browsers send no preflight for WebSockets. */
function checkOrigin(request: IncomingMessage, allowed: readonly string[]): void {
  const { origin, host } = request.headers;
  if (origin === undefined || allowed.includes("*") || allowed.includes(origin)) return;
  if (URL.canParse(origin) && new URL(origin).host === host) return;
  throw new DenseMambaError("invalid_value", `the origin ${JSON.stringify(origin)} is not allowed here`, {
    param: "origin",
  });
}

function pathOf(request: IncomingMessage): string {
  try {
    return new URL(request.url ?? "/", "http://localhost").pathname;
  } catch (cause) {
    throw new DenseMambaError("invalid_value", "the request target is not a valid URL", { cause });
  }
}

function refuse(socket: Duplex, error: unknown): void {
  const { status, headers, body } = toHttpError(error);
  const json = JSON.stringify(body);
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    "connection: close",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(json)}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.end(`${lines.join("\r\n")}\r\n\r\n${json}`);
}
