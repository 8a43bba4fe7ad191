/** Reads a body of bounded size, JSON or bytes, also one that announces no length. */
import { DenseMambaError } from "../../errors.ts";
import type { AppContext } from "../context.ts";
import { parseJson } from "../openai/validate.ts";

/**
 * @throws `body_too_large`, `aborted`, and `invalid_value` for another content type or malformed JSON
 */
export async function readJson(context: AppContext, maxBytes: number): Promise<unknown> {
  const contentType = context.req.header("content-type");
  // A browser sends other types across origins without asking first; refusing them keeps web pages off a local server.
  if (contentType === undefined || !/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(contentType)) {
    throw new DenseMambaError(
      "invalid_value",
      `the content-type must be application/json; got ${JSON.stringify(contentType ?? "none")}`,
    );
  }
  checkLength(context, maxBytes);
  if (hasLength(context)) return parseJson(await context.req.text().catch(gone));
  return parseJson((await readChunks(context, maxBytes)).toString("utf8"));
}

/**
 * @returns a buffer of its own
 * @throws `body_too_large`, also while the body comes in, `aborted`, and `invalid_value` for another content type
 */
export async function readBytes(context: AppContext, maxBytes: number): Promise<Uint8Array> {
  const contentType = context.req.header("content-type");
  if (contentType === undefined || !/^application\/octet-stream\s*(?:;|$)/i.test(contentType)) {
    throw new DenseMambaError(
      "invalid_value",
      `the content-type must be application/octet-stream; got ${JSON.stringify(contentType ?? "none")}`,
    );
  }
  checkLength(context, maxBytes);
  return readChunks(context, maxBytes);
}

function hasLength(context: AppContext): boolean {
  return context.req.header("content-length") !== undefined && context.req.header("transfer-encoding") === undefined;
}

function checkLength(context: AppContext, maxBytes: number): void {
  const length = context.req.header("content-length");
  if (hasLength(context) && Number(length) > maxBytes) throw tooLarge(maxBytes, `${length}`);
}

async function readChunks(context: AppContext, maxBytes: number): Promise<Buffer> {
  const reader = context.req.raw.body?.getReader();
  const next = () => reader?.read().catch(gone);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (let read = await next(); read && !read.done; read = await next()) {
    size += read.value.byteLength;
    if (size > maxBytes) {
      await reader?.cancel().catch(() => {});
      throw tooLarge(maxBytes, `${size} or more`);
    }
    chunks.push(read.value);
  }
  return Buffer.concat(chunks);
}

function gone(cause: unknown): never {
  throw new DenseMambaError("aborted", "the client went away before its request was complete", { cause });
}

function tooLarge(maxBytes: number, got: string): DenseMambaError {
  return new DenseMambaError("body_too_large", `the body must have at most ${maxBytes} bytes; got ${got}`);
}
