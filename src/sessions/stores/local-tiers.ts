/**
 * What this server keeps by itself: memory before disk. What is not cache is kept by the disk or not at all: what was
 * acknowledged must be there after a crash. A copy read from below is put into memory, unless somebody
 * replaced or deleted it meanwhile. Snapshots come stamped with revision and expiry. Knows no other server.
 */
import { DenseMambaError } from "../../errors.ts";
import type { ListedSnapshot, PutOptions, Snapshot, StateStore } from "./store.ts";
import { isUnavailable, type Tier } from "./tier.ts";

/** What could be found, and what stood in the way of finding more. */
export interface Found<T> {
  readonly value: T | undefined;
  readonly failure: DenseMambaError | undefined;
}

/** A read under way. */
interface Reading {
  /** A put or a deletion was under way at the same time. */
  isStale: boolean;
}

export class LocalTiers {
  readonly #memory: Tier;
  readonly #disk: Tier | undefined;
  /** The fastest first. */
  readonly #tiers: readonly Tier[];
  readonly #readings = new Map<string, Set<Reading>>();
  /** The last put of each key that has reached neither tier yet. */
  readonly #putting = new Map<string, object>();

  constructor({ memory, disk }: { readonly memory: Tier; readonly disk: Tier | undefined }) {
    this.#memory = memory;
    this.#disk = disk;
    this.#tiers = disk === undefined ? [memory] : [memory, disk];
  }

  async get(key: string): Promise<Found<Snapshot>> {
    return this.read(key, () => this.#firstThatHas(key, (store) => store.get(key)));
  }

  async has(key: string): Promise<Found<true>> {
    return this.#firstThatHas(key, async (store) => (await store.has(key)) || undefined);
  }

  /**
   * Reads from anywhere; what it finds is in memory afterwards.
   * @param find is not asked to be quick: puts and deletions may come in between
   */
  async read(key: string, find: () => Promise<Found<Snapshot>>): Promise<Found<Snapshot>> {
    const reading: Reading = { isStale: false };
    const readings = this.#readings.get(key) ?? new Set();
    this.#readings.set(key, readings.add(reading));
    try {
      const found = await find();
      // Parts are rarely read; memory is for what is used now.
      if (found.value !== undefined && !found.value.isPart && !reading.isStale) await this.#promote(key, found.value);
      return found;
    } finally {
      readings.delete(reading);
      if (readings.size === 0 && this.#readings.get(key) === readings) this.#readings.delete(key);
    }
  }

  /**
   * Where it cannot be kept no older copy is believed any more, provided that it is kept.
   * @param isKeptElsewhere whether it is even if no tier here takes it
   * @throws why the last tier did not take it, if it is not kept: then all is as it was
   */
  async put(
    key: string,
    snapshot: Snapshot,
    options: Omit<PutOptions, "fence">,
    { isKeptElsewhere }: { readonly isKeptElsewhere: boolean },
  ): Promise<void> {
    await this.#change(key, async () => {
      const putting = {};
      this.#putting.set(key, putting);
      const onDisk = this.#disk && (await failureOf(putInto(this.#disk, key, snapshot, options)));
      const isLast = this.#putting.get(key) === putting;
      if (isLast) this.#putting.delete(key);
      if (onDisk !== undefined && !isKeptElsewhere && !options.isCache) throw onDisk;
      // Of two at once the disk knows which one counts; memory would take the one that was slower.
      if (!isLast && this.#disk !== undefined) await this.#memory.store.delete(key);
      else if (!snapshot.isPart || (this.#disk === undefined && !isKeptElsewhere)) {
        const inMemory = await failureOf(putInto(this.#memory, key, snapshot, options));
        const isKept = isKeptElsewhere || inMemory === undefined || (this.#disk !== undefined && onDisk === undefined);
        if (!isKept) throw onDisk ?? inMemory;
        await dropOlder(this.#memory, key, inMemory);
      }
      if (this.#disk !== undefined) await dropOlder(this.#disk, key, onDisk);
    });
  }

  /**
   * Whether there was a copy that counted.
   * @param areCopies of what is deleted elsewhere: what a tier that fails still holds no longer counts. Else all is as it
   * was, so that who is told of the failure may try again.
   */
  async delete(key: string, { areCopies }: { readonly areCopies: boolean }): Promise<Found<true>> {
    return this.#change(key, async () => {
      let found: Found<true> = { value: undefined, failure: undefined };
      for (const tier of this.#tiers.toReversed()) {
        const counts = !tier.behind.has(key);
        tier.setBehind(key, true);
        try {
          const existed = await tier.askToDelete(key);
          tier.setBehind(key, false);
          if (existed && counts) found = { ...found, value: true };
        } catch (error) {
          found = { ...found, failure: expected(error) };
          if (areCopies) continue;
          tier.setBehind(key, !counts);
          break;
        }
      }
      return found;
    });
  }

  /** Each key once. Tiers that fail are left out. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const seen = new Set<string>();
    // The disk first: it says what a snapshot costs for good.
    for (const tier of this.#tiers.toReversed()) {
      for (const listed of await listOf(tier, prefix)) {
        if (seen.has(listed.key)) continue;
        seen.add(listed.key);
        yield listed;
      }
    }
  }

  /**
   * Writes what a tier missed while it was broken, from memory; what is not there is removed below, too. Ends when the
   * tier breaks again.
   */
  async catchUp(tier: Tier): Promise<void> {
    for (const key of [...tier.behind]) {
      // Again if it was replaced meanwhile: which of the two writes came last is not known.
      for (let written: Snapshot | "nothing yet" | undefined = "nothing yet"; ; ) {
        const snapshot = await this.#memory.store.get(key);
        if (snapshot === written) break;
        const failure = await failureOf(
          snapshot === undefined ? tier.askToDelete(key) : putInto(tier, key, snapshot, expiryOf(snapshot)),
        );
        if (failure !== undefined) await dropOlder(tier, key, failure);
        if (isUnavailable(failure)) return;
        written = snapshot;
      }
      tier.setBehind(key, false);
    }
  }

  async #firstThatHas<T>(key: string, ask: (store: StateStore) => Promise<T | undefined>): Promise<Found<T>> {
    let failure: DenseMambaError | undefined;
    for (const tier of this.#tiers) {
      if (tier.behind.has(key)) continue;
      try {
        const value = await tier.ask("read", ask);
        if (value !== undefined) return { value, failure: undefined };
      } catch (error) {
        failure = expected(error);
      }
    }
    return { value: undefined, failure };
  }

  async #promote(key: string, snapshot: Snapshot): Promise<void> {
    // NOTE: nothing is awaited since `isStale` was looked at: memory takes it before anything else can happen.
    // It may be too large for memory alone.
    await failureOf(this.#memory.store.put(key, snapshot, expiryOf(snapshot)));
  }

  /** Reads that began before the end of `change` may have seen what was there before it. */
  async #change<T>(key: string, change: () => Promise<T>): Promise<T> {
    this.#spoil(key);
    try {
      return await change();
    } finally {
      this.#spoil(key);
    }
  }

  #spoil(key: string): void {
    for (const reading of this.#readings.get(key) ?? []) reading.isStale = true;
  }
}

/** After a put: what the tier held before must not come back when faster tiers have forgotten the new one. */
async function dropOlder(tier: Tier, key: string, failure: DenseMambaError | undefined): Promise<void> {
  tier.setBehind(key, failure !== undefined);
  if (failure === undefined) return;
  const isDropped = (await failureOf(tier.store.delete(key))) === undefined;
  // What it will never take need not be offered again.
  if (isDropped && !isUnavailable(failure)) tier.setBehind(key, false);
}

function putInto(tier: Tier, key: string, snapshot: Snapshot, options: PutOptions): Promise<void> {
  return tier.ask("write", (store) => store.put(key, snapshot, options));
}

export async function failureOf(work: Promise<unknown>): Promise<DenseMambaError | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return expected(error);
  }
}

/** What a stamped snapshot is to be put with. */
export function expiryOf({ expiresAtMs }: Snapshot): PutOptions {
  return expiresAtMs === undefined ? {} : { expiresAtMs };
}

async function listOf(tier: Tier, prefix: string): Promise<ListedSnapshot[]> {
  try {
    return await tier.ask("read", async (store) => {
      const listed: ListedSnapshot[] = [];
      for await (const snapshot of store.list(prefix)) if (!tier.behind.has(snapshot.key)) listed.push(snapshot);
      return listed;
    });
  } catch (error) {
    expected(error);
    return [];
  }
}

/** @throws what is no `DenseMambaError`: our own bugs */
function expected(error: unknown): DenseMambaError {
  if (error instanceof DenseMambaError) return error;
  throw error;
}
