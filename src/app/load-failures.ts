/**
 * What became of the attempts to load one model. After a failure requests are refused for a while,
 * longer after each further one, so that a model that cannot be loaded costs the others little.
 */
import { DenseMambaError } from "../errors.ts";

const FIRST_PAUSE_MS = 10_000;
const MAX_PAUSE_MS = 600_000;

export class LoadFailures {
  readonly #model: string;
  readonly #now: () => number;
  #num = 0;
  #last: { readonly cause: unknown; readonly retryAtMs: number } | undefined;

  /** @param now milliseconds, monotonic */
  constructor(model: string, now: () => number) {
    this.#model = model;
    this.#now = now;
  }

  /** Why the last try failed; undefined if it did not. */
  get error(): DenseMambaError | undefined {
    if (this.#last === undefined) return undefined;
    const { cause, retryAtMs } = this.#last;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `the model ${JSON.stringify(this.#model)} could not be loaded: ${reason}`;
    const retryAfterMs = Math.max(0, retryAtMs - this.#now());
    return new DenseMambaError("model_load_failed", message, { param: "model", retryAfterMs, cause });
  }

  /** Whether it is too early for another try. */
  get isPausing(): boolean {
    return this.#last !== undefined && this.#now() < this.#last.retryAtMs;
  }

  /** @throws `model_load_failed` if it is too early for another try */
  check(): void {
    if (this.isPausing) throw this.error;
  }

  /** @returns the error for whoever waited for the model */
  add(cause: unknown): DenseMambaError {
    const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#num++);
    this.#last = { cause, retryAtMs: this.#now() + pauseMs };
    return this.error!;
  }

  clear(): void {
    this.#num = 0;
    this.#last = undefined;
  }
}
