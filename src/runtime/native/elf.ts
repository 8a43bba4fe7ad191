/** Reads a Linux shared library's own description without loading it, which would run its code. */
import { type FileHandle, open } from "node:fs/promises";

export interface SharedObject {
  /** Sonames of the libraries that it is linked with, in their order. */
  readonly needed: readonly string[];
  /** Its constants: section `.rodata`, where strings are. */
  readonly constants: Buffer;
}

const HEADER_BYTES = 64;
const ELF_MAGIC = 0x7f45_4c46;
const DYNAMIC_ENTRY_BYTES = 16;
const DT_NEEDED = 1n;

export interface Section {
  readonly numBytes: number;
  read(start: number, numBytes: number): Promise<Buffer>;
}

/**
 * Calls `use`, which finds sections by their names; one that is not there is empty.
 * @throws an error if the file cannot be read, is cut off, or is no such file for a 64-bit
 * little-endian machine.
 */
export async function readSections<Result>(
  path: string,
  use: (find: (name: string) => Section) => Promise<Result>,
): Promise<Result> {
  const file = await open(path);
  try {
    const table = await readTable(file);
    return await use((wanted) => {
      const { offset, size } = table.find(({ name }) => name === wanted) ?? { offset: 0, size: 0 };
      return { numBytes: size, read: (start, numBytes) => readAt(file, offset + start, numBytes) };
    });
  } finally {
    await file.close();
  }
}

/** @throws as `readSections` does */
export function readSharedObject(path: string): Promise<SharedObject> {
  return readSections(path, async (find) => ({
    needed: await neededOf(find),
    constants: await whole(find(".rodata")),
  }));
}

/** `needed` alone. @throws as `readSections` does */
export function readNeeded(path: string): Promise<readonly string[]> {
  return readSections(path, neededOf);
}

async function neededOf(find: (name: string) => Section): Promise<string[]> {
  const [dynamic, strings] = [await whole(find(".dynamic")), await whole(find(".dynstr"))];
  const needed: string[] = [];
  for (let at = 0; at + DYNAMIC_ENTRY_BYTES <= dynamic.length; at += DYNAMIC_ENTRY_BYTES) {
    if (dynamic.readBigInt64LE(at) !== DT_NEEDED) continue;
    needed.push(stringAt(strings, Number(dynamic.readBigUInt64LE(at + 8))));
  }
  return needed;
}

function whole(section: Section): Promise<Buffer> {
  return section.read(0, section.numBytes);
}

interface Range {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

async function readTable(file: FileHandle): Promise<Range[]> {
  const header = await readAt(file, 0, HEADER_BYTES);
  if (header.readUInt32BE(0) !== ELF_MAGIC || header[4] !== 2 || header[5] !== 1) {
    throw new Error("it is no ELF file for a 64-bit little-endian machine");
  }
  const [tableAt, entryBytes, count, namesIndex] = [
    Number(header.readBigUInt64LE(40)),
    header.readUInt16LE(58),
    header.readUInt16LE(60),
    header.readUInt16LE(62),
  ];
  if (tableAt === 0 || namesIndex >= count) throw new Error("it has no table of sections");
  // It stands at the end of the file.
  const table = await readAt(file, tableAt, entryBytes * count);
  const rangeOf = (index: number) => ({
    nameAt: table.readUInt32LE(index * entryBytes),
    offset: Number(table.readBigUInt64LE(index * entryBytes + 24)),
    size: Number(table.readBigUInt64LE(index * entryBytes + 32)),
  });
  const { offset, size } = rangeOf(namesIndex);
  const names = await readAt(file, offset, size);
  return Array.from({ length: count }, (_, index) => {
    const { nameAt, ...range } = rangeOf(index);
    return { name: stringAt(names, nameAt), ...range };
  });
}

async function readAt(file: FileHandle, position: number, numBytes: number): Promise<Buffer> {
  const { size } = await file.stat();
  if (position + numBytes > size) throw new Error(`it is cut off: ${size} bytes, not ${position + numBytes}`);
  const { bytesRead, buffer } = await file.read(Buffer.alloc(numBytes), 0, numBytes, position);
  if (bytesRead < numBytes) throw new Error(`it is cut off: nothing at ${position + bytesRead}`);
  return buffer;
}

function stringAt(bytes: Buffer, start: number): string {
  return bytes.toString("latin1", start, bytes.indexOf(0, start));
}
