/**
 * How long runs take, by the number of tokens they read: so that a short one can be made where it
 * is asked for. Handing a run to another thread and waiting for its answer takes two wake-ups of a
 * sleeping thread, 60 to 200 µs in a virtual machine: half a step of a small model, a tenth of one
 * of 32 sequences. See docs/runtime.md, "Where a run computes".
 */

/**
 * A run that is expected to take less, in ms, may hold up the event loop: nobody at the other end
 * of a socket notices.
 */
const SHORT_MS = 3;
/**
 * The shortest of so many last runs counts: that one was interrupted says nothing about the next.
 */
const NUM_REMEMBERED = 8;

export class RunTimes {
  /** Tokens → the last durations in ms, the oldest first. */
  readonly #durations = new Map<number, number[]>();

  /** Whether such a run is expected to be short. One that has never been made is not. */
  isShort(numTokens: number): boolean {
    const durations = this.#durations.get(numTokens);
    return durations !== undefined && Math.min(...durations) < SHORT_MS;
  }

  record(numTokens: number, durationMs: number): void {
    const durations = this.#durations.get(numTokens);
    if (durations === undefined) this.#durations.set(numTokens, [durationMs]);
    else if (durations.push(durationMs) > NUM_REMEMBERED) durations.shift();
  }
}
