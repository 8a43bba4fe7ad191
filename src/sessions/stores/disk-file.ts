/**
 * One snapshot as a file: what it is kept under and until when, then the snapshot as the codec has it. A file appears
 * under its name whole or not at all. Knows no other file.
 *
 * Layout, little-endian:
 *   8  magic "DSMFILE1"           8  first bytes of the sha256 of the rest of the header
 *   8  when it expires, ms since 1970; 0: never
 *   4  bytes of the key (UTF-8)   …  key, snapshot
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { DenseMambaError } from "../../errors.ts";
import { headerOf, type SnapshotHeader } from "./codec.ts";

const MAGIC = Buffer.from("DSMFILE1");
const EXPIRY_AT = 16;
const KEY_BYTES_AT = 24;
const KEY_AT = 28;
/** Holds the header of any key that this project makes, and that of the snapshot behind it. */
const FIRST_READ_BYTES = 4096;
const MAX_KEY_BYTES = 2048;

export interface FileHeader {
  readonly key: string;
  readonly expiresAtMs: number | undefined;
}

export interface FoundFile extends FileHeader {
  /** Undefined for a snapshot of another format version. */
  readonly snapshot: SnapshotHeader | undefined;
  /** Of the whole file. */
  readonly bytes: number;
  readonly usedAtMs: number;
}

/** The part of a file's name that the key decides: safe on any file system, whatever the key. */
export function fileStem(key: string): string {
  return createHash("sha256").update(key).digest("hex").slice(0, 40);
}

export function fileBytes(key: string, snapshotBytes: number): number {
  return KEY_AT + Buffer.byteLength(key) + snapshotBytes;
}

/**
 * @param isSynced whether the bytes are on the disk, not in the system's cache, before the file gets its name
 * @throws what the file system throws; then nothing is left behind
 */
export async function writeSnapshotFile(
  file: string,
  header: FileHeader,
  snapshot: Uint8Array,
  { isSynced }: { readonly isSynced: boolean },
): Promise<void> {
  const unfinished = `${file}.tmp`;
  try {
    const handle = await open(unfinished, "wx", 0o600);
    try {
      // NOTE: `writev` may write less than it was given, as on a disk that is nearly full; `writeFile` goes on.
      await handle.writeFile(encodeHeader(header));
      await handle.writeFile(snapshot);
      if (isSynced) await handle.datasync();
    } finally {
      await handle.close();
    }
    await rename(unfinished, file);
  } catch (error) {
    await rm(unfinished, { force: true }).catch(() => undefined);
    throw error;
  }
}

/**
 * Reads no state. Synchronous: for the start of a server, when there are many files to look at and nobody waits yet.
 * @throws `invalid_snapshot` if the file is none of ours, torn, or not as long as it says; what the file system throws
 */
export function inspectSnapshotFile(file: string): FoundFile {
  const descriptor = openSync(file, "r");
  try {
    const { size, mtimeMs } = fstatSync(descriptor);
    const first = Buffer.alloc(FIRST_READ_BYTES);
    const { header, snapshotAt } = decodeHeader(first.subarray(0, readSync(descriptor, first)));
    const snapshot = headerOf(first.subarray(snapshotAt));
    const snapshotBytes = snapshot?.bytes ?? size - snapshotAt;
    if (size !== snapshotAt + snapshotBytes) {
      throw damaged(`is ${size} bytes long; its headers say ${snapshotAt + snapshotBytes}`);
    }
    return { ...header, snapshot, bytes: size, usedAtMs: mtimeMs };
  } finally {
    closeSync(descriptor);
  }
}

/**
 * @param expected what the file must be, as it was when it was written or found
 * @returns the snapshot's bytes, not yet verified
 * @throws `invalid_snapshot` if it is another key's or of another length; what the file system throws
 */
export async function readSnapshotFile(
  file: string,
  expected: { readonly key: string; readonly bytes: number },
): Promise<Buffer> {
  const handle = await open(file, "r");
  try {
    const { size } = await handle.stat();
    if (size !== expected.bytes) throw damaged(`is ${size} bytes long; it was written with ${expected.bytes}`);
    const bytes = Buffer.allocUnsafeSlow(size);
    await readFully(handle, bytes);
    const { header, snapshotAt } = decodeHeader(bytes);
    if (header.key !== expected.key) throw damaged(`is kept under ${header.key}; ${expected.key} was looked for`);
    return bytes.subarray(snapshotAt);
  } finally {
    await handle.close();
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

function decodeHeader(bytes: Buffer): { readonly header: FileHeader; readonly snapshotAt: number } {
  if (bytes.length < KEY_AT || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged("does not start as one");
  const keyBytes = bytes.readUInt32LE(KEY_BYTES_AT);
  const snapshotAt = KEY_AT + keyBytes;
  if (keyBytes > MAX_KEY_BYTES || snapshotAt > bytes.length) throw damaged(`says its key has ${keyBytes} bytes`);
  const header = bytes.subarray(0, snapshotAt);
  if (!headerChecksum(header).equals(header.subarray(MAGIC.length, EXPIRY_AT))) {
    throw damaged("has been altered: the checksum of its header does not match");
  }
  const expiresAtMs = Number(header.readBigUInt64LE(EXPIRY_AT));
  return {
    header: { key: header.toString("utf8", KEY_AT), expiresAtMs: expiresAtMs === 0 ? undefined : expiresAtMs },
    snapshotAt,
  };
}

function headerChecksum(header: Buffer): Buffer {
  return createHash("sha256").update(header.subarray(EXPIRY_AT)).digest().subarray(0, 8);
}

async function readFully(handle: FileHandle, into: Buffer): Promise<void> {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await handle.read(into, at, into.length - at, at);
    if (bytesRead === 0) throw damaged(`ends after ${at} of ${into.length} bytes`);
    at += bytesRead;
  }
}

function damaged(what: string): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot's file ${what}`);
}
