/**
 * The directory of a zip file whose entries are stored as they are, as torch.save writes them,
 * zip64 included: where each entry's bytes lie, so that they can be read in place. Nothing is
 * decompressed, nothing extracted. Knows no pickle.
 */
import type { FileReader } from "./file-reader.ts";
import { type HeaderBounds, invalidCheckpoint } from "./weights.ts";

export interface ZipEntry {
  readonly name: string;
  /** Of its first byte in the file. */
  readonly position: number;
  readonly numBytes: number;
}

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const ZIP64_LOCATOR_SIGNATURE = 0x07064b50;
const ZIP64_LOCATOR_BYTES = 20;
const ZIP64_END_SIGNATURE = 0x06064b50;
const ZIP64_END_BYTES = 56;
const ENTRY_SIGNATURE = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_BYTES = 30;
const ZIP64_EXTRA_ID = 1;
/** In a 32-bit field: the value stands in the zip64 extra field. */
const ELSEWHERE = 0xffffffff;
const STORED = 0;
const ENCRYPTED_FLAG = 1;
/** Of a model with a million tensors. */
const MAX_DIRECTORY_BYTES = 256 << 20;

interface DirectoryPlace {
  readonly position: number;
  readonly numBytes: number;
  readonly numEntries: number;
}

interface DirectoryEntry extends ZipEntry {
  /** `position` is that of the local header still. */
  readonly nameBytes: number;
}

/**
 * By name, in the directory's order.
 * @throws `invalid_checkpoint` for anything that is not where or what it should be.
 */
export function readZipDirectory(file: FileReader, bounds: HeaderBounds = {}): Map<string, ZipEntry> {
  const place = findDirectory(file, bounds.maxHeaderBytes ?? MAX_DIRECTORY_BYTES);
  const directory = file.read(place.position, place.numBytes, "zip directory");
  const entries = new Map<string, ZipEntry>();
  let offset = 0;
  for (let i = 0; i < place.numEntries; i++) {
    const { entry, next } = parseEntry(file, directory, offset);
    if (entries.has(entry.name)) throw invalidCheckpoint(`${file.path}: zip entry ${entry.name} is listed twice`);
    entries.set(entry.name, locate(file, entry, place.position));
    offset = next;
  }
  return entries;
}

function findDirectory(file: FileReader, mostBytes: number): DirectoryPlace {
  const tailBytes = Math.min(file.numBytes, END_BYTES + MAX_COMMENT_BYTES);
  const tailStart = file.numBytes - tailBytes;
  const tail = file.read(tailStart, tailBytes, "zip end record");
  let end = tailBytes - END_BYTES;
  while (end >= 0 && tail.readUInt32LE(end) !== END_SIGNATURE) end--;
  if (end < 0) {
    throw invalidCheckpoint(`${file.path}: no zip directory at its end; it is cut off or not a file of torch ≥ 1.6`);
  }
  const place = zip64Place(file, tailStart + end) ?? {
    numEntries: tail.readUInt16LE(end + 10),
    numBytes: tail.readUInt32LE(end + 12),
    position: tail.readUInt32LE(end + 16),
  };
  const maxBytes = Math.min(mostBytes, file.numBytes - place.position);
  if (place.numBytes > maxBytes) {
    throw invalidCheckpoint(
      `${file.path}: the zip directory claims ${place.numBytes} bytes at ${place.position}, but at most ${Math.max(0, maxBytes)} are possible`,
    );
  }
  const maxEntries = Math.floor(place.numBytes / ENTRY_BYTES);
  if (place.numEntries > maxEntries) {
    throw invalidCheckpoint(
      `${file.path}: the zip directory claims ${place.numEntries} entries, but its ${place.numBytes} bytes hold at most ${maxEntries}`,
    );
  }
  return place;
}

/**
 * The large directory's place, which stands in front of the plain end record if the file has one.
 */
function zip64Place(file: FileReader, endPosition: number): DirectoryPlace | undefined {
  const locatorPosition = endPosition - ZIP64_LOCATOR_BYTES;
  if (locatorPosition < 0) return undefined;
  const locator = file.read(locatorPosition, ZIP64_LOCATOR_BYTES, "zip64 locator");
  if (locator.readUInt32LE(0) !== ZIP64_LOCATOR_SIGNATURE) return undefined;
  const position = toNumber(file, locator.readBigUInt64LE(8), "the place of the zip64 end record");
  if (position + ZIP64_END_BYTES > locatorPosition) {
    throw invalidCheckpoint(
      `${file.path}: the zip64 end record claims byte ${position}, after its locator at ${locatorPosition}`,
    );
  }
  const record = file.read(position, ZIP64_END_BYTES, "zip64 end record");
  if (record.readUInt32LE(0) !== ZIP64_END_SIGNATURE) {
    throw invalidCheckpoint(`${file.path}: no zip64 end record at byte ${position}`);
  }
  return {
    numEntries: toNumber(file, record.readBigUInt64LE(32), "the number of zip entries"),
    numBytes: toNumber(file, record.readBigUInt64LE(40), "the size of the zip directory"),
    position: toNumber(file, record.readBigUInt64LE(48), "the place of the zip directory"),
  };
}

function parseEntry(file: FileReader, directory: Buffer, offset: number): { entry: DirectoryEntry; next: number } {
  const isWhole = offset + ENTRY_BYTES <= directory.length && directory.readUInt32LE(offset) === ENTRY_SIGNATURE;
  const nameBytes = isWhole ? directory.readUInt16LE(offset + 28) : 0;
  const extraBytes = isWhole ? directory.readUInt16LE(offset + 30) : 0;
  const extraStart = offset + ENTRY_BYTES + nameBytes;
  const next = extraStart + extraBytes + (isWhole ? directory.readUInt16LE(offset + 32) : 0);
  if (!isWhole || next > directory.length) {
    throw invalidCheckpoint(`${file.path}: the zip directory is damaged at its byte ${offset}`);
  }
  const name = directory.toString("utf8", offset + ENTRY_BYTES, extraStart);
  const fail = (what: string) => invalidCheckpoint(`${file.path}: zip entry ${name} ${what}`);
  if ((directory.readUInt16LE(offset + 8) & ENCRYPTED_FLAG) !== 0) throw fail("is encrypted");
  const method = directory.readUInt16LE(offset + 10);
  if (method !== STORED) throw fail(`is compressed (method ${method}); torch stores entries as they are`);

  const wide = zip64Values(file, directory.subarray(extraStart, extraStart + extraBytes));
  const field = (at: number) => {
    const value = directory.readUInt32LE(offset + at);
    if (value !== ELSEWHERE) return value;
    // In the fixed order of size, compressed size, position, and only those that are needed.
    const next = wide.shift();
    if (next === undefined) throw fail("has no zip64 field for its size or place");
    return next;
  };
  const numBytes = field(24);
  const compressedBytes = field(20);
  const position = field(42);
  if (numBytes !== compressedBytes) throw fail(`claims ${numBytes} bytes of which ${compressedBytes} are stored`);
  return { entry: { name, nameBytes, position, numBytes }, next };
}

function zip64Values(file: FileReader, extra: Buffer): number[] {
  const values: number[] = [];
  for (let offset = 0; offset + 4 <= extra.length; ) {
    const id = extra.readUInt16LE(offset);
    const end = offset + 4 + extra.readUInt16LE(offset + 2);
    for (let at = offset + 4; id === ZIP64_EXTRA_ID && at + 8 <= Math.min(end, extra.length); at += 8) {
      values.push(toNumber(file, extra.readBigUInt64LE(at), "a zip64 field"));
    }
    offset = end;
  }
  return values;
}

/** From the local header's place to the data's. The data must lie in front of the directory. */
function locate(file: FileReader, { name, nameBytes, position, numBytes }: DirectoryEntry, limit: number): ZipEntry {
  const fail = (what: string) => invalidCheckpoint(`${file.path}: zip entry ${name} ${what}`);
  if (position + LOCAL_BYTES + nameBytes > limit) {
    throw fail(`claims to begin at byte ${position}, but the data ends at ${limit}`);
  }
  const header = file.read(position, LOCAL_BYTES, `zip entry ${name}`);
  if (header.readUInt32LE(0) !== LOCAL_SIGNATURE) throw fail(`has no header at byte ${position}`);
  // NOTE: the local extra field is not the directory's: torch pads it so that data is aligned to 64
  // bytes.
  const start = position + LOCAL_BYTES + header.readUInt16LE(26) + header.readUInt16LE(28);
  if (start + numBytes > limit) throw fail(`claims ${numBytes} bytes at ${start}, but the data ends at byte ${limit}`);
  return { name, position: start, numBytes };
}

function toNumber(file: FileReader, value: bigint, what: string): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw invalidCheckpoint(`${file.path}: ${what} is ${value}, which no file has`);
}
