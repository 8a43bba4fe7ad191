/**
 * When to flush a stream: at the end of the tick, but no more often than every four milliseconds. A write is a system call that
 * costs as much as a third of a small model's step, and its reader is woken by each; which of 250 writes a second a token comes
 * with makes no difference to anyone.
 */

const MIN_GAP_MS = 4;

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
    if (waitMs <= 0) process.nextTick(() => this.flushNow());
    else this.#timer = setTimeout(() => this.flushNow(), waitMs);
  }

  flushNow(): void {
    clearTimeout(this.#timer);
    this.#isScheduled = false;
    this.#flushedAtMs = this.#now();
    this.#flush();
  }
}
