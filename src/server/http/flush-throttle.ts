/**
 * When to flush a stream: the first few times at the end of the tick, then at most as often as a
 * screen is redrawn, and less often if many streams run. A write costs a third of a small model's
 * step, and wakes a client that may use the same processors; at such rates the difference is not
 * visible.
 */
import type { EngineState } from "../deps.ts";

/**
 * Up to this many streams are flushed at the configured rate; with more, each is slowed down, by at
 * most this factor.
 */
const NUM_AT_FULL_RATE = 32;
const MAX_SLOWDOWN = 3;

/**
 * A wait below this share of the gap is skipped: a step about as long as the gap needs no timer for
 * each token.
 */
const SLACK = 0.25;

/** Events that come before a stream's first text do not wait. */
const NUM_IMMEDIATE = 4;

export interface FlushThrottleOptions {
  readonly engine: { readonly load: Pick<EngineState["load"], "numRunning"> };
  /** Between two writes to a stream if few run. 0: flush at the end of the tick. */
  readonly gapMs: number;
  /** Monotonic, in milliseconds. */
  readonly now?: () => number;
}

export class FlushThrottle {
  readonly #flush: () => void;
  readonly #engine: FlushThrottleOptions["engine"];
  readonly #minGapMs: number;
  readonly #now: () => number;
  #flushedAtMs = Number.NEGATIVE_INFINITY;
  #numFlushes = 0;
  #isScheduled = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(flush: () => void, { engine, gapMs, now = () => performance.now() }: FlushThrottleOptions) {
    this.#flush = flush;
    this.#engine = engine;
    this.#minGapMs = gapMs;
    this.#now = now;
  }

  /** Schedules a flush, unless one is scheduled. */
  request(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const gapMs = this.#gapMs();
    const waitMs = this.#flushedAtMs + gapMs - this.#now();
    // The next tick runs after all pending microtasks: by then every event of this engine step has
    // been pulled.
    if (this.#numFlushes < NUM_IMMEDIATE || waitMs <= gapMs * SLACK) process.nextTick(() => this.flushNow());
    else this.#timer = setTimeout(() => this.flushNow(), waitMs);
  }

  flushNow(): void {
    clearTimeout(this.#timer);
    this.#isScheduled = false;
    this.#flushedAtMs = this.#now();
    this.#numFlushes++;
    this.#flush();
  }

  #gapMs(): number {
    const { numRunning } = this.#engine.load;
    return this.#minGapMs * Math.min(MAX_SLOWDOWN, Math.max(1, numRunning / NUM_AT_FULL_RATE));
  }
}
