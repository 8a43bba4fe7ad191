/**
 * Long histories in segments: older tokens and messages are stored apart from the conversation's
 * snapshot, in segments that are written once, each naming the one before it. So what a turn writes
 * does not depend on the length of the conversation, and all that continue from one history share
 * it. Most turns never read it; only those do that need earlier messages or all token ids. Knows
 * neither owners nor locks.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import { CONTEXT_TOKENS } from "../tokenizer/tokenizer.ts";
import type { ConversationSnapshot } from "./conversation.ts";
import { countSpanTokens, type MessageSpan, messageSpans } from "./messages.ts";
import {
  countTokens,
  type HistoryRef,
  historyTokens,
  type Snapshot,
  statelessSnapshot,
  withIds,
} from "./stores/snapshot.ts";
import type { SnapshotStore } from "./stores/store.ts";

/** A segment is made once a snapshot has so many more tokens than it needs. */
export const SEGMENT_TOKENS = 4096;
/** Or more spans than this, since some have no tokens. */
const MAX_SPANS = 256;
/** A turn that adds more makes several segments. */
export const MAX_SEGMENT_TOKENS = 65_536;
/** Segments read between two turns of the event loop, where they are in memory. */
const SEGMENTS_AT_ONCE = 8;

export interface History {
  readonly tokenIds: readonly number[];
  /** Of all messages, if all tokens were asked for. */
  readonly spans: readonly MessageSpan[];
}

/**
 * Puts the older tokens of a long conversation into segments. The last span stays in the snapshot,
 * since the next turn renders it again, and so do tokens that the state has not read.
 * @param newKey for a segment
 * @returns what is to be put instead of the snapshot
 */
export async function putSegments(
  store: Pick<SnapshotStore, "put">,
  snapshot: ConversationSnapshot,
  newKey: () => string,
): Promise<ConversationSnapshot> {
  const { tokenIds, conversation, modelHash } = snapshot;
  const last = conversation.spans.slice(-1);
  const numUnread = countTokens(snapshot) - snapshot.position;
  const numToStay = Math.max(countSpanTokens(last), numUnread) + CONTEXT_TOKENS;
  const numToMove = Math.max(0, tokenIds.length - numToStay);
  if (numToMove < SEGMENT_TOKENS && conversation.spans.length <= MAX_SPANS) return snapshot;

  let { history } = snapshot;
  let numMoved = 0;
  for (const spans of spansBySegment(snapshot, numToMove)) {
    const ids = tokenIds.slice(numMoved, Math.min(numToMove, numMoved + MAX_SEGMENT_TOKENS));
    const previous = history && { history: { key: history.key, numTokens: history.numTokens } };
    const key = newKey();
    await store.put(key, { ...statelessSnapshot(modelHash, { spans }), ...previous, tokenIds: ids, isSegment: true });
    numMoved += ids.length;
    const seenIds = withIds(history?.seenIds ?? new Uint8Array(0), ids);
    history = { key, numTokens: historyTokens(history) + ids.length, seenIds };
  }
  return {
    ...snapshot,
    history: history!,
    tokenIds: tokenIds.slice(numToMove),
    conversation: { ...conversation, spans: last },
  };
}

/**
 * A conversation with its segments.
 * @param numTokens if given, so many of the last tokens are enough
 * @throws `state_lost` if segments are gone
 */
export async function loadHistory(
  store: Pick<SnapshotStore, "get">,
  snapshot: ConversationSnapshot,
  numTokens = Number.POSITIVE_INFINITY,
): Promise<History> {
  const segments = await loadSegments(store, snapshot, numTokens - snapshot.tokenIds.length);
  const tokenIds: number[] = [];
  for (const [i, part] of [...segments, snapshot].entries()) {
    for (const id of part.tokenIds) tokenIds.push(id);
    if (i % SEGMENTS_AT_ONCE === 0) await setImmediate();
  }
  const spans = [...segments.flatMap(spansOf), ...snapshot.conversation.spans];
  // Earlier ones were followed by a completion: no template will ever render them.
  let first = spans.length;
  for (let numLeft = snapshot.conversation.messages.count; numLeft > 0 && first > 0; ) {
    numLeft -= spans[--first]!.messages.length;
  }
  return { tokenIds, spans: spans.slice(first) };
}

/**
 * The segments of a snapshot's history, the first one first.
 * @param numTokens if given, so many of the last tokens are enough
 * @throws `state_lost` if some are gone
 */
export async function loadSegments(
  store: Pick<SnapshotStore, "get">,
  snapshot: Snapshot,
  numTokens = Number.POSITIVE_INFINITY,
): Promise<Snapshot[]> {
  const segments: Snapshot[] = [];
  let numFound = 0;
  for (let { history } = snapshot; history !== undefined && numFound < numTokens; ) {
    const segment = await loadSegment(store, history);
    segments.push(segment);
    numFound += segment.tokenIds.length;
    if (segments.length % SEGMENTS_AT_ONCE === 0) await setImmediate();
    history = segment.history;
  }
  return segments.reverse();
}

/**
 * The segments of several histories by their keys, each after the one before it.
 * @throws `state_lost`
 */
export async function collectSegments(
  store: Pick<SnapshotStore, "get">,
  snapshots: readonly Snapshot[],
): Promise<Map<string, Snapshot>> {
  const segments = new Map<string, Snapshot>();
  for (const snapshot of snapshots) {
    const chain: [string, Snapshot][] = [];
    for (let { history } = snapshot; history !== undefined && !segments.has(history.key); ) {
      const segment = await loadSegment(store, history);
      chain.push([history.key, segment]);
      if (chain.length % SEGMENTS_AT_ONCE === 0) await setImmediate();
      history = segment.history;
    }
    for (const [key, segment] of chain.reverse()) segments.set(key, segment);
  }
  return segments;
}

/** Copies a history into another store, under the same keys. @throws `state_lost` */
export async function copySegments(
  from: Pick<SnapshotStore, "get">,
  to: Pick<SnapshotStore, "put">,
  snapshot: Snapshot,
): Promise<void> {
  for (let { history } = snapshot; history !== undefined; ) {
    const segment = await loadSegment(from, history);
    await to.put(history.key, segment);
    history = segment.history;
  }
}

async function loadSegment(store: Pick<SnapshotStore, "get">, { key, numTokens }: HistoryRef): Promise<Snapshot> {
  const segment = await store.get(key);
  if (segment !== undefined && countTokens(segment) === numTokens) return segment;
  throw new DenseMambaError(
    "state_lost",
    `the first ${numTokens} tokens of the conversation, which this request needs, are gone: the store has dropped them`,
  );
}

/** @throws `invalid_snapshot` */
export function spansOf({ conversation }: Snapshot): readonly MessageSpan[] {
  const { data, error } = messageSpans.safeParse((conversation as { spans?: unknown } | undefined)?.spans);
  if (data !== undefined) return data;
  throw new DenseMambaError("invalid_snapshot", `a part of the conversation is malformed: ${error.message}`);
}

/** All spans but the last. A span belongs to the segment in which it ends, or to the last one. */
function spansBySegment({ tokenIds, conversation }: ConversationSnapshot, numToMove: number): MessageSpan[][] {
  const numSegments = Math.max(1, Math.ceil(numToMove / MAX_SEGMENT_TOKENS));
  const segments = Array.from({ length: numSegments }, (): MessageSpan[] => []);
  let end = tokenIds.length - countSpanTokens(conversation.spans);
  for (const span of conversation.spans.slice(0, -1)) {
    end += span.numTokens;
    const segment = Math.floor(Math.max(0, end - 1) / MAX_SEGMENT_TOKENS);
    segments[Math.min(segment, numSegments - 1)]!.push(span);
  }
  return segments;
}
