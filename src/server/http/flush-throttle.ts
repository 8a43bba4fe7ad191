/**
 * When to flush a stream: the first times at the end of the tick, then no more often than a screen is drawn, or less often where
 * many run. A write costs as much as a third of a small model's step, and wakes a reader who may take as much of the same
 * processors; nobody sees which of so many writes a second a token came with.
 */
import type { EngineLoad } from "../deps.ts";

/** So many streams are written to at the pace that is asked for, more of them the less often, until each is by this factor. */
const NUM_AT_FULL_PACE = 32;
const MAX_SLOWDOWN = 3;
/** What would wait for no more than this share of the gap does not wait: a step of about its length needs no timer for each token. */
const SLACK = 0.25;

/** Before its first text a stream may have to tell of its beginning: none of that waits. */
const NUM_AT_ONCE = 4;

export interface FlushPaceOptions {
  readonly engine: { readonly load: EngineLoad };
  /** Between two writes to a stream, where few run. 0: what there is to write goes at the end of the tick. */
  readonly gapMs: number;
  /** Monotonic, in milliseconds. */
  readonly now?: () => number;
}

export class FlushPace {
  readonly #flush: () => void;
  readonly #engine: FlushPaceOptions["engine"];
  readonly #leastGapMs: number;
  readonly #now: () => number;
  #flushedAtMs = Number.NEGATIVE_INFINITY;
  #numFlushes = 0;
  #isScheduled = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(flush: () => void, { engine, gapMs, now = () => performance.now() }: FlushPaceOptions) {
    this.#flush = flush;
    this.#engine = engine;
    this.#leastGapMs = gapMs;
    this.#now = now;
  }

  /** There is something to flush. */
  request(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const gapMs = this.#gapMs();
    const waitMs = this.#flushedAtMs + gapMs - this.#now();
    // The next tick runs when the microtasks at hand are done: by then every event of this engine step has been pulled.
    if (this.#numFlushes < NUM_AT_ONCE || waitMs <= gapMs * SLACK) process.nextTick(() => this.flushNow());
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
    return this.#leastGapMs * Math.min(MAX_SLOWDOWN, Math.max(1, numRunning / NUM_AT_FULL_PACE));
  }
}
