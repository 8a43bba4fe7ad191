/** Answers for what no route matches: 405 with `allow` where the path exists for other methods, else 404. */
import { DenseMambaError } from "../../errors.ts";
import type { App, AppContext } from "../context.ts";
import { errorResponse } from "./error-response.ts";

export function notFound(app: App): (context: AppContext) => Response {
  return (context) => {
    const { method, path } = context.req;
    const allowed = allowedMethods(app, path);
    if (allowed.length === 0) {
      return errorResponse(context, new DenseMambaError("route_not_found", `there is no route ${method} ${path}`));
    }
    const allow = allowed.join(", ");
    context.header("allow", allow);
    return errorResponse(
      context,
      new DenseMambaError("method_not_allowed", `${path} does not take ${method}; it takes ${allow}`),
    );
  };
}

function allowedMethods(app: App, path: string): string[] {
  const methods = new Set<string>();
  for (const route of app.routes) {
    if (route.method === "ALL" || !matches(route.path, path)) continue;
    methods.add(route.method);
    if (route.method === "GET") methods.add("HEAD");
  }
  return [...methods].sort();
}

/** Route patterns here are plain segments, `:name` segments, and at the end `:name{.+}`, which takes all that is left. */
function matches(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const given = path.split("/");
  const takesRest = pattern.endsWith("{.+}");
  return (
    (takesRest ? given.length >= wanted.length : given.length === wanted.length) &&
    wanted.every((segment, index) => (segment.startsWith(":") ? given[index] !== "" : segment === given[index]))
  );
}
