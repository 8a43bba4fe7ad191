/** Every answer carries `x-request-id`: the client's own if it is a plain token, else a new one. The log names it too. */
import type { AppMiddleware } from "../context.ts";

/** Visible ASCII only: it goes into a header and into log lines. */
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
