/**
 * Every answer carries `x-request-id`: the client's own if it is a plain token, else a new one.
 * Each request leaves one log line and one observation when its last byte is out (or, on a web
 * stream, its header).
 */
import type { IncomingMessage } from "node:http";
import { routePath } from "hono/route";
import type { GenerationUsage } from "../../generation/events.ts";
import type { AppMiddleware, ServerDeps } from "../deps.ts";
import { statusOf } from "../openai/errors.ts";

/**
 * Visible ASCII, as it goes into a header and into log lines. hono's own middleware takes no `.`,
 * `:` or `/`.
 */
const VALID = /^[\x21-\x7e]{1,128}$/;

export function requestId(newId: () => string): AppMiddleware {
  return async function assignRequestId(context, next) {
    const id = chooseRequestId(context.req.header("x-request-id"), newId);
    context.set("requestId", id);
    context.header("x-request-id", id);
    await next();
  };
}

export function chooseRequestId(given: string | undefined, newId: () => string): string {
  return given !== undefined && VALID.test(given) ? given : `req_${newId()}`;
}

/** Requested by probes and scrapers every few seconds: logged at debug. */
const QUIET: ReadonlySet<string> = new Set(["/health", "/ready", "/metrics", "/load"]);

export function accessLog({ log, observer }: Pick<ServerDeps, "log" | "observer">): AppMiddleware {
  return async function logAccess(context, next) {
    const startedAt = performance.now();
    await next();
    const durationMs = performance.now() - startedAt;
    const { method } = context.req;
    const answered = context.get("answered");
    // Without the pattern of a parameter, such as of a name that may have slashes.
    const matched = (answered?.route ?? routePath(context, -1)).replace(/\{.*\}$/, "");
    const route = matched === "*" || matched === "/*" ? "unmatched" : matched;
    // NOTE: for a stream that has been sent, `res` is a placeholder, whose status is 200 as well.
    const outgoing = context.env?.outgoing;
    const hasLeft = outgoing?.destroyed === true && !outgoing.writableFinished;
    const status = hasLeft ? statusOf("aborted") : context.res.status;
    (answered?.observer ?? observer)?.onHttpRequest?.({ method, route, status, durationMs });

    const errorCode = context.get("errorCode");
    const fields = {
      requestId: context.get("requestId"),
      ...callerFields(context.env?.incoming, context.get("owner")),
      method,
      path: context.req.path,
      status,
      durationMs: rounded(durationMs),
      ...usageFields(context.get("usage")),
      ...(errorCode !== undefined && { errorCode }),
    };
    if (QUIET.has(route)) log.debug(fields, "request");
    else log.info(fields, "request");
  };
}

const MAX_FORWARDED_LENGTH = 128;

/**
 * Who sent a request, in a log line: the peer's address, what a proxy says of the addresses behind
 * it, and the API key as the digest that names its owner.
 */
export function callerFields(incoming: IncomingMessage | undefined, owner: string | undefined) {
  const forwarded = incoming?.headers["x-forwarded-for"]?.toString().slice(0, MAX_FORWARDED_LENGTH);
  return {
    client: incoming?.socket.remoteAddress,
    ...(forwarded !== undefined && { forwardedFor: forwarded }),
    ...(owner && { key: owner }),
  };
}

/** What came of a generation, in a log line; nothing if it failed. */
export function usageFields(usage: GenerationUsage | undefined) {
  if (usage === undefined) return {};
  const { promptTokens, cachedTokens, completionTokens, finishReasons, ttftMs } = usage;
  return {
    promptTokens,
    cachedTokens,
    completionTokens,
    ...(finishReasons && { finishReason: finishReasons.join(",") }),
    ...(ttftMs !== undefined && { ttftMs: rounded(ttftMs) }),
  };
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
