/**
 * How kept things are named in a store, and which names clients may choose. An owner is "" or hexadecimal, so the first
 * colon behind it ends it, whatever the id holds.
 */
import { DenseMambaError } from "../errors.ts";

/**
 * A session is a moving head: resumed and kept under the same id, one request at a time. A response never changes; one
 * that is unstored never leaves this process's memory, and is found only by whoever names it so.
 */
export type ConversationKey = { readonly type: "session" | "response" | "unstored"; readonly id: string };

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

/** Where the state and the history of a session or response are. */
export function headKey(owner: string, { type, id }: ConversationKey): string {
  return `${type}:${owner}:${id}`;
}

/** The key of a part of an owner's conversations. */
export function partKey(owner: string, id: string): string {
  return `part:${owner}:${id}`;
}

/** Where the server's record of a response is. */
export function recordKey(owner: string, id: string): string {
  return `record:${owner}:${id}`;
}

/** What the keys of all sessions of an owner begin with. */
export function sessionPrefix(owner: string): string {
  return `session:${owner}:`;
}

/** Prefixes of the keys of an owner's responses: of their states, and of their records. */
export function responsePrefixes(owner: string): readonly string[] {
  return [`response:${owner}:`, `record:${owner}:`];
}

/** The owner of a key; undefined for a prefix that is too short to tell. */
export function ownerOf(key: string): string | undefined {
  return /^[a-z]+:([^:]*):/.exec(key)?.[1];
}

/** @throws `invalid_value` */
export function checkSessionId(id: string): void {
  if (ID_PATTERN.test(id)) return;
  throw new DenseMambaError(
    "invalid_value",
    `session_id must be 1 to 128 letters, digits, '.', '_', ':' or '-', and begin with a letter or digit; given ${JSON.stringify(id.slice(0, 140))}`,
    { param: "session_id" },
  );
}
