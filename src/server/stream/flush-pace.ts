/**
 * When to flush a stream: the first times at the end of the tick, then no more often than a screen is drawn, or less often where
 * many run. A write costs as much as a third of a small model's step, and wakes a reader who may take as much of the same
 * processors; nobody sees which of so many writes a second a token came with.
 */
import type { EngineLoad } from "../deps.ts";

/** Sixty writes a second to one stream, twenty at least; and at most two thousand to all streams together. */
const MIN_GAP_MS = 16;
const MAX_GAP_MS = 48;
const GAP_MS_PER_STREAM = 0.5;
/** What would wait for no more than this share of the gap does not wait: a step of about its length needs no timer for each token. */
const SLACK = 0.25;

/** Before its first text a stream may have to tell of its beginning: none of that waits. */
const NUM_AT_ONCE = 4;

export interface FlushPaceOptions {
  readonly engine: { readonly load: EngineLoad };
  /** Monotonic, in milliseconds. */
  readonly now?: () => number;
}

export class FlushPace {
  readonly #flush: () => void;
  readonly #engine: FlushPaceOptions["engine"];
  readonly #now: () => number;
  #flushedAtMs = Number.NEGATIVE_INFINITY;
  #numFlushes = 0;
  #isScheduled = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(flush: () => void, { engine, now = () => performance.now() }: FlushPaceOptions) {
    this.#flush = flush;
    this.#engine = engine;
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
    return Math.min(MAX_GAP_MS, Math.max(MIN_GAP_MS, numRunning * GAP_MS_PER_STREAM));
  }
}
