/**
 * How long runs take, by the number of tokens they read, so that short ones can run on the calling
 * thread. Handing a run to another thread takes two wake-ups of a sleeping thread, 60 to 200 µs in
 * a virtual machine: half a step of a small model. See docs/runtime.md, "Where a run computes".
 */

/** A run that is expected to take less, in ms, may block the event loop: no client notices. */
const SHORT_MS = 3;
/** The shortest of this many last runs counts: interruptions say nothing about the next one. */
const NUM_REMEMBERED = 8;

export class RunTimes {
  /** Tokens → the last durations in ms, the oldest first. */
  readonly #durations = new Map<number, number[]>();

  /** Whether such a run is expected to be short. Unknown ones are not. */
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
