/**
 * The HTTP application: middleware in order, then one file of routes per endpoint family. A request passes id, log, CORS
 * and key check, is parsed against a zod schema, becomes a `GenerationRequest`, and its events are rendered or folded.
 */
import { Hono } from "hono";
import { cors } from "hono/cors";
import type { App, AppEnv } from "./context.ts";
import type { ServerDeps } from "./deps.ts";
import { chatRoutes } from "./endpoints/chat.ts";
import { completionRoutes } from "./endpoints/completions.ts";
import { docsRoutes } from "./endpoints/docs.ts";
import { modelRoutes } from "./endpoints/models.ts";
import { responseRoutes } from "./endpoints/responses.ts";
import { sessionRoutes } from "./endpoints/sessions.ts";
import { statusRoutes } from "./endpoints/status.ts";
import { tokenizerRoutes } from "./endpoints/tokenize.ts";
import { keyCheck, requireKey } from "./http/auth.ts";
import { checkHost, checkOrigin, hostCheck, originCheck } from "./http/browser-checks.ts";
import { handleError } from "./http/error-answers.ts";
import { notFound } from "./http/not-found.ts";
import { requestId } from "./http/request-id.ts";
import { accessLog } from "./http/request-log.ts";
import { refuseWhenStopping } from "./http/stopping.ts";
import type { Responses } from "./responses/responses.ts";

/** Reading these tells nothing about models or users; probes come without keys. */
const OPEN_PATHS: ReadonlySet<string> = new Set(["/", "/health", "/ready", "/openapi.yaml", "/docs"]);

function isOpen(path: string): boolean {
  return OPEN_PATHS.has(path) || path.startsWith("/docs/");
}

/** @param responses shared with the WebSocket */
export function createApp(deps: ServerDeps, responses: Responses): App {
  const { options } = deps;
  const app: App = new Hono<AppEnv>();

  app.use(requestId(deps.newId));
  app.use(accessLog(deps));
  app.use(checkHost(hostCheck(options.allowedHosts)));
  if (options.corsOrigins.length > 0) {
    const allow = cors({
      origin: options.corsOrigins.includes("*") ? "*" : [...options.corsOrigins],
      allowMethods: ["GET", "POST", "DELETE"],
      exposeHeaders: ["x-request-id", "x-should-retry", "retry-after", "retry-after-ms", "content-disposition"],
      maxAge: 600,
    });
    // NOTE: hono's own order sets a header after the handler, when a stream's headers have been sent; here all are set before.
    app.use(async function allowOrigins(context, next) {
      const preflight = await allow(context, async () => {});
      if (preflight !== undefined) return preflight;
      await next();
    });
  }
  // With API keys a page can do nothing without one.
  if (options.apiKeys.length === 0) app.use(checkOrigin(originCheck(options.corsOrigins)));
  const checkKey = requireKey(keyCheck(options.apiKeys));
  const refuseIfStopping = refuseWhenStopping(deps.stopping.signal);
  app.use(async function refuseUnlessStatus(context, next) {
    const { path } = context.req;
    return isOpen(path) || path === "/metrics" ? next() : refuseIfStopping(context, next);
  });
  app.use(async function checkKeyUnlessOpen(context, next) {
    const { path } = context.req;
    return isOpen(path) || (path === "/metrics" && !options.metricsNeedKey) ? next() : checkKey(context, next);
  });

  completionRoutes(app, deps);
  chatRoutes(app, deps);
  responseRoutes(app, deps, responses);
  modelRoutes(app, deps);
  sessionRoutes(app, deps);
  tokenizerRoutes(app, deps);
  statusRoutes(app, deps);
  docsRoutes(app);

  app.notFound(notFound(app));
  app.onError(handleError(deps.log));
  return app;
}
