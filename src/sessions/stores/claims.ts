/**
 * Claims within this process, for stores that no other process writes to. A fence is current until the key is claimed
 * again, so that a claim which lapsed unnoticed still counts as long as nobody else took it.
 */
import { DenseMambaError } from "../../errors.ts";
import type { Claim } from "./store.ts";

/** Claims that nobody holds are remembered up to this many, to recognise their fences. */
const MAX_REMEMBERED = 100_000;

interface Held {
  readonly fence: number;
  untilMs: number;
}

export class LocalClaims {
  readonly #nowMs: () => number;
  /** The last claim of each key; in the order of claiming. */
  readonly #claims = new Map<string, Held>();
  #lastFence = 0;

  constructor({ nowMs }: { readonly nowMs: () => number }) {
    this.#nowMs = nowMs;
  }

  claim(key: string, { ttlMs }: { readonly ttlMs: number }): Claim | undefined {
    const last = this.#claims.get(key);
    if (last !== undefined && this.#isHeld(last)) return undefined;
    const claim: Held = { fence: ++this.#lastFence, untilMs: this.#nowMs() + ttlMs };
    this.#claims.delete(key);
    this.#claims.set(key, claim);
    this.#forgetOldest();
    return {
      fence: claim.fence,
      renew: async () => {
        if (this.#claims.get(key) !== claim) return false;
        claim.untilMs = this.#nowMs() + ttlMs;
        return true;
      },
      release: async () => {
        claim.untilMs = Number.NEGATIVE_INFINITY;
      },
    };
  }

  /** @throws `session_conflict` unless `fence` is that of the key's last claim. */
  check(key: string, fence: number): void {
    if (!this.isCurrent(key, fence)) throw staleFence(key);
  }

  isCurrent(key: string, fence: number): boolean {
    return this.#claims.get(key)?.fence === fence;
  }

  #forgetOldest(): void {
    for (const [key, claim] of this.#claims) {
      if (this.#claims.size <= MAX_REMEMBERED) return;
      if (!this.#isHeld(claim)) this.#claims.delete(key);
    }
  }

  #isHeld({ untilMs }: Held): boolean {
    return untilMs > this.#nowMs();
  }
}

export function staleFence(key: string): DenseMambaError {
  return new DenseMambaError("session_conflict", `${key} has been advanced by another request since this one began`);
}
