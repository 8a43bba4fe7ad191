/**
 * Sessions and kept responses, over a `StateStore`. A session is a moving head that one request at a time may use; a
 * response is a head that never changes. Everything belongs to an owner and is found by that owner only; whom an owner
 * stands for is the server's business. Knows no engine.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import { decodeSnapshot, encodeSnapshot } from "../session/codec.ts";
import type { ListedSnapshot, StateStore } from "../session/store.ts";
import { type Head, openHead } from "./conversation.ts";
import type { ConversationKey } from "./events.ts";
import { CardMemory, cardOf, type SessionCard, statelessSnapshot } from "./session-card.ts";
import { checkSessionId, headKey, recordKey, sessionPrefix } from "./session-keys.ts";
import { type HeldSessions, type Repeat, SessionLocks } from "./session-locks.ts";
import { type QuotaLimits, SessionQuota } from "./session-quota.ts";

export interface SessionInfo extends SessionCard {
  readonly id: string;
  readonly stateBytes: number;
  readonly busy: boolean;
}

/** What one request holds while it runs. */
export interface Lease {
  /** What it goes on from; undefined for a new conversation. */
  readonly head: Head | undefined;
  /** When the conversation that will be kept began. */
  readonly createdAtMs: number;
  /** When it was used last: now, and never before it was used last before, whatever the clock says. */
  readonly lastUsedAtMs: number;
  /** Keeps the new head under the key asked for. Does nothing if none was. @throws `session_conflict`, the store's errors */
  keep(head: Head): Promise<void>;
  /** Idempotent. Free to others, on other servers too, once it has resolved. */
  release(): Promise<void>;
}

export interface KeepingPolicy extends QuotaLimits {
  /** A session that is not used for so long is forgotten. Default: never. */
  readonly sessionTtlMs?: number;
  /** A response is forgotten so long after it was made. Default: never. */
  readonly responseTtlMs?: number;
}

export interface ConversationsDeps {
  readonly store: StateStore;
  /** Memory alone, for responses that are not to be stored. Default: `store`. */
  readonly unstored?: StateStore;
  readonly manifest: Pick<Manifest, "modelHash" | "state">;
  readonly newId: () => string;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
  readonly policy?: KeepingPolicy;
  readonly repeat?: Repeat;
}

/** Sessions that are read at once for a list, where their cards are not remembered. */
const LIST_BATCH = 16;

export class Conversations {
  readonly #store: StateStore;
  readonly #unstored: StateStore;
  readonly #manifest: Pick<Manifest, "modelHash" | "state">;
  readonly #newId: () => string;
  readonly #nowMs: () => number;
  readonly #policy: KeepingPolicy;
  readonly #quota: SessionQuota;
  readonly #locks: SessionLocks;
  readonly #cards = new CardMemory();

  constructor({ store, unstored = store, manifest, newId, nowMs, policy = {}, repeat }: ConversationsDeps) {
    this.#store = store;
    this.#unstored = unstored;
    this.#manifest = manifest;
    this.#newId = newId;
    this.#nowMs = nowMs;
    this.#policy = policy;
    this.#quota = new SessionQuota(store, policy);
    this.#locks = new SessionLocks(store, repeat);
  }

  /** @throws `invalid_value` for a malformed id, `session_exists`, `session_busy`, `quota_exceeded` */
  createSession(owner: string, id: string = this.#newId()): Promise<SessionInfo> {
    const nowMs = this.#nowMs();
    return this.#add(owner, id, async () => this.#emptyHead(nowMs));
  }

  /** The least recently used first. */
  async listSessions(owner: string): Promise<SessionInfo[]> {
    const prefix = sessionPrefix(owner);
    const listed: ListedSnapshot[] = [];
    for await (const entry of this.#store.list(prefix)) listed.push(entry);
    const found: SessionInfo[] = [];
    for (let first = 0; first < listed.length; first += LIST_BATCH) {
      const batch = listed.slice(first, first + LIST_BATCH);
      const cards = await Promise.all(batch.map((entry) => this.#cardOf(entry)));
      for (const [i, card] of cards.entries()) {
        if (card !== undefined) found.push(this.#info(batch[i]!.key.slice(prefix.length), owner, card));
      }
    }
    return found.sort((a, b) => a.lastUsedAtMs - b.lastUsedAtMs || a.createdAtMs - b.createdAtMs);
  }

  /** @throws `session_not_found`, `invalid_snapshot` */
  async inspectSession(owner: string, id: string): Promise<SessionInfo> {
    return this.#info(id, owner, cardOf(await this.#openHead(owner, { type: "session", id })));
  }

  /** @throws `session_not_found`, `session_busy` */
  async deleteSession(owner: string, id: string): Promise<void> {
    await this.#whileHeld(owner, [id], async () => {
      if (!(await this.#forget(owner, id))) throw notFound({ type: "session", id });
    });
  }

  /**
   * A second session with the same past. While the first one generates, its past is what was kept last.
   * @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value`, `quota_exceeded`
   */
  forkSession(owner: string, id: string, newId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, newId, () => this.#openHead(owner, { type: "session", id }));
  }

  /** A session that goes on from a kept response. @throws `previous_response_not_found`, and as `forkSession` */
  forkResponse(owner: string, responseId: string, sessionId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, sessionId, () => this.#openHead(owner, { type: "response", id: responseId }));
  }

  /** @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value` */
  async renameSession(owner: string, id: string, newId: string): Promise<SessionInfo> {
    checkSessionId(newId);
    if (id === newId) return this.inspectSession(owner, id);
    const card = await this.#whileHeld(owner, [id, newId], async (held) => {
      const head = await this.#openHead(owner, { type: "session", id });
      await this.#checkFree(owner, newId);
      const renamed = await this.#putSession(owner, newId, head, held);
      // Last: a crash between the two leaves one session too many, never one too few.
      await this.#forget(owner, id);
      return renamed;
    });
    return this.#info(newId, owner, card);
  }

  /** The session as a file, for `importSession` on any server of the same model. @throws `session_not_found` */
  async exportSession(owner: string, id: string): Promise<Uint8Array> {
    const { snapshot } = await this.#openHead(owner, { type: "session", id });
    return encodeSnapshot(snapshot);
  }

  /**
   * @param bytes kept: they may not change afterwards
   * @throws `invalid_snapshot`, `session_exists`, `session_busy`, `invalid_value`, `quota_exceeded`
   */
  async importSession(owner: string, bytes: Uint8Array, id: string = this.#newId()): Promise<SessionInfo> {
    const { modelHash, state } = this.#manifest;
    const snapshot = decodeSnapshot(bytes, { modelHash, stateBytes: stateBytes(state) });
    const head = openHead(snapshot, modelHash);
    return this.#add(owner, id, async () => head);
  }

  /** Whether a request of this server holds the session. */
  isBusy(owner: string, id: string): boolean {
    return this.#locks.isHeld(headKey(owner, { type: "session", id }));
  }

  /** Forgets a response: its state and its record. @throws `response_not_found` */
  async deleteResponse(owner: string, id: string): Promise<void> {
    const [hadHead, hadRecord] = await Promise.all([
      this.#store.delete(headKey(owner, { type: "response", id })),
      this.#store.delete(recordKey(owner, id)),
    ]);
    if (!hadHead && !hadRecord) throw noResponse(id);
  }

  /** @returns whether it was there */
  deleteUnstored(owner: string, id: string): Promise<boolean> {
    return this.#unstored.delete(headKey(owner, { type: "unstored", id }));
  }

  /** Keeps what the server wants to tell of a response later. Replaces. @param record JSON-serialisable */
  async keepRecord(owner: string, responseId: string, record: unknown): Promise<void> {
    const snapshot = statelessSnapshot(this.#manifest.modelHash, record);
    await this.#store.put(recordKey(owner, responseId), snapshot, this.#until(this.#policy.responseTtlMs));
  }

  /** @throws `response_not_found` */
  async readRecord(owner: string, responseId: string): Promise<unknown> {
    const found = await this.#store.get(recordKey(owner, responseId));
    if (found === undefined) throw noResponse(responseId);
    return found.conversation;
  }

  /**
   * Takes hold of what a request resumes and keeps. Sessions are locked at once, before anything is awaited.
   * @throws `session_busy`, `session_not_found`, `previous_response_not_found`, `invalid_snapshot`, `quota_exceeded`
   */
  async open(
    owner: string,
    resumeFrom: ConversationKey | undefined,
    keepAs: ConversationKey | undefined,
  ): Promise<Lease> {
    const ids = new Set([resumeFrom, keepAs].flatMap((key) => (key?.type === "session" ? [key.id] : [])));
    for (const id of ids) checkSessionId(id);
    const held = await this.#hold(owner, [...ids]);
    try {
      const resumed = resumeFrom && (await this.#openHead(owner, resumeFrom));
      const kept = keepAs?.type === "session" ? await this.#keptSoFar(owner, keepAs, resumeFrom, resumed) : undefined;
      const past = (resumed ?? kept)?.conversation;
      const nowMs = this.#nowMs();
      return {
        head: resumed && resumed.snapshot.tokenIds.length > 0 ? resumed : undefined,
        createdAtMs: past?.createdAtMs ?? nowMs,
        lastUsedAtMs: Math.max(nowMs, past?.lastUsedAtMs ?? nowMs),
        keep: async (head) => keepAs && this.#keep(owner, keepAs, head, held),
        release: held.release,
      };
    } catch (error) {
      await held.release();
      throw error;
    }
  }

  /** What the session that a request will keep holds now. The first state that it gets is counted before it is made. */
  async #keptSoFar(
    owner: string,
    key: ConversationKey,
    resumeFrom: ConversationKey | undefined,
    resumed: Head | undefined,
  ): Promise<Head | undefined> {
    const isSame = resumeFrom?.type === "session" && resumeFrom.id === key.id;
    const snapshot = isSame ? undefined : await this.#store.get(headKey(owner, key));
    const kept = isSame ? resumed : snapshot && openHead(snapshot, this.#manifest.modelHash);
    if (kept === undefined || kept.snapshot.state.length === 0) {
      const more = { numSessions: kept === undefined ? 1 : 0, bytes: stateBytes(this.#manifest.state) };
      await this.#quota.admit(owner, more, async () => undefined);
    }
    return kept;
  }

  async #keep(owner: string, key: ConversationKey, head: Head, held: HeldSessions): Promise<void> {
    if (key.type === "session") await this.#putSession(owner, key.id, head, held);
    else await this.#storeOf(key).put(headKey(owner, key), head.snapshot, this.#until(this.#policy.responseTtlMs));
  }

  async #add(owner: string, id: string, make: () => Promise<Head>): Promise<SessionInfo> {
    checkSessionId(id);
    const card = await this.#whileHeld(owner, [id], async (held) => {
      const head = await make();
      await this.#checkFree(owner, id);
      const bytes = head.snapshot.state.length + head.snapshot.tokenIds.length * 4;
      return this.#quota.admit(owner, { numSessions: 1, bytes }, () => this.#putSession(owner, id, head, held));
    });
    return this.#info(id, owner, card);
  }

  async #forget(owner: string, id: string): Promise<boolean> {
    const key = headKey(owner, { type: "session", id });
    this.#cards.forget(key);
    return this.#store.delete(key);
  }

  async #putSession(owner: string, id: string, head: Head, held: HeldSessions): Promise<SessionCard> {
    const key = headKey(owner, { type: "session", id });
    const expiry = this.#expiry(head);
    const fence = held.fence(key);
    // What it came from may have had another life: the copy of a session, or a file.
    const { expiresAtMs: _, revision: __, ...content } = head.snapshot;
    const snapshot = { ...content, ...expiry };
    this.#cards.forget(key);
    await this.#store.put(key, snapshot, { ...expiry, ...(fence !== undefined && { fence }) });
    return cardOf({ ...head, snapshot });
  }

  /** @returns undefined if it is gone since, damaged, or of another model: one such must not hide the others from a list */
  async #cardOf(listed: ListedSnapshot): Promise<SessionCard | undefined> {
    const known = this.#cards.find(listed);
    if (known !== undefined) return known;
    try {
      const snapshot = await this.#store.get(listed.key);
      if (snapshot === undefined) return undefined;
      const card = cardOf(openHead(snapshot, this.#manifest.modelHash));
      this.#cards.remember(listed, card);
      return card;
    } catch (error) {
      if (error instanceof DenseMambaError && error.code === "invalid_snapshot") return undefined;
      throw error;
    }
  }

  /** @throws `session_not_found`, `previous_response_not_found`, `invalid_snapshot` */
  async #openHead(owner: string, key: ConversationKey): Promise<Head> {
    const snapshot = await this.#storeOf(key).get(headKey(owner, key));
    if (snapshot === undefined) throw notFound(key);
    return openHead(snapshot, this.#manifest.modelHash);
  }

  #storeOf({ type }: ConversationKey): StateStore {
    return type === "unstored" ? this.#unstored : this.#store;
  }

  async #checkFree(owner: string, id: string): Promise<void> {
    if (!(await this.#store.has(headKey(owner, { type: "session", id })))) return;
    throw new DenseMambaError("session_exists", `session ${id} exists already`, { param: "session_id" });
  }

  #hold(owner: string, ids: readonly string[]): Promise<HeldSessions> {
    return this.#locks.acquire(new Map(ids.map((id) => [headKey(owner, { type: "session", id }), id])));
  }

  async #whileHeld<T>(owner: string, ids: readonly string[], act: (held: HeldSessions) => Promise<T>): Promise<T> {
    const held = await this.#hold(owner, ids);
    try {
      return await act(held);
    } finally {
      await held.release();
    }
  }

  #emptyHead(createdAtMs: number): Head {
    const conversation = { numPreambleTokens: 0, messages: [], text: "", createdAtMs, lastUsedAtMs: createdAtMs };
    return { snapshot: statelessSnapshot(this.#manifest.modelHash, conversation), conversation };
  }

  #info(id: string, owner: string, card: SessionCard): SessionInfo {
    return { id, ...card, stateBytes: stateBytes(this.#manifest.state), busy: this.isBusy(owner, id) };
  }

  /** Counted from the last use as it was written down: a clock that went backwards since cannot shorten it. */
  #expiry({ conversation }: Head): { readonly expiresAtMs?: number } {
    const { sessionTtlMs } = this.#policy;
    if (sessionTtlMs === undefined) return {};
    return { expiresAtMs: Math.max(this.#nowMs(), conversation.lastUsedAtMs) + sessionTtlMs };
  }

  #until(ttlMs: number | undefined): { readonly expiresAtMs?: number } {
    return ttlMs === undefined ? {} : { expiresAtMs: this.#nowMs() + ttlMs };
  }
}

function notFound(key: ConversationKey): DenseMambaError {
  return key.type === "session"
    ? new DenseMambaError("session_not_found", `session ${key.id} is not known here`, { param: "session_id" })
    : new DenseMambaError("previous_response_not_found", `previous response ${key.id} is not kept here`, {
        param: "previous_response_id",
      });
}

function noResponse(id: string): DenseMambaError {
  return new DenseMambaError("response_not_found", `response ${id} is not kept here`, { param: "response_id" });
}
