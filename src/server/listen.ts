/**
 * Node's HTTP server with its timeouts and limits, the WebSocket upgrade, and a shutdown that lets
 * running requests end before a deadline.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { getRequestListener, type HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { DenseMambaError } from "../errors.ts";
import type { App, ServerDeps } from "./deps.ts";
import { lingerAfterParserError, lingerWhenClosing } from "./http/lingering-close.ts";
import { answerRaw, checkHostHeader, explainParserError } from "./http/raw-http.ts";
import { toHttpError } from "./openai/errors.ts";
import type { Responses } from "./responses/responses.ts";
import type { SeveralModels } from "./several-models.ts";
import { createWebSocketEndpoint } from "./websocket/upgrade.ts";

const CLOSE_POLL_MS = 20;
/**
 * For responses that were told to end, which takes a step of the model. A runtime that hangs must
 * not hang the shutdown.
 */
const CLOSE_GRACE_MS = 1000;

export interface Listener {
  readonly port: number;
  /** Of the listening socket, if the system has file descriptors. */
  readonly descriptor: number | undefined;
  /**
   * Refuses new requests, waits for running ones, and ends the rest after `deadlineMs`. The port
   * stays open while something runs, so that clients get an answer.
   */
  close(deadlineMs: number): Promise<void>;
}

/** @throws the system's error when the address can't be listened on */
export async function listen(args: {
  readonly app: App;
  readonly deps: ServerDeps;
  readonly responses: Responses;
  /** If there are several; `deps` and `responses` are the first one's. */
  readonly models?: SeveralModels | undefined;
  readonly host: string;
  readonly port: number;
}): Promise<Listener> {
  const { app, deps, responses, models, host, port } = args;
  const allResponses = () => models?.services.map((service) => service.responses) ?? [responses];
  const { timeouts, maxHeaderBytes } = deps.options;
  const serverOptions: ServerOptions & { shouldUpgradeCallback: (request: IncomingMessage) => boolean } = {
    headersTimeout: timeouts.headersMs,
    requestTimeout: timeouts.requestMs,
    keepAliveTimeout: timeouts.keepAliveMs,
    connectionsCheckingInterval: Math.min(timeouts.headersMs, timeouts.requestMs),
    maxHeaderSize: maxHeaderBytes,
    noDelay: true,
    requireHostHeader: false, // checked below, and answered in JSON
    shouldUpgradeCallback: isWebSocketUpgrade, // known to Node from 22.21 and 24.9 on
  };
  // NOTE: if a middleware has set a header, hono copies the placeholder response of a stream that
  // has been sent already, and the adapter would send the copy.
  const fetchApp = async (request: Request, env: HttpBindings) => {
    const response = await app.fetch(request, env);
    return env.outgoing.headersSent ? RESPONSE_ALREADY_SENT : response;
  };
  const answer = getRequestListener((request, env) => fetchApp(request, env as HttpBindings), {
    errorHandler: answerHostile,
  });
  const server = createServer(serverOptions, (request, response) => {
    // NOTE: after a request whose upgrade it ignored, Node reads nothing more: the connection ends
    // with the answer.
    if (request.headers.upgrade !== undefined) response.shouldKeepAlive = false;
    // The next request should come by a new connection, to another server.
    if (deps.draining.signal.aborted) response.shouldKeepAlive = false;
    try {
      checkHostHeader(request);
    } catch (error) {
      return answerAndClose(response, error);
    }
    void answer(request, response);
  });
  // NOTE: Node drops headers beyond this number, possibly content-length. Their bytes are bounded
  // anyway.
  server.maxHeadersCount = 0;
  server.on("checkContinue", (request, response) => {
    // The code that reads the body asks for it. If none does, the client may still send it, so the
    // connection must end.
    const { shouldKeepAlive } = response;
    response.shouldKeepAlive = false;
    const askForBody = response.writeContinue.bind(response);
    response.writeContinue = () => {
      response.shouldKeepAlive = shouldKeepAlive;
      askForBody();
    };
    server.emit("request", request, response);
  });
  server.on("checkExpectation", ({ headers }, response) => {
    const message = `the only expectation that can be met is 100-continue; got ${JSON.stringify(headers.expect)}`;
    answerAndClose(response, new DenseMambaError("expectation_failed", message));
  });
  lingerWhenClosing(server);
  const inFlight = new Map<ServerResponse, Duplex>();
  const answersOn = (socket: Duplex) =>
    [...inFlight].filter((entry) => entry[1] === socket).map(([response]) => response);
  server.prependListener("request", (request, response) => {
    inFlight.set(response, request.socket);
    response.once("close", () => inFlight.delete(response));
  });
  server.on("clientError", (error, socket) => {
    // An answer that has begun cannot be replaced, and one out of turn would seem to belong to
    // another request.
    const answers = answersOn(socket);
    const isFree = answers.length === 0 || (answers.length === 1 && !answers[0]!.headersSent);
    if (!socket.writable || !isFree) return void socket.destroy();
    const close = () => lingerAfterParserError(socket as Socket);
    answerRaw(socket, explainParserError(error, deps.options), { close });
  });
  const webSockets = createWebSocketEndpoint(deps, responses, models);
  server.on("upgrade", async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => {}); // Node's own listener has gone
    // Answers to earlier requests may still be on their way through this socket.
    await Promise.all(answersOn(socket).map((response) => once(response, "close")));
    if (socket.destroyed) return;
    if (isWebSocketUpgrade(request)) webSockets.handleUpgrade(request, socket, head);
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
    const admitted = [...inFlight.keys()];
    // A response without a client is stored when it ends, and can be retrieved from the next
    // server.
    const isBusy = () =>
      admitted.some((response) => inFlight.has(response)) ||
      webSockets.numConnections > 0 ||
      allResponses().some(({ numRunning }) => numRunning > 0);
    do {
      // Busy connections become idle later.
      webSockets.drain();
      if (isBusy()) await pause(CLOSE_POLL_MS);
    } while (isBusy() && performance.now() < deadline);
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    const ended = Promise.all(allResponses().map((each) => each.close()));
    await Promise.race([ended, pause(CLOSE_GRACE_MS)]);
    // Requests that are being refused.
    if (inFlight.size > 0 && performance.now() < deadline) await pause(CLOSE_POLL_MS);
    webSockets.terminate();
    server.closeAllConnections();
    await closed;
  };
  return {
    port: (server.address() as AddressInfo).port,
    descriptor: (server as { _handle?: { fd?: number } | null })._handle?.fd,
    close: (deadlineMs) => {
      closing ??= close(deadlineMs);
      return closing;
    },
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function isWebSocketUpgrade({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === "websocket";
}

/** For requests that hono cannot parse, such as those with an invalid URL. */
function answerHostile(error: unknown): Response {
  const isRequests = error instanceof Error && error.name === "RequestError";
  const reason = isRequests
    ? new DenseMambaError("malformed_request", `the request is not valid: ${error.message}`)
    : error;
  const { status, body } = toHttpError(reason);
  return Response.json(body, { status, headers: { connection: "close" } });
}

function answerAndClose(response: ServerResponse, error: unknown): void {
  const { status, body } = toHttpError(error);
  const json = JSON.stringify(body);
  const headers = {
    connection: "close",
    "content-type": "application/json",
    "content-length": Buffer.byteLength(json),
  };
  response.writeHead(status, headers).end(json);
}

/**
 * Some clients offer another protocol on every request (Java's HttpClient: h2c). HTTP lets a server
 * ignore the offer, but a Node without `shouldUpgradeCallback` hands over the bare socket: give it
 * back to the server as a new connection, without the offer.
 */
function serveWithoutUpgrade(server: Server, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  if (/\bclose\b/i.test(request.headers.connection ?? "")) lines.push("connection: close");
  for (let index = 0; index < request.rawHeaders.length; index += 2) {
    const name = request.rawHeaders[index]!;
    if (!/^(?:upgrade|connection|http2-settings)$/i.test(name)) lines.push(`${name}: ${request.rawHeaders[index + 1]}`);
  }
  const rest = Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), head]);
  socket.unshift(rest);
  server.emit("connection", socket);
}
