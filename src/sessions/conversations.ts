/**
 * Sessions and stored responses on a `StateStore`, with locks and quotas. Each belongs to an owner
 * and is found only by that owner. Knows no engine.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { ConversationSnapshot } from "./conversation.ts";
import {
  type ConversationKey,
  ConversationStore,
  checkSessionId,
  conversationKey,
  notFound,
  type SessionSummary,
  toSummary,
} from "./conversation-store.ts";
import type { History } from "./history.ts";
import { type LockedSessions, type Repeat, SessionLocks } from "./locks.ts";
import { digestText, NO_MESSAGES } from "./messages.ts";
import { type QuotaLimits, SessionQuota } from "./quota.ts";
import { type ImportBounds, SessionFile, writeSessionFile } from "./session-file.ts";
import { countTokens, historyTokens, statelessSnapshot } from "./stores/snapshot.ts";
import type { StateStore } from "./stores/store.ts";

/** In a store, approximately. */
const BYTES_PER_TOKEN = 4;

export interface SessionInfo extends SessionSummary {
  readonly id: string;
  readonly stateBytes: number;
  readonly busy: boolean;
}

/** The conversation that a request continues. */
export interface ResumedConversation {
  readonly snapshot: ConversationSnapshot;
  /**
   * Loads all of it, or at least the last `numTokens`. The work grows with its length.
   * @throws `state_lost`
   */
  readonly loadHistory: (numTokens?: number) => Promise<History>;
}

/** What one request holds while it runs. */
export interface Lease {
  /** Undefined for a new conversation. */
  readonly resumed: ResumedConversation | undefined;
  /** When the conversation to be saved began. */
  readonly createdAtMs: number;
  /** Now, but never before its last use, whatever the clock says. */
  readonly lastUsedAtMs: number;
  /** Under the key asked for, if any. @throws `session_conflict`, the store's errors */
  save(snapshot: ConversationSnapshot): Promise<void>;
  /** Idempotent. Once it has resolved, others may use the sessions, on other servers too. */
  release(): Promise<void>;
}

export interface RetentionPolicy extends QuotaLimits {
  /** A session expires when it has not been used for so long. Default: never. */
  readonly sessionTtlMs?: number;
  /** A response expires so long after it was made. Default: never. */
  readonly responseTtlMs?: number;
}

export interface ConversationsDeps {
  readonly store: StateStore;
  /** Memory alone, for responses that are not to be stored. Default: `store`. */
  readonly unstored?: StateStore;
  readonly manifest: Pick<Manifest, "modelHash" | "state" | "sizes">;
  readonly newId: () => string;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
  readonly policy?: RetentionPolicy;
  /** Tokens that a file's state may not have read. Default: any number. */
  readonly maxUnreadTokens?: number;
  readonly repeat?: Repeat;
}

export class Conversations {
  readonly #store: ConversationStore;
  readonly #quota: SessionQuota;
  readonly #locks: SessionLocks;
  readonly #importBounds: ImportBounds;
  readonly #stateBytes: number;
  readonly #newId: () => string;
  readonly #nowMs: () => number;

  constructor(deps: ConversationsDeps) {
    const { store, unstored = store, manifest, newId, nowMs, policy = {}, repeat } = deps;
    const { maxUnreadTokens = Number.POSITIVE_INFINITY } = deps;
    const { modelHash } = manifest;
    this.#store = new ConversationStore({ store, unstored, modelHash, newId, nowMs, ttls: policy });
    this.#quota = new SessionQuota(store, policy);
    this.#locks = new SessionLocks(store, repeat);
    this.#importBounds = { manifest, maxUnreadTokens };
    this.#stateBytes = stateBytes(manifest.state);
    this.#newId = newId;
    this.#nowMs = nowMs;
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
   * A copy of a session. While the original generates, the copy is of what was saved last.
   * @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value`,
   * `quota_exceeded`
   */
  forkSession(owner: string, id: string, newId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, newId, () => this.#store.read(owner, sessionKey(id)));
  }

  /** From a stored response. @throws `previous_response_not_found`, and as `forkSession` */
  forkResponse(owner: string, responseId: string, sessionId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, sessionId, () => this.#store.read(owner, { type: "response", id: responseId }));
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

  /** For `importSession` on any server of the same model. @throws `session_not_found` */
  async exportSession(owner: string, id: string): Promise<Uint8Array> {
    const snapshot = await this.#store.read(owner, sessionKey(id));
    return writeSessionFile(snapshot, await this.#store.loadSegments(snapshot));
  }

  /**
   * @param bytes not copied: must not be changed afterwards
   * @throws `invalid_snapshot`, `session_exists`, `session_busy`, `invalid_value`, `quota_exceeded`
   */
  async importSession(owner: string, bytes: Uint8Array, id: string = this.#newId()): Promise<SessionInfo> {
    checkSessionId(id);
    const file = await SessionFile.read(bytes, this.#importBounds);
    const prepare = () => this.#store.importSegments(owner, file);
    return this.#add(owner, id, async () => file.snapshot, prepare);
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
      const resumed = resumeFrom && (await this.#store.read(owner, resumeFrom));
      const replaced =
        saveAs?.type === "session" ? await this.#replaced(owner, saveAs, resumeFrom, resumed) : undefined;
      if (saveAs?.type === "response") await this.#admitState(owner, 0);
      const earlier = (resumed ?? replaced)?.conversation;
      const snapshot = resumed && countTokens(resumed) > 0 ? resumed : undefined;
      const nowMs = this.#nowMs();
      return {
        resumed: snapshot && {
          snapshot,
          loadHistory: (numTokens) => this.#store.loadHistory(snapshot, numTokens),
        },
        createdAtMs: earlier?.createdAtMs ?? nowMs,
        lastUsedAtMs: Math.max(nowMs, earlier?.lastUsedAtMs ?? nowMs),
        save: async (next) => {
          if (saveAs === undefined) return;
          if (resumeFrom?.type === "unstored" && saveAs.type !== "unstored") await this.#store.storeSegments(next);
          const put = () => this.#store.put(owner, saveAs, next, locked.fence(conversationKey(owner, saveAs)));
          // Again for a response, since others may have been saved since it began.
          const isNew = saveAs.type === "response";
          await (isNew ? this.#quota.admit(owner, { numSessions: 0, bytes: bytesOf(next) }, put) : put());
        },
        release: locked.release,
      };
    } catch (error) {
      await locked.release();
      throw error;
    }
  }

  /** What the session holds before it is saved. Checks the quota before its first state is made. */
  async #replaced(
    owner: string,
    key: ConversationKey,
    resumeFrom: ConversationKey | undefined,
    resumed: ConversationSnapshot | undefined,
  ): Promise<ConversationSnapshot | undefined> {
    const isSame = resumeFrom?.type === "session" && resumeFrom.id === key.id;
    const replaced = isSame ? resumed : await this.#store.find(owner, key);
    if (replaced === undefined) await this.#admitState(owner, 1);
    else if (replaced.state.length === 0) await this.#admitState(owner, 0);
    return replaced;
  }

  /** @throws `quota_exceeded` if there will be no room for a state */
  #admitState(owner: string, numSessions: number): Promise<void> {
    return this.#quota.admit(owner, { numSessions, bytes: this.#stateBytes }, async () => undefined);
  }

  /**
   * @param make makes its first snapshot; its age starts now
   * @param prepare stores what must precede it, once the quota allows it; returns the snapshot to
   * put
   */
  async #add(
    owner: string,
    id: string,
    make: () => Promise<ConversationSnapshot>,
    prepare = async (snapshot: ConversationSnapshot) => snapshot,
  ): Promise<SessionInfo> {
    checkSessionId(id);
    const key = sessionKey(id);
    const summary = await this.#whileLocked(owner, [id], async (locked) => {
      const snapshot = await make();
      await this.#checkIsFree(owner, id);
      const fence = locked.fence(conversationKey(owner, key));
      const put = async () => this.#store.put(owner, key, this.#newborn(await prepare(snapshot)), fence);
      const bytes = bytesOf(snapshot) + historyTokens(snapshot.history) * BYTES_PER_TOKEN;
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
    const chat = { numPreambleTokens: 0, spans: [], messages: NO_MESSAGES, ...digestText("") };
    const conversation = { ...chat, createdAtMs: 0, lastUsedAtMs: 0 };
    return { ...statelessSnapshot(this.#importBounds.manifest.modelHash, conversation), conversation };
  }

  /** A file may claim any age: one that was last used in the future might never expire. */
  #newborn(snapshot: ConversationSnapshot): ConversationSnapshot {
    const nowMs = this.#nowMs();
    return { ...snapshot, conversation: { ...snapshot.conversation, createdAtMs: nowMs, lastUsedAtMs: nowMs } };
  }

  #info(owner: string, id: string, summary: SessionSummary): SessionInfo {
    return { id, ...summary, stateBytes: this.#stateBytes, busy: this.isBusy(owner, id) };
  }
}

function sessionKey(id: string): ConversationKey {
  return { type: "session", id };
}

function bytesOf({ state, tokenIds }: ConversationSnapshot): number {
  return state.length + tokenIds.length * BYTES_PER_TOKEN;
}

function responseNotFound(id: string): DenseMambaError {
  return new DenseMambaError("response_not_found", `response ${id} is not stored here`, { param: "response_id" });
}
