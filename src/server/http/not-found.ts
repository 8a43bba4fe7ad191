/**
 * Answers for what no route matches: 405 with `allow` where the path exists for other methods, else 404, with the path that
 * was probably meant.
 */
import { DenseMambaError } from "../../errors.ts";
import type { App, AppContext } from "../context.ts";
import { errorResponse } from "./error-answers.ts";

const METHODS = ["DELETE", "GET", "PATCH", "POST", "PUT"] as const;

export function notFound(app: App): (context: AppContext) => Response {
  const allowedMethods = (path: string): string[] => {
    const allowed: string[] = METHODS.filter((method) => hasRoute(app, method, path));
    return allowed.includes("GET") ? [...allowed, "HEAD"].sort() : allowed;
  };
  return (context) => {
    const { method, path } = context.req;
    const allowed = allowedMethods(path);
    if (allowed.length > 0) return refuseMethod(context, allowed);
    const meant = similarPaths(path).find((candidate) => allowedMethods(candidate).length > 0);
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

/** Whether anything but middleware answers. */
function hasRoute(app: App, method: string, path: string): boolean {
  return app.router.match(method, path)[0].some(([[, route]]) => route.method !== "ALL");
}

/** What a base URL with a part too few or too many makes of a path. */
function similarPaths(path: string): string[] {
  const plain = path.replaceAll(/\/{2,}/g, "/").replace(/(?<=.)\/$/, "");
  const bare = plain.replace(/^(?:\/v1)+(?=\/)/, "");
  const last = /(\/(?:chat\/)?completions|\/responses|\/models)$/.exec(bare)?.[1];
  return [plain, bare, `/v1${bare}`, ...(last === undefined ? [] : [`/v1${last}`])];
}
