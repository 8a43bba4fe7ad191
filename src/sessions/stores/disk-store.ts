/**
 * Kept states in a folder, one file each: what `put` acknowledged is there after a restart, a kill and, unless it is
 * marked as cache, a power failure. Bounded by bytes; whoever holds the most gives what they used least recently, and a
 * file's date remembers its use. An index of all files is kept in memory, read from their headers when the folder is opened.
 */
import { DenseMambaError } from "../../errors.ts";
import { LocalClaims } from "./claims.ts";
import {
  decodeSnapshot,
  encodeSnapshot,
  isDamaged,
  maxSnapshotBytes,
  type SnapshotModel,
  type StatePrecision,
} from "./codec.ts";
import { fileBytes, readSnapshotFile } from "./disk-file.ts";
import { SnapshotFolder } from "./disk-folder.ts";
import { LruIndex, type OwnerOf } from "./lru-index.ts";
import { countPast } from "./past.ts";
import type { Claim, ListedSnapshot, PutOptions, Snapshot, StateStore, StoreStats } from "./store.ts";

/** A use is written to the disk no more often than this. */
const TOUCH_INTERVAL_MS = 60_000;
const FILE_SYSTEM_BLOCK = 4096;
const TOKEN_BYTES = 4;
const MAX_KEY_LENGTH = 512;

export interface DiskStoreOptions {
  /** Made if it does not exist. */
  readonly dir: string;
  /** Of whole blocks on the disk. While a snapshot is replaced both the old and the new one are there. */
  readonly maxBytes: number;
  readonly model: SnapshotModel;
  /** Default f32. */
  readonly precision?: StatePrecision;
  readonly nowMs: () => number;
  /** Whoever holds the most gives way first. Default: all belongs to one. */
  readonly ownerOf?: OwnerOf | undefined;
  /** Told of files that were damaged, and have been removed. */
  readonly onDamage?: (message: string) => void;
}

interface Entry {
  readonly file: string;
  readonly generation: number;
  readonly fileBytes: number;
  /** Of whole blocks. */
  readonly bytes: number;
  readonly expiresAtMs: number | undefined;
  readonly revision: number;
  readonly isShared: boolean;
  readonly isPart: boolean;
  readonly pastKey: string | undefined;
  readonly pastBytes: number;
  touchedAtMs: number;
}

export class DiskStore implements StateStore {
  readonly #options: DiskStoreOptions;
  readonly #folder: SnapshotFolder;
  readonly #claims: LocalClaims;
  readonly #index: LruIndex<Entry>;
  readonly #underWay = new Set<Promise<unknown>>();
  /** Of files that are being written. */
  #reservedBytes = 0;
  #numEvicted = 0;

  private constructor(options: DiskStoreOptions, folder: SnapshotFolder) {
    const { nowMs, ownerOf } = options;
    this.#options = options;
    this.#folder = folder;
    this.#claims = new LocalClaims({ nowMs });
    const onExpired = ({ file }: Entry) => this.#inBackground(this.#folder.remove(file));
    this.#index = new LruIndex({ nowMs, ownerOf, onExpired });
  }

  /**
   * Reads the header of every file: ten thousand take a second or two. Removes what is damaged, unfinished or expired.
   * @throws `invalid_config` if another server uses the folder; `store_unavailable` if it cannot be read or written
   */
  static async open(options: DiskStoreOptions): Promise<DiskStore> {
    const { dir } = options;
    const folder = await unavailableIfFails(dir, () => SnapshotFolder.open(dir));
    const store = new DiskStore(options, folder);
    try {
      await unavailableIfFails(dir, () => store.#readFolder());
      return store;
    } catch (error) {
      await folder.close();
      throw error;
    }
  }

  /** @throws `invalid_snapshot` if the file is damaged, once: it is removed. `store_unavailable` if it cannot be read. */
  async get(key: string): Promise<Snapshot | undefined> {
    const entry = this.#index.find(key);
    if (entry === undefined) return undefined;
    const bytes = await this.#read(key, entry);
    if (bytes === "replaced") return this.get(key);
    this.#use(key, entry);
    try {
      return decodeSnapshot(bytes, this.#options.model);
    } catch (error) {
      // Another model's snapshot is whole, and may be wanted again; so may another version's.
      if (isDamaged(bytes)) await this.#removeDamaged(key, entry, error);
      throw error;
    }
  }

  async has(key: string): Promise<boolean> {
    return this.#index.find(key) !== undefined;
  }

  async put(key: string, snapshot: Snapshot, options: PutOptions = {}): Promise<void> {
    const work = this.#put(key, snapshot, options).finally(this.#index.hold(snapshot.past?.key));
    this.#inBackground(work);
    await work;
  }

  async delete(key: string): Promise<boolean> {
    const entry = this.#index.find(key);
    if (entry === undefined) return false;
    // In this order: a file that cannot be removed must not be forgotten, or it would be back after a restart.
    await unavailableIfFails(this.#options.dir, () => this.#folder.remove(entry.file, { isSynced: true }));
    this.#index.remove(key, entry);
    return true;
  }

  list(prefix: string): AsyncIterable<ListedSnapshot> {
    return this.#index.list(prefix);
  }

  stats(): StoreStats {
    const { size, bytes } = this.#index;
    return { numSnapshots: size, bytes, maxBytes: this.#options.maxBytes, numEvicted: this.#numEvicted };
  }

  async claim(key: string, options: { readonly ttlMs: number }): Promise<Claim | undefined> {
    return this.#claims.claim(key, options);
  }

  /** @throws `store_unavailable` if the folder is not the one that was opened, or cannot be asked */
  async check(): Promise<void> {
    await unavailableIfFails(this.#options.dir, () => this.#folder.check());
  }

  sweep(): void {
    this.#index.sweep();
  }

  async close(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    await this.#folder.close();
  }

  async #put(key: string, snapshot: Snapshot, { expiresAtMs, fence, isCache = false }: PutOptions): Promise<void> {
    const { dir, maxBytes, precision = "f32", nowMs } = this.#options;
    if (fence !== undefined) this.#claims.check(key, fence);
    if (key.length > MAX_KEY_LENGTH) throw tooLong(key);
    const encoded = encodeSnapshot(snapshot, { precision });
    const numBytes = fileBytes(key, encoded.length);
    const bytes = onDisk(numBytes);
    if (bytes > maxBytes) throw tooLarge(bytes, maxBytes);

    const { file, generation } = this.#folder.newFile(key);
    this.#reservedBytes += bytes;
    try {
      await unavailableIfFails(dir, async () => {
        await this.#makeRoom({ key, bytes });
        await this.#folder.write(file, { key, expiresAtMs }, encoded, { isSynced: !isCache });
      });
    } finally {
      this.#reservedBytes -= bytes;
    }
    const earlier = this.#index.find(key);
    // While the file was written a later put may have overtaken this one, or the claim may have been lost.
    const isStale = fence !== undefined && !this.#claims.isCurrent(key, fence);
    if (isStale || (earlier !== undefined && earlier.generation > generation)) {
      await this.#folder.remove(file);
      if (fence !== undefined) this.#claims.check(key, fence);
      return;
    }
    const { past, revision = 0, isShared = false, isPart = false } = snapshot;
    const place = { revision, isShared, isPart, pastKey: past?.key, pastBytes: countPast(past) * TOKEN_BYTES };
    this.#index.set(key, { file, generation, fileBytes: numBytes, bytes, expiresAtMs, ...place, touchedAtMs: nowMs() });
    // One that stays behind is recognised by its generation.
    if (earlier !== undefined) this.#inBackground(this.#folder.remove(earlier.file));
  }

  /** Evicts until what is being written fits, too. */
  async #makeRoom(put?: { readonly key: string; readonly bytes: number }): Promise<void> {
    while (this.#index.bytes + this.#reservedBytes > this.#options.maxBytes) {
      const leaving = this.#index.nextToLeave(put);
      if (leaving === undefined) return;
      const [key, entry] = leaving;
      await this.#folder.remove(entry.file);
      if (this.#index.remove(key, entry) && !entry.isPart) this.#numEvicted++;
    }
  }

  /** @returns "replaced" if the entry is no longer the one to read; there may be another, or none */
  async #read(key: string, entry: Entry): Promise<Buffer | "replaced"> {
    const { dir, model } = this.#options;
    const maxBytes = fileBytes(key, maxSnapshotBytes(model));
    if (entry.fileBytes > maxBytes) {
      throw new DenseMambaError(
        "invalid_snapshot",
        `the snapshot's file is ${entry.fileBytes} bytes long; one of this model has at most ${maxBytes}`,
      );
    }
    try {
      return await readSnapshotFile(entry.file, { key, bytes: entry.fileBytes });
    } catch (error) {
      if (this.#index.find(key) !== entry) return "replaced";
      if (isGone(error)) {
        await this.check();
        // Somebody tidied up.
        this.#index.remove(key, entry);
        return "replaced";
      }
      if (error instanceof DenseMambaError) await this.#removeDamaged(key, entry, error);
      throw unavailable(dir, error);
    }
  }

  #use(key: string, entry: Entry): void {
    this.#index.use(key, entry);
    const nowMs = this.#options.nowMs();
    if (Math.abs(nowMs - entry.touchedAtMs) < TOUCH_INTERVAL_MS) return;
    entry.touchedAtMs = nowMs;
    this.#inBackground(this.#folder.setUsed(entry.file, nowMs));
  }

  async #removeDamaged(key: string, entry: Entry, reason: unknown): Promise<void> {
    this.#options.onDamage?.(`${key} was damaged on the disk and has been removed: ${String(reason)}`);
    this.#index.remove(key, entry);
    await unavailableIfFails(this.#options.dir, () => this.#folder.remove(entry.file));
  }

  async #readFolder(): Promise<void> {
    const files = await this.#folder.read((message) => this.#options.onDamage?.(message));
    for (const { key, file, generation, bytes, expiresAtMs, usedAtMs, snapshot } of files) {
      const { revision = 0, isShared = false, isPart = false, pastKey, numPastTokens = 0 } = snapshot ?? {};
      const place = { revision, isShared, isPart, pastKey, pastBytes: numPastTokens * TOKEN_BYTES };
      const size = { fileBytes: bytes, bytes: onDisk(bytes) };
      const entry = { file, generation, ...size, expiresAtMs, ...place, touchedAtMs: usedAtMs };
      this.#index.set(key, entry);
      this.#index.find(key); // It leaves at once if it has expired.
    }
    // Put by a request that was killed before it had put what names it.
    this.#index.dropParts({ graceMs: 0 });
    await this.#makeRoom();
  }

  /** `close` waits for it. What fails here is reported to those who asked for it, or does no harm. */
  #inBackground(work: Promise<unknown>): void {
    const settled: Promise<void> = work.then(
      () => undefined,
      () => undefined,
    );
    this.#underWay.add(settled);
    settled.then(() => this.#underWay.delete(settled));
  }
}

function onDisk(bytes: number): number {
  return Math.ceil(bytes / FILE_SYSTEM_BLOCK) * FILE_SYSTEM_BLOCK;
}

async function unavailableIfFails<T>(dir: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw unavailable(dir, error);
  }
}

function unavailable(dir: string, error: unknown): unknown {
  if (error instanceof DenseMambaError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const isFull = code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG";
  const what = isFull ? "is full" : "cannot be read or written";
  return new DenseMambaError("store_unavailable", `the disk of ${dir} ${what}: ${message}`, { cause: error });
}

function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}

function tooLarge(bytes: number, maxBytes: number): DenseMambaError {
  return new DenseMambaError(
    "invalid_value",
    `a snapshot of ${bytes} bytes cannot be kept: the disk store holds at most ${maxBytes} bytes`,
  );
}

function tooLong(key: string): DenseMambaError {
  return new DenseMambaError(
    "invalid_value",
    `a key of ${key.length} characters cannot be kept: at most ${MAX_KEY_LENGTH} can`,
  );
}
