/**
 * The HTTP application: middleware in order, then the endpoints. A request passes id, log, CORS and
 * key check; an endpoint parses it with a zod schema, turns it into a `GenerationRequest`, and
 * streams its events or collects them.
 */
import { Hono } from "hono";
import { cors } from "hono/cors";
import { getPath } from "hono/utils/url";
import type { App, AppEnv, ServerDeps } from "./deps.ts";
import { chatRoutes } from "./endpoints/chat.ts";
import { checkpointRoutes } from "./endpoints/checkpoints.ts";
import { completionRoutes } from "./endpoints/completions.ts";
import { conversationRoutes } from "./endpoints/conversations.ts";
import { docsRoutes } from "./endpoints/docs.ts";
import { embeddingRoutes } from "./endpoints/embeddings.ts";
import { messageRoutes } from "./endpoints/messages.ts";
import { modelRoutes } from "./endpoints/models.ts";
import { pageRoutes } from "./endpoints/page.ts";
import { personaRoutes } from "./endpoints/personas.ts";
import { responseRoutes } from "./endpoints/responses.ts";
import { scoreRoutes } from "./endpoints/score.ts";
import { sessionRoutes } from "./endpoints/sessions.ts";
import { statusRoutes } from "./endpoints/status.ts";
import { tokenizerRoutes } from "./endpoints/tokenize.ts";
import { checkHost, checkOrigin, hostCheck, keyCheck, originCheck, requireKey } from "./http/access.ts";
import { answerOptions, handleError, notFound, refuseWhenStopping } from "./http/error-answers.ts";
import { continueOuter, passToModel, pathOfOuter } from "./http/pass-to-model.ts";
import { pathReader } from "./http/paths.ts";
import { accessLog, requestId } from "./http/request-log.ts";
import type { Responses } from "./responses/responses.ts";
import type { ModelService, SeveralModels } from "./several-models.ts";

/** These tell nothing about models or users, and probes come without keys. */
const OPEN_PATHS: ReadonlySet<string> = new Set(["/", "/health", "/ready", "/openapi.yaml", "/docs"]);

function isOpen(path: string): boolean {
  return OPEN_PATHS.has(path) || path.startsWith("/docs/") || path.startsWith("/assets/");
}

/**
 * @param responses shared with the WebSocket
 * @param models if there are several; `deps` and `responses` are the first one's
 */
export function createApp(deps: ServerDeps, responses: Responses, models?: SeveralModels): App {
  const { options } = deps;
  let readPath = (path: string) => path;
  const app: App = new Hono<AppEnv>({ getPath: (request) => readPath(getPath(request)) });

  app.use(requestId(deps.newId));
  app.use(accessLog(deps));
  app.use(checkHost(hostCheck(options.allowedHosts)));
  if (options.corsOrigins.length > 0) {
    const allow = cors({
      origin: options.corsOrigins.includes("*") ? "*" : [...options.corsOrigins],
      allowMethods: ["GET", "POST", "PUT", "DELETE"],
      exposeHeaders: ["x-request-id", "x-should-retry", "retry-after", "retry-after-ms", "content-disposition"],
      maxAge: 600,
    });
    // NOTE: hono would set one header after the handler, when a stream's headers have been sent;
    // here all come before.
    app.use(async function allowOrigins(context, next) {
      const preflight = await allow(context, async () => {});
      if (preflight !== undefined) return preflight;
      await next();
    });
  }
  // With API keys, a page can do nothing without one.
  if (options.apiKeys.length === 0) app.use(checkOrigin(originCheck(options.corsOrigins)));
  app.use(answerOptions(app));
  const checkKey = requireKey(keyCheck(options));
  const refuseIfStopping = refuseWhenStopping(deps.stopping.signal);
  app.use(async function refuseUnlessStatus(context, next) {
    const { path } = context.req;
    return isOpen(path) || path === "/metrics" ? next() : refuseIfStopping(context, next);
  });
  app.use(async function checkKeyUnlessOpen(context, next) {
    const { path } = context.req;
    return isOpen(path) || (path === "/metrics" && !options.metricsNeedKey) ? next() : checkKey(context, next);
  });

  if (models !== undefined) app.use(passToModel(models, modelEndpoints));
  addModelEndpoints(app, deps, responses, models);
  conversationRoutes(app, deps, responses.conversations);
  modelRoutes(app, deps, models);
  pageRoutes(app);
  statusRoutes(app, deps, models);
  docsRoutes(app);

  readPath = pathReader(
    options.rootPath,
    app.routes.map(({ path }) => path),
  );
  app.notFound(notFound(app));
  app.onError(handleError(deps.log));
  return app;
}

/** Of one model. */
function addModelEndpoints(app: App, deps: ServerDeps, responses: Responses, models?: SeveralModels): void {
  completionRoutes(app, deps);
  chatRoutes(app, deps);
  responseRoutes(app, deps, responses);
  scoreRoutes(app, deps);
  embeddingRoutes(app, deps);
  messageRoutes(app, deps);
  sessionRoutes(app, deps, models);
  checkpointRoutes(app, deps);
  personaRoutes(app, deps);
  tokenizerRoutes(app, deps);
}

/** The endpoints alone, for requests that have passed the middleware. */
function modelEndpoints({ deps, responses }: ModelService): App {
  const app: App = new Hono<AppEnv>({ getPath: pathOfOuter });
  app.use(continueOuter(deps.observer));
  addModelEndpoints(app, deps, responses);
  app.onError(handleError(deps.log));
  return app;
}
