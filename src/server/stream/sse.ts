/**
 * Server-sent events. Under Node the text goes straight to the ServerResponse: measured, that halves the cost of a chunk
 * against a web ReadableStream, which remains for every other host (and for tests through `app.request`).
 */
import type { ServerResponse } from "node:http";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { DenseMambaError } from "../../errors.ts";
import type { AppContext } from "../context.ts";
import type { Sink } from "./pump.ts";

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

/** Where the text goes. */
interface Outlet {
  readonly isFull: boolean;
  /** The reader has gone, or all has been written. */
  readonly isClosed: boolean;
  write(text: string): void;
  /** What was written still goes out. */
  close(): void;
  /** What was written is dropped. */
  destroy(): void;
  /** Calls back at the next change of `isFull` or `isClosed` for the better. */
  onceReady(callback: () => void): void;
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

  /** Adds `event: …` with `data: …`. */
  event(type: string, json: string): void {
    this.#pending += `event: ${type}\ndata: ${json}\n\n`;
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
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#outlet.destroy();
        reject(new DenseMambaError("aborted", `the client read nothing for ${this.#stallTimeoutMs} ms`));
      }, this.#stallTimeoutMs);
      this.#outlet.onceReady(() => {
        clearTimeout(timer);
        resolve();
      });
    });
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

function nodeOutlet(outgoing: ServerResponse, headers: Headers): Outlet {
  // NOTE: a write after the socket is gone raises `error` on the response; without a listener it would end the process.
  outgoing.on("error", () => {});
  outgoing.writeHead(200, Object.fromEntries(headers));
  outgoing.flushHeaders();
  return {
    get isFull() {
      return outgoing.writableNeedDrain;
    },
    get isClosed() {
      return outgoing.destroyed || outgoing.writableEnded;
    },
    write: (text) => {
      outgoing.write(text);
    },
    close: () => {
      if (!outgoing.destroyed) outgoing.end();
    },
    destroy: () => {
      outgoing.destroy();
    },
    onceReady: (callback) => {
      const ready = () => {
        outgoing.off("drain", ready);
        outgoing.off("close", ready);
        callback();
      };
      outgoing.on("drain", ready);
      outgoing.on("close", ready);
      if (outgoing.destroyed) ready();
    },
  };
}

function webOutlet(onGone: () => void): { readable: ReadableStream<Uint8Array>; outlet: Outlet } {
  const encoder = new TextEncoder();
  const state = { closed: false, ready: [] as (() => void)[] };
  const wake = () => {
    for (const callback of state.ready.splice(0)) callback();
  };
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const readable = new ReadableStream<Uint8Array>(
    {
      start: (given) => {
        controller = given;
      },
      pull: wake,
      cancel: () => {
        state.closed = true;
        onGone();
        wake();
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: 64 * 1024 }),
  );
  const outlet: Outlet = {
    get isFull() {
      return (controller.desiredSize ?? 1) <= 0;
    },
    get isClosed() {
      return state.closed;
    },
    write: (text) => controller.enqueue(encoder.encode(text)),
    close: () => {
      if (!state.closed) controller.close();
      state.closed = true;
    },
    destroy: () => {
      if (!state.closed) controller.error(new Error("the reader has stalled"));
      state.closed = true;
    },
    onceReady: (callback) => {
      if (outlet.isClosed || !outlet.isFull) callback();
      else state.ready.push(callback);
    },
  };
  return { readable, outlet };
}
