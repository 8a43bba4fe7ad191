/**
 * How long to wait before a runner is reopened, and until a full queue has room. Pure arithmetic.
 */

const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 30_000;

/** @param numFaults faults in a row before this one; after the first there is no wait */
export function backoffMs(numFaults: number): number {
  return numFaults === 0 ? 0 : Math.min(FIRST_BACKOFF_MS * 2 ** (numFaults - 1), MAX_BACKOFF_MS);
}

const MIN_RETRY_MS = 100;
const MAX_RETRY_MS = 60_000;
/** Weight of the newest interval in the average. */
const NEWEST_SHARE = 0.2;

/** The mean busy time between two sequences' ends, recently. */
export class CompletionRate {
  #busyMs = 0;
  #meanIntervalMs: number | undefined;

  onBusy(durationMs: number): void {
    this.#busyMs += durationMs;
  }

  onEnd(): void {
    const mean = this.#meanIntervalMs ?? this.#busyMs;
    this.#meanIntervalMs = mean + NEWEST_SHARE * (this.#busyMs - mean);
    this.#busyMs = 0;
  }

  /**
   * Estimated milliseconds until `numSequences` have ended; at least the time since the last end.
   */
  estimateMs(numSequences: number): number {
    const interval = Math.max(this.#meanIntervalMs ?? 0, this.#busyMs);
    return Math.round(Math.min(Math.max(interval * numSequences, MIN_RETRY_MS), MAX_RETRY_MS));
  }
}
