/**
 * Heads and records in their stores: under which key, for how long, and what a list shows of them. Locks and quotas are
 * above, in `conversations.ts`; here a put is a put.
 */
import { DenseMambaError } from "../errors.ts";
import { type Head, openHead } from "./conversation.ts";
import { copyParts, type History, putParts, readHistory, readParts } from "./history.ts";
import type { ConversationKey } from "./keys.ts";
import { headKey, partKey, recordKey, sessionPrefix } from "./keys.ts";
import type { SessionFile } from "./session-file.ts";
import { CardMemory, cardOf, type SessionCard, statelessSnapshot } from "./session-summary.ts";
import type { ListedSnapshot, Snapshot, StateStore } from "./stores/store.ts";

export interface KeptHeadsOptions {
  readonly store: StateStore;
  /** Memory alone, for responses that are not to be stored. */
  readonly unstored: StateStore;
  readonly modelHash: string;
  /** Names parts of conversations. */
  readonly newId: () => string;
  /** Unix time in milliseconds; may jump. */
  readonly nowMs: () => number;
  readonly ttls: { readonly sessionTtlMs?: number; readonly responseTtlMs?: number };
}

/** Sessions that are read at once for a list, where their cards are not remembered. */
const LIST_BATCH = 16;

export class KeptHeads {
  readonly #options: KeptHeadsOptions;
  readonly #cards = new CardMemory();

  constructor(options: KeptHeadsOptions) {
    this.#options = options;
  }

  /** @throws `session_not_found`, `previous_response_not_found`, `invalid_snapshot` */
  async read(owner: string, key: ConversationKey): Promise<Head> {
    const head = await this.find(owner, key);
    if (head === undefined) throw notFound(key);
    return head;
  }

  /** @throws `invalid_snapshot`, `state_lost` */
  async find(owner: string, key: ConversationKey): Promise<Head | undefined> {
    const snapshot = await this.#storeOf(key)
      .get(headKey(owner, key))
      .catch((error: unknown) => throwLost(key, error));
    return snapshot && openHead(snapshot, this.#options.modelHash);
  }

  has(owner: string, key: ConversationKey): Promise<boolean> {
    return this.#storeOf(key).has(headKey(owner, key));
  }

  /**
   * All that was said before the head's end, or so many of the last tokens at least. @throws `state_lost`
   */
  history(head: Head, numTokens?: number): Promise<History> {
    return readHistory(this.#parts, head, numTokens);
  }

  /** Of the head's past, the first one first. @throws `state_lost` */
  parts({ snapshot }: Head): Promise<Snapshot[]> {
    return readParts(this.#parts, snapshot);
  }

  /** Puts the past of a file, and returns its head, which is to be put then. @throws what the store throws */
  putPast(owner: string, file: SessionFile): Promise<Head> {
    const { store, newId } = this.#options;
    return file.headBehind(async (part) => {
      const key = partKey(owner, newId());
      await store.put(key, part);
      return key;
    });
  }

  /** To be called before a head that continues an unstored one is put into the store. @throws `state_lost` */
  storeParts(head: Head): Promise<void> {
    return copyParts(this.#parts, this.#options.store, head);
  }

  /** @param fence of the claim under which a session was advanced. @throws `session_conflict`, and what the store throws */
  async put(owner: string, key: ConversationKey, given: Head, fence?: number): Promise<SessionCard> {
    const at = headKey(owner, key);
    const newKey = () => partKey(owner, this.#options.newId());
    const head = await putParts(this.#storeOf(key), given, newKey);
    const expiry = key.type === "session" ? this.#sessionExpiry(head) : this.#responseExpiry();
    // What it came from may have had another life: another session, or a file.
    const { expiresAtMs: _, revision: __, ...content } = head.snapshot;
    const snapshot = { ...content, ...expiry };
    this.#cards.forget(at);
    await this.#storeOf(key).put(at, snapshot, { ...expiry, ...(fence !== undefined && { fence }) });
    return cardOf({ ...head, snapshot });
  }

  /** @returns whether it was there */
  delete(owner: string, key: ConversationKey): Promise<boolean> {
    const at = headKey(owner, key);
    this.#cards.forget(at);
    return this.#storeOf(key).delete(at);
  }

  /** Of all sessions of the owner that can be read, in no order. */
  async sessionCards(owner: string): Promise<{ readonly id: string; readonly card: SessionCard }[]> {
    const prefix = sessionPrefix(owner);
    const listed: ListedSnapshot[] = [];
    for await (const entry of this.#options.store.list(prefix)) listed.push(entry);
    const found: { id: string; card: SessionCard }[] = [];
    for (let first = 0; first < listed.length; first += LIST_BATCH) {
      const batch = listed.slice(first, first + LIST_BATCH);
      const cards = await Promise.all(batch.map((entry) => this.#cardOf(entry)));
      for (const [i, card] of cards.entries()) {
        if (card !== undefined) found.push({ id: batch[i]!.key.slice(prefix.length), card });
      }
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

  /** @returns whether it was there */
  deleteRecord(owner: string, id: string): Promise<boolean> {
    return this.#options.store.delete(recordKey(owner, id));
  }

  /** @returns undefined if it is gone since, damaged, or of another model: one such must not hide the others from a list */
  async #cardOf(listed: ListedSnapshot): Promise<SessionCard | undefined> {
    const known = this.#cards.find(listed);
    if (known !== undefined) return known;
    try {
      const snapshot = await this.#options.store.get(listed.key);
      if (snapshot === undefined) return undefined;
      const card = cardOf(openHead(snapshot, this.#options.modelHash));
      this.#cards.remember(listed, card);
      return card;
    } catch (error) {
      if (error instanceof DenseMambaError && NOT_LISTED.has(error.code)) return undefined;
      throw error;
    }
  }

  get #parts(): Pick<StateStore, "get"> {
    const { store, unstored } = this.#options;
    return { get: async (key) => (await unstored.get(key)) ?? store.get(key) };
  }

  #storeOf({ type }: ConversationKey): StateStore {
    return type === "unstored" ? this.#options.unstored : this.#options.store;
  }

  /** Counted from the last use as it was written down: a clock that went backwards since cannot shorten it. */
  #sessionExpiry({ conversation }: Head): { readonly expiresAtMs?: number } {
    const { nowMs, ttls } = this.#options;
    if (ttls.sessionTtlMs === undefined) return {};
    return { expiresAtMs: Math.max(nowMs(), conversation.lastUsedAtMs) + ttls.sessionTtlMs };
  }

  #responseExpiry(): { readonly expiresAtMs?: number } {
    const { nowMs, ttls } = this.#options;
    return ttls.responseTtlMs === undefined ? {} : { expiresAtMs: nowMs() + ttls.responseTtlMs };
  }
}

const NOT_LISTED: ReadonlySet<string> = new Set(["invalid_snapshot", "state_lost"]);

/** In the client's words. */
function throwLost(key: ConversationKey, error: unknown): never {
  if (!(error instanceof DenseMambaError) || error.code !== "state_lost") throw error;
  const { param } = notFound(key);
  throw new DenseMambaError(
    "state_lost",
    `${key.type} ${key.id} is lost: the shared store no longer has it, and the copy on this server may be older`,
    { cause: error, ...(param !== undefined && { param }) },
  );
}

export function notFound(key: ConversationKey): DenseMambaError {
  return key.type === "session"
    ? new DenseMambaError("session_not_found", `session ${key.id} is not known here`, { param: "session_id" })
    : new DenseMambaError("previous_response_not_found", `previous response ${key.id} is not kept here`, {
        param: "previous_response_id",
      });
}
