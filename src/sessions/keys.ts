/**
 * The keys of conversations in a store, and which ids clients may choose. An owner is "" or hexadecimal, so
 * the colon after it ends it, whatever the id contains.
 */
import { DenseMambaError } from "../errors.ts";

/**
 * A session advances under one id, one request at a time. A response never changes. An unstored response
 * never leaves this process's memory, and is found only under this type.
 */
export type ConversationKey = { readonly type: "session" | "response" | "unstored"; readonly id: string };

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

/** Of the snapshot of a session or response. */
export function conversationKey(owner: string, { type, id }: ConversationKey): string {
  return `${type}:${owner}:${id}`;
}

/** Of a segment of an owner's conversations. */
export function segmentKey(owner: string, id: string): string {
  return `segment:${owner}:${id}`;
}

/** Of the server's record of a response. */
export function recordKey(owner: string, id: string): string {
  return `record:${owner}:${id}`;
}

export function sessionPrefix(owner: string): string {
  return `session:${owner}:`;
}

/** Of an owner's responses: their states, and their records. */
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
