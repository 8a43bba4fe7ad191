/**
 * The WebSocket handshake on `/v1/responses`: path, origin, key and connection limit are checked
 * before the upgrade, and a refusal is a plain HTTP answer with OpenAI's error object. Also pings
 * every client and disconnects those that are gone.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import { hostCheck, isKeyProtocol, keyCheck, originCheck } from "../http/access.ts";
import { pathReader } from "../http/paths.ts";
import { answerRaw, checkHostHeader } from "../http/raw-http.ts";
import { callerFields, chooseRequestId } from "../http/request-log.ts";
import { boundsOf } from "../openai/fields.ts";
import { responseBody } from "../responses/request.ts";
import type { Responses } from "../responses/responses.ts";
import type { ModelService, SeveralModels } from "../several-models.ts";
import { type ConnectionModels, type ConnectionService, ResponsesConnection } from "./connection.ts";

const PATH = "/v1/responses";
const GOING_AWAY = 1001;

export interface WebSocketEndpoint {
  /** For the HTTP server's `upgrade` event. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /**
   * Accepts no more connections and closes the idle ones with 1001. Call it again until none is
   * left.
   */
  drain(): void;
  readonly numConnections: number;
  terminate(): void;
}

/** @param several if there are several models; `deps` and `responses` are the first one's */
export function createWebSocketEndpoint(
  deps: ServerDeps,
  responses: Responses,
  several?: SeveralModels,
): WebSocketEndpoint {
  const { options, log, observer } = deps;
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: options.webSocket.maxMessageBytes,
    handleProtocols: (offered) => [...offered].find((name) => !isKeyProtocol(name)) ?? false,
  });
  const schema = responseBody(boundsOf(deps));
  const models = several && connectionModels(several);
  const checkKey = keyCheck(options);
  const readPath = pathReader(options.rootPath, [PATH]);
  const checkHost = hostCheck(options.allowedHosts);
  // Even with keys: browsers send no preflight for WebSockets, and a page of another origin may
  // have a visitor's key.
  const checkOrigin = originCheck(options.corsOrigins);
  /** Of every handshake, including refused ones. */
  const sockets = new Set<Duplex>();
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
    const path = readPath(pathOf(request));
    if (path !== PATH) {
      throw new DenseMambaError("route_not_found", `there is no WebSocket at ${path}; it is at ${PATH}`);
    }
    if (request.method !== "GET") {
      throw new DenseMambaError("method_not_allowed", `a WebSocket is opened with GET; got ${request.method}`);
    }
    checkHostHeader(request);
    const { host, origin, "sec-fetch-site": secFetchSite } = request.headers;
    const browser = { host, origin, secFetchSite: secFetchSite?.toString() };
    checkHost(browser);
    checkOrigin(browser);
    const owner = checkKey((name) => request.headers[name]?.toString());
    if (draining) throw new DenseMambaError("shutting_down", "the server is shutting down");
    if (connections.size >= options.webSocket.maxConnections) {
      throw new DenseMambaError(
        "websocket_connection_limit_reached",
        `the server has at most ${options.webSocket.maxConnections} WebSocket connections; got one more`,
      );
    }
    return owner;
  };

  // A malformed handshake.
  server.on("wsClientError", (error, socket) => {
    const message = `the WebSocket handshake is not valid: ${error.message}`;
    const moreHeaders = { "sec-websocket-version": "13" };
    answerRaw(socket, new DenseMambaError("malformed_request", message), { moreHeaders });
  });

  return {
    handleUpgrade(request, socket, head) {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      let owner: string;
      try {
        owner = checkRequest(request);
      } catch (error) {
        answerRaw(socket, error);
        return;
      }
      server.handleUpgrade(request, socket, head, (webSocket) => {
        const requestId = chooseRequestId(request.headers["x-request-id"]?.toString(), deps.newId);
        const caller = callerFields(request, owner);
        const context = { deps, responses, schema, owner, requestId, caller, models };
        connections.set(webSocket, new ResponsesConnection(webSocket, socket, context));
        answeredPing.add(webSocket);
        webSocket.on("pong", () => answeredPing.add(webSocket));
        observer?.onWebSocketOpen?.();
        log.info({ requestId, ...caller, numConnections: connections.size }, "websocket open");
        webSocket.on("close", (code) => {
          connections.delete(webSocket);
          observer?.onWebSocketClose?.();
          log.info({ requestId, ...caller, code, numConnections: connections.size }, "websocket closed");
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
      for (const socket of sockets) socket.destroy();
    },
  };
}

function pathOf(request: IncomingMessage): string {
  try {
    return new URL(request.url ?? "/", "http://localhost").pathname;
  } catch (cause) {
    throw new DenseMambaError("invalid_value", "the request target is not a valid URL", { cause });
  }
}

function connectionModels(several: SeveralModels): ConnectionModels {
  const services = new Map<ModelService, ConnectionService>();
  const toService = (model: ModelService): ConnectionService => {
    const { deps, responses } = model;
    const service = services.get(model) ?? { deps, responses, schema: responseBody(boundsOf(deps)) };
    services.set(model, service);
    return service;
  };
  return {
    forMessage: async (body, owner, findUnstored) =>
      toService(await several.forRequest(body, { owner, findUnstored: (id) => modelOf(findUnstored(id)) })),
    forResponse: async (id, owner) =>
      toService((await several.withResponse(owner, id)) ?? several.entries[0]!.service!),
  };

  function modelOf(service: ConnectionService | undefined): ModelService | undefined {
    return several.services.find(({ deps }) => deps === service?.deps);
  }
}
