/**
 * With several models: passes a request to the endpoints of its model, once the middleware of the
 * first one's app has let it through.
 */
import { routePath } from "hono/route";
import type { App, AppContext, AppEnv, AppMiddleware, TransportObserver } from "../deps.ts";
import { invalid } from "../openai/validate.ts";
import type { ModelService, SeveralModels } from "../several-models.ts";
import { hasBody, readJson } from "./body.ts";
import { hasRoute } from "./error-answers.ts";

const JSON_TYPE = /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i;

/** @param endpointsOf makes the endpoints of a model alone */
export function passToModel(models: SeveralModels, endpointsOf: (service: ModelService) => App): AppMiddleware {
  const first = models.entries[0]!.service!;
  const all = new Map<ModelService, App>();
  const endpoints = (service: ModelService): App => {
    const app = all.get(service) ?? endpointsOf(service);
    all.set(service, app);
    return app;
  };

  const choose = async (context: AppContext): Promise<ModelService> => {
    const { req } = context;
    const asked = req.queries("model") ?? [];
    if (asked.length > 1) throw invalid("model", `must be given once; got ${asked.length} in the query`);
    // Bytes say nothing of their model.
    const hasJson = hasBody(context) && JSON_TYPE.test(req.header("content-type") ?? "");
    const body = hasJson ? await readJson(context, first.deps) : undefined;
    if (hasJson) context.env = { ...context.env, json: body };
    if (asked.length === 1) return models.named(asked[0]!);
    return models.forRequest(body, { owner: context.get("owner"), path: req.path });
  };

  return async function passRequest(context, next) {
    const { method, path } = context.req;
    if (!hasRoute(endpoints(first), method, path)) return next();
    const service = await choose(context);
    if (service === first) return next();
    return endpoints(service).fetch(context.req.raw, { ...context.env, outer: context });
  };
}

/** The outer app has read it as routes are written. */
export function pathOfOuter(_request: Request, options?: { env?: AppEnv["Bindings"] }): string {
  return options!.env!.outer!.req.path;
}

/** What the outer middleware has set goes on to the endpoints, and what they set goes back. */
export function continueOuter(observer: TransportObserver | undefined): AppMiddleware {
  return async function continueOuterRequest(context, next) {
    const outer = context.env.outer!;
    context.set("requestId", outer.get("requestId"));
    context.set("owner", outer.get("owner"));
    for (const [name, value] of outer.res.headers) context.header(name, value);
    await next();
    outer.set("usage", context.get("usage"));
    outer.set("errorCode", context.get("errorCode"));
    outer.set("answered", { route: routePath(context, -1), observer });
  };
}
