/**
 * Conversations and records in their stores: under which key, for how long, and what a list shows
 * of them. Knows no locks and no quotas; those are in `conversations.ts`.
 */
import { DenseMambaError } from "../errors.ts";
import { type ConversationSnapshot, parseConversation } from "./conversation.ts";
import { collectSegments, copySegments, type History, loadHistory, putSegments } from "./history.ts";
import type { SessionFile, SessionParts } from "./session-file.ts";
import { countTokens, statelessSnapshot } from "./stores/snapshot.ts";
import type { ListedSnapshot, StateStore } from "./stores/store.ts";

/**
 * A session advances under one id, one request at a time. Responses and personas never change. An
 * unstored response never leaves this process's memory, and is found only under this type. A given
 * conversation comes with its request, and is not stored: its id is the signed state.
 */
export type ConversationKey = {
  readonly type: "session" | "response" | "unstored" | "persona" | "given";
  readonly id: string;
};

/** What a list shows of a session. */
export interface SessionSummary {
  /** Of the conversation; the state has read `position` of them, and reads the rest next time. */
  readonly numTokens: number;
  readonly position: number;
  /** Unix time in milliseconds. */
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** When it will expire unless it is used before. */
  readonly expiresAtMs?: number;
  /** The id of the current one. Undefined before the first turn. */
  readonly checkpoint?: string;
}

export interface ConversationStoreOptions {
  readonly store: StateStore;
  /** Memory alone, for responses that are not to be stored. */
  readonly unstored: StateStore;
  readonly modelHash: string;
  /** For segments. */
  readonly newId: () => string;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
  readonly ttls: { readonly sessionTtlMs?: number; readonly responseTtlMs?: number };
}

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
/** Sessions read at once for a list, if their summaries are not cached. */
const LIST_BATCH = 16;
const MAX_CACHED_SUMMARIES = 100_000;
/** 64 bits: an owner's are told apart, and no other owner finds them. */
const CHECKPOINT_ID_LENGTH = 16;

export class ConversationStore {
  readonly #options: ConversationStoreOptions;
  readonly #summaries = new SummaryCache();

  constructor(options: ConversationStoreOptions) {
    this.#options = options;
  }

  /** @throws `session_not_found` or `previous_response_not_found`, and as `find` */
  async read(owner: string, key: ConversationKey): Promise<ConversationSnapshot> {
    const snapshot = await this.find(owner, key);
    if (snapshot === undefined) throw notFound(key);
    return snapshot;
  }

  /** @throws `invalid_snapshot`, `state_lost` */
  async find(owner: string, key: ConversationKey): Promise<ConversationSnapshot | undefined> {
    const snapshot = await this.#storeOf(key)
      .get(conversationKey(owner, key))
      .catch((error: unknown) => rethrowLost(key, error));
    return snapshot && parseConversation(snapshot, this.#options.modelHash);
  }

  has(owner: string, key: ConversationKey): Promise<boolean> {
    return this.#storeOf(key).has(conversationKey(owner, key));
  }

  /** @param numTokens if given, so many of the last tokens are enough. @throws `state_lost` */
  loadHistory(snapshot: ConversationSnapshot, numTokens?: number): Promise<History> {
    return loadHistory(this.#anyStore, snapshot, numTokens);
  }

  /** All that a session refers to, as far as it is stored. @throws `state_lost` */
  async loadParts(owner: string, snapshot: ConversationSnapshot): Promise<SessionParts> {
    const { checkpoints: tree } = snapshot.conversation;
    const checkpoints = new Map<string, ConversationSnapshot>();
    for (const { id } of tree?.all ?? []) {
      const found = id === tree!.current ? undefined : await this.findCheckpoint(owner, id);
      if (found !== undefined) checkpoints.set(id, found);
    }
    const segments = await collectSegments(this.#anyStore, [...checkpoints.values(), snapshot]);
    return { snapshot, checkpoints, segments };
  }

  /** Puts what the snapshot of a file refers to, and returns the snapshot, which is to be put next. */
  importParts(owner: string, file: SessionFile): Promise<ConversationSnapshot> {
    return file.importParts({
      newCheckpointId: () => this.newCheckpointId(),
      putCheckpoint: (id, checkpoint) => this.putCheckpoint(owner, id, checkpoint),
      putSegment: async (segment) => {
        const key = segmentKey(owner, this.#options.newId());
        await this.#options.store.put(key, segment);
        return key;
      },
    });
  }

  newCheckpointId(): string {
    return `ckpt_${this.#options.newId().slice(0, CHECKPOINT_ID_LENGTH)}`;
  }

  /** @throws `invalid_snapshot`, `state_lost` */
  async findCheckpoint(owner: string, id: string): Promise<ConversationSnapshot | undefined> {
    const found = await this.#options.store.get(checkpointKey(owner, id));
    if (found === undefined) return undefined;
    const { isSegment: _, ...snapshot } = parseConversation(found, this.#options.modelHash);
    return snapshot;
  }

  hasCheckpoint(owner: string, id: string): Promise<boolean> {
    return this.#options.store.has(checkpointKey(owner, id));
  }

  /** @param given as it was stored as a session */
  async putCheckpoint(owner: string, id: string, given: ConversationSnapshot): Promise<void> {
    const { modelHash, history, tokenIds, position, state, sampler } = given;
    const { checkpoints: _, ...conversation } = given.conversation;
    const optional = { ...(history && { history }), ...(sampler && { sampler }) };
    const checkpoint = { modelHash, ...optional, tokenIds, position, state, conversation, isSegment: true };
    await this.#options.store.put(checkpointKey(owner, id), checkpoint);
  }

  async deleteCheckpoint(owner: string, id: string): Promise<void> {
    await this.#options.store.delete(checkpointKey(owner, id));
  }

  /** Call before storing what continues an unstored response. @throws `state_lost` */
  storeSegments(snapshot: ConversationSnapshot): Promise<void> {
    return copySegments(this.#anyStore, this.#options.store, snapshot);
  }

  /** @param fence of a session's claim. @throws `session_conflict`, the store's errors */
  async put(owner: string, key: ConversationKey, given: ConversationSnapshot, fence?: number): Promise<SessionSummary> {
    const store = this.#storeOf(key);
    const storeKey = conversationKey(owner, key);
    const expiry = this.#expiry(key, given);
    // Revision and expiry may be those of another session, or a file's.
    const {
      expiresAtMs: _,
      revision: __,
      checkpointKeys: ___,
      ...content
    } = await putSegments(store, given, () => segmentKey(owner, this.#options.newId()));
    // The current one too: it may be stored by itself, and is then to stay.
    const checkpointKeys = given.conversation.checkpoints?.all.map(({ id }) => checkpointKey(owner, id)) ?? [];
    const snapshot = { ...content, ...expiry, ...(checkpointKeys.length > 0 && { checkpointKeys }) };
    this.#summaries.delete(storeKey);
    await store.put(storeKey, snapshot, { ...expiry, ...(fence !== undefined && { fence }) });
    return toSummary(snapshot);
  }

  /** @returns whether it existed */
  delete(owner: string, key: ConversationKey): Promise<boolean> {
    const storeKey = conversationKey(owner, key);
    this.#summaries.delete(storeKey);
    return this.#storeOf(key).delete(storeKey);
  }

  /** Of all sessions of the owner that can be read, in no order. */
  async listSessions(owner: string): Promise<{ readonly id: string; readonly summary: SessionSummary }[]> {
    const prefix = sessionPrefix(owner);
    const listed: ListedSnapshot[] = [];
    for await (const entry of this.#options.store.list(prefix)) listed.push(entry);
    const found: { id: string; summary: SessionSummary }[] = [];
    for (let first = 0; first < listed.length; first += LIST_BATCH) {
      const batch = listed.slice(first, first + LIST_BATCH);
      const summaries = await Promise.all(batch.map((entry) => this.#summarise(entry)));
      for (const [i, summary] of summaries.entries()) {
        if (summary !== undefined) found.push({ id: batch[i]!.key.slice(prefix.length), summary });
      }
    }
    return found;
  }

  /** Those of the owner that can be read, in no order. */
  async listPersonas(owner: string): Promise<{ readonly id: string; readonly snapshot: ConversationSnapshot }[]> {
    const prefix = personaPrefix(owner);
    const found: { id: string; snapshot: ConversationSnapshot }[] = [];
    for await (const { key } of this.#options.store.list(prefix)) {
      const id = key.slice(prefix.length);
      const snapshot = await this.find(owner, { type: "persona", id }).catch(undefinedIfUnreadable);
      if (snapshot !== undefined) found.push({ id, snapshot });
    }
    return found;
  }

  /** Replaces. @param record JSON-serialisable */
  async putRecord(owner: string, id: string, record: unknown): Promise<void> {
    const { store, modelHash } = this.#options;
    await store.put(recordKey(owner, id), statelessSnapshot(modelHash, record), this.#responseExpiry());
  }

  async findRecord(owner: string, id: string): Promise<{ readonly record: unknown } | undefined> {
    const found = await this.#options.store.get(recordKey(owner, id));
    return found && { record: found.conversation };
  }

  /** @returns whether it existed */
  deleteRecord(owner: string, id: string): Promise<boolean> {
    return this.#options.store.delete(recordKey(owner, id));
  }

  /** Undefined if it is gone or unreadable: that must not hide the others from a list. */
  async #summarise(listed: ListedSnapshot): Promise<SessionSummary | undefined> {
    const cached = this.#summaries.get(listed);
    if (cached !== undefined) return cached;
    try {
      const snapshot = await this.#options.store.get(listed.key);
      if (snapshot === undefined) return undefined;
      const summary = toSummary(parseConversation(snapshot, this.#options.modelHash));
      this.#summaries.set(listed, summary);
      return summary;
    } catch (error) {
      return undefinedIfUnreadable(error);
    }
  }

  get #anyStore(): Pick<StateStore, "get"> {
    const { store, unstored } = this.#options;
    return { get: async (key) => (await unstored.get(key)) ?? store.get(key) };
  }

  #storeOf({ type }: ConversationKey): StateStore {
    return type === "unstored" ? this.#options.unstored : this.#options.store;
  }

  #expiry({ type }: ConversationKey, snapshot: ConversationSnapshot): { readonly expiresAtMs?: number } {
    if (type === "persona") return {};
    return type === "session" ? this.#sessionExpiry(snapshot) : this.#responseExpiry();
  }

  /** From the last use as it was recorded: a clock that was set back since cannot shorten it. */
  #sessionExpiry({ conversation }: ConversationSnapshot): { readonly expiresAtMs?: number } {
    const { nowMs, ttls } = this.#options;
    if (ttls.sessionTtlMs === undefined) return {};
    return { expiresAtMs: Math.max(nowMs(), conversation.lastUsedAtMs) + ttls.sessionTtlMs };
  }

  #responseExpiry(): { readonly expiresAtMs?: number } {
    const { nowMs, ttls } = this.#options;
    return ttls.responseTtlMs === undefined ? {} : { expiresAtMs: nowMs() + ttls.responseTtlMs };
  }
}

/**
 * Lists of thousands of sessions must not read thousands of states. A cached summary is valid as
 * long as the store lists its session with the same bytes and expiry.
 */
class SummaryCache {
  readonly #entries = new Map<string, { readonly listed: ListedSnapshot; readonly summary: SessionSummary }>();

  get({ key, bytes, expiresAtMs }: ListedSnapshot): SessionSummary | undefined {
    const { listed, summary } = this.#entries.get(key) ?? {};
    return listed?.bytes === bytes && listed.expiresAtMs === expiresAtMs ? summary : undefined;
  }

  set(listed: ListedSnapshot, summary: SessionSummary): void {
    this.#entries.delete(listed.key);
    this.#entries.set(listed.key, { listed, summary });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > MAX_CACHED_SUMMARIES) this.#entries.delete(oldest!);
  }

  /** To be called when the session changes here: it may have as many bytes as before. */
  delete(key: string): void {
    this.#entries.delete(key);
  }
}

export function toSummary(snapshot: ConversationSnapshot): SessionSummary {
  const { position, expiresAtMs, conversation } = snapshot;
  const { createdAtMs, lastUsedAtMs, checkpoints } = conversation;
  return {
    numTokens: countTokens(snapshot),
    position,
    createdAtMs,
    lastUsedAtMs,
    ...(expiresAtMs !== undefined && { expiresAtMs }),
    ...(checkpoints && { checkpoint: checkpoints.current }),
  };
}

function undefinedIfUnreadable(error: unknown): undefined {
  if (isError(error, "invalid_snapshot") || isError(error, "state_lost")) return undefined;
  throw error;
}

function isError(error: unknown, code: DenseMambaError["code"]): boolean {
  return error instanceof DenseMambaError && error.code === code;
}

/** In the client's terms. */
function rethrowLost(key: ConversationKey, error: unknown): never {
  if (!isError(error, "state_lost")) throw error;
  const { param } = notFound(key);
  throw new DenseMambaError(
    "state_lost",
    `${key.type} ${key.id} is lost: the shared store no longer has it, and the copy on this server may be older`,
    { cause: error, ...(param !== undefined && { param }) },
  );
}

export function notFound({ type, id }: ConversationKey): DenseMambaError {
  if (type === "persona") {
    return new DenseMambaError("persona_not_found", `persona ${id} is not known here`, { param: "persona" });
  }
  return type === "session"
    ? new DenseMambaError("session_not_found", `session ${id} is not known here`, { param: "session_id" })
    : new DenseMambaError("previous_response_not_found", `previous response ${id} is not stored here`, {
        param: "previous_response_id",
      });
}

/**
 * Of the snapshot of a session or response. An owner is "" or hexadecimal, so that the colon after
 * it ends it, whatever the id contains.
 */
export function conversationKey(owner: string, { type, id }: ConversationKey): string {
  return `${type}:${owner}:${id}`;
}

/** Of a segment of an owner's conversations. */
export function segmentKey(owner: string, id: string): string {
  return `segment:${owner}:${id}`;
}

/** Of the state of a checkpoint of an owner's session. */
function checkpointKey(owner: string, id: string): string {
  return `checkpoint:${owner}:${id}`;
}

/** Of the server's record of a response. */
function recordKey(owner: string, id: string): string {
  return `record:${owner}:${id}`;
}

export function sessionPrefix(owner: string): string {
  return `session:${owner}:`;
}

export function personaPrefix(owner: string): string {
  return `persona:${owner}:`;
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
