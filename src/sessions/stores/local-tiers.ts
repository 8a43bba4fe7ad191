/**
 * This server's own tiers: memory in front of the disk. With a disk, a put that the disk does not
 * take fails, unless it is a cache: what was acknowledged must survive a crash. What is read from a
 * slower tier is copied into memory, unless it was replaced or deleted meanwhile. Knows no other
 * server.
 */
import type { DenseMambaError } from "../../errors.ts";
import type { Snapshot } from "./snapshot.ts";
import type { ListedSnapshot, PutOptions, SnapshotStore } from "./store.ts";
import { type Found, foundOf, isUnavailable, type Tier } from "./tier.ts";

/** A read in progress. */
interface Read {
  /** A put or a deletion ran at the same time. */
  isStale: boolean;
}

export class LocalTiers {
  readonly #memory: Tier;
  readonly #disk: Tier | undefined;
  /** The fastest first. */
  readonly #tiers: readonly Tier[];
  readonly #reads = new Map<string, Set<Read>>();
  /** The last put of each key that the disk has not yet answered. */
  readonly #puts = new Map<string, object>();

  constructor({ memory, disk }: { readonly memory: Tier; readonly disk: Tier | undefined }) {
    this.#memory = memory;
    this.#disk = disk;
    this.#tiers = disk === undefined ? [memory] : [memory, disk];
  }

  get(key: string): Promise<Found<Snapshot>> {
    return this.readThrough(key, () => this.#askInOrder(key, (store) => store.get(key)));
  }

  has(key: string): Promise<Found<true>> {
    return this.#askInOrder(key, async (store) => (await store.has(key)) || undefined);
  }

  /** Copies what `find` reads, from anywhere, into memory. It may overlap puts and deletions. */
  async readThrough(key: string, find: () => Promise<Found<Snapshot>>): Promise<Found<Snapshot>> {
    const read: Read = { isStale: false };
    const reads = this.#reads.get(key) ?? new Set();
    this.#reads.set(key, reads.add(read));
    try {
      const found = await find();
      // Segments are rarely read. NOTE: nothing may be awaited between the check of `isStale` and
      // the put.
      if (found.value !== undefined && !found.value.isSegment && !read.isStale) {
        // It may be too large for memory.
        await failureOf(this.#memory.store.put(key, found.value, expiryOf(found.value)));
      }
      return found;
    } finally {
      reads.delete(read);
      if (reads.size === 0 && this.#reads.get(key) === reads) this.#reads.delete(key);
    }
  }

  /**
   * Once stored in one tier, no older copy in another is used any more.
   * @param isStoredElsewhere whether it need not be stored here
   * @throws the last tier's failure, if no tier takes it: then nothing has changed
   */
  async put(
    key: string,
    snapshot: Snapshot,
    options: PutOptions,
    { isStoredElsewhere }: { readonly isStoredElsewhere: boolean },
  ): Promise<void> {
    await this.#change(key, async () => {
      const put = {};
      this.#puts.set(key, put);
      const diskFailure = this.#disk && (await failureOf(putInto(this.#disk, key, snapshot, options)));
      const isLast = this.#puts.get(key) === put;
      if (isLast) this.#puts.delete(key);
      if (diskFailure !== undefined && !isStoredElsewhere && !options.isCache) throw diskFailure;
      if (!isLast && this.#disk !== undefined) {
        // Of two concurrent puts the disk knows which one counts; memory would take the slower one.
        await this.#memory.store.delete(key);
      } else if (!snapshot.isSegment || (this.#disk === undefined && !isStoredElsewhere)) {
        const memoryFailure = await failureOf(putInto(this.#memory, key, snapshot, options));
        const isOnDisk = this.#disk !== undefined && diskFailure === undefined;
        if (memoryFailure !== undefined && !isStoredElsewhere && !isOnDisk) throw diskFailure ?? memoryFailure;
        await dropOlder(this.#memory, key, memoryFailure);
      }
      if (this.#disk !== undefined) await dropOlder(this.#disk, key, diskFailure);
    });
  }

  /**
   * Whether there was a copy in use.
   * @param areCopies of a snapshot that is deleted elsewhere: then what a failing tier still holds
   * is not used any more. Otherwise a failure changes nothing, so that the caller can try again.
   */
  delete(key: string, { areCopies }: { readonly areCopies: boolean }): Promise<Found<true>> {
    return this.#change(key, async () => {
      let found: Found<true> = { value: undefined, failure: undefined };
      for (const tier of this.#tiers.toReversed()) {
        const wasInUse = !tier.outdated.has(key);
        tier.setOutdated(key, true);
        const { value: existed, failure } = await foundOf(tier.delete(key));
        if (failure === undefined) {
          tier.setOutdated(key, false);
          if (existed && wasInUse) found = { ...found, value: true };
          continue;
        }
        found = { ...found, failure };
        if (areCopies) continue;
        tier.setOutdated(key, !wasInUse);
        break;
      }
      return found;
    });
  }

  /** Each key once. Tiers that fail are skipped. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const seen = new Set<string>();
    // The disk first: its sizes are those of what is stored for good.
    for (const tier of this.#tiers.toReversed()) {
      for (const listed of await listOf(tier, prefix)) {
        if (seen.has(listed.key) || tier.outdated.has(listed.key)) continue;
        seen.add(listed.key);
        yield listed;
      }
    }
  }

  /** Writes from memory to a tier what it missed. Ends when the tier breaks again. */
  async catchUp(tier: Tier): Promise<void> {
    for (const key of [...tier.outdated]) {
      // Again if it was replaced meanwhile: which of the two writes came last is not known.
      for (let written: Snapshot | "nothing yet" | undefined = "nothing yet"; ; ) {
        const snapshot = await this.#memory.store.get(key);
        if (snapshot === written) break;
        const work = snapshot === undefined ? tier.delete(key) : putInto(tier, key, snapshot, expiryOf(snapshot));
        const failure = await failureOf(work);
        if (failure !== undefined) await dropOlder(tier, key, failure);
        if (isUnavailable(failure)) return;
        written = snapshot;
      }
      tier.setOutdated(key, false);
    }
  }

  /** The first tier's answer that is not undefined. */
  async #askInOrder<T>(key: string, ask: (store: SnapshotStore) => Promise<T | undefined>): Promise<Found<T>> {
    let failure: DenseMambaError | undefined;
    for (const tier of this.#tiers) {
      if (tier.outdated.has(key)) continue;
      const found = await foundOf(tier.run("read", ask));
      if (found.value !== undefined) return { value: found.value, failure: undefined };
      failure = found.failure ?? failure;
    }
    return { value: undefined, failure };
  }

  /** Reads that began before the end of `change` may have seen what was there before it. */
  async #change<T>(key: string, change: () => Promise<T>): Promise<T> {
    this.#markReadsStale(key);
    try {
      return await change();
    } finally {
      this.#markReadsStale(key);
    }
  }

  #markReadsStale(key: string): void {
    for (const read of this.#reads.get(key) ?? []) read.isStale = true;
  }
}

/** After a put: an older copy must not reappear when a faster tier has evicted the new one. */
async function dropOlder(tier: Tier, key: string, failure: DenseMambaError | undefined): Promise<void> {
  tier.setOutdated(key, failure !== undefined);
  if (failure === undefined) return;
  const isDropped = (await failureOf(tier.store.delete(key))) === undefined;
  // What the tier refuses for another reason than a fault need not be offered again.
  if (isDropped && !isUnavailable(failure)) tier.setOutdated(key, false);
}

function putInto(tier: Tier, key: string, snapshot: Snapshot, options: PutOptions): Promise<void> {
  return tier.run("write", (store) => store.put(key, snapshot, options));
}

async function failureOf(work: Promise<unknown>): Promise<DenseMambaError | undefined> {
  return (await foundOf(work)).failure;
}

/** As it was put before. */
export function expiryOf({ expiresAtMs }: Snapshot): PutOptions {
  return expiresAtMs === undefined ? {} : { expiresAtMs };
}

/** Empty if the tier fails. */
export async function listOf(tier: Tier, prefix: string): Promise<readonly ListedSnapshot[]> {
  const { value = [] } = await foundOf(
    tier.run("read", async (store) => {
      const listed: ListedSnapshot[] = [];
      for await (const snapshot of store.list(prefix)) listed.push(snapshot);
      return listed;
    }),
  );
  return value;
}
