/**
 * The folder of a `DiskStore`: what its files are called, which of them count after a crash, and when their names are
 * on the disk. A key's files bear rising generations: a new one never overwrites what was acknowledged before. Nothing is
 * changed in a folder that another server may use.
 */
import { open, readdir, rm, utimes } from "node:fs/promises";
import path from "node:path";
import { DenseMambaError } from "../../errors.ts";
import { type FileHeader, type FoundFile, fileStem, inspectSnapshotFile, writeSnapshotFile } from "./disk-file.ts";
import { FolderLock } from "./disk-lock.ts";

/** `<stem>.<generation>.dsm`: of two files of one key the one of the higher generation counts. */
const FILE_PATTERN = /^[0-9a-f]{40}\.([0-9a-z]+)\.dsm$/;
const UNFINISHED_PATTERN = /^[0-9a-f]{40}\.[0-9a-z]+\.dsm\.tmp$/;

export interface KeptFile extends FoundFile {
  readonly file: string;
  readonly generation: number;
}

export class SnapshotFolder {
  readonly #dir: string;
  readonly #lock: FolderLock;
  #lastGeneration = 0;
  #sync: Promise<void> = Promise.resolve();
  #nextSync: Promise<void> | undefined;

  private constructor(dir: string, lock: FolderLock) {
    this.#dir = dir;
    this.#lock = lock;
  }

  /** Creates the folder if it does not exist. @throws `invalid_config` if another server holds it; what the file system throws */
  static async open(dir: string): Promise<SnapshotFolder> {
    return new SnapshotFolder(dir, await FolderLock.acquire(dir));
  }

  newFile(key: string): { readonly file: string; readonly generation: number } {
    const generation = ++this.#lastGeneration;
    return { file: path.join(this.#dir, `${fileStem(key)}.${generation.toString(36)}.dsm`), generation };
  }

  /**
   * Reads the header of every file; removes what a crash left unfinished, what was replaced, and what is damaged.
   * @returns one file a key, the least recently used first
   */
  async read(onDamage: (message: string) => void): Promise<KeptFile[]> {
    const kept = new Map<string, KeptFile>();
    for (const name of await readdir(this.#dir)) {
      const file = path.join(this.#dir, name);
      if (UNFINISHED_PATTERN.test(name)) await remove(file);
      const match = FILE_PATTERN.exec(name);
      if (match === null) continue;
      const generation = Number.parseInt(match[1]!, 36);
      this.#lastGeneration = Math.max(this.#lastGeneration, generation);
      try {
        const found = { ...inspectSnapshotFile(file), file, generation };
        const other = kept.get(found.key);
        const isNewer = other === undefined || other.generation < generation;
        if (isNewer) kept.set(found.key, found);
        if (other !== undefined) await remove(isNewer ? other.file : file);
      } catch (error) {
        if (!(error instanceof DenseMambaError)) throw error;
        onDamage(`${file} was damaged and has been removed: ${error.message}`);
        await remove(file);
      }
    }
    return [...kept.values()].sort((a, b) => a.usedAtMs - b.usedAtMs || a.generation - b.generation);
  }

  /**
   * @param isSynced whether it outlives a power failure
   * @throws `store_unavailable` from `check`; what the file system throws. Then nothing is left behind.
   */
  async write(
    file: string,
    header: FileHeader,
    snapshot: Uint8Array,
    { isSynced }: { readonly isSynced: boolean },
  ): Promise<void> {
    await this.check();
    await writeSnapshotFile(file, header, snapshot, { isSynced });
    if (!isSynced) return;
    await this.#syncNames().catch(async (error) => {
      await remove(file).catch(() => undefined);
      throw error;
    });
  }

  /** What is gone already is as good. @throws as `write` */
  async remove(file: string, { isSynced = false }: { readonly isSynced?: boolean } = {}): Promise<void> {
    await this.check();
    await remove(file);
    if (isSynced) await this.#syncNames();
  }

  /** @throws as `write` */
  async setUsed(file: string, usedAtMs: number): Promise<void> {
    await this.check();
    await utimes(file, usedAtMs / 1000, usedAtMs / 1000);
  }

  /** @throws `store_unavailable` if the folder is not the one that was opened: another server may use what is there now */
  check(): Promise<void> {
    return this.#lock.check();
  }

  close(): Promise<void> {
    return this.#lock.release();
  }

  /** Returns once all names given and taken so far are on the disk. Those who ask while it is under way share the next. */
  #syncNames(): Promise<void> {
    this.#nextSync ??= this.#sync
      .catch(() => undefined)
      .then(async () => {
        this.#sync = this.#nextSync!;
        this.#nextSync = undefined;
        const folder = await open(this.#dir, "r");
        await folder.sync().finally(() => folder.close());
      });
    return this.#nextSync;
  }
}

function remove(file: string): Promise<void> {
  return rm(file, { force: true });
}
