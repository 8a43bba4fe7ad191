/**
 * The folder of a `DiskStore`: what its files are called, which of them count after a crash, and when their names are
 * on the disk. A key's files bear rising generations: a new one never overwrites what was acknowledged before.
 */
import { open, readdir, rm, utimes } from "node:fs/promises";
import path from "node:path";
import { DenseMambaError } from "../errors.ts";
import { type FoundFile, fileStem, inspectSnapshotFile } from "./disk-file.ts";

/** `<stem>.<generation>.dsm`: of two files of one key the one of the higher generation counts. */
const FILE_PATTERN = /^[0-9a-f]{40}\.([0-9a-z]+)\.dsm$/;
const UNFINISHED_PATTERN = /^[0-9a-f]{40}\.[0-9a-z]+\.dsm\.tmp$/;

export interface KeptFile extends FoundFile {
  readonly file: string;
  readonly generation: number;
}

export class SnapshotFolder {
  readonly #dir: string;
  #lastGeneration = 0;
  #sync: Promise<void> = Promise.resolve();
  #nextSync: Promise<void> | undefined;

  constructor(dir: string) {
    this.#dir = dir;
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

  /** Returns once all names given and taken so far are on the disk. Those who ask while it is under way share the next. */
  sync(): Promise<void> {
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

/** What is gone already is as good. */
export function remove(file: string): Promise<void> {
  return rm(file, { force: true });
}

export function setUsed(file: string, usedAtMs: number): Promise<void> {
  return utimes(file, usedAtMs / 1000, usedAtMs / 1000);
}
