/**
 * A conversation's history, in parts: the store keeps the tokens and messages that stand far enough back apart from the
 * head, in parts that are written once, each naming the one before it. So what a turn writes does not depend on how long
 * the conversation is, and all heads that continue from one past share it. Most turns never read it; what needs the messages
 * again, or all token ids, does. Knows neither owners' rights nor locks.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import { CONTEXT_TOKENS } from "../tokenizer/tokenizer.ts";
import type { Head } from "./conversation.ts";
import { countPassageTokens, type Passage, passageList } from "./message-spans.ts";
import { statelessSnapshot } from "./session-summary.ts";
import { countTokens, withIds } from "./stores/past.ts";
import type { Past, Snapshot, StateStore } from "./stores/store.ts";

/** A part is made once a head holds so many tokens more than it needs. */
export const PART_TOKENS = 4096;
/** Or more passages than this, since some cover no tokens. */
const MAX_PASSAGES = 256;
/** A turn that brings more makes several parts. */
export const MAX_PART_TOKENS = 65_536;
/** Parts that are read between two turns of the event loop, where they lie in memory. */
const PARTS_AT_ONCE = 8;

export interface History {
  readonly tokenIds: readonly number[];
  /** Of all messages, if all tokens were asked for. */
  readonly passages: readonly Passage[];
}

/**
 * What is to be kept of a head: the same, where it is short. Otherwise its older tokens are put as parts first. The last
 * passage stays, since the next turn renders it again, and so do tokens that the state has not read.
 * @param newKey names a part
 */
export async function putParts(store: Pick<StateStore, "put">, head: Head, newKey: () => string): Promise<Head> {
  const { snapshot, conversation } = head;
  const { tokenIds } = snapshot;
  const last = conversation.passages.slice(-1);
  const numUnread = countTokens(snapshot) - snapshot.position;
  const numOpen = Math.max(countPassageTokens(last), numUnread) + CONTEXT_TOKENS;
  const numApart = Math.max(0, tokenIds.length - numOpen);
  if (numApart < PART_TOKENS && conversation.passages.length <= MAX_PASSAGES) return head;

  let past = snapshot.past;
  let numPut = 0;
  for (const passages of passagesByPart(conversation.passages.slice(0, -1), snapshot, numApart)) {
    const ids = tokenIds.slice(numPut, Math.min(numApart, numPut + MAX_PART_TOKENS));
    const key = newKey();
    await store.put(key, partOf(snapshot, past, ids, passages));
    numPut += ids.length;
    past = {
      key,
      numTokens: (past?.numTokens ?? 0) + ids.length,
      seenIds: withIds(past?.seenIds ?? new Uint8Array(0), ids),
    };
  }
  const kept = { ...conversation, passages: last };
  return {
    snapshot: { ...snapshot, past: past!, tokenIds: tokenIds.slice(numApart), conversation: kept },
    conversation: kept,
  };
}

/**
 * All that was said before a head's end.
 * @param numTokens if given, so many of the last tokens are enough
 * @throws `state_lost` if parts of it are gone
 */
export async function readHistory(
  store: Pick<StateStore, "get">,
  { snapshot, conversation }: Head,
  numTokens = Number.POSITIVE_INFINITY,
): Promise<History> {
  const snapshots = [...(await readParts(store, snapshot, numTokens - snapshot.tokenIds.length)), snapshot];
  const tokenIds: number[] = [];
  for (const [i, part] of snapshots.entries()) {
    for (const id of part.tokenIds) tokenIds.push(id);
    if (i % PARTS_AT_ONCE === 0) await setImmediate();
  }
  const passages = [...snapshots.slice(0, -1).flatMap(passagesOf), ...conversation.passages];
  // Those in front were followed by a completion: no template will ever render them.
  let first = passages.length;
  for (let numLeft = conversation.messages.count; numLeft > 0 && first > 0; )
    numLeft -= passages[--first]!.messages.length;
  return { tokenIds, passages: passages.slice(first) };
}

/**
 * The parts of a snapshot's past, the first one first.
 * @param numTokens if given, so many of the last tokens are enough
 * @throws `state_lost` if some are gone
 */
export async function readParts(
  store: Pick<StateStore, "get">,
  snapshot: Snapshot,
  numTokens = Number.POSITIVE_INFINITY,
): Promise<Snapshot[]> {
  const parts: Snapshot[] = [];
  let numFound = 0;
  for (let past = snapshot.past; past !== undefined && numFound < numTokens; past = parts.at(-1)!.past) {
    const part = await readPart(store, past);
    parts.push(part);
    numFound += part.tokenIds.length;
    if (parts.length % PARTS_AT_ONCE === 0) await setImmediate();
  }
  return parts.reverse();
}

/** Puts all parts of a past into another store, under the keys that they have. @throws `state_lost` */
export async function copyParts(from: Pick<StateStore, "get">, to: Pick<StateStore, "put">, head: Head): Promise<void> {
  for (let past = head.snapshot.past; past !== undefined; ) {
    const part: Snapshot = await readPart(from, past);
    await to.put(past.key, part);
    past = part.past;
  }
}

async function readPart(store: Pick<StateStore, "get">, { key, numTokens }: Past): Promise<Snapshot> {
  const part = await store.get(key);
  if (part !== undefined && countTokens(part) === numTokens) return part;
  throw new DenseMambaError(
    "state_lost",
    `the first ${numTokens} tokens of the conversation, which this request needs, are gone: the store has dropped them`,
  );
}

function partOf({ modelHash }: Snapshot, past: Past | undefined, tokenIds: number[], passages: Passage[]): Snapshot {
  return {
    ...statelessSnapshot(modelHash, { passages }),
    ...(past && { past: { key: past.key, numTokens: past.numTokens } }),
    tokenIds,
    isPart: true,
  };
}

export function passagesOf({ conversation }: Snapshot): readonly Passage[] {
  const parsed = passageList.safeParse((conversation as { passages?: unknown } | undefined)?.passages);
  if (parsed.success) return parsed.data as Passage[];
  throw new DenseMambaError("invalid_snapshot", `a part of the conversation is malformed: ${parsed.error.message}`);
}

/** A list for each part: a passage belongs to the part in which it ends, or to the last one. */
function passagesByPart(
  passages: readonly Passage[],
  { tokenIds, conversation }: Snapshot,
  numApart: number,
): Passage[][] {
  const parts = Array.from({ length: Math.max(1, Math.ceil(numApart / MAX_PART_TOKENS)) }, (): Passage[] => []);
  const { passages: all } = conversation as { passages: readonly Passage[] };
  let end = tokenIds.length - countPassageTokens(all);
  for (const passage of passages) {
    end += passage.numTokens;
    const part = Math.floor(Math.max(0, end - 1) / MAX_PART_TOKENS);
    parts[Math.min(part, parts.length - 1)]!.push(passage);
  }
  return parts;
}
