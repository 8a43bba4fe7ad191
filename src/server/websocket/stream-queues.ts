/**
 * Whose turn it is on a connection: within a lane one job after the other, in their order; lanes at once, up to a limit.
 * Pure: what a job is, and running it, is the connection's business.
 */
import { DenseMambaError } from "../../errors.ts";
import type { WebSocketOptions } from "../deps.ts";

/** A lane's name; the one without a name is a lane as well. */
export type LaneName = string | undefined;

export type LaneLimits = Pick<WebSocketOptions, "maxLanes" | "maxInFlight" | "maxQueued" | "maxMessageBytes">;

export interface Turn<Job> {
  readonly lane: LaneName;
  readonly job: Job;
}

interface Waiting<Job> extends Turn<Job> {
  readonly bytes: number;
}

export class Lanes<Job> {
  readonly #limits: LaneLimits;
  readonly #named = new Set<string>();
  readonly #busy = new Set<LaneName>();
  #waiting: Waiting<Job>[] = [];
  #waitingBytes = 0;

  constructor(limits: LaneLimits) {
    this.#limits = limits;
  }

  get isIdle(): boolean {
    return this.#busy.size === 0 && this.#waiting.length === 0;
  }

  /** @param bytes of the job's message. @throws `websocket_stream_limit_reached`, `queue_full` */
  add(lane: LaneName, job: Job, bytes: number): void {
    const { maxLanes } = this.#limits;
    const isNew = lane !== undefined && !this.#named.has(lane);
    if (isNew && this.#named.size >= maxLanes) {
      const message = `a connection may use at most ${maxLanes} stream ids; got one more: reuse one or open another connection`;
      throw new DenseMambaError("websocket_stream_limit_reached", message, { param: "stream_id" });
    }
    if (!this.#mayRun(lane)) this.#checkRoom(bytes);
    if (isNew) this.#named.add(lane);
    this.#waiting.push({ lane, job, bytes });
    this.#waitingBytes += bytes;
  }

  /** The next that may run; its lane is busy until `done`. */
  next(): Turn<Job> | undefined {
    const index = this.#waiting.findIndex(({ lane }) => this.#mayRun(lane));
    if (index === -1) return undefined;
    const { lane, job, bytes } = this.#waiting.splice(index, 1)[0]!;
    this.#waitingBytes -= bytes;
    this.#busy.add(lane);
    return { lane, job };
  }

  done(lane: LaneName): void {
    this.#busy.delete(lane);
  }

  /** Drops the lane's job that has waited longest. @returns whether there was one */
  drop(lane: LaneName): boolean {
    const index = this.#waiting.findIndex((waiting) => waiting.lane === lane);
    if (index === -1) return false;
    this.#waitingBytes -= this.#waiting.splice(index, 1)[0]!.bytes;
    return true;
  }

  /** Drops what waits. */
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

  #mayRun(lane: LaneName): boolean {
    return this.#busy.size < this.#limits.maxInFlight && !this.#busy.has(lane);
  }
}
