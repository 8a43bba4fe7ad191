/**
 * Sessions and kept responses, over a `StateStore`. A session is a moving head that one request at a time may use; a
 * response is a head that never changes. Knows no engine; who may use which id is the server's business.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { Snapshot, StateStore } from "../session/store.ts";
import { type Head, openHead } from "./conversation.ts";
import type { ConversationKey } from "./events.ts";

export interface SessionInfo {
  readonly id: string;
  /** Tokens of the conversation so far; `position` of them are in the state, the rest is fed first next time. */
  readonly numTokens: number;
  readonly position: number;
  readonly stateBytes: number;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** When it will be forgotten unless it is used before. */
  readonly expiresAtMs?: number;
  readonly busy: boolean;
}

/** What one request holds while it runs. */
export interface Lease {
  /** What it goes on from; undefined for a new conversation. */
  readonly head: Head | undefined;
  /** When the conversation that will be kept began. */
  readonly createdAtMs: number;
  /** Keeps the new head under the key asked for. Does nothing if none was. */
  keep(head: Head): Promise<void>;
  /** Idempotent. */
  release(): void;
}

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
/** Sessions are remembered here even before they have a state; the least recently used idle ones are forgotten first. */
const MAX_SESSIONS = 100_000;

interface Session {
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  readonly numTokens: number;
  readonly position: number;
}

export class Conversations {
  readonly #store: StateStore;
  readonly #manifest: Pick<Manifest, "modelHash" | "state">;
  readonly #newId: () => string;
  readonly #nowMs: () => number;
  readonly #maxSessions: number;
  /** In the order of use, the oldest first. */
  readonly #sessions = new Map<string, Session>();
  readonly #busy = new Set<string>();

  constructor(deps: {
    readonly store: StateStore;
    readonly manifest: Pick<Manifest, "modelHash" | "state">;
    readonly newId: () => string;
    readonly nowMs: () => number;
    readonly maxSessions?: number;
  }) {
    this.#store = deps.store;
    this.#manifest = deps.manifest;
    this.#newId = deps.newId;
    this.#nowMs = deps.nowMs;
    this.#maxSessions = deps.maxSessions ?? MAX_SESSIONS;
  }

  /** @throws `invalid_value` for a malformed id, `session_exists` */
  async createSession(owner: string, id: string = this.#newId()): Promise<SessionInfo> {
    checkId(id);
    if ((await this.#findState(id)) !== undefined || this.#sessions.has(id)) {
      throw new DenseMambaError("session_exists", `session ${id} exists already`, { param: "session_id" });
    }
    const nowMs = this.#nowMs();
    this.#remember(id, { createdAtMs: nowMs, lastUsedAtMs: nowMs, numTokens: 0, position: 0 });
    return this.#info(id);
  }

  /** Those used since this process began, the least recently used first. */
  async listSessions(owner: string): Promise<SessionInfo[]> {
    const ids = [...this.#sessions.keys()];
    const found: SessionInfo[] = [];
    // Asking the store counts as use, there; going from the oldest to the newest leaves its order as it is.
    for (const id of ids) if ((await this.#findState(id)) !== undefined) found.push(this.#info(id));
    return found;
  }

  /** @throws `session_not_found` */
  async inspectSession(owner: string, id: string): Promise<SessionInfo> {
    if ((await this.#findState(id)) === undefined) throw notFound({ type: "session", id });
    return this.#info(id);
  }

  /** @throws `session_not_found`, `session_busy` */
  async deleteSession(owner: string, id: string): Promise<void> {
    if (this.#busy.has(id)) throw busy(id);
    const wasKept = await this.#store.delete(storeKey({ type: "session", id }));
    const wasKnown = this.#sessions.delete(id);
    if (!wasKept && !wasKnown) throw notFound({ type: "session", id });
  }

  /** @throws `response_not_found` */
  async deleteResponse(owner: string, id: string): Promise<void> {
    if (await this.#store.delete(storeKey({ type: "response", id }))) return;
    throw new DenseMambaError("response_not_found", `response ${id} is not kept here`, { param: "response_id" });
  }

  /**
   * Takes hold of what a request resumes and keeps. Sessions are locked at once, before anything is awaited.
   * @throws `session_busy`, `session_not_found`, `previous_response_not_found`, `invalid_snapshot`
   */
  async open(resumeFrom: ConversationKey | undefined, keepAs: ConversationKey | undefined): Promise<Lease> {
    const locked = new Set([resumeFrom, keepAs].flatMap((key) => (key?.type === "session" ? [key.id] : [])));
    for (const id of locked) {
      checkId(id);
      if (this.#busy.has(id)) throw busy(id);
    }
    for (const id of locked) this.#busy.add(id);
    const release = () => {
      for (const id of locked) this.#busy.delete(id);
      locked.clear();
    };
    try {
      const head = resumeFrom && (await this.#resume(resumeFrom));
      const session = keepAs?.type === "session" ? this.#sessions.get(keepAs.id) : undefined;
      const createdAtMs = head?.conversation.createdAtMs ?? session?.createdAtMs ?? this.#nowMs();
      return { head, createdAtMs, keep: async (kept) => keepAs && this.#keep(keepAs, kept), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #resume(key: ConversationKey): Promise<Head | undefined> {
    const snapshot = await (key.type === "session" ? this.#findState(key.id) : this.#store.get(storeKey(key)));
    if (snapshot === "none yet") return undefined;
    if (snapshot === undefined) throw notFound(key);
    return openHead(snapshot, this.#manifest.modelHash);
  }

  async #keep(key: ConversationKey, head: Head): Promise<void> {
    await this.#store.put(storeKey(key), head.snapshot);
    if (key.type === "session") this.#remember(key.id, sessionOf(head));
  }

  /**
   * A session that has tokens exists as long as its state does: the store may have evicted it, or outlived this process.
   * @returns undefined if there is no such session
   */
  async #findState(id: string): Promise<Snapshot | "none yet" | undefined> {
    const session = this.#sessions.get(id);
    if (session?.numTokens === 0) return "none yet";
    const snapshot = await this.#store.get(storeKey({ type: "session", id }));
    // What was made or used while we waited is newer than what we found.
    if (this.#sessions.get(id) !== session) return this.#sessions.has(id) ? this.#findState(id) : undefined;
    if (snapshot === undefined) this.#sessions.delete(id);
    else if (session === undefined) this.#remember(id, sessionOf(openHead(snapshot, this.#manifest.modelHash)));
    return snapshot;
  }

  #remember(id: string, session: Session): void {
    this.#sessions.delete(id);
    this.#sessions.set(id, session);
    if (this.#sessions.size <= this.#maxSessions) return;
    for (const oldest of this.#sessions.keys()) {
      if (this.#busy.has(oldest)) continue;
      this.#sessions.delete(oldest);
      break;
    }
  }

  #info(id: string): SessionInfo {
    const session = this.#sessions.get(id)!;
    return { id, ...session, stateBytes: stateBytes(this.#manifest.state), busy: this.#busy.has(id) };
  }
}

function sessionOf({ snapshot, conversation }: Head): Session {
  return {
    createdAtMs: conversation.createdAtMs,
    lastUsedAtMs: conversation.lastUsedAtMs,
    numTokens: snapshot.tokenIds.length,
    position: snapshot.position,
  };
}

function storeKey(key: ConversationKey): string {
  return `${key.type}:${key.id}`;
}

function checkId(id: string): void {
  if (ID_PATTERN.test(id)) return;
  throw new DenseMambaError(
    "invalid_value",
    `session_id must be 1 to 128 letters, digits, '.', '_', ':' or '-', and begin with a letter or digit; given ${JSON.stringify(id.slice(0, 140))}`,
    { param: "session_id" },
  );
}

function busy(id: string): DenseMambaError {
  return new DenseMambaError("session_busy", `session ${id} is answering another request; one at a time`, {
    param: "session_id",
  });
}

function notFound(key: ConversationKey): DenseMambaError {
  return key.type === "session"
    ? new DenseMambaError("session_not_found", `session ${key.id} is not known here`, { param: "session_id" })
    : new DenseMambaError("previous_response_not_found", `previous response ${key.id} is not kept here`, {
        param: "previous_response_id",
      });
}
