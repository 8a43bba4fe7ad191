/** A server that is asked to stop ends what runs and takes nothing new: clients are sent away, with the time to come back. */
import { DenseMambaError } from "../../errors.ts";
import type { AppMiddleware } from "../context.ts";
import { errorResponse } from "./error-answers.ts";

/** @param stopping aborted once the server is to stop */
export function refuseWhenStopping(stopping: AbortSignal): AppMiddleware {
  return async function refuseIfStopping(context, next) {
    if (!stopping.aborted) return next();
    // The next request is another server's, or this one's successor's.
    context.header("connection", "close");
    return errorResponse(context, shuttingDown());
  };
}

export function shuttingDown(): DenseMambaError {
  return new DenseMambaError("shutting_down", "the server is shutting down");
}
