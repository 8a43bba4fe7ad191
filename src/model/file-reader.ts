/**
 * A file of weights, read by position. Knows no format; everything that reads weights goes through
 * it, so that a file that is shorter than its own headers say is told in one way.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { invalidCheckpoint } from "./weights.ts";

export interface FileReader {
  readonly path: string;
  /** When it was opened. */
  readonly numBytes: number;
  /**
   * A new buffer that owns its whole ArrayBuffer. `what` names the piece in messages. The caller
   * has checked `length` against `numBytes`: it is allocated before anything is read.
   * @throws `invalid_checkpoint` if the file ends before.
   */
  read(position: number, length: number, what: string): Buffer;
  close(): void;
}

/** @throws `invalid_checkpoint` */
export function openFile(path: string): FileReader {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    throw invalidCheckpoint(`cannot open ${path}: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  return {
    path,
    numBytes: fstatSync(fd).size,
    read: (position, length, what) => readExactly(fd, position, length, `${path}: ${what}`),
    close: () => closeSync(fd),
  };
}

/** A file that has been read. `name` is its path in messages. */
export function memoryFile(bytes: Uint8Array, name: string): FileReader {
  return {
    path: name,
    numBytes: bytes.length,
    read(position, length, what) {
      const end = position + length;
      if (end > bytes.length) {
        throw invalidCheckpoint(`${name}: ${what}: the file ends at byte ${bytes.length}, ${end} needed`);
      }
      return Buffer.from(new Uint8Array(bytes.subarray(position, end)).buffer);
    },
    close() {},
  };
}

function readExactly(fd: number, position: number, length: number, what: string): Buffer {
  const bytes = Buffer.from(new ArrayBuffer(length));
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, position + done);
    if (count === 0) {
      throw invalidCheckpoint(`${what}: the file ends at byte ${position + done}, ${position + length} needed`);
    }
    done += count;
  }
  return bytes;
}
