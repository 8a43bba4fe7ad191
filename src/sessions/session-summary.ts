/**
 * What a list shows of a session. It is written in the session's snapshot, beside the state; so that lists of thousands of
 * sessions do not read thousands of states, what was seen is remembered until the store lists the session otherwise.
 */

import type { Head } from "./conversation.ts";
import { countTokens } from "./stores/past.ts";
import type { ListedSnapshot, Snapshot } from "./stores/store.ts";

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

export function cardOf({ snapshot, conversation }: Head): SessionCard {
  const { position, expiresAtMs } = snapshot;
  const { createdAtMs, lastUsedAtMs } = conversation;
  return {
    numTokens: countTokens(snapshot),
    position,
    createdAtMs,
    lastUsedAtMs,
    ...(expiresAtMs !== undefined && { expiresAtMs }),
  };
}

/** A snapshot that has no state: of what has read nothing, or is no conversation. @param content JSON-serialisable */
export function statelessSnapshot(modelHash: string, content: unknown): Snapshot {
  return { modelHash, tokenIds: [], position: 0, state: new Uint8Array(0), conversation: content };
}

const MAX_REMEMBERED = 100_000;

/** Cards by key. One that is remembered was read when the store listed the session with the same bytes and expiry. */
export class CardMemory {
  readonly #cards = new Map<string, { readonly listed: ListedSnapshot; readonly card: SessionCard }>();

  find(listed: ListedSnapshot): SessionCard | undefined {
    const known = this.#cards.get(listed.key);
    const isSame = known?.listed.bytes === listed.bytes && known.listed.expiresAtMs === listed.expiresAtMs;
    return isSame ? known?.card : undefined;
  }

  remember(listed: ListedSnapshot, card: SessionCard): void {
    this.forget(listed.key);
    this.#cards.set(listed.key, { listed, card });
    if (this.#cards.size <= MAX_REMEMBERED) return;
    for (const oldest of this.#cards.keys()) {
      this.#cards.delete(oldest);
      break;
    }
  }

  /** To be called when the session changes here: it may take as many bytes as before. */
  forget(key: string): void {
    this.#cards.delete(key);
  }
}
