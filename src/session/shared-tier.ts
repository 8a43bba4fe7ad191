/**
 * The tier that replicas share, as one of them sees it: which fences its claims have there, and what it has to write
 * there once it can be reached again. Failing to reach it is a value here, not an error: there are other tiers.
 */
import { staleFence } from "./claims.ts";
import { expiryOf, type Found, failureOf } from "./local-tiers.ts";
import type { Claim, ListedSnapshot, PutOptions, SharedStore, Snapshot } from "./store.ts";
import { isUnavailable, type Tier } from "./tier.ts";

/** For writing what the tier missed. */
const OWN_CLAIM_MS = 10_000;
const MAX_REMEMBERED_FENCES = 100_000;

export class SharedTier {
  readonly tier: Tier<SharedStore>;
  /** The fence of each key's last claim by this server; undefined for one that was made without the tier. */
  readonly #fences = new Map<string, number | undefined>();

  constructor(tier: Tier<SharedStore>) {
    this.tier = tier;
  }

  async get(key: string): Promise<Found<Snapshot>> {
    let value: Snapshot | undefined;
    const failure = await failureOf(
      this.tier.ask("read", async (store) => {
        value = await store.get(key);
      }),
    );
    return { value, failure };
  }

  async revisionOf(key: string): Promise<Found<number | "deleted">> {
    let value: number | "deleted" | undefined;
    const failure = await failureOf(
      this.tier.ask("read", async (store) => {
        value = await store.revisionOf(key);
      }),
    );
    return { value, failure };
  }

  /**
   * @param isFenced whether the put is made under the last claim of this server
   * @returns whether it is kept there; if not, it will be when the tier can be reached
   * @throws `session_conflict` if another server has claimed since; `invalid_value`
   */
  async put(key: string, snapshot: Snapshot, { isFenced }: { readonly isFenced: boolean }): Promise<boolean> {
    const fence = isFenced ? this.#fences.get(key) : undefined;
    try {
      if (isFenced && fence === undefined) await this.#putUnderOwnClaim(key, snapshot);
      else await this.#put(key, snapshot, fence);
      this.tier.setBehind(key, false);
      return true;
    } catch (error) {
      if (!isUnavailable(error)) throw error;
      this.tier.setBehind(key, true);
      return false;
    }
  }

  /** @throws `store_unavailable` */
  async delete(key: string): Promise<void> {
    await this.tier.askToDelete(key);
    this.tier.setBehind(key, false);
  }

  /** Nothing while it cannot be reached. */
  async list(prefix: string): Promise<readonly ListedSnapshot[]> {
    const listed: ListedSnapshot[] = [];
    const failure = await failureOf(
      this.tier.ask("read", async (store) => {
        for await (const snapshot of store.list(prefix)) listed.push(snapshot);
      }),
    );
    return failure === undefined ? listed : [];
  }

  /** @returns undefined while it cannot be reached: then a claim of this server's own has to do */
  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | "held elsewhere" | undefined> {
    const ask = this.tier.ask("write", async (store) => (await store.claim(key, options)) ?? "held elsewhere");
    const claim = await ask.catch((error: unknown) => {
      if (isUnavailable(error)) return undefined;
      throw error;
    });
    if (claim === "held elsewhere") return claim;
    this.#rememberFence(key, claim?.fence);
    return claim && { ...claim, renew: () => renewIfReachable(claim) };
  }

  /** The fence of this server's last claim of the key. */
  fenceOf(key: string): number | undefined {
    return this.#fences.get(key);
  }

  /**
   * Writes what the tier missed. Ends when it breaks again.
   * @param copyOf what this server has of a key
   */
  async catchUp(copyOf: (key: string) => Promise<Found<Snapshot>>): Promise<void> {
    for (const key of [...this.tier.behind]) {
      const failure = await failureOf(this.#share(key, copyOf));
      if (isUnavailable(failure)) return;
      this.tier.setBehind(key, false);
    }
  }

  /** Unless what is there is newer, or whoever holds a claim is about to write what is newer still. */
  async #share(key: string, copyOf: (key: string) => Promise<Found<Snapshot>>): Promise<void> {
    const claim = await this.tier.ask("write", (store) => store.claim(key, { ttlMs: OWN_CLAIM_MS }));
    if (claim === undefined) return;
    try {
      const { value: copy } = await copyOf(key);
      const revision = await this.tier.ask("read", (store) => store.revisionOf(key));
      if (copy === undefined || revision === "deleted" || (revision ?? 0) >= (copy.revision ?? 0)) return;
      await this.#put(key, copy, claim.fence);
    } finally {
      await claim.release();
    }
  }

  /** For what was claimed while the tier could not be reached. */
  async #putUnderOwnClaim(key: string, snapshot: Snapshot): Promise<void> {
    const claim = await this.tier.ask("write", (store) => store.claim(key, { ttlMs: OWN_CLAIM_MS }));
    if (claim === undefined) throw staleFence(key);
    try {
      await this.#put(key, snapshot, claim.fence);
    } finally {
      await claim.release();
    }
  }

  #put(key: string, snapshot: Snapshot, fence: number | undefined): Promise<void> {
    const options: PutOptions = { ...expiryOf(snapshot), ...(fence !== undefined && { fence }) };
    return this.tier.ask("write", (store) => store.put(key, snapshot, options));
  }

  #rememberFence(key: string, fence: number | undefined): void {
    this.#fences.delete(key);
    this.#fences.set(key, fence);
    for (const oldest of this.#fences.keys()) {
      if (this.#fences.size <= MAX_REMEMBERED_FENCES) return;
      this.#fences.delete(oldest);
    }
  }
}

/** Of a server that cannot be reached nothing is known: the fence decides when the put comes. */
async function renewIfReachable(claim: Claim): Promise<boolean> {
  try {
    return await claim.renew();
  } catch (error) {
    if (isUnavailable(error)) return true;
    throw error;
  }
}
