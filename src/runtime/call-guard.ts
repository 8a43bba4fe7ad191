/**
 * Guards both runners' calls: one at a time (a second one is our own bug), none after a fault or
 * after close, and a close that waits for the call in flight.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../errors.ts";

export class CallGuard {
  readonly #name: string;
  #inFlight: Promise<unknown> | undefined;
  #fault: unknown;
  #closed: Promise<void> | undefined;

  /** @param name for messages: `the native runner`. */
  constructor(name: string) {
    this.#name = name;
  }

  get busy(): boolean {
    return this.#inFlight !== undefined;
  }

  get closing(): boolean {
    return this.#closed !== undefined;
  }

  /**
   * Runs `call` if none is in flight.
   * @throws `runtime_fault` after a fault or after close; an assertion if a call is in flight.
   */
  async exclusive<T>(call: () => Promise<T> | T): Promise<T> {
    if (this.#closed !== undefined) throw new DenseMambaError("runtime_fault", `${this.#name} is closed`);
    if (this.#fault !== undefined) throw this.#faultError();
    assert(!this.busy, `${this.#name} has a call in flight: await it before the next`);
    // The call starts in this turn: on return its arguments have been read, and `busy` is set.
    const running = (async () => call())();
    this.#inFlight = running;
    try {
      return await running;
    } catch (error) {
      if (error instanceof DenseMambaError && error.code === "runtime_fault") this.fail(error);
      throw error;
    } finally {
      this.#inFlight = undefined;
    }
  }

  /** From now on every call is refused with `cause`. The first fault counts. */
  fail(cause: unknown): void {
    this.#fault ??= cause;
  }

  /** Refuses new calls, waits for the one in flight, then runs `release` once. */
  close(release: () => Promise<void> | void): Promise<void> {
    this.#closed ??= (async () => {
      await this.#inFlight?.catch(() => undefined);
      await release();
    })();
    return this.#closed;
  }

  #faultError(): DenseMambaError {
    const reason = this.#fault instanceof Error ? this.#fault.message : String(this.#fault);
    return new DenseMambaError("runtime_fault", `${this.#name} has failed, its states are lost: ${reason}`, {
      cause: this.#fault,
    });
  }
}
