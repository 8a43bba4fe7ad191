/**
 * Memory, disk and a server shared with other replicas as one store. A put returns when all of them
 * have it; a get is answered by the first that has it. The shared tier has the last word: a copy
 * here is used only if nobody has replaced or deleted the original. A tier that fails is skipped
 * until it works again, and then gets what it missed.
 */
import { DenseMambaError } from "../../errors.ts";
import { expiryOf, LocalTiers, listOf } from "./local-tiers.ts";
import type { MemoryStore } from "./memory-store.ts";
import type { Snapshot } from "./snapshot.ts";
import {
  type Claim,
  type FencedPutOptions,
  type ListedSnapshot,
  type SharedRevision,
  type SharedStore,
  type SnapshotStore,
  type StateStore,
  type StoreStats,
  staleFence,
} from "./store.ts";
import {
  type Found,
  foundOf,
  isUnavailable,
  type StoreObserver,
  Tier,
  type TierEvent,
  type TierStats,
} from "./tier.ts";

/** A full disk may have room again at any time, a try costs little, and requests fail meanwhile. */
const DISK_RETRY_MS = 1000;
/** Requests fail while a shared tier that is required cannot be used. */
const REQUIRED_RETRY_MS = 1000;
/** A key that nothing is stored under. */
const PROBE_KEY = "probe";
const MAX_REMEMBERED_FENCES = 100_000;

export interface TieredStoreOptions {
  readonly memory: MemoryStore;
  readonly disk?: SnapshotStore;
  readonly shared?: SharedStore;
  /** Nothing is read or stored without the shared tier. Default: the others stand in for it. */
  readonly isSharedRequired?: boolean;
  readonly nowMs: () => number;
  readonly observer: Pick<StoreObserver, "onTier">;
}

export interface TieredStats extends StoreStats {
  /** The fastest first. */
  readonly tiers: readonly TierStats[];
}

export class TieredStore implements StateStore {
  /** What is put into it goes no further. */
  readonly memory: MemoryStore;
  readonly #nowMs: () => number;
  readonly #disk: Tier | undefined;
  readonly #shared: Tier<SharedStore> | undefined;
  readonly #isSharedRequired: boolean;
  /** The fastest first. */
  readonly #tiers: readonly Tier[];
  readonly #local: LocalTiers;
  /** The shared tier's fence of each key's last claim here, unless it was broken then. */
  readonly #fences = new Map<string, number>();
  readonly #catchingUp = new Map<Tier, Promise<void>>();

  constructor({ memory, disk, shared, isSharedRequired = false, nowMs, observer }: TieredStoreOptions) {
    const onChange = (event: TierEvent) => {
      observer.onTier(event);
      const tier = this.#tiers.find(({ name }) => name === event.name);
      if (event.isAvailable && tier !== undefined) this.#catchUp(tier);
    };
    this.memory = memory;
    this.#nowMs = nowMs;
    const memoryTier = new Tier<SnapshotStore>({ name: "memory", store: memory, nowMs, onChange });
    this.#disk = disk && new Tier({ name: "disk", store: disk, nowMs, maxRetryMs: DISK_RETRY_MS, onChange });
    const retry = isSharedRequired ? { maxRetryMs: REQUIRED_RETRY_MS } : {};
    this.#shared = shared && new Tier({ name: "shared", store: shared, nowMs, ...retry, onChange });
    this.#isSharedRequired = isSharedRequired;
    this.#tiers = [memoryTier, this.#disk, this.#shared as Tier | undefined].filter((tier) => tier !== undefined);
    this.#local = new LocalTiers({ memory: memoryTier, disk: this.#disk });
  }

  /**
   * @throws `store_unavailable` if it was not found, and a tier that may have it cannot be read;
   * `state_lost` if the only copy may be older than what the shared store had
   */
  async get(key: string): Promise<Snapshot | undefined> {
    const copy = await this.#local.get(key);
    const { value, failure } = this.#shared === undefined ? copy : await this.#newest(this.#shared, key, copy);
    if (value === undefined && failure !== undefined) throw failure;
    return value;
  }

  async has(key: string): Promise<boolean> {
    const original = await this.#revisionOf(key);
    if (original.value === undefined) {
      const { value, failure = original.failure } = await this.#local.has(key);
      if (value === undefined && failure !== undefined) throw failure;
      return value === true;
    }
    if (original.value === "deleted") return false;
    if (typeof original.value === "object" && original.value.exists) return true;
    const { value: copy, failure } = await this.#local.get(key);
    if (copy === undefined && failure !== undefined) throw failure;
    return copy !== undefined && isUsable(copyStatus(copy, original.value));
  }

  /**
   * @throws `session_conflict`, and then no tier has changed; `store_unavailable` or
   * `invalid_value` if no tier has stored it, or not the shared one where that is required
   */
  async put(key: string, snapshot: Snapshot, options: FencedPutOptions = {}): Promise<void> {
    const { expiresAtMs, fence, isCache = false } = options;
    const isFenced = fence !== undefined;
    if (isFenced) this.memory.checkFence(key, fence);
    const stamped = snapshot.isSegment ? snapshot : await this.#stamp(key, snapshot, expiresAtMs, isFenced);
    // First, since it alone may refuse.
    const isShared = await this.#putShared(key, stamped, { isFenced, isCache });
    const copy = isShared && !isCache ? asShared(stamped) : stamped;
    await this.#local.put(key, copy, { ...expiryOf(copy), isCache }, { isStoredElsewhere: isShared });
  }

  /**
   * @throws `store_unavailable` if a tier may still have it. With a shared tier it is not found
   * here any more, but may be elsewhere; without, nothing has changed.
   */
  async delete(key: string): Promise<boolean> {
    const copy = await this.#local.delete(key, { areCopies: this.#shared !== undefined });
    const original = await this.#revisionOf(key);
    const exists = typeof original.value === "object" && original.value.exists;
    const existed = exists || (copy.value === true && original.value !== "deleted");
    if (existed && this.#shared !== undefined && original.failure === undefined) {
      // Even if it is not there: other replicas may have copies.
      await this.#shared.delete(key);
      this.#shared.setOutdated(key, false);
    }
    const failure = original.failure ?? copy.failure;
    if (failure !== undefined) throw failure;
    return existed;
  }

  /** Tiers that fail are skipped. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const seen = new Set<string>();
    for (const listed of this.#shared === undefined ? [] : await listOf(this.#shared, prefix)) {
      seen.add(listed.key);
      yield listed;
    }
    for await (const listed of this.#local.list(prefix)) {
      if (seen.has(listed.key)) continue;
      // Known here only: never written there, evicted there, or deleted by another server.
      const { value: original } = await this.#revisionOf(listed.key);
      if (original === undefined || isUsable(copyStatus(listed, original))) yield listed;
    }
  }

  /** Of this process's memory, and of each tier. */
  stats(): TieredStats {
    return { ...this.memory.stats(), tiers: this.#tiers.map((tier) => tier.stats()) };
  }

  /**
   * While the shared tier cannot be reached, it excludes only requests of this server.
   * @throws `store_unavailable` if the shared tier is required then
   */
  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined> {
    const local = await this.memory.claim(key, options);
    if (local === undefined || this.#shared === undefined) return local;
    const asked = this.#shared.run("write", async (store) => (await store.claim(key, options)) ?? "held elsewhere");
    let shared: Awaited<typeof asked> | undefined;
    try {
      shared = await (this.#isSharedRequired ? asked : undefinedIfUnavailable(asked));
    } catch (error) {
      await local.release();
      throw error;
    }
    if (shared === "held elsewhere") {
      await local.release();
      return undefined;
    }
    this.#rememberFence(key, shared?.fence);
    return {
      fence: local.fence,
      // If the server cannot be reached, nothing is known: the fence decides at the put.
      renew: async () => (await local.renew()) && ((shared && (await undefinedIfUnavailable(shared.renew()))) ?? true),
      release: async () => {
        await Promise.all([local.release(), shared?.release()]);
      },
    };
  }

  sweep(): void {
    for (const { store } of this.#tiers) store.sweep?.();
  }

  /**
   * @throws `store_unavailable` if another server may own the folder now, or if the shared tier is
   * required and cannot be read and written
   */
  async check(): Promise<void> {
    await this.#disk?.store.check?.();
    if (this.#shared === undefined || !this.#isSharedRequired) return;
    await this.#shared.run("read", (store) => store.has(PROBE_KEY));
    await this.#withOwnFence(this.#shared, PROBE_KEY, async () => {});
  }

  async close(): Promise<void> {
    await Promise.all(this.#catchingUp.values());
    await Promise.all(this.#tiers.map((tier) => tier.store.close()));
  }

  /** The copy, if it is as new as the original; otherwise the original. */
  async #newest(shared: Tier<SharedStore>, key: string, copy: Found<Snapshot>): Promise<Found<Snapshot>> {
    const fetch = () => this.#local.readThrough(key, () => this.#getShared(shared, key));
    // A segment is never replaced.
    if (copy.value?.isSegment) return copy;
    if (copy.value === undefined) {
      const found = await fetch();
      return { value: found.value, failure: found.failure ?? copy.failure };
    }
    const { value: original } = await this.#revisionOf(key);
    if (original === undefined) return copy;
    const status = copyStatus(copy.value, original);
    switch (status) {
      case "current":
        return copy;
      case "unshared":
      case "evicted":
        shared.setOutdated(key, true);
        this.#catchUp(shared);
        return copy;
      case "deleted":
        await this.#local.delete(key, { areCopies: true });
        return { value: undefined, failure: undefined };
      case "old": {
        const newer = await fetch();
        // Gone since its revision was read.
        if (newer.value === undefined && newer.failure === undefined) throw lost(key);
        return newer;
      }
      case "lost":
        throw lost(key);
    }
  }

  async #getShared(shared: Tier<SharedStore>, key: string): Promise<Found<Snapshot>> {
    const { value, failure } = await foundOf(shared.run("read", (store) => store.get(key)));
    return { value: value && asShared(value), failure };
  }

  /**
   * Without a value if there is no shared tier, or it cannot be reached.
   * @throws `store_unavailable` if it is required then
   */
  async #revisionOf(key: string): Promise<Found<SharedRevision>> {
    if (this.#shared === undefined) return { value: undefined, failure: undefined };
    const asked = this.#shared.run("read", (store) => store.revisionOf(key));
    return this.#isSharedRequired ? { value: await asked, failure: undefined } : foundOf(asked);
  }

  /** Revisions rise with every put of a key, on any server: microseconds by the fence's clock. */
  async #stamp(key: string, snapshot: Snapshot, expiresAtMs: number | undefined, isFenced: boolean) {
    const { expiresAtMs: _, isShared: __, ...rest } = snapshot;
    const earlier = (await this.memory.get(key))?.revision ?? 0;
    const fence = isFenced ? this.#fences.get(key) : undefined;
    const revision = Math.max(earlier + 1, fence ?? Math.round(this.#nowMs() * 1000));
    return { ...rest, revision, ...(expiresAtMs !== undefined && { expiresAtMs }) };
  }

  /**
   * @returns whether the shared tier has it now; if not, it will when it can be reached
   * @throws `session_conflict` if another server has claimed the key since; `invalid_value`
   */
  async #putShared(
    key: string,
    snapshot: Snapshot,
    { isFenced, isCache }: { readonly isFenced: boolean; readonly isCache: boolean },
  ): Promise<boolean> {
    const shared = this.#shared;
    if (shared === undefined) return false;
    const fence = isFenced ? this.#fences.get(key) : undefined;
    const options = { ...expiryOf(snapshot), isCache };
    const put = (fenced: FencedPutOptions) =>
      shared.run("write", (store) => store.put(key, snapshot, { ...options, ...fenced }));
    const putWithOwnFence = async () => {
      const isPut = await this.#withOwnFence(shared, key, (fence) => put({ fence }));
      if (!isPut) throw staleFence(key);
    };
    try {
      // Claimed while the tier could not be reached: another server may have claimed it since.
      if (isFenced && fence === undefined) await putWithOwnFence();
      else await put(fence === undefined ? {} : { fence });
      shared.setOutdated(key, false);
      return true;
    } catch (error) {
      if (!isUnavailable(error) || this.#isSharedRequired) throw error;
      shared.setOutdated(key, true);
      return false;
    }
  }

  /**
   * For writing what the shared tier missed. The claim lapses at once: a request that claims the key
   * meanwhile goes first, and the claim's write is refused.
   * @returns false if another server holds the key
   */
  async #withOwnFence(
    shared: Tier<SharedStore>,
    key: string,
    write: (fence: number) => Promise<unknown>,
  ): Promise<boolean> {
    const claim = await shared.run("write", (store) => store.claim(key, { ttlMs: 0 }));
    if (claim === undefined) return false;
    await write(claim.fence);
    return true;
  }

  /** Writes to a tier what it missed, in the background. What fails is left for the next time. */
  #catchUp(tier: Tier): void {
    if (tier.outdated.size === 0 || this.#catchingUp.has(tier)) return;
    const work = tier.name === "shared" ? this.#catchUpShared(this.#shared!) : this.#local.catchUp(tier);
    this.#catchingUp.set(
      tier,
      work.finally(() => this.#catchingUp.delete(tier)),
    );
  }

  async #catchUpShared(shared: Tier<SharedStore>): Promise<void> {
    for (const key of [...shared.outdated]) {
      // The holder of a claim is about to write a newer snapshot.
      const { failure } = await foundOf(this.#withOwnFence(shared, key, (fence) => this.#share(shared, key, fence)));
      if (isUnavailable(failure)) return;
      shared.setOutdated(key, false);
    }
  }

  /** Writes the copy to the shared tier, unless that has a newer one. */
  async #share(shared: Tier<SharedStore>, key: string, fence: number): Promise<void> {
    const { value: copy } = await this.#local.get(key);
    if (copy === undefined) return;
    const original = await shared.run("read", (store) => store.revisionOf(key));
    if (!["unshared", "evicted"].includes(copyStatus(copy, original))) return;
    await shared.run("write", (store) => store.put(key, copy, { ...expiryOf(copy), fence }));
    const { value: current } = await this.#local.get(key);
    // Marked as shared: if it is not there later, the store has lost it.
    if (copy.isSegment || current?.revision !== copy.revision) return;
    await this.#local.put(key, asShared(copy), expiryOf(copy), { isStoredElsewhere: true });
  }

  #rememberFence(key: string, fence: number | undefined): void {
    this.#fences.delete(key);
    if (fence !== undefined) this.#fences.set(key, fence);
    const [oldest] = this.#fences.keys();
    if (this.#fences.size > MAX_REMEMBERED_FENCES) this.#fences.delete(oldest!);
  }
}

/**
 * What a copy is worth, by what the shared store knows of its key. "evicted": it is the newest, and
 * the only one. "unshared": it was put while the store could not be reached, or is a cache. "lost":
 * the store had this one or a newer one, and no longer has it.
 */
type CopyStatus = "current" | "evicted" | "unshared" | "old" | "lost" | "deleted";

function copyStatus(copy: Pick<Snapshot, "revision" | "isShared" | "isSegment">, original: SharedRevision): CopyStatus {
  if (original === "deleted") return "deleted";
  if (original === "unknown") return copy.isShared ? "lost" : "unshared";
  const { revision, exists } = original;
  const copied = copy.revision ?? 0;
  if (copy.isSegment || revision === copied) return exists ? "current" : "evicted";
  if (revision < copied) return "unshared";
  return exists ? "old" : "lost";
}

function isUsable(status: CopyStatus): boolean {
  return status === "current" || status === "evicted" || status === "unshared";
}

function asShared(snapshot: Snapshot): Snapshot {
  return snapshot.isSegment ? snapshot : { ...snapshot, isShared: true };
}

async function undefinedIfUnavailable<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isUnavailable(error)) return undefined;
    throw error;
  }
}

function lost(key: string): DenseMambaError {
  return new DenseMambaError(
    "state_lost",
    `${key} was on the shared store, which no longer has it; the copy here may be older, and is not used`,
  );
}
