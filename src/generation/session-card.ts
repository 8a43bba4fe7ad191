/**
 * What a list shows of a session, kept beside its state: so many bytes that lists of thousands of sessions are cheap. A
 * card is a snapshot without a state, and so fits every store. Pure.
 */
import { z } from "zod";
import type { Snapshot } from "../session/store.ts";
import type { Head } from "./conversation.ts";

const schema = z.object({
  numTokens: z.int().min(0),
  position: z.int().min(0),
  createdAtMs: z.number(),
  lastUsedAtMs: z.number(),
  expiresAtMs: z.number().optional(),
});

export interface SessionCard {
  /** Tokens of the conversation so far; `position` of them are in the state, the rest is fed first next time. */
  readonly numTokens: number;
  readonly position: number;
  /** Unix time in milliseconds. */
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** When it will be forgotten unless it is used before. */
  readonly expiresAtMs?: number;
}

export function cardOf({ snapshot, conversation }: Head, expiry: { readonly expiresAtMs?: number }): SessionCard {
  const { createdAtMs, lastUsedAtMs } = conversation;
  return { numTokens: snapshot.tokenIds.length, position: snapshot.position, createdAtMs, lastUsedAtMs, ...expiry };
}

/** @param content JSON-serialisable */
export function cardSnapshot(modelHash: string, content: unknown): Snapshot {
  return { modelHash, tokenIds: [], position: 0, state: new Uint8Array(0), conversation: content };
}

/** @returns undefined if there is none, or if it is none of ours */
export function readCard(snapshot: Snapshot | undefined): SessionCard | undefined {
  const parsed = schema.safeParse(snapshot?.conversation);
  return parsed.success ? (parsed.data as SessionCard) : undefined;
}
