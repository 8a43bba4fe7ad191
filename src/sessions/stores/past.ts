/** Arithmetic on conversations whose beginning is kept in parts. Pure. */
import type { Past } from "./store.ts";

/** What a snapshot and a resume point have in common: the last tokens, and what stands before them. */
export interface Tokens {
  readonly past?: Past;
  readonly tokenIds: readonly number[];
}

export function countTokens({ past, tokenIds }: Tokens): number {
  return countPast(past) + tokenIds.length;
}

export function countPast(past: Past | undefined): number {
  return past?.numTokens ?? 0;
}

/** A set of ids as bits, those of `ids` added. @param bits not changed */
export function withIds(bits: Uint8Array, ids: readonly number[]): Uint8Array {
  const largest = ids.reduce((max, id) => Math.max(max, id), 0);
  const all = new Uint8Array(Math.max(bits.length, (largest >>> 3) + 1));
  all.set(bits);
  for (const id of ids) all[id >>> 3]! |= 1 << (id & 7);
  return all;
}

export function* idsIn(bits: Uint8Array): Iterable<number> {
  for (const [at, byte] of bits.entries()) {
    for (let bit = 0; bit < 8; bit++) if ((byte >>> bit) & 1) yield at * 8 + bit;
  }
}
