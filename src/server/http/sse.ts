/**
 * Server-sent events: text is gathered until `flush`, a comment breaks long silences, and a reader that takes nothing for
 * too long is cut off. Knows no generation.
 */
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { AppContext } from "../context.ts";
import type { Sink } from "./pump.ts";
import { nodeOutlet, type Outlet, untilReady, webOutlet } from "./stream-writer.ts";

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // Asks nginx not to collect the stream.
  "x-accel-buffering": "no",
};

export interface SseOptions {
  readonly heartbeatMs: number;
  readonly stallTimeoutMs: number;
}

/**
 * Sends the 200 header and runs `body`, which writes into the stream until it returns.
 * @returns the response for hono: at once on a web stream, at the end of the stream under Node
 */
export async function streamSse(
  context: AppContext,
  options: SseOptions,
  onGone: () => void,
  body: (stream: SseStream) => Promise<void>,
): Promise<Response> {
  const head = context.body(null, 200, HEADERS);
  const outgoing = context.env?.outgoing;
  if (outgoing === undefined) {
    const { readable, outlet } = webOutlet(onGone);
    const stream = new SseStream(outlet, options);
    void body(stream).finally(() => stream.end());
    return new Response(readable, { headers: head.headers });
  }
  const stream = new SseStream(nodeOutlet(outgoing, head.headers), options);
  try {
    await body(stream);
  } finally {
    stream.end();
  }
  return RESPONSE_ALREADY_SENT;
}

export class SseStream implements Sink {
  readonly #outlet: Outlet;
  readonly #stallTimeoutMs: number;
  readonly #heartbeat: NodeJS.Timeout;
  #pending = "";
  #wroteSinceBeat = false;

  constructor(outlet: Outlet, { heartbeatMs, stallTimeoutMs }: SseOptions) {
    this.#outlet = outlet;
    this.#stallTimeoutMs = stallTimeoutMs;
    this.#heartbeat = setInterval(() => this.#beat(), heartbeatMs);
  }

  /** Adds `data: …`; it leaves with the next `flush`. */
  data(json: string): void {
    this.#pending += `data: ${json}\n\n`;
  }

  /** Adds `event: …` with `data: …`; and with `id: …`, which a client sends back to continue from there. */
  event(type: string, json: string, id?: number): void {
    this.#pending += `event: ${type}\ndata: ${json}\n${id === undefined ? "" : `id: ${id}\n`}\n`;
  }

  /** Adds what ends a stream of chat or completions. */
  done(): void {
    this.#pending += "data: [DONE]\n\n";
  }

  flush(): void {
    if (this.#pending === "") return;
    const text = this.#pending;
    this.#pending = "";
    this.#wroteSinceBeat = true;
    if (!this.#outlet.isClosed) this.#outlet.write(text);
  }

  get isFull(): boolean {
    return this.#outlet.isFull && !this.#outlet.isClosed;
  }

  drained(): Promise<void> {
    return untilReady(this.#outlet, this.#stallTimeoutMs);
  }

  end(): void {
    clearInterval(this.#heartbeat);
    this.flush();
    this.#outlet.close();
  }

  #beat(): void {
    if (!this.#wroteSinceBeat && !this.#outlet.isClosed && !this.#outlet.isFull) this.#outlet.write(": heartbeat\n\n");
    this.#wroteSinceBeat = false;
  }
}
