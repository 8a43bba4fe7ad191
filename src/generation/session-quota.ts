/** How much one owner may keep: sessions, by number and by bytes. Asks the store, so that all servers on it count alike. */
import { DenseMambaError } from "../errors.ts";
import type { StateStore } from "../session/store.ts";
import { sessionPrefix } from "./session-keys.ts";

export interface QuotaLimits {
  /** Sessions that one owner may have. Default: any number. */
  readonly maxSessions?: number;
  /** Bytes that one owner's sessions may take in the store. Default: any number. */
  readonly maxBytes?: number;
}

export interface Addition {
  readonly numSessions: number;
  /** About. */
  readonly bytes: number;
}

export class SessionQuota {
  readonly #store: Pick<StateStore, "list">;
  readonly #limits: QuotaLimits;
  /** By owner: the end of the last addition that was let in. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(store: Pick<StateStore, "list">, limits: QuotaLimits) {
    this.#store = store;
    this.#limits = limits;
  }

  /**
   * Runs `add`, which stores so much more, if there is room. One addition of an owner at a time: of two that race for the
   * last place, one gets it.
   * @throws `quota_exceeded`, and what `add` throws
   */
  async admit<T>(owner: string, more: Addition, add: () => Promise<T>): Promise<T> {
    const { maxSessions, maxBytes } = this.#limits;
    if (maxSessions === undefined && maxBytes === undefined) return add();
    const before = this.#turns.get(owner);
    const run = (async () => {
      await before;
      await this.#check(owner, more);
      return add();
    })();
    const turn = run.then(
      () => undefined,
      () => undefined,
    );
    this.#turns.set(owner, turn);
    try {
      return await run;
    } finally {
      if (this.#turns.get(owner) === turn) this.#turns.delete(owner);
    }
  }

  async #check(owner: string, more: Addition): Promise<void> {
    const { maxSessions = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY } = this.#limits;
    let numSessions = 0;
    let usedBytes = 0;
    for await (const entry of this.#store.list(sessionPrefix(owner))) {
      numSessions++;
      usedBytes += entry.bytes;
    }
    if (numSessions + more.numSessions > maxSessions) {
      throw exceeded(`${numSessions} sessions are kept for this key; at most ${maxSessions} are allowed`);
    }
    if (usedBytes + more.bytes > maxBytes) {
      throw exceeded(
        `sessions of this key take ${usedBytes} bytes and would take ${more.bytes} more; at most ${maxBytes} are allowed`,
      );
    }
  }
}

function exceeded(message: string): DenseMambaError {
  return new DenseMambaError("quota_exceeded", message);
}
