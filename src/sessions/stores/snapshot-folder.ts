/**
 * The folder of a `DiskStore`: one file for each snapshot, named by a hash of its key, so that no
 * key means anything to the file system. A file appears under its name complete or not at all, and
 * a new one never overwrites an older one of its key: of two the one with the higher generation
 * counts. Changes nothing in a folder that another server may use.
 *
 * Layout of a file, little-endian:
 *   8  magic "DSMFILE1"           8  first bytes of the sha256 of the rest of the header
 *   8  when it expires, ms since 1970; 0: never
 *   4  bytes of the key (UTF-8)   …  key, snapshot (see codec.ts)
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { open, readdir, rename, rm, utimes } from "node:fs/promises";
import path from "node:path";
import { DenseMambaError } from "../../errors.ts";
import { readHeader, type SnapshotHeader } from "./codec.ts";
import { FolderLock } from "./folder-lock.ts";

const FILE_PATTERN = /^[0-9a-f]{40}\.([0-9a-z]+)\.dsm$/;
const UNFINISHED_PATTERN = /^[0-9a-f]{40}\.[0-9a-z]+\.dsm\.tmp$/;
const MAGIC = Buffer.from("DSMFILE1");
const EXPIRY_AT = 16;
const KEY_BYTES_AT = 24;
const KEY_AT = 28;
/** Enough for the file's header and the snapshot's. */
const FIRST_READ_BYTES = 4096;
const MAX_KEY_BYTES = 2048;

export interface FileHeader {
  readonly key: string;
  readonly expiresAtMs: number | undefined;
}

export interface SnapshotFile extends FileHeader {
  readonly file: string;
  readonly generation: number;
  /** Undefined for a snapshot of another format version. */
  readonly snapshot: SnapshotHeader | undefined;
  /** Of the whole file. */
  readonly bytes: number;
  readonly usedAtMs: number;
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

  /** Creates the folder if it does not exist. @throws as `FolderLock.acquire` */
  static async open(dir: string): Promise<SnapshotFolder> {
    return new SnapshotFolder(dir, await FolderLock.acquire(dir));
  }

  newFile(key: string): { readonly file: string; readonly generation: number } {
    const generation = ++this.#lastGeneration;
    return { file: path.join(this.#dir, `${fileStem(key)}.${generation.toString(36)}.dsm`), generation };
  }

  /**
   * Reads the headers of all files. Removes unfinished, replaced and damaged ones.
   * @returns one file per key, the least recently used first
   */
  async list(onDamage: (message: string) => void): Promise<SnapshotFile[]> {
    const newest = new Map<string, SnapshotFile>();
    for (const name of await readdir(this.#dir)) {
      const file = path.join(this.#dir, name);
      if (UNFINISHED_PATTERN.test(name)) await removeFile(file);
      const match = FILE_PATTERN.exec(name);
      if (match === null) continue;
      const generation = Number.parseInt(match[1]!, 36);
      this.#lastGeneration = Math.max(this.#lastGeneration, generation);
      try {
        const found = inspectFile(file, generation);
        const other = newest.get(found.key);
        const isNewer = other === undefined || other.generation < generation;
        if (isNewer) newest.set(found.key, found);
        if (other !== undefined) await removeFile(isNewer ? other.file : file);
      } catch (error) {
        if (!(error instanceof DenseMambaError)) throw error;
        onDamage(`${file} was damaged and has been removed: ${error.message}`);
        await removeFile(file);
      }
    }
    return [...newest.values()].sort((a, b) => a.usedAtMs - b.usedAtMs || a.generation - b.generation);
  }

  /**
   * @param expected as it was written or listed
   * @returns the snapshot's bytes, not yet verified
   * @throws `invalid_snapshot` for another key or length; file system errors
   */
  async read(file: string, expected: { readonly key: string; readonly bytes: number }): Promise<Buffer> {
    const handle = await open(file, "r");
    try {
      const { size } = await handle.stat();
      if (size !== expected.bytes) throw damaged(`is ${size} bytes long; it was written with ${expected.bytes}`);
      const bytes = Buffer.allocUnsafeSlow(size);
      for (let at = 0; at < size; ) {
        const { bytesRead } = await handle.read(bytes, at, size - at, at);
        if (bytesRead === 0) throw damaged(`ends after ${at} of ${size} bytes`);
        at += bytesRead;
      }
      const { key, snapshotAt } = decodeHeader(bytes);
      if (key !== expected.key) throw damaged(`is of ${key}; ${expected.key} was looked for`);
      return bytes.subarray(snapshotAt);
    } finally {
      await handle.close();
    }
  }

  /**
   * @param isSynced whether it must survive a power failure
   * @throws `store_unavailable` from `check`; file system errors. Then nothing is left behind.
   */
  async write(
    file: string,
    header: FileHeader,
    snapshot: Uint8Array,
    { isSynced }: { readonly isSynced: boolean },
  ): Promise<void> {
    await this.check();
    const unfinished = `${file}.tmp`;
    try {
      const handle = await open(unfinished, "wx", 0o600);
      try {
        // NOTE: `writev` may write less than it was given, as on a nearly full disk; `writeFile`
        // goes on.
        await handle.writeFile(encodeHeader(header));
        await handle.writeFile(snapshot);
        if (isSynced) await handle.datasync();
      } finally {
        await handle.close();
      }
      await rename(unfinished, file);
      if (isSynced) await this.#syncNames();
    } catch (error) {
      for (const left of [unfinished, file]) await removeFile(left).catch(() => undefined);
      throw error;
    }
  }

  /** Does nothing if it is already gone. @throws as `write` */
  async remove(file: string, { isSynced = false }: { readonly isSynced?: boolean } = {}): Promise<void> {
    await this.check();
    await removeFile(file);
    if (isSynced) await this.#syncNames();
  }

  /** @throws as `write` */
  async setUsed(file: string, usedAtMs: number): Promise<void> {
    await this.check();
    await utimes(file, usedAtMs / 1000, usedAtMs / 1000);
  }

  /** @throws `store_unavailable` if it is no longer the folder that was opened */
  check(): Promise<void> {
    return this.#lock.check();
  }

  close(): Promise<void> {
    return this.#lock.release();
  }

  /** Returns once all names so far are on the disk. Callers during one sync share the next. */
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

/** The part of a file's name that depends on the key. */
export function fileStem(key: string): string {
  return createHash("sha256").update(key).digest("hex").slice(0, 40);
}

export function fileBytes(key: string, snapshotBytes: number): number {
  return KEY_AT + Buffer.byteLength(key) + snapshotBytes;
}

/**
 * Reads no state. Synchronous: at the start of a server there are many files, and nobody waits yet.
 * @throws `invalid_snapshot` if the file is not one of ours, torn, or of another length than it
 * says; file system errors
 */
function inspectFile(file: string, generation: number): SnapshotFile {
  const descriptor = openSync(file, "r");
  try {
    const { size, mtimeMs } = fstatSync(descriptor);
    const read = (numBytes: number) => {
      const first = Buffer.alloc(numBytes);
      return first.subarray(0, readSync(descriptor, first, 0, numBytes, 0));
    };
    const first = read(FIRST_READ_BYTES);
    const { key, expiresAtMs, snapshotAt } = decodeHeader(first);
    let snapshot = readHeader(first.subarray(snapshotAt));
    if (snapshot !== undefined && snapshotAt + snapshot.headerBytes > FIRST_READ_BYTES) {
      snapshot = readHeader(read(snapshotAt + snapshot.headerBytes).subarray(snapshotAt));
    }
    const expectedSize = snapshot === undefined ? size : snapshotAt + snapshot.bytes;
    if (size !== expectedSize) throw damaged(`is ${size} bytes long; its headers say ${expectedSize}`);
    return { file, generation, key, expiresAtMs, snapshot, bytes: size, usedAtMs: mtimeMs };
  } finally {
    closeSync(descriptor);
  }
}

function encodeHeader({ key, expiresAtMs }: FileHeader): Buffer {
  const keyBytes = Buffer.from(key);
  const header = Buffer.alloc(KEY_AT + keyBytes.length);
  header.set(MAGIC, 0);
  header.writeBigUInt64LE(BigInt(Math.ceil(expiresAtMs ?? 0)), EXPIRY_AT);
  header.writeUInt32LE(keyBytes.length, KEY_BYTES_AT);
  header.set(keyBytes, KEY_AT);
  header.set(headerChecksum(header), MAGIC.length);
  return header;
}

function decodeHeader(bytes: Buffer): FileHeader & { readonly snapshotAt: number } {
  if (bytes.length < KEY_AT || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged("does not start as one");
  const keyBytes = bytes.readUInt32LE(KEY_BYTES_AT);
  const snapshotAt = KEY_AT + keyBytes;
  if (keyBytes > MAX_KEY_BYTES || snapshotAt > bytes.length) throw damaged(`says its key has ${keyBytes} bytes`);
  const header = bytes.subarray(0, snapshotAt);
  if (!headerChecksum(header).equals(header.subarray(MAGIC.length, EXPIRY_AT))) {
    throw damaged("has been altered: the checksum of its header does not match");
  }
  const expiresAtMs = Number(header.readBigUInt64LE(EXPIRY_AT)) || undefined;
  return { key: header.toString("utf8", KEY_AT), expiresAtMs, snapshotAt };
}

function headerChecksum(header: Buffer): Buffer {
  return createHash("sha256").update(header.subarray(EXPIRY_AT)).digest().subarray(0, 8);
}

function removeFile(file: string): Promise<void> {
  return rm(file, { force: true });
}

function damaged(what: string): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot's file ${what}`);
}
