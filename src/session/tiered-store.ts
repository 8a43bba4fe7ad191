/**
 * Memory, disk and a server shared with other replicas as one store. A put goes to all of them before it returns; a get
 * is answered by the first that has it. Where there is a shared tier it has the last word: copies here are believed only
 * if nobody has replaced or deleted the original. A tier that fails is left out and serves again when it works again.
 */
import { LocalClaims, staleFence } from "./claims.ts";
import { expiryOf, type Found, failureOf, LocalTiers } from "./local-tiers.ts";
import type { Claim, ListedSnapshot, PutOptions, SharedStore, Snapshot, StateStore, StoreStats } from "./store.ts";
import { isUnavailable, type StoreObserver, Tier, type TierEvent, type TierStats } from "./tier.ts";

/** For writing what the shared tier missed. */
const CATCH_UP_CLAIM_MS = 10_000;
const MAX_REMEMBERED_FENCES = 100_000;

export interface TieredStoreOptions {
  readonly memory: StateStore;
  readonly disk?: StateStore;
  readonly shared?: SharedStore;
  readonly nowMs: () => number;
  readonly observer: Pick<StoreObserver, "onTier">;
}

export interface TieredStats extends StoreStats {
  /** The fastest first. */
  readonly tiers: readonly TierStats[];
}

export class TieredStore implements StateStore {
  readonly #nowMs: () => number;
  readonly #memory: Tier;
  readonly #disk: Tier | undefined;
  readonly #shared: Tier<SharedStore> | undefined;
  readonly #local: LocalTiers;
  readonly #claims: LocalClaims;
  /** The shared tier's fence of each key's last claim here; none for one that was made without it. */
  readonly #sharedFences = new Map<string, number | undefined>();
  readonly #catchingUp = new Map<Tier, Promise<void>>();

  constructor({ memory, disk, shared, nowMs, observer }: TieredStoreOptions) {
    const onChange = (event: TierEvent) => {
      observer.onTier(event);
      const tier = this.#tiers().find(({ name }) => name === event.name);
      if (event.isAvailable && tier !== undefined) this.#catchUp(tier);
    };
    this.#nowMs = nowMs;
    this.#memory = new Tier({ name: "memory", store: memory, nowMs, onChange });
    this.#disk = disk && new Tier({ name: "disk", store: disk, nowMs, onChange });
    this.#shared = shared && new Tier({ name: "shared", store: shared, nowMs, onChange });
    this.#local = new LocalTiers({ memory: this.#memory, disk: this.#disk });
    this.#claims = new LocalClaims({ nowMs });
  }

  /** @throws `store_unavailable` if none has it, and one that may have it cannot be asked */
  async get(key: string): Promise<Snapshot | undefined> {
    const copy = await this.#local.get(key);
    const found = this.#shared === undefined ? copy : await this.#original(this.#shared, key, copy);
    if (found.value === undefined && found.failure !== undefined) throw found.failure;
    return found.value;
  }

  async has(key: string): Promise<boolean> {
    const revision = await this.#sharedRevision(key);
    if (revision.value === "deleted") return false;
    if (revision.value !== undefined) return true;
    const { value, failure = revision.failure } = await this.#local.has(key);
    if (value === undefined && failure !== undefined) throw failure;
    return value === true;
  }

  /**
   * @throws `session_conflict`, and then no tier has changed; `store_unavailable` or `invalid_value` if no tier at all
   * keeps it
   */
  async put(key: string, snapshot: Snapshot, { expiresAtMs, fence, isCache }: PutOptions = {}): Promise<void> {
    if (fence !== undefined) this.#claims.check(key, fence);
    const { expiresAtMs: _, ...rest } = snapshot;
    const until: PutOptions = expiresAtMs === undefined ? {} : { expiresAtMs };
    const stamped = { ...rest, ...until, revision: await this.#nextRevision(key, fence) };
    const sharedFailure = this.#shared && (await this.#putShared(this.#shared, key, stamped, until, fence));
    const isKeptElsewhere = this.#shared !== undefined && sharedFailure === undefined;
    await this.#local.put(key, stamped, { ...until, ...(isCache && { isCache }) }, { isKeptElsewhere });
  }

  /** @throws `store_unavailable` if some tier may still have it. It is not found here any more, but may be elsewhere. */
  async delete(key: string): Promise<boolean> {
    const copy = await this.#local.delete(key);
    if (this.#shared === undefined) {
      if (copy.failure !== undefined) throw copy.failure;
      return copy.value === true;
    }
    const revision = await this.#shared.ask("read", (store) => store.revisionOf(key));
    const exists = typeof revision === "number" || (revision === undefined && copy.value === true);
    // Even if it is not there: others may have copies.
    if (exists) await this.#shared.ask("write", (store) => store.delete(key));
    this.#shared.setBehind(key, false);
    if (copy.failure !== undefined) throw copy.failure;
    return exists;
  }

  /** What can be listed: tiers that fail are left out. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const seen = new Set<string>();
    for (const listed of await this.#listShared(prefix)) {
      seen.add(listed.key);
      yield listed;
    }
    for await (const listed of this.#local.list(prefix)) {
      // Known here only: never written there, evicted there, or deleted by another server.
      if (!seen.has(listed.key) && (await this.#sharedRevision(listed.key)).value !== "deleted") yield listed;
    }
  }

  /** Of this process's memory; beside them, those of each tier. */
  stats(): TieredStats {
    return { ...this.#memory.store.stats(), tiers: this.#tiers().map((tier) => tier.stats()) };
  }

  /** Without the shared tier it holds among the requests of this server only. */
  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined> {
    const local = this.#claims.claim(key, options);
    if (local === undefined) return undefined;
    const shared = await this.#claimShared(key, options);
    if (shared === "held elsewhere") {
      await local.release();
      return undefined;
    }
    this.#rememberFence(key, shared?.fence);
    return {
      fence: local.fence,
      renew: async () => (await local.renew()) && (await renewIfReachable(shared)),
      release: async () => {
        await Promise.all([local.release(), shared?.release()]);
      },
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.#catchingUp.values());
    await Promise.all(this.#tiers().map((tier) => tier.store.close()));
  }

  #tiers(): Tier[] {
    return [this.#memory, this.#disk, this.#shared].filter((tier) => tier !== undefined);
  }

  /** The copy, if it is as new as what all share; else that. */
  async #original(shared: Tier<SharedStore>, key: string, copy: Found<Snapshot>): Promise<Found<Snapshot>> {
    if (copy.value === undefined) {
      const found = await this.#local.read(key, () => findIn(shared, key));
      return { value: found.value, failure: found.failure ?? copy.failure };
    }
    const { value: revision, failure } = await this.#sharedRevision(key);
    if (failure !== undefined) return copy;
    if (revision === "deleted") {
      await this.#local.delete(key);
      return { value: undefined, failure: undefined };
    }
    const copied = copy.value.revision ?? 0;
    if (revision === undefined || revision < copied) {
      // It was put while the shared tier could not be reached, or has been evicted there.
      shared.setBehind(key, true);
      this.#catchUp(shared);
    }
    if (revision === undefined || revision <= copied) return copy;
    const newer = await this.#local.read(key, () => findIn(shared, key));
    // Gone between the two questions: evicted.
    return newer.value === undefined && newer.failure === undefined ? copy : newer;
  }

  async #sharedRevision(key: string): Promise<Found<number | "deleted">> {
    if (this.#shared === undefined) return { value: undefined, failure: undefined };
    try {
      return { value: await this.#shared.ask("read", (store) => store.revisionOf(key)), failure: undefined };
    } catch (error) {
      if (isUnavailable(error)) return { value: undefined, failure: error };
      throw error;
    }
  }

  /** Rises with every put of a key, on whichever server: microseconds by the shared tier's clock if that gave a fence. */
  async #nextRevision(key: string, fence: number | undefined): Promise<number> {
    const earlier = (await this.#memory.store.get(key))?.revision ?? 0;
    const sharedFence = fence === undefined ? undefined : this.#sharedFences.get(key);
    return Math.max(earlier + 1, sharedFence ?? Math.round(this.#nowMs() * 1000));
  }

  /** @returns why it is not there. @throws `session_conflict`; `invalid_value` */
  async #putShared(
    shared: Tier<SharedStore>,
    key: string,
    snapshot: Snapshot,
    until: PutOptions,
    fence: number | undefined,
  ): Promise<unknown> {
    try {
      const sharedFence = this.#sharedFences.get(key);
      if (fence !== undefined && sharedFence === undefined) await this.#putWithNewClaim(shared, key, snapshot, until);
      else {
        const fenced = fence === undefined || sharedFence === undefined ? until : { ...until, fence: sharedFence };
        await shared.ask("write", (store) => store.put(key, snapshot, fenced));
      }
      shared.setBehind(key, false);
      return undefined;
    } catch (error) {
      if (!isUnavailable(error)) throw error;
      shared.setBehind(key, true);
      return error;
    }
  }

  /** For what was claimed while the shared tier could not be reached. */
  async #putWithNewClaim(shared: Tier<SharedStore>, key: string, snapshot: Snapshot, until: PutOptions): Promise<void> {
    const claim = await shared.ask("write", (store) => store.claim(key, { ttlMs: CATCH_UP_CLAIM_MS }));
    if (claim === undefined) throw staleFence(key, 0);
    try {
      await shared.ask("write", (store) => store.put(key, snapshot, { ...until, fence: claim.fence }));
    } finally {
      await claim.release();
    }
  }

  async #claimShared(key: string, options: { readonly ttlMs: number }): Promise<Claim | "held elsewhere" | undefined> {
    try {
      return await this.#shared?.ask("write", async (store) => (await store.claim(key, options)) ?? "held elsewhere");
    } catch (error) {
      if (isUnavailable(error)) return undefined;
      throw error;
    }
  }

  #rememberFence(key: string, fence: number | undefined): void {
    this.#sharedFences.delete(key);
    this.#sharedFences.set(key, fence);
    for (const oldest of this.#sharedFences.keys()) {
      if (this.#sharedFences.size <= MAX_REMEMBERED_FENCES) return;
      this.#sharedFences.delete(oldest);
    }
  }

  async #listShared(prefix: string): Promise<readonly ListedSnapshot[]> {
    const listed: ListedSnapshot[] = [];
    try {
      await this.#shared?.ask("read", async (store) => {
        for await (const snapshot of store.list(prefix)) listed.push(snapshot);
      });
    } catch (error) {
      if (!isUnavailable(error)) throw error;
    }
    return listed;
  }

  /** In the background, one run at a time for each tier. What fails is left for the next time. */
  #catchUp(tier: Tier): void {
    if (this.#catchingUp.has(tier) || tier.behind.size === 0) return;
    const shared = this.#shared;
    const work = tier === shared && shared !== undefined ? this.#catchUpShared(shared) : this.#local.catchUp(tier);
    this.#catchingUp.set(
      tier,
      work.finally(() => this.#catchingUp.delete(tier)),
    );
  }

  async #catchUpShared(shared: Tier<SharedStore>): Promise<void> {
    for (const key of [...shared.behind]) {
      const failure = await failureOf(this.#share(shared, key));
      if (isUnavailable(failure)) return;
      shared.setBehind(key, false);
    }
  }

  /** Writes the copy here to the shared tier, if it is the newer one and nobody is about to write a newer one still. */
  async #share(shared: Tier<SharedStore>, key: string): Promise<void> {
    const claim = await shared.ask("write", (store) => store.claim(key, { ttlMs: CATCH_UP_CLAIM_MS }));
    if (claim === undefined) return;
    try {
      const { value: copy } = await this.#local.get(key);
      const revision = await shared.ask("read", (store) => store.revisionOf(key));
      if (copy === undefined || revision === "deleted" || (revision ?? 0) >= (copy.revision ?? 0)) return;
      await shared.ask("write", (store) => store.put(key, copy, { ...expiryOf(copy), fence: claim.fence }));
    } finally {
      await claim.release();
    }
  }
}

async function findIn(shared: Tier<SharedStore>, key: string): Promise<Found<Snapshot>> {
  let value: Snapshot | undefined;
  const failure = await failureOf(
    shared.ask("read", async (store) => {
      value = await store.get(key);
    }),
  );
  return { value, failure };
}

/** Of a server that cannot be reached nothing is known: the fence decides when the put comes. */
async function renewIfReachable(claim: Claim | undefined): Promise<boolean> {
  try {
    return (await claim?.renew()) ?? true;
  } catch (error) {
    if (isUnavailable(error)) return true;
    throw error;
  }
}
