/**
 * When to flush a stream: the first time at the end of the tick, then no more often than a screen is drawn. A write costs as much as a
 * third of a small model's step, and wakes a reader who may take as much of the same processors; nobody sees which of sixty
 * writes a second a token came with.
 */

const MIN_GAP_MS = 16;
/** What would wait for less than this does not wait: a step of about the gap's length needs no timer for each of its tokens. */
const SLACK_MS = 4;

export class FlushPace {
  readonly #flush: () => void;
  /** Monotonic, in milliseconds. */
  readonly #now: () => number;
  #flushedAtMs = Number.NEGATIVE_INFINITY;
  #isScheduled = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(flush: () => void, now: () => number = () => performance.now()) {
    this.#flush = flush;
    this.#now = now;
  }

  /** There is something to flush. */
  request(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const waitMs = this.#flushedAtMs + MIN_GAP_MS - this.#now();
    // The next tick runs when the microtasks at hand are done: by then every event of this engine step has been pulled.
    if (waitMs <= SLACK_MS) process.nextTick(() => this.flushNow());
    else this.#timer = setTimeout(() => this.flushNow(), waitMs);
  }

  flushNow(): void {
    clearTimeout(this.#timer);
    this.#isScheduled = false;
    this.#flushedAtMs = this.#now();
    this.#flush();
  }
}
