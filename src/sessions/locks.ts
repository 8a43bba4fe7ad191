/**
 * Locks on sessions: one request at a time, here and on every server that shares the store. A
 * session is locked here at once, then claimed in the store; the claim's fence stops a server that
 * has lost its claim from writing. Knows no state.
 */
import { DenseMambaError } from "../errors.ts";
import type { Claim, StateStore } from "./stores/store.ts";

/** Calls `task` every `ms` until the result is called. Must not keep the process alive. */
export type Repeat = (ms: number, task: () => void) => () => void;

export interface LockedSessions {
  /** For writing a session. */
  fence(key: string): number | undefined;
  /** Idempotent. Once it has resolved, other servers may lock the sessions. */
  release(): Promise<void>;
}

/** How long other servers wait for one that died while it held a session. */
const CLAIM_TTL_MS = 30_000;
/** Two renewals may fail or be late before the claim is lost. */
const RENEW_MS = CLAIM_TTL_MS / 3;

export class SessionLocks {
  readonly #store: Pick<StateStore, "claim">;
  readonly #repeat: Repeat;
  readonly #locked = new Set<string>();

  constructor(store: Pick<StateStore, "claim">, repeat: Repeat = repeatInBackground) {
    this.#store = store;
    this.#repeat = repeat;
  }

  /** On this server. */
  isLocked(key: string): boolean {
    return this.#locked.has(key);
  }

  /**
   * All or none. They are locked on this server before anything is awaited.
   * @param ids by key, for the message
   * @throws `session_busy`
   */
  async acquire(ids: ReadonlyMap<string, string>): Promise<LockedSessions> {
    const keys = [...ids.keys()];
    for (const key of keys) if (this.#locked.has(key)) throw busy(ids.get(key)!);
    for (const key of keys) this.#locked.add(key);
    const claims = new Map<string, Claim>();
    const release = async () => {
      // A claim that cannot be released lapses by itself.
      await Promise.all([...claims.values()].map((claim) => claim.release().catch(() => undefined)));
      for (const key of keys) this.#locked.delete(key);
    };
    try {
      // In one order on all servers, so that two requests for the same sessions cannot each get
      // one.
      for (const key of keys.sort()) {
        const claim = await this.#store.claim(key, { ttlMs: CLAIM_TTL_MS });
        if (claim === undefined) throw busy(ids.get(key)!);
        claims.set(key, claim);
      }
    } catch (error) {
      await release();
      throw error;
    }
    // A failed renewal is ignored: the next claim gets a higher fence, and our write is refused.
    const renew = () => {
      for (const claim of claims.values()) claim.renew().catch(() => undefined);
    };
    const stopRenewing = claims.size === 0 ? () => {} : this.#repeat(RENEW_MS, renew);
    let isReleased = false;
    return {
      fence: (key) => claims.get(key)?.fence,
      release: async () => {
        if (isReleased) return;
        isReleased = true;
        stopRenewing();
        await release();
      },
    };
  }
}

export function repeatInBackground(ms: number, task: () => void): () => void {
  const timer = setInterval(task, ms).unref();
  return () => clearInterval(timer);
}

function busy(id: string): DenseMambaError {
  return new DenseMambaError("session_busy", `session ${id} is answering another request; one at a time`, {
    param: "session_id",
  });
}
