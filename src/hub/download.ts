/**
 * One file from the hub into one blob of the cache: goes on where an earlier try stopped, and believes nothing before size
 * and hash agree with what the hub says.
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
  /** Where the blob belongs; its name there appears when it is whole. */
  readonly blobPath: string;
  /** The file's bytes from `start` on. */
  readonly read: (start: number) => Promise<AsyncIterable<Uint8Array>>;
  /** Bytes of this file that are on disk, those of an earlier try included. */
  readonly onBytes: (numBytes: number) => void;
  readonly sleep: (ms: number) => Promise<void>;
}

/** In a row, without a byte of progress. */
const MAX_TRIES = 5;
const FIRST_PAUSE_MS = 500;

/** @throws `pull_failed` naming what differs if the bytes are not the hub's: they are removed. */
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
    // Another process, pulling the same, was faster and gave the file its name.
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
        // Of a server that sends too much one byte is kept: the size then tells.
        const bytes = chunk.subarray(0, file.numBytes - position + 1);
        await writeAll(handle, bytes, position);
        position += bytes.length;
        if (position > file.numBytes) return;
        onBytes(position);
      }
    };
    for (let numFailed = 0; position < file.numBytes; ) {
      const before = position;
      const reason = await copyRest().then(() => "the connection ended", reasonToGoOn);
      numFailed = position > before ? 0 : numFailed + 1;
      if (numFailed === MAX_TRIES) throw cutOff(file, position, reason);
      if (position < file.numBytes) await sleep(FIRST_PAUSE_MS * 2 ** numFailed);
    }
  } finally {
    await handle.close();
  }
}

/**
 * Created if it is not there, never emptied. NOTE: not for appending. Two processes may pull one file: both write the same
 * bytes in the same places, which harms neither, where appending would mix them.
 */
async function openForWriting(partial: string): Promise<FileHandle> {
  await (await open(partial, "a")).close();
  return open(partial, "r+");
}

/** @throws what trying again cannot mend: the hub's refusals, a full disk. */
function reasonToGoOn(error: unknown): string {
  const isRefusal = error instanceof DenseMambaError && !(error instanceof HubUnreachable);
  const isDisk = error instanceof Error && "syscall" in error && error.syscall === "write";
  if (isRefusal || isDisk) throw error;
  return error instanceof Error ? error.message : String(error);
}

function cutOff({ path: name, numBytes }: HubFile, position: number, reason: string): DenseMambaError {
  return new DenseMambaError(
    "pull_failed",
    `${name}: cut off at byte ${position} of ${numBytes} (${reason}); the next pull goes on from there`,
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
  if (size !== file.numBytes) return `${size} bytes came, the hub says ${file.numBytes}`;
  const hash = createHash(file.hashKind === "sha256" ? "sha256" : "sha1");
  if (file.hashKind === "git") hash.update(`blob ${file.numBytes}\0`);
  await pipeline(createReadStream(place, { highWaterMark: 1 << 20 }), hash);
  const digest = hash.digest("hex");
  const name = file.hashKind === "sha256" ? "sha256" : "git hash";
  return digest === file.hash ? undefined : `its ${name} is ${digest}, the hub says ${file.hash}`;
}
