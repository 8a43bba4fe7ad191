/** Token ids as bytes, 4 each, little-endian on every machine: what is hashed and stored is the same for all. */
import { endianness } from "node:os";

export function tokenBytes(tokenIds: readonly number[]): Buffer {
  const bytes = Buffer.from(new Uint32Array(tokenIds).buffer);
  return endianness() === "LE" ? bytes : bytes.swap32();
}

/** @param bytes a multiple of 4, wherever in memory; not changed */
export function tokensOf(bytes: Uint8Array): number[] {
  const copy = Buffer.from(new Uint8Array(bytes).buffer);
  if (endianness() !== "LE") copy.swap32();
  return Array.from(new Uint32Array(copy.buffer));
}
