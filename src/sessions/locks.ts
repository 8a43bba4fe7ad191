/**
 * Who may advance a session: one request at a time, here and on every server that shares the store. A lock is taken here
 * at once and then claimed in the store; the claim's fence keeps a server that lost it from writing. Knows no state.
 */
import { DenseMambaError } from "../errors.ts";
import type { Claim, StateStore } from "./stores/store.ts";

/** Calls `task` every `ms` until the returned function is called. Must not keep the process alive. */
export type Repeat = (ms: number, task: () => void) => () => void;

export interface HeldSessions {
  /** The fence to write a session's state with. */
  fence(key: string): number | undefined;
  /** Idempotent. Once it has resolved, other servers may take the sessions. */
  release(): Promise<void>;
}

/** How long another server waits for one that died with a session in its hands. */
const CLAIM_TTL_MS = 30_000;
/** Twice may a renewal fail or come late before the claim is lost. */
const RENEW_MS = CLAIM_TTL_MS / 3;

export class SessionLocks {
  readonly #store: Pick<StateStore, "claim">;
  readonly #repeat: Repeat;
  readonly #held = new Set<string>();

  constructor(store: Pick<StateStore, "claim">, repeat: Repeat = repeatInBackground) {
    this.#store = store;
    this.#repeat = repeat;
  }

  /** Whether this server holds it. */
  isHeld(key: string): boolean {
    return this.#held.has(key);
  }

  /**
   * All or none. Locked on this server before anything is awaited.
   * @param names by key, for the message
   * @throws `session_busy`
   */
  async acquire(names: ReadonlyMap<string, string>): Promise<HeldSessions> {
    const keys = [...names.keys()];
    for (const key of keys) if (this.#held.has(key)) throw busy(names.get(key)!);
    for (const key of keys) this.#held.add(key);
    const claims = new Map<string, Claim>();
    try {
      // One after the other and in one order: two servers that want the same two cannot each get one.
      for (const key of keys.sort()) {
        const claim = await this.#store.claim(key, { ttlMs: CLAIM_TTL_MS });
        if (claim === undefined) throw busy(names.get(key)!);
        claims.set(key, claim);
      }
    } catch (error) {
      await giveBack(claims);
      for (const key of keys) this.#held.delete(key);
      throw error;
    }
    return this.#hold(keys, claims);
  }

  #hold(keys: readonly string[], claims: ReadonlyMap<string, Claim>): HeldSessions {
    // A renewal that fails is no event: whoever claims the session next gets a higher fence, and our write is refused.
    const stop =
      claims.size === 0
        ? () => {}
        : this.#repeat(RENEW_MS, () => {
            for (const claim of claims.values()) claim.renew().catch(() => undefined);
          });
    let isReleased = false;
    return {
      fence: (key) => claims.get(key)?.fence,
      release: async () => {
        if (isReleased) return;
        isReleased = true;
        stop();
        await giveBack(claims);
        for (const key of keys) this.#held.delete(key);
      },
    };
  }
}

/** What cannot be given back ends by itself when its time is over. */
async function giveBack(claims: ReadonlyMap<string, Claim>): Promise<void> {
  await Promise.all([...claims.values()].map((claim) => claim.release().catch(() => undefined)));
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
