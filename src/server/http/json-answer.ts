/**
 * Answers with JSON of any size: a large one is written while it is made, no faster than the client
 * reads.
 */
import { setImmediate } from "node:timers/promises";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { AppContext } from "../deps.ts";
import { jsonPieces, PIECE_LENGTH } from "../openai/json-writer.ts";
import { nodeWriter, type StreamWriter, untilReady, webWriter } from "./stream-writer.ts";

const HEADERS = { "content-type": "application/json" };

export async function answerJson(
  context: AppContext,
  options: { readonly stallTimeoutMs: number },
  value: object,
): Promise<Response> {
  const pieces = jsonPieces(value);
  const first = String(pieces.next().value);
  if (first.length >= PIECE_LENGTH) await setImmediate();
  const second = pieces.next();
  if (second.done) return context.body(first, 200, HEADERS);

  const head = context.body(null, 200, HEADERS);
  const outgoing = context.env?.outgoing;
  if (outgoing === undefined) {
    const { readable, writer } = webWriter(() => {});
    void writeAll(writer, [first, second.value], pieces, options.stallTimeoutMs).catch(() => {});
    return new Response(readable, { headers: head.headers });
  }
  await writeAll(nodeWriter(outgoing, head.headers), [first, second.value], pieces, options.stallTimeoutMs);
  return RESPONSE_ALREADY_SENT;
}

/**
 * Cuts the connection and throws `aborted` if the client reads nothing for too long, and whatever
 * `rest` throws.
 */
async function writeAll(
  writer: StreamWriter,
  begun: readonly string[],
  rest: Iterable<string>,
  stallTimeoutMs: number,
) {
  try {
    for (const piece of begun) writer.write(piece);
    for (const piece of rest) {
      if (writer.isFull) await untilReady(writer, stallTimeoutMs);
      // NOTE: a fast socket is ready again in the same tick: without this, nothing else would run.
      await setImmediate();
      if (writer.isClosed) return;
      writer.write(piece);
    }
    writer.close();
  } catch (error) {
    writer.destroy();
    throw error;
  }
}
