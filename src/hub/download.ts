/**
 * Downloads one file from the hub into one blob of the cache. Resumes an earlier attempt, and
 * accepts the file only if size and hash are those that the hub gives.
 */
import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { DenseMambaError } from "../errors.ts";
import { type HubFile, HubUnreachable } from "./client.ts";

export interface DownloadOptions {
  readonly file: HubFile;
  /** Where the blob belongs; it gets this name when it is complete. */
  readonly blobPath: string;
  /** The file's bytes from `start`. */
  readonly read: (start: number) => Promise<AsyncIterable<Uint8Array>>;
  /** Bytes of this file on disk, including those of earlier attempts. */
  readonly onBytes: (numBytes: number) => void;
  readonly sleep: (ms: number) => Promise<void>;
}

/** Consecutive attempts without a byte of progress. */
const MAX_ATTEMPTS = 5;
const FIRST_PAUSE_MS = 500;

/**
 * @throws `pull_failed` with what differs, after removing the file, if the bytes are not the hub's
 */
export async function download(options: DownloadOptions): Promise<void> {
  const { file, blobPath, onBytes } = options;
  // Blobs are named by their content.
  if (existsSync(blobPath)) return onBytes(file.numBytes);
  await mkdir(path.dirname(blobPath), { recursive: true });
  const partial = `${blobPath}.incomplete`;
  await fetchAll(partial, options);
  try {
    await verify(partial, file);
    await rename(partial, blobPath);
  } catch (error) {
    // Another process that pulls the same file was faster and has renamed it.
    const isGone = error instanceof Error && "code" in error && error.code === "ENOENT" && existsSync(blobPath);
    if (!isGone) throw error;
    await verify(blobPath, file);
  }
}

async function fetchAll(partial: string, { file, read, onBytes, sleep }: DownloadOptions): Promise<void> {
  const handle = await openForWriting(partial);
  try {
    let position = (await handle.stat()).size;
    if (position > file.numBytes) {
      await handle.truncate(0);
      position = 0;
    }
    onBytes(position);
    const copyRest = async () => {
      for await (const chunk of await read(position)) {
        // If the server sends too much, one byte of it is written: then the size is wrong.
        const bytes = chunk.subarray(0, file.numBytes - position + 1);
        await writeAll(handle, bytes, position);
        position += bytes.length;
        if (position > file.numBytes) return;
        onBytes(position);
      }
    };
    for (let numFailed = 0; position < file.numBytes; ) {
      const before = position;
      const reason = await copyRest().then(() => "the connection ended", reasonToRetry);
      numFailed = position > before ? 0 : numFailed + 1;
      if (numFailed === MAX_ATTEMPTS) throw cutOff(file, position, reason);
      if (position < file.numBytes) await sleep(FIRST_PAUSE_MS * 2 ** numFailed);
    }
  } finally {
    await handle.close();
  }
}

/**
 * Creates the file if necessary, never empties it. NOTE: not for appending. Two processes may pull
 * the same file: writing the same bytes in the same places does no harm, but appending would mix
 * them.
 */
async function openForWriting(partial: string): Promise<FileHandle> {
  await (await open(partial, "a")).close();
  return open(partial, "r+");
}

/** @throws what a retry cannot fix: the hub's refusals, a full disk */
function reasonToRetry(error: unknown): string {
  const isRefusal = error instanceof DenseMambaError && !(error instanceof HubUnreachable);
  const isDisk = error instanceof Error && "syscall" in error && error.syscall === "write";
  if (isRefusal || isDisk) throw error;
  return error instanceof Error ? error.message : String(error);
}

function cutOff({ path: name, numBytes }: HubFile, position: number, reason: string): DenseMambaError {
  return new DenseMambaError(
    "pull_failed",
    `${name}: cut off at byte ${position} of ${numBytes} (${reason}); the next pull resumes there`,
  );
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

async function verify(place: string, file: HubFile): Promise<void> {
  const problem = await findProblem(place, file);
  if (problem === undefined) return;
  await rm(place, { force: true });
  throw new DenseMambaError("pull_failed", `${file.path}: ${problem}; it was removed`);
}

async function findProblem(place: string, file: HubFile): Promise<string | undefined> {
  const { size } = await stat(place);
  if (size !== file.numBytes) return `it has ${size} bytes, the hub says ${file.numBytes}`;
  const hash = createHash(file.hashKind === "sha256" ? "sha256" : "sha1");
  if (file.hashKind === "git") hash.update(`blob ${file.numBytes}\0`);
  await pipeline(createReadStream(place, { highWaterMark: 1 << 20 }), hash);
  const digest = hash.digest("hex");
  const name = file.hashKind === "sha256" ? "sha256" : "git hash";
  return digest === file.hash ? undefined : `its ${name} is ${digest}, the hub says ${file.hash}`;
}
