/**
 * Errors as HTTP answers: failures of a handler, unknown routes and methods, and a server that is
 * stopping.
 */
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { DenseMambaError } from "../../errors.ts";
import type { App, AppContext, AppMiddleware, Log } from "../deps.ts";
import { isMessagesPath, toMessagesError } from "../messages/errors.ts";
import { errorCodeOf, toHttpError } from "../openai/errors.ts";

const METHODS = ["DELETE", "GET", "PATCH", "POST", "PUT"] as const;

export function errorResponse(context: AppContext, error: unknown): Response {
  const render = isMessagesPath(context.req.path) ? toMessagesError : toHttpError;
  const { status, headers, body } = render(error);
  context.set("errorCode", errorCodeOf(error));
  return context.json(body, status as ContentfulStatusCode, { ...headers });
}

export function handleError(log: Log): (error: Error, context: AppContext) => Response {
  return (error, context) => {
    if (toHttpError(error).isFault) log.error({ err: error, requestId: context.get("requestId") }, "request failed");
    return errorResponse(context, error);
  };
}

/**
 * If no route matches: 405 with `allow` if the path has other methods, else 404 with the path that
 * was probably meant.
 */
export function notFound(app: App): (context: AppContext) => Response {
  return (context) => {
    const { method, path } = context.req;
    const allowed = allowedMethods(app, path);
    if (allowed.length > 0) return refuseMethod(context, allowed);
    const meant = similarPaths(path).find((candidate) => allowedMethods(app, candidate).length > 0);
    const hint = meant === undefined ? "" : `; did you mean ${meant}?`;
    return errorResponse(context, new DenseMambaError("route_not_found", `there is no route ${method} ${path}${hint}`));
  };
}

export function refuseMethod(context: AppContext, allowed: readonly string[]): Response {
  const { method, path } = context.req;
  const allow = allowed.join(", ");
  context.header("allow", allow);
  const message = `${path} does not take ${method}; it takes ${allow}`;
  return errorResponse(context, new DenseMambaError("method_not_allowed", message));
}

/** Answers OPTIONS for whatever has a route. A browser's preflight carries no key. */
export function answerOptions(app: App): AppMiddleware {
  return async function answerPreflight(context, next) {
    if (context.req.method !== "OPTIONS") return next();
    const allowed = allowedMethods(app, context.req.path);
    if (allowed.length === 0) return next();
    return context.body(null, 204, { allow: allowed.join(", ") });
  };
}

function allowedMethods(app: App, path: string): string[] {
  const allowed: string[] = METHODS.filter((method) => hasRoute(app, method, path));
  return allowed.includes("GET") ? [...allowed, "HEAD"].sort() : allowed;
}

/** Whether a route answers, and neither middleware alone nor one that refuses all other methods. */
export function hasRoute(app: App, method: string, path: string): boolean {
  const routes = app.router.match(method, path)[0].map(([[, route]]) => route);
  const first = routes.find((route) => route.path !== "/*");
  return first !== undefined && first.method !== "ALL";
}

/** The paths that may have been meant: base URLs often have a part too many. */
function similarPaths(path: string): string[] {
  const bare = path.replace(/^(?:\/v1)+(?=\/)/, "");
  const last = /(\/(?:chat\/)?completions|\/responses|\/models)$/.exec(bare)?.[1];
  return [bare, `/v1${bare}`, ...(last === undefined ? [] : [`/v1${last}`])];
}

/**
 * Once the server is stopping, requests are refused with `retry-after`.
 * @param stopping aborted when the server begins to stop
 */
export function refuseWhenStopping(stopping: AbortSignal): AppMiddleware {
  return async function refuseIfStopping(context, next) {
    if (!stopping.aborted) return next();
    // The next request should reach another server, or the successor of this one.
    context.header("connection", "close");
    return errorResponse(context, shuttingDown());
  };
}

export function shuttingDown(): DenseMambaError {
  return new DenseMambaError("shutting_down", "the server is shutting down");
}
