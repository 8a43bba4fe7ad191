/**
 * Sessions and stored responses on a `StateStore`, with locks and quotas. Each belongs to an owner
 * and is found only by that owner. Knows no engine.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import { addCheckpoint } from "./checkpoints.ts";
import { type ConversationSnapshot, newConversation } from "./conversation.ts";
import {
  type ConversationKey,
  ConversationStore,
  checkSessionId,
  conversationKey,
  notFound,
  type SessionSummary,
  toSummary,
} from "./conversation-store.ts";
import { type Lease, type LeaseParts, openLease } from "./lease.ts";
import { type LockedSessions, type Repeat, SessionLocks } from "./locks.ts";
import { Personas } from "./personas.ts";
import { BYTES_PER_TOKEN, bytesOf, type QuotaLimits, SessionQuota } from "./quota.ts";
import { type CheckpointInfo, SessionCheckpoints } from "./session-checkpoints.ts";
import { type ImportBounds, SessionFile, writeSessionFile } from "./session-file.ts";
import { SignedStates } from "./signed-states.ts";
import { countTokens, historyTokens, statelessSnapshot } from "./stores/snapshot.ts";
import type { StateStore } from "./stores/store.ts";

export interface SessionInfo extends SessionSummary {
  readonly id: string;
  readonly stateBytes: number;
  readonly busy: boolean;
}

export interface RetentionPolicy extends QuotaLimits {
  /** A session expires when it has not been used for so long. Default: never. */
  readonly sessionTtlMs?: number;
  /** A response expires so long after it was made. Default: never. */
  readonly responseTtlMs?: number;
  /** Of one session, the current one included. Default: any number. */
  readonly maxCheckpoints?: number;
  /** Of the states of one session's checkpoints, without the current one. Default: any number. */
  readonly maxCheckpointBytes?: number;
}

export interface ConversationsDeps {
  readonly store: StateStore;
  /** Memory alone, for responses that are not to be stored. Default: `store`. */
  readonly unstored?: StateStore;
  readonly manifest: Pick<Manifest, "modelHash" | "state" | "sizes">;
  /** Of states that clients keep. Default: its own. */
  readonly stateSecret?: string | undefined;
  /** Personas that the server was started with. Default: none. */
  readonly personas?: ReadonlyMap<string, ConversationSnapshot>;
  readonly newId: () => string;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
  readonly policy?: RetentionPolicy;
  /** Tokens that a file's state may not have read. Default: any number. */
  readonly maxUnreadTokens?: number;
  readonly repeat?: Repeat;
}

export class Conversations {
  readonly personas: Personas;
  /** Those that clients keep. */
  readonly states: SignedStates;
  readonly #store: ConversationStore;
  readonly #quota: SessionQuota;
  readonly #locks: SessionLocks;
  readonly #leaseParts: LeaseParts;
  readonly #importBounds: ImportBounds;
  readonly #stateBytes: number;
  readonly #checkpoints: SessionCheckpoints;
  readonly #newId: () => string;
  readonly #nowMs: () => number;

  constructor(deps: ConversationsDeps) {
    const { store, unstored = store, manifest, newId, nowMs, policy = {}, repeat } = deps;
    const { maxUnreadTokens = Number.POSITIVE_INFINITY } = deps;
    const { modelHash } = manifest;
    this.#store = new ConversationStore({ store, unstored, modelHash, newId, nowMs, ttls: policy });
    this.#quota = new SessionQuota(store, policy);
    this.#locks = new SessionLocks(store, repeat);
    this.#stateBytes = stateBytes(manifest.state);
    const { maxCheckpoints = Number.POSITIVE_INFINITY, maxCheckpointBytes = Number.POSITIVE_INFINITY } = policy;
    const maxCount = Math.min(maxCheckpoints, 1 + Math.floor(maxCheckpointBytes / this.#stateBytes));
    this.#checkpoints = new SessionCheckpoints(this.#store, this.#quota, maxCount);
    this.#importBounds = { manifest, maxUnreadTokens, maxCheckpoints: maxCount };
    this.#newId = newId;
    this.#nowMs = nowMs;
    this.states = new SignedStates({ modelHash, stateBytes: this.#stateBytes }, deps.stateSecret);
    const { personas: given = new Map() } = deps;
    this.personas = new Personas({
      given,
      store: this.#store,
      quota: this.#quota,
      bounds: this.#importBounds,
      nowMs,
    });
    this.#leaseParts = {
      store: this.#store,
      quota: this.#quota,
      checkpoints: this.#checkpoints,
      personas: this.personas,
      states: this.states,
      stateBytes: this.#stateBytes,
      nowMs,
    };
  }

  /** @throws `invalid_value` (the id), `session_exists`, `session_busy`, `quota_exceeded` */
  createSession(owner: string, id: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, id, async () => this.#emptySnapshot());
  }

  /** The least recently used first. */
  async listSessions(owner: string): Promise<SessionInfo[]> {
    const listed = await this.#store.listSessions(owner);
    const found = listed.map(({ id, summary }) => this.#info(owner, id, summary));
    return found.sort((a, b) => a.lastUsedAtMs - b.lastUsedAtMs || a.createdAtMs - b.createdAtMs);
  }

  /** @throws `session_not_found`, `invalid_snapshot` */
  async inspectSession(owner: string, id: string): Promise<SessionInfo> {
    return this.#info(owner, id, toSummary(await this.#store.read(owner, sessionKey(id))));
  }

  /** @throws `session_not_found`, `session_busy` */
  async deleteSession(owner: string, id: string): Promise<void> {
    await this.#whileLocked(owner, [id], async () => {
      if (!(await this.#store.delete(owner, sessionKey(id)))) throw notFound(sessionKey(id));
    });
  }

  /**
   * A copy of a session, or of one of its checkpoints. While the original generates, the copy is of
   * what was saved last. It begins without the checkpoints of the original.
   * @param checkpoint its id or name
   * @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value`,
   * `quota_exceeded`, `checkpoint_not_found`
   */
  forkSession(
    owner: string,
    id: string,
    newId: string = this.#newId(),
    { checkpoint }: { readonly checkpoint?: string | undefined } = {},
  ): Promise<SessionInfo> {
    return this.#add(owner, newId, () => this.#readAt(owner, id, checkpoint));
  }

  /** From a stored response. @throws `previous_response_not_found`, and as `forkSession` */
  forkResponse(owner: string, responseId: string, sessionId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, sessionId, () => this.#store.read(owner, { type: "response", id: responseId }));
  }

  /** From a persona. @throws `persona_not_found`, and as `forkSession` */
  forkPersona(owner: string, persona: string, sessionId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, sessionId, () => this.personas.read(owner, persona));
  }

  /** @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value` */
  async renameSession(owner: string, id: string, newId: string): Promise<SessionInfo> {
    checkSessionId(newId);
    if (id === newId) return this.inspectSession(owner, id);
    const [from, to] = [sessionKey(id), sessionKey(newId)];
    const summary = await this.#whileLocked(owner, [id, newId], async (locked) => {
      const snapshot = await this.#store.read(owner, from);
      await this.#checkIsFree(owner, newId);
      const renamed = await this.#store.put(owner, to, snapshot, locked.fence(conversationKey(owner, to)));
      // Last: a crash between the two leaves one session too many, not one too few.
      await this.#store.delete(owner, from);
      return renamed;
    });
    return this.#info(owner, newId, summary);
  }

  /**
   * For `importSession` on any server of the same model.
   * @param which one of its checkpoints, by its id or name, or the session with or without its
   * checkpoints
   * @throws `session_not_found`, `checkpoint_not_found`
   */
  async exportSession(
    owner: string,
    id: string,
    which: { readonly checkpoint?: string | undefined; readonly withCheckpoints?: boolean | undefined } = {},
  ): Promise<Uint8Array> {
    const { checkpoint, withCheckpoints = checkpoint === undefined } = which;
    const snapshot = await this.#readAt(owner, id, checkpoint);
    const { checkpoints: tree, ...conversation } = snapshot.conversation;
    return writeSessionFile(
      await this.#store.loadParts(owner, withCheckpoints ? snapshot : { ...snapshot, conversation }),
    );
  }

  /** Those that can be gone back to, the oldest first. @throws `session_not_found` */
  async listCheckpoints(owner: string, id: string): Promise<CheckpointInfo[]> {
    return this.#checkpoints.list(owner, await this.#store.read(owner, sessionKey(id)));
  }

  /**
   * Names the state that a session has, or one of its checkpoints.
   * @param which its id or name
   * @throws `session_not_found`, `checkpoint_not_found`, `session_busy`
   */
  async nameCheckpoint(owner: string, id: string, name: string, which?: string): Promise<CheckpointInfo> {
    const key = sessionKey(id);
    return this.#whileLocked(owner, [id], async (locked) => {
      const snapshot = await this.#store.read(owner, key);
      const { named, info } = await this.#checkpoints.name(owner, snapshot, name, which);
      await this.#store.put(owner, key, named, locked.fence(conversationKey(owner, key)));
      return info;
    });
  }

  /**
   * Makes a session continue from one of its checkpoints. The others stay.
   * @param to its id or name
   * @throws `session_not_found`, `checkpoint_not_found`, `session_busy`
   */
  async rollBackSession(owner: string, id: string, to: string): Promise<SessionInfo> {
    const key = sessionKey(id);
    const summary = await this.#whileLocked(owner, [id], async (locked) => {
      const before = await this.#store.read(owner, key);
      const next = await this.#checkpoints.rolledBack(owner, before, to, this.#nowMs());
      if (next === before) return toSummary(before);
      return this.#store.put(owner, key, next, locked.fence(conversationKey(owner, key)));
    });
    return this.#info(owner, id, summary);
  }

  /**
   * @param bytes not copied: must not be changed afterwards
   * @throws `invalid_snapshot`, `session_exists`, `session_busy`, `invalid_value`, `quota_exceeded`
   */
  async importSession(owner: string, bytes: Uint8Array, id: string = this.#newId()): Promise<SessionInfo> {
    checkSessionId(id);
    const file = await SessionFile.read(bytes, this.#importBounds);
    const prepare = () => this.#store.importParts(owner, file);
    return this.#add(owner, id, async () => file.snapshot, { prepare, bytes: file.numCheckpoints * this.#stateBytes });
  }

  /**
   * Holds an id as a session's is held while it is used, whether there is such a session or not.
   * @throws `session_busy`
   */
  lock(owner: string, id: string): Promise<Pick<Lease, "release">> {
    checkSessionId(id);
    return this.#lock(owner, [id]);
  }

  /** Whether a request on this server uses the session. */
  isBusy(owner: string, id: string): boolean {
    return this.#locks.isLocked(conversationKey(owner, sessionKey(id)));
  }

  /** Deletes a response's state and record. @throws `response_not_found` */
  async deleteResponse(owner: string, id: string): Promise<void> {
    const [hadState, hadRecord] = await Promise.all([
      this.#store.delete(owner, { type: "response", id }),
      this.#store.deleteRecord(owner, id),
    ]);
    if (!hadState && !hadRecord) throw responseNotFound(id);
  }

  /** @returns whether it existed */
  deleteUnstored(owner: string, id: string): Promise<boolean> {
    return this.#store.delete(owner, { type: "unstored", id });
  }

  /** What the server needs to show a response later. Replaces. @param record JSON-serialisable */
  saveRecord(owner: string, responseId: string, record: unknown): Promise<void> {
    return this.#store.putRecord(owner, responseId, record);
  }

  /** @throws `response_not_found` */
  async readRecord(owner: string, responseId: string): Promise<unknown> {
    const found = await this.#store.findRecord(owner, responseId);
    if (found === undefined) throw responseNotFound(responseId);
    return found.record;
  }

  /**
   * Reads what a request continues. If it is to be saved in a session, locks the sessions that it
   * uses, before anything is awaited; a request that only reads a session continues a copy of it.
   * @throws `session_busy`, `session_not_found`, `previous_response_not_found`, `invalid_snapshot`,
   * `quota_exceeded`
   */
  async open(
    owner: string,
    resumeFrom: ConversationKey | undefined,
    saveAs: ConversationKey | undefined,
  ): Promise<Lease> {
    const ids = new Set([resumeFrom, saveAs].flatMap((key) => (key?.type === "session" ? [key.id] : [])));
    for (const id of ids) checkSessionId(id);
    const locked = await this.#lock(owner, saveAs?.type === "session" ? [...ids] : []);
    try {
      return await openLease(this.#leaseParts, { owner, resumeFrom, saveAs, locked });
    } catch (error) {
      await locked.release();
      throw error;
    }
  }

  /** A session's state, or that of one of its checkpoints. @throws `checkpoint_not_found` */
  async #readAt(owner: string, id: string, checkpoint: string | undefined): Promise<ConversationSnapshot> {
    const snapshot = await this.#store.read(owner, sessionKey(id));
    return checkpoint === undefined ? snapshot : this.#checkpoints.read(owner, snapshot, checkpoint);
  }

  /**
   * @param make makes its first snapshot; its age starts now
   * @param prepare stores what must precede it, of so many bytes, once the quota allows it; returns
   * the snapshot to put, with checkpoints of its own
   */
  async #add(
    owner: string,
    id: string,
    make: () => Promise<ConversationSnapshot>,
    given: { readonly prepare?: () => Promise<ConversationSnapshot>; readonly bytes?: number } = {},
  ): Promise<SessionInfo> {
    checkSessionId(id);
    const key = sessionKey(id);
    const summary = await this.#whileLocked(owner, [id], async (locked) => {
      const snapshot = await make();
      await this.#checkIsFree(owner, id);
      const fence = locked.fence(conversationKey(owner, key));
      const { prepare = async () => withoutCheckpoints(snapshot), bytes: extraBytes = 0 } = given;
      const put = async () => this.#store.put(owner, key, this.#newborn(await prepare()), fence);
      const bytes = bytesOf(snapshot) + historyTokens(snapshot.history) * BYTES_PER_TOKEN + extraBytes;
      return this.#quota.admit(owner, { numSessions: 1, bytes }, put);
    });
    return this.#info(owner, id, summary);
  }

  async #checkIsFree(owner: string, id: string): Promise<void> {
    if (!(await this.#store.has(owner, sessionKey(id)))) return;
    throw new DenseMambaError("session_exists", `session ${id} exists already`, { param: "session_id" });
  }

  #lock(owner: string, ids: readonly string[]): Promise<LockedSessions> {
    return this.#locks.acquire(new Map(ids.map((id) => [conversationKey(owner, sessionKey(id)), id])));
  }

  async #whileLocked<T>(
    owner: string,
    ids: readonly string[],
    act: (locked: LockedSessions) => Promise<T>,
  ): Promise<T> {
    const locked = await this.#lock(owner, ids);
    try {
      return await act(locked);
    } finally {
      await locked.release();
    }
  }

  #emptySnapshot(): ConversationSnapshot {
    const conversation = newConversation(0);
    return { ...statelessSnapshot(this.#importBounds.manifest.modelHash, conversation), conversation };
  }

  /** A file may claim any age: one that was last used in the future might never expire. */
  #newborn(snapshot: ConversationSnapshot): ConversationSnapshot {
    const nowMs = this.#nowMs();
    const first = () => {
      if (snapshot.state.length === 0) return undefined;
      const id = this.#store.newCheckpointId();
      return addCheckpoint(undefined, { id, numTokens: countTokens(snapshot), createdAtMs: nowMs });
    };
    const { checkpoints = first() } = snapshot.conversation;
    const times = { createdAtMs: nowMs, lastUsedAtMs: nowMs };
    return { ...snapshot, conversation: { ...snapshot.conversation, ...times, ...(checkpoints && { checkpoints }) } };
  }

  #info(owner: string, id: string, summary: SessionSummary): SessionInfo {
    return { id, ...summary, stateBytes: this.#stateBytes, busy: this.isBusy(owner, id) };
  }
}

function sessionKey(id: string): ConversationKey {
  return { type: "session", id };
}

function withoutCheckpoints(snapshot: ConversationSnapshot): ConversationSnapshot {
  const { checkpoints: _, personaHash: __, ...conversation } = snapshot.conversation;
  return { ...snapshot, conversation };
}

function responseNotFound(id: string): DenseMambaError {
  return new DenseMambaError("response_not_found", `response ${id} is not stored here`, { param: "response_id" });
}
