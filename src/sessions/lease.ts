/**
 * What one request holds of the stored conversations while it runs: the one that it continues, and
 * where it saves the next. Whoever opens a lease has locked the sessions before.
 */

import type { ConversationSnapshot } from "./conversation.ts";
import { type ConversationKey, type ConversationStore, conversationKey } from "./conversation-store.ts";
import type { History } from "./history.ts";
import type { LockedSessions } from "./locks.ts";
import type { Personas } from "./personas.ts";
import { bytesOf, type SessionQuota } from "./quota.ts";
import type { SessionCheckpoints } from "./session-checkpoints.ts";
import type { SignedStates } from "./signed-states.ts";
import { countTokens } from "./stores/snapshot.ts";

/** The conversation that a request continues. */
export interface ResumedConversation {
  /** Without tokens, it is a state to begin from. */
  readonly snapshot: ConversationSnapshot;
  /** If it is a persona: tells it from others. */
  readonly personaHash?: string;
  /**
   * Loads all of it, or at least the last `numTokens`. The work grows with its length.
   * @throws `state_lost`
   */
  readonly loadHistory: (numTokens?: number) => Promise<History>;
  /**
   * The state before its first token; undefined: zeros.
   * @throws `persona_not_found`
   */
  readonly loadStart: () => Promise<Uint8Array | undefined>;
}

/** What one request holds while it runs. */
export interface Lease {
  /** Undefined for a new conversation. */
  readonly resumed: ResumedConversation | undefined;
  /** When the conversation to be saved began. */
  readonly createdAtMs: number;
  /** Now, but never before its last use, whatever the clock says. */
  readonly lastUsedAtMs: number;
  /** Begins to store the state that a session has as a checkpoint, while the answer is generated. */
  keepCheckpoint(): void;
  /**
   * Under the key asked for, if any.
   * @param checkpoint the name of the state that a session has then
   * @throws `session_conflict`, the store's errors
   */
  save(snapshot: ConversationSnapshot, checkpoint?: string): Promise<void>;
  /** Idempotent. Once it has resolved, others may use the sessions, on other servers too. */
  release(): Promise<void>;
}

export interface LeaseParts {
  readonly store: ConversationStore;
  readonly quota: SessionQuota;
  readonly checkpoints: SessionCheckpoints;
  readonly personas: Personas;
  /** Those that clients keep. */
  readonly states: SignedStates;
  /** Of one conversation. */
  readonly stateBytes: number;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
}

export interface LeaseRequest {
  readonly owner: string;
  readonly resumeFrom: ConversationKey | undefined;
  readonly saveAs: ConversationKey | undefined;
  readonly locked: LockedSessions;
}

/**
 * @throws `session_not_found`, `previous_response_not_found`, `persona_not_found`,
 * `invalid_import`, `invalid_snapshot`, `quota_exceeded`
 */
export async function openLease(parts: LeaseParts, request: LeaseRequest): Promise<Lease> {
  const { store, quota, checkpoints, nowMs } = parts;
  const { owner, resumeFrom, saveAs, locked } = request;
  const resumed = resumeFrom && (await readResumed(parts, owner, resumeFrom));
  const replaced = saveAs?.type === "session" ? await readReplaced(parts, request, saveAs, resumed) : undefined;
  if (saveAs?.type === "response") await admitState(parts, owner, 0);
  const isBegun = resumeFrom?.type === "persona" && replaced === undefined;
  const earlier = isBegun ? undefined : (replaced ?? resumed)?.conversation;
  const now = nowMs();
  let storing: Promise<boolean | Error> | undefined;
  const storeReplaced = () => {
    storing ??= replaced && checkpoints.store(owner, replaced).catch((error: Error) => error);
    return storing;
  };
  const saveSession = async (key: ConversationKey, next: ConversationSnapshot, checkpoint: string | undefined) => {
    const isStored = await storeReplaced();
    if (isStored instanceof Error) throw isStored;
    const before = replaced?.conversation.checkpoints;
    const advanced = checkpoints.advanced(next, { before, isStored: isStored === true, checkpoint });
    await store.put(owner, key, advanced, locked.fence(conversationKey(owner, key)));
    checkpoints.deleteDropped(owner, before, advanced);
  };
  return {
    resumed: resumed && resumed.state.length > 0 ? toResumed(parts, owner, resumed) : undefined,
    createdAtMs: earlier?.createdAtMs ?? now,
    lastUsedAtMs: Math.max(now, earlier?.lastUsedAtMs ?? now),
    keepCheckpoint: () => void storeReplaced(),
    save: async (next, checkpoint) => {
      if (saveAs === undefined) return;
      if (resumeFrom?.type === "unstored" && saveAs.type !== "unstored") await store.storeSegments(next);
      if (saveAs.type === "session") return saveSession(saveAs, next, checkpoint);
      const put = () => store.put(owner, saveAs, next);
      // Again for a response, since others may have been saved since it began.
      const isNew = saveAs.type === "response";
      await (isNew ? quota.admit(owner, { numSessions: 0, bytes: bytesOf(next) }, put) : put());
    },
    release: locked.release,
  };
}

async function readResumed(
  { store, personas, states }: LeaseParts,
  owner: string,
  key: ConversationKey,
): Promise<ConversationSnapshot> {
  switch (key.type) {
    case "persona":
      return personas.read(owner, key.id);
    case "given":
      return states.open(key.id);
    default:
      return store.read(owner, key);
  }
}

/** What the session holds before it is saved. Checks the quota before its first state is made. */
async function readReplaced(
  parts: LeaseParts,
  { owner, resumeFrom }: LeaseRequest,
  key: ConversationKey,
  resumed: ConversationSnapshot | undefined,
): Promise<ConversationSnapshot | undefined> {
  const isSame = resumeFrom?.type === "session" && resumeFrom.id === key.id;
  const replaced = isSame ? resumed : await parts.store.find(owner, key);
  if (replaced === undefined) await admitState(parts, owner, 1);
  else if (replaced.state.length === 0) await admitState(parts, owner, 0);
  return replaced;
}

/** @throws `quota_exceeded` if there will be no room for a state */
function admitState({ quota, stateBytes: bytes }: LeaseParts, owner: string, numSessions: number): Promise<void> {
  return quota.admit(owner, { numSessions, bytes }, async () => undefined);
}

function toResumed(
  { store, personas }: LeaseParts,
  owner: string,
  snapshot: ConversationSnapshot,
): ResumedConversation {
  const { startedFrom, personaHash } = snapshot.conversation;
  return {
    snapshot,
    ...(personaHash !== undefined && { personaHash }),
    loadHistory: (numTokens) => store.loadHistory(snapshot, numTokens),
    loadStart: async () => {
      if (countTokens(snapshot) === 0) return snapshot.state;
      return startedFrom && personas.startState(owner, startedFrom);
    },
  };
}
