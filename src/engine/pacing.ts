/** How long to wait: before a runner is opened again, and until a full queue has room. Pure arithmetic. */

const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 30_000;

/** @param numFaults how many came before, in a row. The first fault is answered at once. */
export function backoffMs(numFaults: number): number {
  return numFaults === 0 ? 0 : Math.min(FIRST_BACKOFF_MS * 2 ** (numFaults - 1), MAX_BACKOFF_MS);
}

const MIN_RETRY_MS = 100;
const MAX_RETRY_MS = 60_000;
/** Weight of the newest interval in the average. */
const NEWEST_SHARE = 0.2;

/** The engine's recent pace: how much busy time passes between two sequences' ends. */
export class EndRate {
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

  /** Milliseconds until `numSequences` will have ended, if the pace lasts; at least as long as none has ended by now. */
  estimateMs(numSequences: number): number {
    const interval = Math.max(this.#meanIntervalMs ?? 0, this.#busyMs);
    return Math.round(Math.min(Math.max(interval * numSequences, MIN_RETRY_MS), MAX_RETRY_MS));
  }
}
