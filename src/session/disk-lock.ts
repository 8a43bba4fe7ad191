/**
 * One server to a folder: two would each believe to know what lies there and who holds which claim. Node has no file
 * locks, so a file names the holder, who renews its date while alive; a holder that was killed is found dead, or silent.
 */
import { open, readFile, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { DenseMambaError } from "../errors.ts";

const LOCK_FILE = "lock.json";
const RENEWAL_MS = 5000;
/** Silence after which the holder is taken for dead, when that cannot be asked of its machine. */
const STALE_MS = 30_000;

interface Holder {
  readonly pid: number;
  readonly host: string;
}

export class FolderLock {
  readonly #file: string;
  readonly #renewal: NodeJS.Timeout;

  private constructor(file: string) {
    this.#file = file;
    this.#renewal = setInterval(() => {
      const now = new Date();
      // A folder that is gone is noticed by those who need it.
      utimes(file, now, now).catch(() => undefined);
    }, RENEWAL_MS);
    this.#renewal.unref();
  }

  /** @throws `invalid_config` if another server holds the folder; what the file system throws */
  static async acquire(dir: string): Promise<FolderLock> {
    const file = path.join(dir, LOCK_FILE);
    const me: Holder = { pid: process.pid, host: hostname() };
    // A second try, if the first found a dead holder's file; whoever is quicker to make the new one has it.
    for (let triesLeft = 1; ; triesLeft--) {
      try {
        const handle = await open(file, "wx", 0o600);
        await handle.writeFile(JSON.stringify(me)).finally(() => handle.close());
        return new FolderLock(file);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const holder = await readHolder(file);
      const silentMs = await silence(file);
      if (triesLeft === 0 || isAlive(holder, silentMs, me)) throw inUse(dir, holder, silentMs);
      await rm(file, { force: true });
    }
  }

  async release(): Promise<void> {
    clearInterval(this.#renewal);
    await rm(this.#file, { force: true });
  }
}

/** @returns undefined for a file that was torn, or is not yet written */
async function readHolder(file: string): Promise<Holder | undefined> {
  try {
    const { pid, host } = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    return typeof pid === "number" && typeof host === "string" ? { pid, host } : undefined;
  } catch {
    return undefined;
  }
}

/** By the system's clock, as files' dates are. Either way: one that was set back makes dates of the future. */
async function silence(file: string): Promise<number> {
  try {
    return Math.abs(Date.now() - (await stat(file)).mtimeMs);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function isAlive(holder: Holder | undefined, silentMs: number, me: Holder): boolean {
  if (silentMs > STALE_MS) return false;
  if (holder?.host !== me.host) return true;
  // A container's server has the same number after every restart: its own file is a predecessor's.
  return holder.pid !== me.pid && isRunning(holder.pid);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function inUse(dir: string, holder: Holder | undefined, silentMs: number): DenseMambaError {
  const who = holder === undefined ? "another server" : `the server with process id ${holder.pid} on ${holder.host}`;
  return new DenseMambaError(
    "invalid_config",
    `${dir} is in use by ${who}, last seen ${(silentMs / 1000).toFixed(0)} s ago; each server needs a folder of its own`,
  );
}
