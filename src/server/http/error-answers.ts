/** Renders any failure as an HTTP answer and logs the ones that are ours. */
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { AppContext } from "../context.ts";
import type { Log } from "../deps.ts";
import { toHttpError } from "../openai/errors.ts";

export function errorResponse(context: AppContext, error: unknown): Response {
  const { status, headers, body } = toHttpError(error);
  return context.json(body, status as ContentfulStatusCode, { ...headers });
}

export function handleError(log: Log): (error: Error, context: AppContext) => Response {
  return (error, context) => {
    if (toHttpError(error).isFault) log.error({ err: error, requestId: context.get("requestId") }, "request failed");
    return errorResponse(context, error);
  };
}
