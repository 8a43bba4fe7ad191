/**
 * Snapshots in a folder, one file each: what `put` acknowledged survives a restart, a kill and,
 * unless it is a cache, a power failure. At the bound, the owner with the most bytes loses what
 * they used least recently; a file's date records its last use. An index of all files is in memory,
 * read when the folder is opened.
 */
import { DenseMambaError } from "../../errors.ts";
import {
  decodeSnapshot,
  encodeSnapshot,
  isDamaged,
  maxSnapshotBytes,
  type SnapshotModel,
  type StorePrecision,
} from "./codec.ts";
import { type Snapshot, type SnapshotSummary, summarise } from "./snapshot.ts";
import { fileBytes, SnapshotFolder } from "./snapshot-folder.ts";
import { type IndexEntry, type OwnerOf, SnapshotIndex } from "./snapshot-index.ts";
import type { ListedSnapshot, PutOptions, SnapshotStore, StoreStats } from "./store.ts";

/** A use is written to the disk at most this often. */
const TOUCH_INTERVAL_MS = 60_000;
const FILE_SYSTEM_BLOCK = 4096;
const BYTES_PER_TOKEN = 4;
const MAX_KEY_LENGTH = 512;
/** A snapshot of another format version. */
const UNREADABLE: SnapshotSummary = {
  revision: 0,
  isShared: false,
  isSegment: false,
  references: [],
  numHistoryTokens: 0,
  numCheckpoints: 0,
  stateBytes: 0,
};

export interface DiskStoreOptions {
  /** Created if it does not exist. */
  readonly dir: string;
  /** Of whole blocks. While a snapshot is replaced, both the old and the new one count. */
  readonly maxBytes: number;
  readonly model: SnapshotModel;
  /** Default f32. */
  readonly precision?: StorePrecision;
  readonly nowMs: () => number;
  /** Default: there is one owner. */
  readonly ownerOf?: OwnerOf | undefined;
  /** Called for files that were damaged and have been removed. */
  readonly onDamage?: (message: string) => void;
}

interface Entry extends IndexEntry {
  readonly file: string;
  readonly generation: number;
  readonly fileBytes: number;
  touchedAtMs: number;
}

export class DiskStore implements SnapshotStore {
  readonly #options: DiskStoreOptions;
  readonly #folder: SnapshotFolder;
  readonly #index: SnapshotIndex<Entry>;
  /** What `close` waits for. */
  readonly #pending = new Set<Promise<unknown>>();
  /** Of files that are being written. */
  #reservedBytes = 0;
  #numEvicted = 0;

  private constructor(options: DiskStoreOptions, folder: SnapshotFolder) {
    const { nowMs, ownerOf } = options;
    this.#options = options;
    this.#folder = folder;
    const onExpired = ({ file }: Entry) => this.#inBackground(this.#folder.remove(file));
    this.#index = new SnapshotIndex({ nowMs, ownerOf, bytesPerToken: BYTES_PER_TOKEN, onExpired });
  }

  /**
   * Reads the header of every file: ten thousand take a second or two. Removes what is damaged,
   * unfinished or expired.
   * @throws `store_in_use` if another server uses the folder; `store_unavailable` if it cannot be
   * used
   */
  static async open(options: DiskStoreOptions): Promise<DiskStore> {
    const { dir } = options;
    const folder = await orUnavailable(dir, () => SnapshotFolder.open(dir));
    const store = new DiskStore(options, folder);
    try {
      await orUnavailable(dir, () => store.#readFolder());
      return store;
    } catch (error) {
      await folder.close();
      throw error;
    }
  }

  /** @throws `invalid_snapshot` if the file is damaged: once, since it is removed. */
  async get(key: string): Promise<Snapshot | undefined> {
    const entry = this.#index.find(key);
    if (entry === undefined) return undefined;
    const bytes = await this.#read(key, entry);
    if (bytes === "replaced") return this.get(key);
    this.#use(key, entry);
    try {
      return decodeSnapshot(bytes, this.#options.model);
    } catch (error) {
      // A snapshot of another model or version is intact, and may be wanted again.
      if (isDamaged(bytes)) await this.#removeDamaged(key, entry, error);
      throw error;
    }
  }

  async has(key: string): Promise<boolean> {
    return this.#index.find(key) !== undefined;
  }

  async put(key: string, snapshot: Snapshot, options: PutOptions = {}): Promise<void> {
    const work = this.#put(key, snapshot, options).finally(this.#index.hold(summarise(snapshot).references));
    this.#inBackground(work);
    await work;
  }

  async delete(key: string): Promise<boolean> {
    const entry = this.#index.find(key);
    if (entry === undefined) return false;
    // The file first: if it cannot be removed, it must not be forgotten, or it would be back after
    // a restart.
    await orUnavailable(this.#options.dir, () => this.#folder.remove(entry.file, { isSynced: true }));
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

  /** @throws `store_unavailable` if the folder is not the one that was opened, or cannot be read */
  async check(): Promise<void> {
    await orUnavailable(this.#options.dir, () => this.#folder.check());
  }

  sweep(): void {
    this.#index.sweep();
  }

  async close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.allSettled(this.#pending);
    await this.#folder.close();
  }

  async #put(key: string, snapshot: Snapshot, { expiresAtMs, isCache = false }: PutOptions): Promise<void> {
    const { dir, maxBytes, precision = "f32", nowMs } = this.#options;
    if (key.length > MAX_KEY_LENGTH) {
      throw notStored(`a key of ${key.length} characters cannot be stored: at most ${MAX_KEY_LENGTH} can`);
    }
    const encoded = encodeSnapshot(snapshot, { precision });
    const numBytes = fileBytes(key, encoded.length);
    const bytes = bytesOnDisk(numBytes);
    if (bytes > maxBytes) {
      throw notStored(`a snapshot of ${bytes} bytes cannot be stored: the disk store holds at most ${maxBytes} bytes`);
    }
    const { file, generation } = this.#folder.newFile(key);
    this.#reservedBytes += bytes;
    try {
      await orUnavailable(dir, async () => {
        await this.#makeRoom({ key, bytes });
        await this.#folder.write(file, { key, expiresAtMs }, encoded, { isSynced: !isCache });
      });
    } finally {
      this.#reservedBytes -= bytes;
    }
    const earlier = this.#index.find(key);
    // A later put may have finished first.
    if (earlier !== undefined && earlier.generation > generation) return this.#folder.remove(file);
    const place = { file, generation, fileBytes: numBytes, bytes, expiresAtMs, touchedAtMs: nowMs() };
    this.#index.set(key, { ...place, summary: summarise(snapshot) });
    // If this fails, its lower generation tells that it was replaced.
    if (earlier !== undefined) this.#inBackground(this.#folder.remove(earlier.file));
  }

  /** Evicts until everything fits, including what is being written. */
  async #makeRoom(put?: { readonly key: string; readonly bytes: number }): Promise<void> {
    while (this.#index.bytes + this.#reservedBytes > this.#options.maxBytes) {
      const evicted = this.#index.nextToEvict(put);
      if (evicted === undefined) return;
      const [key, entry] = evicted;
      await this.#folder.remove(entry.file);
      if (this.#index.remove(key, entry) && !entry.summary.isSegment) this.#numEvicted++;
    }
  }

  /** @returns "replaced" if the entry is no longer the key's; there may be another, or none */
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
      return await this.#folder.read(entry.file, { key, bytes: entry.fileBytes });
    } catch (error) {
      if (this.#index.find(key) !== entry) return "replaced";
      if ((error as NodeJS.ErrnoException).code === "ENOENT") {
        await this.check();
        // Somebody removed the file.
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
    await orUnavailable(this.#options.dir, () => this.#folder.remove(entry.file));
  }

  async #readFolder(): Promise<void> {
    const files = await this.#folder.list((message) => this.#options.onDamage?.(message));
    for (const { key, file, generation, bytes, expiresAtMs, usedAtMs, snapshot } of files) {
      const place = { file, generation, fileBytes: bytes, bytes: bytesOnDisk(bytes), expiresAtMs };
      this.#index.set(key, { ...place, touchedAtMs: usedAtMs, summary: snapshot ?? UNREADABLE });
      this.#index.find(key); // Removes it if it has expired.
    }
    // Segments of requests that were killed before they had put what refers to them.
    this.#index.dropSegments({ graceMs: 0 });
    await this.#makeRoom();
  }

  /** `close` waits for it. A failure is harmless, or reported to another who waits for it. */
  #inBackground(work: Promise<unknown>): void {
    const done: Promise<void> = work.then(
      () => undefined,
      () => undefined,
    );
    this.#pending.add(done);
    done.then(() => this.#pending.delete(done));
  }
}

function bytesOnDisk(bytes: number): number {
  return Math.ceil(bytes / FILE_SYSTEM_BLOCK) * FILE_SYSTEM_BLOCK;
}

async function orUnavailable<T>(dir: string, act: () => Promise<T>): Promise<T> {
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

function notStored(message: string): DenseMambaError {
  return new DenseMambaError("invalid_value", message);
}
