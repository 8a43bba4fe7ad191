/**
 * The base of all errors that a caller or an operator can act on: a stable code, and a message that
 * names the bound and the given value. Our own bugs use `assert` instead. Knows no HTTP.
 */

export type ErrorCode =
  | "state_lost" // the stored state is gone, or only an older copy is left
  | "invalid_value" // a request field is malformed or out of bounds
  | "unsupported_value" // a valid field that this server does not implement
  | "prompt_too_long"
  | "model_not_found"
  | "model_load_failed" // one of several models; the others are served
  | "session_not_found"
  | "session_exists"
  | "session_busy"
  | "session_conflict" // another server has advanced the session
  | "checkpoint_not_found"
  | "persona_not_found"
  | "quota_exceeded"
  | "previous_response_not_found"
  | "response_not_found"
  | "item_not_found"
  | "conversation_not_found"
  | "conversation_locked" // another request uses it
  | "response_busy" // it is still running
  | "queue_full"
  | "aborted" // the client disconnected, a deadline passed, or the server is shutting down
  | "shutting_down"
  | "not_ready" // the runtime is starting or recovering
  | "runtime_fault" // the runtime failed under this request
  | "store_unavailable" // no tier of the store that could write or find the state answers
  | "store_in_use" // its folder belongs to another server
  | "invalid_api_key"
  | "body_too_large"
  | "unsupported_media_type"
  | "malformed_request" // not valid HTTP
  | "headers_too_large"
  | "request_timeout" // the request did not arrive in time
  | "expectation_failed"
  | "host_not_allowed"
  | "origin_not_allowed"
  | "route_not_found"
  | "method_not_allowed"
  | "upgrade_required"
  | "websocket_connection_limit_reached"
  | "websocket_connection_expired"
  | "websocket_stream_limit_reached"
  | "invalid_stream_id"
  | "invalid_checkpoint"
  | "invalid_artifact"
  | "invalid_snapshot"
  | "invalid_import" // a snapshot from a client
  | "invalid_config"
  | "device_unavailable"
  | "pull_failed"; // a model could not be downloaded from the hub, or its bytes were wrong

export interface ErrorDetails {
  /** The request field at fault, in the API's spelling, e.g. `max_tokens`. */
  readonly param?: string;
  /** When the same request may succeed. */
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

export class DenseMambaError extends Error {
  override readonly name = "DenseMambaError";
  readonly code: ErrorCode;
  readonly param: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.param = details.param;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/**
 * The same error, with the request field at fault where whoever found it could not know its name.
 */
export function aboutField(error: unknown, param: string): unknown {
  if (!(error instanceof DenseMambaError) || error.code !== "invalid_value" || error.param !== undefined) return error;
  return new DenseMambaError(error.code, error.message, { param, cause: error });
}
