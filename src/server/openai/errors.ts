/**
 * Errors on the wire: the only place that knows HTTP statuses and OpenAI's error object. It renders
 * every failure, over HTTP, inside a stream or on a WebSocket. Anything but a `DenseMambaError`
 * gets a generic message.
 */
import { DenseMambaError, type ErrorCode } from "../../errors.ts";

export interface WireError {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;
}

export interface HttpError {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: { readonly error: WireError };
  /** The server's or the runtime's fault, to be logged at level error. */
  readonly isFault: boolean;
}

type ErrorType = "invalid_request_error" | "authentication_error" | "rate_limit_error" | "server_error";

interface Mapping {
  readonly status: number;
  readonly type: ErrorType;
  /** OpenAI's own code for the same error, if there is one: clients look for it. */
  readonly wireCode?: string;
  /** Used if the error itself names no delay. */
  readonly retryAfterMs?: number;
  /** Part of normal operation: no fault, whatever its type. */
  readonly isExpected?: true;
  /** Stops the automatic retries of SDKs, on 409 and from 500 on, if a retry cannot help. */
  readonly retryable?: false;
}

const MAPPINGS: Readonly<Record<ErrorCode, Mapping>> = {
  invalid_value: { status: 400, type: "invalid_request_error" },
  unsupported_value: { status: 400, type: "invalid_request_error" },
  prompt_too_long: { status: 400, type: "invalid_request_error", wireCode: "context_length_exceeded" },
  invalid_import: { status: 400, type: "invalid_request_error", wireCode: "invalid_snapshot" },
  invalid_stream_id: { status: 400, type: "invalid_request_error" },
  websocket_stream_limit_reached: { status: 400, type: "invalid_request_error" },
  // OpenAI has one code for both limits of connections: their number and their age.
  websocket_connection_expired: {
    status: 400,
    type: "invalid_request_error",
    wireCode: "websocket_connection_limit_reached",
  },
  previous_response_not_found: { status: 400, type: "invalid_request_error" },
  invalid_api_key: { status: 401, type: "authentication_error" },
  model_not_found: { status: 404, type: "invalid_request_error" },
  state_lost: { status: 404, type: "invalid_request_error" },
  session_not_found: { status: 404, type: "invalid_request_error" },
  checkpoint_not_found: { status: 404, type: "invalid_request_error" },
  persona_not_found: { status: 404, type: "invalid_request_error" },
  response_not_found: { status: 404, type: "invalid_request_error" },
  item_not_found: { status: 404, type: "invalid_request_error" },
  conversation_not_found: { status: 404, type: "invalid_request_error" },
  route_not_found: { status: 404, type: "invalid_request_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  session_exists: { status: 409, type: "invalid_request_error", retryable: false },
  session_conflict: { status: 409, type: "invalid_request_error", retryable: false },
  quota_exceeded: { status: 403, type: "invalid_request_error" },
  session_busy: { status: 409, type: "invalid_request_error", retryAfterMs: 500 },
  conversation_locked: { status: 409, type: "invalid_request_error", retryAfterMs: 500 },
  response_busy: { status: 409, type: "invalid_request_error", retryAfterMs: 1000 },
  body_too_large: { status: 413, type: "invalid_request_error" },
  unsupported_media_type: { status: 415, type: "invalid_request_error" },
  malformed_request: { status: 400, type: "invalid_request_error" },
  headers_too_large: { status: 431, type: "invalid_request_error" },
  request_timeout: { status: 408, type: "invalid_request_error" },
  expectation_failed: { status: 417, type: "invalid_request_error" },
  host_not_allowed: { status: 403, type: "invalid_request_error" },
  origin_not_allowed: { status: 403, type: "invalid_request_error" },
  upgrade_required: { status: 426, type: "invalid_request_error", wireCode: "method_not_allowed" },
  queue_full: { status: 429, type: "rate_limit_error", retryAfterMs: 1000 },
  websocket_connection_limit_reached: { status: 429, type: "rate_limit_error", retryAfterMs: 5000 },
  aborted: { status: 499, type: "invalid_request_error" },
  runtime_fault: { status: 500, type: "server_error" },
  model_load_failed: { status: 503, type: "server_error", retryAfterMs: 10_000 },
  not_ready: { status: 503, type: "server_error", retryAfterMs: 2000 },
  shutting_down: { status: 503, type: "server_error", retryAfterMs: 2000, isExpected: true },
  store_unavailable: { status: 503, type: "server_error", retryAfterMs: 2000 },
  invalid_checkpoint: { status: 500, type: "server_error", retryable: false },
  invalid_artifact: { status: 500, type: "server_error", retryable: false },
  invalid_snapshot: { status: 500, type: "server_error", retryable: false },
  invalid_config: { status: 500, type: "server_error", retryable: false },
  store_in_use: { status: 500, type: "server_error", retryable: false },
  device_unavailable: { status: 500, type: "server_error", retryable: false },
  pull_failed: { status: 500, type: "server_error", retryable: false },
};

export function statusOf(code: ErrorCode): number {
  return MAPPINGS[code].status;
}

const INTERNAL: HttpError = {
  status: 500,
  headers: {},
  body: {
    error: {
      message: "The server had an internal error. Its log holds the cause, under this answer's x-request-id.",
      type: "server_error",
      param: null,
      code: "internal_error",
    },
  },
  isFault: true,
};

export function toHttpError(error: unknown): HttpError {
  if (!(error instanceof DenseMambaError)) return INTERNAL;
  const mapping = MAPPINGS[error.code];
  const headers: Record<string, string> = {};
  const retryAfterMs = error.retryAfterMs ?? mapping.retryAfterMs;
  if (retryAfterMs !== undefined) {
    headers["retry-after"] = String(Math.max(1, Math.ceil(retryAfterMs / 1000)));
    headers["retry-after-ms"] = String(Math.ceil(retryAfterMs));
  }
  if (mapping.retryable === false) headers["x-should-retry"] = "false";
  if (error.code === "invalid_api_key") headers["www-authenticate"] = "Bearer";
  return {
    status: mapping.status,
    headers,
    body: {
      error: {
        message: error.message,
        type: mapping.type,
        param: error.param ?? null,
        code: mapping.wireCode ?? error.code,
      },
    },
    isFault: mapping.type === "server_error" && mapping.isExpected !== true,
  };
}

/** As clients see it. */
export function errorCodeOf(error: unknown): string {
  return toHttpError(error).body.error.code!;
}

/** A WebSocket message of OpenAI's Responses mode. */
export function toErrorEvent(error: unknown, streamId?: string): string {
  const { status, body } = toHttpError(error);
  return JSON.stringify({ type: "error", status, ...(streamId === undefined ? {} : { stream_id: streamId }), ...body });
}
