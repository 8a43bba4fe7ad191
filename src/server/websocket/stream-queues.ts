/**
 * Whose turn it is on a connection: the jobs of a stream run one after the other, in order; streams
 * run at once, up to a limit. Pure: the connection knows what a job is and runs it.
 */
import { DenseMambaError } from "../../errors.ts";
import type { WebSocketOptions } from "../deps.ts";

/** Messages without a stream id are a stream as well. */
export type StreamId = string | undefined;

export type StreamLimits = Pick<WebSocketOptions, "maxStreams" | "maxInFlight" | "maxQueued" | "maxMessageBytes">;

export interface Turn<Job> {
  readonly streamId: StreamId;
  readonly job: Job;
}

interface Waiting<Job> extends Turn<Job> {
  readonly bytes: number;
}

export class StreamQueues<Job> {
  readonly #limits: StreamLimits;
  readonly #knownIds = new Set<string>();
  readonly #busy = new Set<StreamId>();
  #waiting: Waiting<Job>[] = [];
  #waitingBytes = 0;

  constructor(limits: StreamLimits) {
    this.#limits = limits;
  }

  get isIdle(): boolean {
    return this.#busy.size === 0 && this.#waiting.length === 0;
  }

  /** @param bytes of the message. @throws `websocket_stream_limit_reached`, `queue_full` */
  add(streamId: StreamId, job: Job, bytes: number): void {
    const { maxStreams } = this.#limits;
    const isNew = streamId !== undefined && !this.#knownIds.has(streamId);
    if (isNew && this.#knownIds.size >= maxStreams) {
      const message = `a connection may use at most ${maxStreams} stream ids; got one more: reuse one or open another connection`;
      throw new DenseMambaError("websocket_stream_limit_reached", message, { param: "stream_id" });
    }
    if (!this.#mayRun(streamId)) this.#checkRoom(bytes);
    if (isNew) this.#knownIds.add(streamId);
    this.#waiting.push({ streamId, job, bytes });
    this.#waitingBytes += bytes;
  }

  /** The next job that may run; its stream is busy until `done`. */
  next(): Turn<Job> | undefined {
    const index = this.#waiting.findIndex(({ streamId }) => this.#mayRun(streamId));
    if (index === -1) return undefined;
    const { streamId, job, bytes } = this.#waiting.splice(index, 1)[0]!;
    this.#waitingBytes -= bytes;
    this.#busy.add(streamId);
    return { streamId, job };
  }

  done(streamId: StreamId): void {
    this.#busy.delete(streamId);
  }

  /** Drops the oldest waiting job of a stream. @returns whether there was one */
  drop(streamId: StreamId): boolean {
    const index = this.#waiting.findIndex((waiting) => waiting.streamId === streamId);
    if (index === -1) return false;
    this.#waitingBytes -= this.#waiting.splice(index, 1)[0]!.bytes;
    return true;
  }

  /** Drops all waiting jobs. */
  clear(): void {
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  #checkRoom(bytes: number): void {
    const { maxQueued, maxMessageBytes } = this.#limits;
    if (this.#waiting.length >= maxQueued) {
      const message = `a connection may have at most ${maxQueued} responses waiting; got one more`;
      throw new DenseMambaError("queue_full", message);
    }
    const total = this.#waitingBytes + bytes;
    if (total > maxMessageBytes) {
      const message = `a connection's waiting messages may have at most ${maxMessageBytes} bytes together; got ${total}`;
      throw new DenseMambaError("queue_full", message);
    }
  }

  #mayRun(streamId: StreamId): boolean {
    return this.#busy.size < this.#limits.maxInFlight && !this.#busy.has(streamId);
  }
}
