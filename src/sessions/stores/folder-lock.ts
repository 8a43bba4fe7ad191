/**
 * One server per folder: each relies on its index of what is in it. The kernel's lock (`flock`) on a
 * file in the folder decides; the file's content only names the holder to others. The file stays
 * when the lock is released: a server that had opened a file which was then removed would hold a
 * lock on nothing.
 */
import type { Stats } from "node:fs";
import { type FileHandle, mkdir, open, readFile, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { DenseMambaError } from "../../errors.ts";

export const LOCK_FILE = "lock.json";

type TryLock = (descriptor: number) => boolean;

export class FolderLock {
  readonly #dir: string;
  readonly #handle: FileHandle;
  readonly #locked: Stats;

  private constructor(dir: string, handle: FileHandle, locked: Stats) {
    this.#dir = dir;
    this.#handle = handle;
    this.#locked = locked;
  }

  /**
   * Creates the folder if it does not exist.
   * @throws `store_in_use` if another server holds it; `invalid_config` if its file system has no
   * locks; file system errors
   */
  static async acquire(dir: string): Promise<FolderLock> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const file = path.join(dir, LOCK_FILE);
    // Creates the file, and fails where nothing can be written.
    await (await open(file, "a", 0o600)).close();
    const handle = await openLocked(file, await loadTryLock(dir), dir);
    // Only for messages: a full disk is no reason not to start.
    await writeFile(file, JSON.stringify({ pid: process.pid, host: hostname() })).catch(() => undefined);
    return new FolderLock(dir, handle, await handle.stat());
  }

  /** @throws `store_unavailable` if the folder is no longer the locked one; file system errors */
  async check(): Promise<void> {
    const { dev, ino } = await statIfExists(path.join(this.#dir, LOCK_FILE));
    if (dev === this.#locked.dev && ino === this.#locked.ino) return;
    throw new DenseMambaError(
      "store_unavailable",
      `${this.#dir} was moved, removed or replaced while this server used it: nothing is written there until the folder is back or the server is restarted`,
    );
  }

  /** Idempotent. */
  release(): Promise<void> {
    return this.#handle.close();
  }
}

/** On demand: koffi's builds are optional, and only a server with a folder needs them. */
async function loadTryLock(dir: string): Promise<TryLock> {
  try {
    return (await import("../../runtime/native/libc.ts")).tryLock;
  } catch (cause) {
    throw cannotLock(dir, cause);
  }
}

/** For reading, so that the disk can be made read-only; NFS locks only what is open for writing. */
async function openLocked(file: string, tryLock: TryLock, dir: string): Promise<FileHandle> {
  for (const flags of ["r", "r+"]) {
    const handle = await open(file, flags);
    try {
      if (tryLock(handle.fd)) return handle;
    } catch (error) {
      await handle.close();
      if ((error as NodeJS.ErrnoException).code === "EBADF" && flags === "r") continue;
      throw cannotLock(dir, error);
    }
    await handle.close();
    break;
  }
  throw await inUse(dir, file);
}

async function statIfExists(file: string): Promise<{ readonly dev?: number; readonly ino?: number }> {
  try {
    return await stat(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return {};
    throw error;
  }
}

async function inUse(dir: string, file: string): Promise<DenseMambaError> {
  let who = "another server";
  try {
    const { pid, host } = JSON.parse(await readFile(file, "utf8"));
    if (typeof pid === "number") who = `the server with process id ${pid} on ${host}`;
  } catch {
    // It has just taken the lock, or its disk is full.
  }
  return new DenseMambaError("store_in_use", `${dir} is in use by ${who}; each server needs a folder of its own`);
}

function cannotLock(dir: string, cause: unknown): DenseMambaError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new DenseMambaError(
    "invalid_config",
    `${dir} cannot be locked against other servers (${reason}); it needs a file system that supports flock`,
    { cause },
  );
}
