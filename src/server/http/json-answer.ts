/** A JSON answer of any size: a small one is sent as usual, a large one is written as it is made, at its reader's pace. */
import { setImmediate } from "node:timers/promises";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { AppContext } from "../context.ts";
import { jsonPieces } from "../openai/json-writer.ts";
import { nodeOutlet, type Outlet, untilReady, webOutlet } from "./stream-writer.ts";

const HEADERS = { "content-type": "application/json" };

export async function answerJson(
  context: AppContext,
  options: { readonly stallTimeoutMs: number },
  value: object,
): Promise<Response> {
  const pieces = jsonPieces(value);
  const first = String(pieces.next().value);
  const second = pieces.next();
  if (second.done) return context.body(first, 200, HEADERS);

  const head = context.body(null, 200, HEADERS);
  const outgoing = context.env?.outgoing;
  if (outgoing === undefined) {
    const { readable, outlet } = webOutlet(() => {});
    void writeAll(outlet, [first, second.value], pieces, options.stallTimeoutMs).catch(() => {});
    return new Response(readable, { headers: head.headers });
  }
  await writeAll(nodeOutlet(outgoing, head.headers), [first, second.value], pieces, options.stallTimeoutMs);
  return RESPONSE_ALREADY_SENT;
}

/** @throws `aborted` if the reader takes nothing for too long, and what making the pieces throws: its connection is cut */
async function writeAll(outlet: Outlet, begun: readonly string[], rest: Iterable<string>, stallTimeoutMs: number) {
  try {
    for (const piece of begun) outlet.write(piece);
    for (const piece of rest) {
      if (outlet.isFull) await untilReady(outlet, stallTimeoutMs);
      // NOTE: a socket that takes all at once is ready again in the same tick: others would never have their turn.
      await setImmediate();
      if (outlet.isClosed) return;
      outlet.write(piece);
    }
    outlet.close();
  } catch (error) {
    outlet.destroy();
    throw error;
  }
}
