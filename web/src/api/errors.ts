/** What went wrong between page and server, and how it is told to a person. */
import type { ErrorBody } from "./wire.ts";

export class ApiError extends Error {
  /** 0 if there was no answer. */
  readonly status: number;
  readonly code: string | undefined;

  constructor(message: string, { status = 0, code }: { status?: number; code?: string | undefined } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }

  static of(status: number, { message, code }: ErrorBody): ApiError {
    return new ApiError(message, { status, code: code ?? undefined });
  }
}

export const UNREACHABLE = "the server cannot be reached";

/** As a sentence. */
export function describe(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const text = message.trim() || "something went wrong";
  // A field keeps its name.
  const isWord = /^[a-z]+(?![\w.[])/.test(text);
  return `${isWord ? text.charAt(0).toUpperCase() : text.charAt(0)}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
