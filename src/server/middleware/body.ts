/** Reads a JSON body of bounded size, also one that announces no length. */
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
  return parseJson(await readText(context, maxBytes));
}

async function readText(context: AppContext, maxBytes: number): Promise<string> {
  const length = context.req.header("content-length");
  if (length !== undefined && context.req.header("transfer-encoding") === undefined) {
    if (Number(length) > maxBytes) throw tooLarge(maxBytes, `${length}`);
    return context.req.text().catch(gone);
  }
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
  return Buffer.concat(chunks).toString("utf8");
}

function gone(cause: unknown): never {
  throw new DenseMambaError("aborted", "the client went away before its request was complete", { cause });
}

function tooLarge(maxBytes: number, got: string): DenseMambaError {
  return new DenseMambaError("body_too_large", `the body must have at most ${maxBytes} bytes; got ${got}`);
}
