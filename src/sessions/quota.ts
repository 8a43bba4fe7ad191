/**
 * How much one owner may store: sessions by number, and everything by bytes. A session has a name,
 * and is refused if there is no room for it; of responses the oldest are deleted. Asks the store,
 * so that all servers on it count the same.
 */
import { DenseMambaError } from "../errors.ts";
import { personaPrefix, responsePrefixes, sessionPrefix } from "./conversation-store.ts";
import type { Snapshot } from "./stores/snapshot.ts";
import type { ListedSnapshot, StateStore } from "./stores/store.ts";

export interface QuotaLimits {
  /** Sessions of one owner. Default: any number. */
  readonly maxSessions?: number;
  /** Bytes of one owner's sessions and responses in the store. Default: any number. */
  readonly maxBytes?: number;
}

/** In a store, approximately. */
export const BYTES_PER_TOKEN = 4;

/** In a store, approximately, without its history. */
export function bytesOf({ state, tokenIds }: Pick<Snapshot, "state" | "tokenIds">): number {
  return state.length + tokenIds.length * BYTES_PER_TOKEN;
}

export interface Addition {
  readonly numSessions: number;
  /** Approximately. */
  readonly bytes: number;
}

export class SessionQuota {
  readonly #store: Pick<StateStore, "list" | "delete">;
  readonly #limits: QuotaLimits;
  /** By owner: resolves when the last addition has ended. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(store: Pick<StateStore, "list" | "delete">, limits: QuotaLimits) {
    this.#store = store;
    this.#limits = limits;
  }

  /**
   * Runs `add` if there is room for what it stores, or room can be made. An owner's additions run
   * one at a time: of two that race for the last place, one gets it.
   * @throws `quota_exceeded`, and what `add` and the store throw
   */
  async admit<T>(owner: string, addition: Addition, add: () => Promise<T>): Promise<T> {
    const { maxSessions, maxBytes } = this.#limits;
    if (maxSessions === undefined && maxBytes === undefined) return add();
    const run = (this.#turns.get(owner) ?? Promise.resolve()).then(async () => {
      await this.#makeRoom(owner, addition);
      return add();
    });
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

  async #makeRoom(owner: string, addition: Addition): Promise<void> {
    const { maxSessions = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY } = this.#limits;
    const sessions = await this.#list(sessionPrefix(owner));
    if (addition.numSessions > 0 && sessions.length + addition.numSessions > maxSessions) {
      throw exceeded(`this key has ${sessions.length} sessions; at most ${maxSessions} are allowed`);
    }
    if (maxBytes === Number.POSITIVE_INFINITY) return;
    // Sessions count with their history and checkpoints; a response shares its history with the one
    // that it continues.
    const kept = [...sessions, ...(await this.#list(personaPrefix(owner)))];
    const sessionBytes = kept.reduce((sum, { bytes, referencedBytes = 0 }) => sum + bytes + referencedBytes, 0);
    if (sessionBytes + addition.bytes > maxBytes) {
      throw exceeded(
        `sessions of this key take ${sessionBytes} bytes and would take ${addition.bytes} more; at most ${maxBytes} are allowed`,
      );
    }
    const responses = await this.#responses(owner);
    let excess = sessionBytes + sumOf(responses.flat()) + addition.bytes - maxBytes;
    // The earliest to expire first; without expiry, in the store's order, the least recently used
    // first.
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
