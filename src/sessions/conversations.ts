/**
 * Sessions and kept responses, over a `StateStore`. A session is a moving head that one request at a time may use; a
 * response is a head that never changes. Everything belongs to an owner and is found by that owner only; whom an owner
 * stands for is the server's business. Knows no engine.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { Head } from "./conversation.ts";
import { KeptHeads, notFound } from "./conversation-store.ts";
import type { History } from "./history.ts";
import type { ConversationKey } from "./keys.ts";
import { checkSessionId, headKey } from "./keys.ts";
import { type HeldSessions, type Repeat, SessionLocks } from "./locks.ts";
import { NO_MESSAGES } from "./message-chain.ts";
import { type QuotaLimits, SessionQuota } from "./quota.ts";
import { type ImportBounds, SessionFile, writeSessionFile } from "./session-file.ts";
import { cardOf, type SessionCard, statelessSnapshot } from "./session-summary.ts";
import { countPast, countTokens } from "./stores/past.ts";
import type { StateStore } from "./stores/store.ts";
import { textMark } from "./text-hash.ts";

export interface SessionInfo extends SessionCard {
  readonly id: string;
  readonly stateBytes: number;
  readonly busy: boolean;
}

/** What one request holds while it runs. */
export interface Lease {
  /** What it continues from; undefined for a new conversation. */
  readonly head: Head | undefined;
  /** Of all tokens of the head, or of so many of the last at least. @throws `state_lost` */
  readonly history: (numTokens?: number) => Promise<History>;
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
  readonly manifest: Pick<Manifest, "modelHash" | "state" | "sizes">;
  readonly newId: () => string;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
  readonly policy?: KeepingPolicy;
  /** Tokens that a file's state may have left unread. Default: any number. */
  readonly maxUnreadTokens?: number;
  readonly repeat?: Repeat;
}

export class Conversations {
  readonly #heads: KeptHeads;
  readonly #quota: SessionQuota;
  readonly #locks: SessionLocks;
  readonly #modelHash: string;
  readonly #stateBytes: number;
  readonly #importBounds: ImportBounds;
  readonly #newId: () => string;
  readonly #nowMs: () => number;

  constructor({
    store,
    unstored = store,
    manifest,
    newId,
    nowMs,
    policy = {},
    repeat,
    maxUnreadTokens = Number.POSITIVE_INFINITY,
  }: ConversationsDeps) {
    const { modelHash, state } = manifest;
    this.#heads = new KeptHeads({ store, unstored, modelHash, newId, nowMs, ttls: policy });
    this.#quota = new SessionQuota(store, policy);
    this.#locks = new SessionLocks(store, repeat);
    this.#modelHash = modelHash;
    this.#stateBytes = stateBytes(state);
    this.#importBounds = { manifest, maxUnreadTokens };
    this.#newId = newId;
    this.#nowMs = nowMs;
  }

  /** @throws `invalid_value` for a malformed id, `session_exists`, `session_busy`, `quota_exceeded` */
  createSession(owner: string, id: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, id, async () => this.#emptyHead());
  }

  /** The least recently used first. */
  async listSessions(owner: string): Promise<SessionInfo[]> {
    const cards = await this.#heads.sessionCards(owner);
    const found = cards.map(({ id, card }) => this.#info(id, owner, card));
    return found.sort((a, b) => a.lastUsedAtMs - b.lastUsedAtMs || a.createdAtMs - b.createdAtMs);
  }

  /** @throws `session_not_found`, `invalid_snapshot` */
  async inspectSession(owner: string, id: string): Promise<SessionInfo> {
    return this.#info(id, owner, cardOf(await this.#heads.read(owner, session(id))));
  }

  /** @throws `session_not_found`, `session_busy` */
  async deleteSession(owner: string, id: string): Promise<void> {
    await this.#whileHeld(owner, [id], async () => {
      if (!(await this.#heads.delete(owner, session(id)))) throw notFound(session(id));
    });
  }

  /**
   * A second session with the same past. While the first one generates, its past is what was kept last.
   * @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value`, `quota_exceeded`
   */
  forkSession(owner: string, id: string, newId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, newId, () => this.#heads.read(owner, session(id)));
  }

  /** A session that continues from a kept response. @throws `previous_response_not_found`, and as `forkSession` */
  forkResponse(owner: string, responseId: string, sessionId: string = this.#newId()): Promise<SessionInfo> {
    return this.#add(owner, sessionId, () => this.#heads.read(owner, { type: "response", id: responseId }));
  }

  /** @throws `session_not_found`, `session_exists`, `session_busy`, `invalid_value` */
  async renameSession(owner: string, id: string, newId: string): Promise<SessionInfo> {
    checkSessionId(newId);
    if (id === newId) return this.inspectSession(owner, id);
    const card = await this.#whileHeld(owner, [id, newId], async (held) => {
      const head = await this.#heads.read(owner, session(id));
      await this.#checkFree(owner, newId);
      const renamed = await this.#heads.put(owner, session(newId), head, held.fence(headKey(owner, session(newId))));
      // Last: a crash between the two leaves one session too many, never one too few.
      await this.#heads.delete(owner, session(id));
      return renamed;
    });
    return this.#info(newId, owner, card);
  }

  /** The session as a file, for `importSession` on any server of the same model. @throws `session_not_found` */
  async exportSession(owner: string, id: string): Promise<Uint8Array> {
    const head = await this.#heads.read(owner, session(id));
    return writeSessionFile(head, await this.#heads.parts(head));
  }

  /**
   * @param bytes kept: they may not change afterwards
   * @throws `invalid_snapshot`, `session_exists`, `session_busy`, `invalid_value`, `quota_exceeded`
   */
  async importSession(owner: string, bytes: Uint8Array, id: string = this.#newId()): Promise<SessionInfo> {
    checkSessionId(id);
    const file = await SessionFile.read(bytes, this.#importBounds);
    return this.#add(
      owner,
      id,
      async () => file.head,
      () => this.#heads.putPast(owner, file),
    );
  }

  /** Whether a request of this server holds the session. */
  isBusy(owner: string, id: string): boolean {
    return this.#locks.isHeld(headKey(owner, session(id)));
  }

  /** Forgets a response: its state and its record. @throws `response_not_found` */
  async deleteResponse(owner: string, id: string): Promise<void> {
    const [hadHead, hadRecord] = await Promise.all([
      this.#heads.delete(owner, { type: "response", id }),
      this.#heads.deleteRecord(owner, id),
    ]);
    if (!hadHead && !hadRecord) throw noResponse(id);
  }

  /** @returns whether it was there */
  deleteUnstored(owner: string, id: string): Promise<boolean> {
    return this.#heads.delete(owner, { type: "unstored", id });
  }

  /** Keeps what the server wants to tell of a response later. Replaces. @param record JSON-serialisable */
  keepRecord(owner: string, responseId: string, record: unknown): Promise<void> {
    return this.#heads.putRecord(owner, responseId, record);
  }

  /** @throws `response_not_found` */
  async readRecord(owner: string, responseId: string): Promise<unknown> {
    const found = await this.#heads.findRecord(owner, responseId);
    if (found === undefined) throw noResponse(responseId);
    return found.record;
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
      const resumed = resumeFrom && (await this.#heads.read(owner, resumeFrom));
      const kept = keepAs?.type === "session" ? await this.#keptSoFar(owner, keepAs, resumeFrom, resumed) : undefined;
      if (keepAs?.type === "response") await this.#admitState(owner, 0);
      const past = (resumed ?? kept)?.conversation;
      const head = resumed && countTokens(resumed.snapshot) > 0 ? resumed : undefined;
      const nowMs = this.#nowMs();
      return {
        head,
        history: (numTokens) => this.#heads.history(head!, numTokens),
        createdAtMs: past?.createdAtMs ?? nowMs,
        lastUsedAtMs: Math.max(nowMs, past?.lastUsedAtMs ?? nowMs),
        keep: async (next) => {
          if (keepAs === undefined) return;
          if (resumeFrom?.type === "unstored" && keepAs.type !== "unstored") await this.#heads.storeParts(next);
          const put = () => this.#heads.put(owner, keepAs, next, held.fence(headKey(owner, keepAs)));
          // Others that began as early may have been kept since.
          const isMore = keepAs.type === "response";
          await (isMore ? this.#quota.admit(owner, { numSessions: 0, bytes: bytesOf(next) }, put) : put());
        },
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
    const kept = isSame ? resumed : await this.#heads.find(owner, key);
    if (kept === undefined || kept.snapshot.state.length === 0) {
      await this.#admitState(owner, kept === undefined ? 1 : 0);
    }
    return kept;
  }

  /** Refuses a session before it is made, if there will be no room for it. */
  #admitState(owner: string, numSessions: number): Promise<void> {
    return this.#quota.admit(owner, { numSessions, bytes: this.#stateBytes }, async () => undefined);
  }

  /**
   * @param make what it begins with; its own life begins now, whatever it came from
   * @param prepare what must be kept before it, once it is let in: gives what is to be kept
   */
  async #add(
    owner: string,
    id: string,
    make: () => Promise<Head>,
    prepare: (head: Head) => Promise<Head> = async (head) => head,
  ): Promise<SessionInfo> {
    checkSessionId(id);
    const card = await this.#whileHeld(owner, [id], async (held) => {
      const head = await make();
      await this.#checkFree(owner, id);
      const fence = held.fence(headKey(owner, session(id)));
      const put = async () => this.#heads.put(owner, session(id), this.#bornNow(await prepare(head)), fence);
      const bytes = bytesOf(head) + countPast(head.snapshot.past) * TOKEN_BYTES;
      return this.#quota.admit(owner, { numSessions: 1, bytes }, put);
    });
    return this.#info(id, owner, card);
  }

  async #checkFree(owner: string, id: string): Promise<void> {
    if (!(await this.#heads.has(owner, session(id)))) return;
    throw new DenseMambaError("session_exists", `session ${id} exists already`, { param: "session_id" });
  }

  #hold(owner: string, ids: readonly string[]): Promise<HeldSessions> {
    return this.#locks.acquire(new Map(ids.map((id) => [headKey(owner, session(id)), id])));
  }

  async #whileHeld<T>(owner: string, ids: readonly string[], act: (held: HeldSessions) => Promise<T>): Promise<T> {
    const held = await this.#hold(owner, ids);
    try {
      return await act(held);
    } finally {
      await held.release();
    }
  }

  #emptyHead(): Head {
    const conversation = {
      numPreambleTokens: 0,
      passages: [],
      messages: NO_MESSAGES,
      ...textMark(""),
      createdAtMs: 0,
      lastUsedAtMs: 0,
    };
    return { snapshot: statelessSnapshot(this.#modelHash, conversation), conversation };
  }

  /** A file may say anything of its past; taken at its word, it might never expire. */
  #bornNow(head: Head): Head {
    const nowMs = this.#nowMs();
    const conversation = { ...head.conversation, createdAtMs: nowMs, lastUsedAtMs: nowMs };
    return { snapshot: { ...head.snapshot, conversation }, conversation };
  }

  #info(id: string, owner: string, card: SessionCard): SessionInfo {
    return { id, ...card, stateBytes: this.#stateBytes, busy: this.isBusy(owner, id) };
  }
}

function session(id: string): ConversationKey {
  return { type: "session", id };
}

/** Its size in a store, approximately. */
const TOKEN_BYTES = 4;

function bytesOf({ snapshot }: Head): number {
  return snapshot.state.length + snapshot.tokenIds.length * TOKEN_BYTES;
}

function noResponse(id: string): DenseMambaError {
  return new DenseMambaError("response_not_found", `response ${id} is not kept here`, { param: "response_id" });
}
