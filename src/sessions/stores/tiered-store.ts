/**
 * Memory, disk and a server shared with other replicas as one store. A put goes to all of them before it returns; a get
 * is answered by the first that has it. Where there is a shared tier it has the last word: copies here are believed only
 * if nobody has replaced or deleted the original. A tier that fails is left out and serves again when it works again.
 */
import { DenseMambaError } from "../../errors.ts";
import { LocalClaims } from "./claims.ts";
import { expiryOf, type Found, LocalTiers } from "./local-tiers.ts";
import { SharedTier, type Standing, standingOf } from "./shared-tier.ts";
import type { Claim, ListedSnapshot, PutOptions, SharedStore, Snapshot, StateStore, StoreStats } from "./store.ts";
import { type StoreObserver, Tier, type TierEvent, type TierStats } from "./tier.ts";

/** A full disk may have room again at any time, a try costs little, and requests are refused meanwhile. */
const DISK_RETRY_MS = 1000;

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
  readonly #shared: SharedTier | undefined;
  readonly #local: LocalTiers;
  readonly #claims: LocalClaims;
  readonly #catchingUp = new Map<Tier, Promise<void>>();

  constructor({ memory, disk, shared, nowMs, observer }: TieredStoreOptions) {
    const onChange = (event: TierEvent) => {
      observer.onTier(event);
      if (event.isAvailable) this.#catchUp(event.name);
    };
    this.#nowMs = nowMs;
    this.#memory = new Tier({ name: "memory", store: memory, nowMs, onChange });
    this.#disk = disk && new Tier({ name: "disk", store: disk, nowMs, maxRetryMs: DISK_RETRY_MS, onChange });
    this.#shared = shared && new SharedTier(new Tier({ name: "shared", store: shared, nowMs, onChange }));
    this.#local = new LocalTiers({ memory: this.#memory, disk: this.#disk });
    this.#claims = new LocalClaims({ nowMs });
  }

  /**
   * @throws `store_unavailable` if none has it, and one that may have it cannot be asked; `state_lost` if only a copy is left
   * that may be older than what the shared store had
   */
  async get(key: string): Promise<Snapshot | undefined> {
    const copy = await this.#local.get(key);
    const found = this.#shared === undefined ? copy : await this.#original(this.#shared, key, copy);
    if (found.value === undefined && found.failure !== undefined) throw found.failure;
    return found.value;
  }

  async has(key: string): Promise<boolean> {
    const original = await this.#shared?.revisionOf(key);
    if (original?.value === undefined) {
      const { value, failure = original?.failure } = await this.#local.has(key);
      if (value === undefined && failure !== undefined) throw failure;
      return value === true;
    }
    if (original.value === "deleted") return false;
    if (typeof original.value === "object" && original.value.isThere) return true;
    const { value: copy, failure } = await this.#local.get(key);
    if (copy === undefined && failure !== undefined) throw failure;
    return copy !== undefined && isBelieved(standingOf(copy, original.value));
  }

  /**
   * @throws `session_conflict`, and then no tier has changed; `store_unavailable` or `invalid_value` if no tier at all
   * keeps it
   */
  async put(key: string, snapshot: Snapshot, { expiresAtMs, fence, isCache = false }: PutOptions = {}): Promise<void> {
    if (snapshot.isPart) return this.#putPart(key, snapshot);
    const isFenced = fence !== undefined;
    if (isFenced) this.#claims.check(key, fence);
    const { expiresAtMs: _, isShared: __, ...rest } = snapshot;
    const revision = await this.#nextRevision(key, isFenced ? this.#shared?.fenceOf(key) : undefined);
    const stamped = { ...rest, revision, ...(expiresAtMs !== undefined && { expiresAtMs }) };
    // First, because it alone may refuse.
    const isKeptElsewhere = (await this.#shared?.put(key, stamped, { isFenced, isCache })) ?? false;
    const copy = isKeptElsewhere && !isCache ? { ...stamped, isShared: true } : stamped;
    await this.#local.put(key, copy, { ...expiryOf(copy), isCache }, { isKeptElsewhere });
  }

  /**
   * @throws `store_unavailable` if some tier may still have it. Where there is a shared tier it is not found here any more,
   * but may be elsewhere; else it is still here.
   */
  async delete(key: string): Promise<boolean> {
    const copy = await this.#local.delete(key, { areCopies: this.#shared !== undefined });
    const original = await this.#shared?.revisionOf(key);
    const isThere = typeof original?.value === "object" && original.value.isThere;
    const wasThere = isThere || (copy.value === true && original?.value !== "deleted");
    // Even if it is not there: other replicas may have copies.
    if (wasThere && original?.failure === undefined) await this.#shared?.delete(key);
    const failure = original?.failure ?? copy.failure;
    if (failure !== undefined) throw failure;
    return wasThere;
  }

  /** What can be listed: tiers that fail are left out. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const seen = new Set<string>();
    for (const listed of (await this.#shared?.list(prefix)) ?? []) {
      seen.add(listed.key);
      yield listed;
    }
    for await (const listed of this.#local.list(prefix)) {
      if (seen.has(listed.key)) continue;
      // Known here only: never written there, evicted there, or deleted by another server.
      const original = (await this.#shared?.revisionOf(listed.key))?.value;
      if (original !== undefined && !isBelieved(standingOf(listed, original))) continue;
      yield listed;
    }
  }

  /** Of this process's memory; beside them, those of each tier. */
  stats(): TieredStats {
    return { ...this.#memory.store.stats(), tiers: this.#tiers().map((tier) => tier.stats()) };
  }

  /** While the shared tier cannot be reached it holds among the requests of this server only. */
  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined> {
    const local = this.#claims.claim(key, options);
    if (local === undefined) return undefined;
    const shared = await this.#shared?.claim(key, options);
    if (shared === "held elsewhere") {
      await local.release();
      return undefined;
    }
    return {
      fence: local.fence,
      renew: async () => (await local.renew()) && ((await shared?.renew()) ?? true),
      release: async () => {
        await Promise.all([local.release(), shared?.release()]);
      },
    };
  }

  /** This process's memory alone: what is put into it goes no further. */
  get memory(): StateStore {
    return this.#memory.store;
  }

  sweep(): void {
    for (const { store } of this.#tiers()) store.sweep?.();
  }

  /** @throws `store_unavailable` if the folder may be another server's now */
  async check(): Promise<void> {
    await this.#disk?.store.check?.();
  }

  async close(): Promise<void> {
    await Promise.all(this.#catchingUp.values());
    await Promise.all(this.#tiers().map((tier) => tier.store.close()));
  }

  #tiers(): Tier[] {
    return [this.#memory, this.#disk, this.#shared?.tier].filter((tier) => tier !== undefined);
  }

  /** The copy, if it is as new as what all share; else that. */
  async #original(shared: SharedTier, key: string, copy: Found<Snapshot>): Promise<Found<Snapshot>> {
    // A part is never replaced.
    if (copy.value?.isPart) return copy;
    if (copy.value === undefined) {
      const found = await this.#local.read(key, () => shared.get(key));
      return { value: found.value, failure: found.failure ?? copy.failure };
    }
    const { value: original, failure } = await shared.revisionOf(key);
    if (failure !== undefined || original === undefined) return copy;
    const standing = standingOf(copy.value, original);
    switch (standing) {
      case "current":
        return copy;
      case "unshared":
      case "evicted":
        shared.tier.setBehind(key, true);
        this.#catchUp("shared");
        return copy;
      case "deleted":
        await this.#local.delete(key, { areCopies: true });
        return { value: undefined, failure: undefined };
      case "old": {
        const newer = await this.#local.read(key, () => shared.get(key));
        // Gone between the two questions.
        if (newer.value === undefined && newer.failure === undefined) throw lost(key);
        return newer;
      }
      case "lost":
        throw lost(key);
    }
  }

  async #putPart(key: string, part: Snapshot): Promise<void> {
    const isKeptElsewhere = (await this.#shared?.put(key, part, { isFenced: false, isCache: false })) ?? false;
    await this.#local.put(key, part, {}, { isKeptElsewhere });
  }

  /** Rises with every put of a key, on whichever server: microseconds, by the shared tier's clock if that gave a fence. */
  async #nextRevision(key: string, sharedFence: number | undefined): Promise<number> {
    const earlier = (await this.#memory.store.get(key))?.revision ?? 0;
    return Math.max(earlier + 1, sharedFence ?? Math.round(this.#nowMs() * 1000));
  }

  /** In the background, one run at a time for each tier. What fails is left for the next time. */
  #catchUp(name: TierEvent["name"]): void {
    const tier = this.#tiers().find((candidate) => candidate.name === name);
    if (tier === undefined || tier.behind.size === 0 || this.#catchingUp.has(tier)) return;
    const work = tier === this.#shared?.tier ? this.#shared.catchUp(this.#local) : this.#local.catchUp(tier);
    this.#catchingUp.set(
      tier,
      work.finally(() => this.#catchingUp.delete(tier)),
    );
  }
}

function isBelieved(standing: Standing): boolean {
  return standing === "current" || standing === "evicted" || standing === "unshared";
}

function lost(key: string): DenseMambaError {
  return new DenseMambaError(
    "state_lost",
    `${key} was kept on the shared store, which no longer has it; the copy here may be older, and is not used`,
  );
}
