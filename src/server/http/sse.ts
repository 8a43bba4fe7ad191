/**
 * Server-sent events: text is collected until `flush`, a comment breaks a long silence, and a
 * client that reads nothing for too long is cut off. Knows no generation.
 */
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { AppContext } from "../deps.ts";
import { nodeWriter, type Sink, type StreamWriter, untilReady, webWriter } from "./stream-writer.ts";

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
 * @returns the response for hono: immediately on a web stream, at the end of the stream under Node
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
    const { readable, writer } = webWriter(onGone);
    const stream = new SseStream(writer, options);
    void body(stream).finally(() => stream.end());
    return new Response(readable, { headers: head.headers });
  }
  const stream = new SseStream(nodeWriter(outgoing, head.headers), options);
  try {
    await body(stream);
  } finally {
    stream.end();
  }
  return RESPONSE_ALREADY_SENT;
}

export class SseStream implements Sink {
  readonly #writer: StreamWriter;
  readonly #stallTimeoutMs: number;
  readonly #heartbeat: NodeJS.Timeout;
  #pending = "";
  #wroteSinceBeat = false;

  constructor(writer: StreamWriter, { heartbeatMs, stallTimeoutMs }: SseOptions) {
    this.#writer = writer;
    this.#stallTimeoutMs = stallTimeoutMs;
    this.#heartbeat = setInterval(() => this.#beat(), heartbeatMs);
  }

  /** Adds `data: …`, to be sent by the next `flush`. */
  data(json: string): void {
    this.#pending += `data: ${json}\n\n`;
  }

  /** Adds `event: …`, `data: …` and `id: …`, which a client sends back to continue from there. */
  event(type: string, json: string, id?: number): void {
    this.#pending += `event: ${type}\ndata: ${json}\n${id === undefined ? "" : `id: ${id}\n`}\n`;
  }

  /** Ends a stream of chat or completions. */
  done(): void {
    this.#pending += "data: [DONE]\n\n";
  }

  flush(): void {
    if (this.#pending === "") return;
    const text = this.#pending;
    this.#pending = "";
    this.#wroteSinceBeat = true;
    if (!this.#writer.isClosed) this.#writer.write(text);
  }

  get isFull(): boolean {
    return this.#writer.isFull && !this.#writer.isClosed;
  }

  drained(): Promise<void> {
    return untilReady(this.#writer, this.#stallTimeoutMs);
  }

  end(): void {
    clearInterval(this.#heartbeat);
    this.flush();
    this.#writer.close();
  }

  #beat(): void {
    if (!this.#wroteSinceBeat && !this.#writer.isClosed && !this.#writer.isFull) this.#writer.write(": heartbeat\n\n");
    this.#wroteSinceBeat = false;
  }
}
