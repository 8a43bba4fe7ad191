/**
 * How much one owner may keep: sessions by their number, and all there is by its bytes. A session has a name, and is
 * refused where there is no room for it; of responses the oldest give way. Asks the store, so that all servers on it count
 * alike.
 */
import { DenseMambaError } from "../errors.ts";
import { responsePrefixes, sessionPrefix } from "./keys.ts";
import type { ListedSnapshot, StateStore } from "./stores/store.ts";

export interface QuotaLimits {
  /** Sessions that one owner may have. Default: any number. */
  readonly maxSessions?: number;
  /** Bytes that one owner's sessions and responses may take in the store. Default: any number. */
  readonly maxBytes?: number;
}

export interface Addition {
  readonly numSessions: number;
  /** About. */
  readonly bytes: number;
}

export class SessionQuota {
  readonly #store: Pick<StateStore, "list" | "delete">;
  readonly #limits: QuotaLimits;
  /** By owner: the end of the last addition that was let in. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(store: Pick<StateStore, "list" | "delete">, limits: QuotaLimits) {
    this.#store = store;
    this.#limits = limits;
  }

  /**
   * Runs `add`, which stores so much more, if there is room or can be made. One addition of an owner at a time: of two that
   * race for the last place, one gets it.
   * @throws `quota_exceeded`, and what `add` and the store throw
   */
  async admit<T>(owner: string, more: Addition, add: () => Promise<T>): Promise<T> {
    const { maxSessions, maxBytes } = this.#limits;
    if (maxSessions === undefined && maxBytes === undefined) return add();
    const before = this.#turns.get(owner);
    const run = (async () => {
      await before;
      await this.#makeRoom(owner, more);
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

  async #makeRoom(owner: string, more: Addition): Promise<void> {
    const { maxSessions = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY } = this.#limits;
    const sessions = await this.#list(sessionPrefix(owner));
    if (more.numSessions > 0 && sessions.length + more.numSessions > maxSessions) {
      throw exceeded(`${sessions.length} sessions are kept for this key; at most ${maxSessions} are allowed`);
    }
    if (maxBytes === Number.POSITIVE_INFINITY) return;
    // Sessions count with their past; a response shares its past with the one that it continues.
    const sessionBytes = sumOf(sessions) + sessions.reduce((sum, { pastBytes = 0 }) => sum + pastBytes, 0);
    if (sessionBytes + more.bytes > maxBytes) {
      throw exceeded(
        `sessions of this key take ${sessionBytes} bytes and would take ${more.bytes} more; at most ${maxBytes} are allowed`,
      );
    }
    const responses = await this.#responses(owner);
    let excess = sessionBytes + sumOf(responses.flat()) + more.bytes - maxBytes;
    // If responses expire, the earliest expires first; else the store lists the least recently used first.
    for (const parts of responses.sort(([a], [b]) => (a!.expiresAtMs ?? 0) - (b!.expiresAtMs ?? 0))) {
      if (excess <= 0) return;
      for (const { key } of parts) await this.#store.delete(key);
      excess -= sumOf(parts);
    }
  }

  /** For each response its state, its record, or both. */
  async #responses(owner: string): Promise<ListedSnapshot[][]> {
    const byId = new Map<string, ListedSnapshot[]>();
    for (const prefix of responsePrefixes(owner)) {
      for (const listed of await this.#list(prefix)) {
        const id = listed.key.slice(prefix.length);
        byId.set(id, [...(byId.get(id) ?? []), listed]);
      }
    }
    return [...byId.values()];
  }

  async #list(prefix: string): Promise<ListedSnapshot[]> {
    const listed: ListedSnapshot[] = [];
    for await (const entry of this.#store.list(prefix)) listed.push(entry);
    return listed;
  }
}

function sumOf(listed: readonly ListedSnapshot[]): number {
  return listed.reduce((sum, { bytes }) => sum + bytes, 0);
}

function exceeded(message: string): DenseMambaError {
  return new DenseMambaError("quota_exceeded", message);
}
