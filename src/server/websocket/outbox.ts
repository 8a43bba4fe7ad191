/**
 * Sends on a WebSocket with bounded memory: it is full above the high mark, and its producers wait
 * for the low mark. What is sent in one tick leaves in one write. A client that reads nothing for
 * too long is cut off.
 */
import type { Writable } from "node:stream";
import type { WebSocket } from "ws";
import type { WebSocketOptions } from "../deps.ts";
import { type Sink, untilReady } from "../http/stream-writer.ts";

export class Outbox implements Sink {
  readonly #socket: WebSocket;
  readonly #transport: Pick<Writable, "cork" | "uncork" | "on">;
  readonly #options: Pick<WebSocketOptions, "highWaterBytes" | "lowWaterBytes">;
  readonly #stallTimeoutMs: number;
  #waiting: (() => void)[] = [];
  #isCorked = false;

  /** @param transport what `socket` writes to */
  constructor(
    socket: WebSocket,
    transport: Pick<Writable, "cork" | "uncork" | "on">,
    options: Pick<WebSocketOptions, "highWaterBytes" | "lowWaterBytes">,
    stallTimeoutMs: number,
  ) {
    this.#socket = socket;
    this.#transport = transport;
    this.#options = options;
    this.#stallTimeoutMs = stallTimeoutMs;
    socket.once("close", () => this.#wake());
    // ws does not report when its own messages, such as a pong, have been written.
    transport.on("drain", () => this.#wake());
  }

  send(json: string): void {
    if (!this.#isOpen) return;
    this.#cork();
    this.#socket.send(json, () => {
      if (this.#waiting.length > 0 && this.#socket.bufferedAmount <= this.#options.lowWaterBytes) this.#wake();
    });
  }

  /** Messages leave at the end of the tick. */
  flush(): void {}

  get isFull(): boolean {
    return this.#isOpen && this.#socket.bufferedAmount > this.#options.highWaterBytes;
  }

  drained(): Promise<void> {
    const destroy = () => this.#socket.terminate();
    return untilReady({ destroy, onceReady: (callback) => this.#waiting.push(callback) }, this.#stallTimeoutMs);
  }

  get #isOpen(): boolean {
    return this.#socket.readyState === this.#socket.OPEN;
  }

  #cork(): void {
    if (this.#isCorked) return;
    this.#isCorked = true;
    this.#transport.cork();
    process.nextTick(() => {
      this.#isCorked = false;
      this.#transport.uncork();
    });
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}
