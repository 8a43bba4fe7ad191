/**
 * Reads a body of bounded size, JSON or bytes, with or without an announced length. hono's body
 * limit would hold a whole body in memory before its JSON is bounded, and counts none of those that
 * are still incomplete.
 */
import { DenseMambaError } from "../../errors.ts";
import type { AppContext, ServerDeps } from "../deps.ts";
import { JsonReader, parseJson } from "../openai/json-reader.ts";

type BodyDeps = Pick<ServerDeps, "incomingData"> & { readonly options: Pick<ServerDeps["options"], "limits"> };

/** Most bodies are no longer than this. They come in few chunks and are read at once. */
const SHORT_BODY_BYTES = 64 * 1024;

/** Whether the request has a body, of whatever type. */
export function hasBody({ req, env }: AppContext): boolean {
  const length = req.header("content-length");
  if (length !== undefined) return length !== "0";
  const isNode = env?.incoming !== undefined;
  return isNode ? req.header("transfer-encoding") !== undefined : req.raw.body !== null;
}

/**
 * @throws `body_too_large`, `unsupported_media_type`, `queue_full`, `aborted`; `invalid_value` for
 * no body, for malformed JSON, and for JSON beyond its bounds
 */
export async function readJson(context: AppContext, { options, incomingData }: BodyDeps): Promise<unknown> {
  const { maxBodyBytes, json } = options.limits;
  if (context.env?.json !== undefined) return context.env.json;
  if (!hasBody(context)) throw new DenseMambaError("invalid_value", "the body must be a JSON object; got none");
  // A browser sends other types across origins without a preflight; refusing them keeps web pages
  // off a local server.
  checkType(context, "application/json", /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i);
  const length = checkLength(context, maxBodyBytes);
  askForBody(context);
  if (length !== undefined && length <= SHORT_BODY_BYTES) {
    return parseJson(new Uint8Array(await context.req.arrayBuffer().catch(gone)), json);
  }
  const reader = new JsonReader(json);
  await readChunks(context, { maxBytes: maxBodyBytes, incomingData, push: (chunk) => reader.push(chunk) });
  return reader.parse();
}

/**
 * @param maxBytes may be larger than the limit of JSON bodies
 * @returns a buffer of its own
 * @throws `body_too_large`, even while the body arrives, `unsupported_media_type`, `queue_full`,
 * `aborted`
 */
export async function readBytes(
  context: AppContext,
  { incomingData }: Pick<BodyDeps, "incomingData">,
  maxBytes: number,
): Promise<Uint8Array> {
  checkType(context, "application/octet-stream", /^application\/octet-stream\s*(?:;|$)/i);
  checkLength(context, maxBytes);
  askForBody(context);
  const chunks: Uint8Array[] = [];
  await readChunks(context, { maxBytes, incomingData, push: (chunk) => chunks.push(chunk) });
  return Buffer.concat(chunks);
}

function checkType(context: AppContext, wanted: string, pattern: RegExp): void {
  const contentType = context.req.header("content-type");
  if (contentType !== undefined && pattern.test(contentType)) return;
  const got = JSON.stringify(contentType ?? "none");
  throw new DenseMambaError("unsupported_media_type", `the content-type must be ${wanted}; got ${got}`);
}

/** @returns the announced length, unless there is none or `transfer-encoding` overrides it */
function checkLength(context: AppContext, maxBytes: number): number | undefined {
  const length = context.req.header("content-length");
  if (length === undefined || context.req.header("transfer-encoding") !== undefined) return undefined;
  if (Number(length) > maxBytes) throw tooLarge(maxBytes, length);
  return Number(length);
}

/** Clients that sent `expect: 100-continue` wait for this before they send the body. */
function askForBody({ req, env }: AppContext): void {
  if (req.header("expect") !== undefined) env?.outgoing?.writeContinue();
}

interface ChunkArgs extends Pick<BodyDeps, "incomingData"> {
  readonly maxBytes: number;
  /** Reading ends if it throws. */
  readonly push: (chunk: Uint8Array) => void;
}

async function readChunks(context: AppContext, { maxBytes, incomingData, push }: ChunkArgs): Promise<void> {
  const reader = context.req.raw.body?.getReader();
  const leave = () => reader?.cancel().catch(() => {});
  let dropped: DenseMambaError | undefined;
  const incoming = incomingData.begin((most) => {
    const message = `unfinished request bodies may take at most ${most} bytes together; they take more, and this one is the largest`;
    dropped = new DenseMambaError("queue_full", message);
    void leave();
  });
  const next = () => reader?.read().catch((cause: unknown) => gone(cause));
  let size = 0;
  try {
    for (let read = await next(); read && !read.done; read = await next()) {
      size += read.value.byteLength;
      if (size > maxBytes) throw tooLarge(maxBytes, `${size} or more`);
      incoming.add(read.value.byteLength);
      push(read.value);
    }
    if (dropped !== undefined) throw dropped;
  } catch (error) {
    await leave();
    throw dropped ?? error;
  } finally {
    incoming.end();
  }
}

function gone(cause: unknown): never {
  throw new DenseMambaError("aborted", "the client went away before its request was complete", { cause });
}

function tooLarge(maxBytes: number, got: string): DenseMambaError {
  return new DenseMambaError("body_too_large", `the body must have at most ${maxBytes} bytes; got ${got}`);
}
