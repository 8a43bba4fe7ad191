/**
 * The tier that replicas share, as one of them sees it: which fences its claims have there, and what it has to write
 * there once it can be reached again. Failing to reach it is a value here, not an error: there are other tiers.
 */
import { staleFence } from "./claims.ts";
import { expiryOf, type Found, failureOf, type LocalTiers } from "./local-tiers.ts";
import type { Claim, ListedSnapshot, PutOptions, SharedRevision, SharedStore, Snapshot } from "./store.ts";
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
    return { value: value && asShared(value), failure };
  }

  /** A value unless the tier cannot be reached. */
  async revisionOf(key: string): Promise<Found<SharedRevision>> {
    let value: SharedRevision | undefined;
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
  async put(
    key: string,
    snapshot: Snapshot,
    { isFenced, isCache }: { readonly isFenced: boolean; readonly isCache: boolean },
  ): Promise<boolean> {
    const fence = isFenced ? this.#fences.get(key) : undefined;
    try {
      if (isFenced && fence === undefined) await this.#putUnderOwnClaim(key, snapshot);
      else await this.#put(key, snapshot, { fence, isCache });
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

  /** Writes what the tier missed. Ends when it breaks again. */
  async catchUp(copies: LocalTiers): Promise<void> {
    for (const key of [...this.tier.behind]) {
      const failure = await failureOf(this.#share(key, copies));
      if (isUnavailable(failure)) return;
      this.tier.setBehind(key, false);
    }
  }

  /** Unless what is there is newer, or whoever holds a claim is about to write what is newer still. */
  async #share(key: string, copies: LocalTiers): Promise<void> {
    const claim = await this.tier.ask("write", (store) => store.claim(key, { ttlMs: OWN_CLAIM_MS }));
    if (claim === undefined) return;
    try {
      const { value: copy } = await copies.get(key);
      if (copy === undefined) return;
      const original = await this.tier.ask("read", (store) => store.revisionOf(key));
      if (!["unshared", "evicted"].includes(standingOf(copy, original))) return;
      await this.#put(key, copy, { fence: claim.fence });
      const { value: current } = await copies.get(key);
      // From now on, its absence there means that the store has lost it.
      if (!copy.isPart && current?.revision === copy.revision) {
        await copies.put(key, asShared(copy), expiryOf(copy), { isKeptElsewhere: true });
      }
    } finally {
      await claim.release();
    }
  }

  /** For what was claimed while the tier could not be reached. */
  async #putUnderOwnClaim(key: string, snapshot: Snapshot): Promise<void> {
    const claim = await this.tier.ask("write", (store) => store.claim(key, { ttlMs: OWN_CLAIM_MS }));
    if (claim === undefined) throw staleFence(key);
    try {
      await this.#put(key, snapshot, { fence: claim.fence });
    } finally {
      await claim.release();
    }
  }

  #put(
    key: string,
    snapshot: Snapshot,
    { fence, isCache = false }: { readonly fence: number | undefined; readonly isCache?: boolean },
  ): Promise<void> {
    const options: PutOptions = { ...expiryOf(snapshot), ...(fence !== undefined && { fence }), isCache };
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

/**
 * What a copy is worth, by what the shared store knows of its key. "evicted": it is the newest, and there is no other.
 * "unshared": it was put when the store could not be reached, or can be made again. "lost": the store had this or a newer
 * one, and no longer has it.
 */
export type Standing = "current" | "evicted" | "unshared" | "old" | "lost" | "deleted";

export function standingOf(
  { revision: copied = 0, isShared = false, isPart = false }: Pick<Snapshot, "revision" | "isShared" | "isPart">,
  original: SharedRevision,
): Standing {
  if (original === "deleted") return "deleted";
  if (original === "unknown") return isShared ? "lost" : "unshared";
  const { revision, isThere } = original;
  if (isPart) return isThere ? "current" : "evicted";
  if (revision === copied) return isThere ? "current" : "evicted";
  if (revision < copied) return "unshared";
  return isThere ? "old" : "lost";
}

function asShared(snapshot: Snapshot): Snapshot {
  return snapshot.isPart ? snapshot : { ...snapshot, isShared: true };
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
