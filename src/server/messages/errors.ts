/** Errors in the form of Anthropic's API, for its endpoints: the same statuses, other names. */
import { type HttpError, toHttpError } from "../openai/errors.ts";

/** Where an answer has this form. */
export function isMessagesPath(path: string): boolean {
  return /^\/v1\/messages(?:\/|$)/.test(path);
}

const TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
};

export interface MessagesError extends Omit<HttpError, "body"> {
  readonly body: { readonly type: "error"; readonly error: { readonly type: string; readonly message: string } };
}

export function toMessagesError(error: unknown): MessagesError {
  const { body, ...rest } = toHttpError(error);
  const type = TYPES[rest.status] ?? (rest.status >= 500 ? "api_error" : "invalid_request_error");
  return { ...rest, body: { type: "error", error: { type, message: body.error.message } } };
}
