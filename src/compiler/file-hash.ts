/**
 * sha256 of files, remembered for large ones: a gigabyte takes a second to hash, and a server
 * should not wait for it at every start. Small files are always read, so that for them no change
 * goes unseen.
 */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";

/**
 * Above this a remembered hash is believed while size, times and inode stay the same. Below,
 * hashing takes < 0.3 s.
 */
const REMEMBERED_BYTES = 256 << 20;

/**
 * A file changed this recently may change again within its timestamps' resolution: do not remember
 * it yet.
 */
const SETTLE_MS = 2000;

interface HashRecord {
  readonly path: string;
  /** Size, modification and change time, inode. */
  readonly stamp: string;
  readonly sha256: string;
}

export class FileHasher {
  readonly #recordDir: string;
  readonly #rememberedBytes: number;
  readonly #nowMs: () => number;

  /** Records live in `recordDir`, one small file each; it is created when needed. */
  constructor(options: {
    readonly recordDir: string;
    readonly rememberedBytes?: number;
    readonly nowMs?: () => number;
  }) {
    this.#recordDir = options.recordDir;
    this.#rememberedBytes = options.rememberedBytes ?? REMEMBERED_BYTES;
    this.#nowMs = options.nowMs ?? Date.now;
  }

  /** Lower-case hex. Rejects as `fs` does if the file cannot be read. */
  async hash(path: string): Promise<string> {
    const absolute = resolve(path);
    const { size, mtimeMs, ctimeMs, ino } = await stat(absolute);
    if (size < this.#rememberedBytes) return hashFile(absolute);
    const stamp = [size, mtimeMs, ctimeMs, ino].join(" ");
    const recordFile = join(this.#recordDir, `${sha256(absolute).slice(0, 32)}.json`);
    const known = await readRecord(recordFile);
    if (known?.path === absolute && known.stamp === stamp) return known.sha256;
    const record: HashRecord = { path: absolute, stamp, sha256: await hashFile(absolute) };
    if (this.#nowMs() - Math.max(mtimeMs, ctimeMs) > SETTLE_MS) await this.#remember(recordFile, record);
    return record.sha256;
  }

  async #remember(recordFile: string, record: HashRecord): Promise<void> {
    await mkdir(this.#recordDir, { recursive: true });
    const temporary = `${recordFile}.${randomUUID()}`;
    await writeFile(temporary, JSON.stringify(record));
    await rename(temporary, recordFile);
  }
}

/** Lower-case hex of a small value. */
export function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Reads the whole file: about 1 ms a megabyte. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

async function readRecord(path: string): Promise<HashRecord | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as HashRecord;
  } catch {
    return undefined;
  }
}
