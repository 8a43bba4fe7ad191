/**
 * Personas: conversations to begin from, by name. Those that the server was started with are
 * everybody's; those that were uploaded belong to an owner. Like a response, a persona never
 * changes, and any number of requests may continue it. Knows no engine.
 */
import { createHash } from "node:crypto";
import { DenseMambaError } from "../errors.ts";
import { readTunedState } from "../model/tuned-state.ts";
import { type ConversationSnapshot, newConversation } from "./conversation.ts";
import type { ConversationStore } from "./conversation-store.ts";
import { bytesOf, type SessionQuota } from "./quota.ts";
import { checkNumbers, type ImportBounds, SessionFile } from "./session-file.ts";
import { isSnapshot } from "./stores/codec.ts";
import { countTokens, statelessSnapshot } from "./stores/snapshot.ts";

export interface PersonaInfo {
  readonly name: string;
  /** That its state has read or is yet to read. */
  readonly numTokens: number;
  /** Unix time in milliseconds. */
  readonly createdAtMs: number;
  /** Whether the server was started with it: then it cannot be deleted or replaced. */
  readonly isGiven: boolean;
}

/** The persona whose state a conversation began with, if that had read no tokens. */
export interface PersonaStart {
  readonly persona: string;
  readonly hash: string;
}

export interface PersonasDeps {
  /** Those that the server was started with. */
  readonly given: ReadonlyMap<string, ConversationSnapshot>;
  readonly store: ConversationStore;
  readonly quota: SessionQuota;
  readonly bounds: ImportBounds;
  readonly nowMs: () => number;
}

const HASH_LENGTH = 32;

export class Personas {
  readonly #deps: PersonasDeps;

  constructor(deps: PersonasDeps) {
    this.#deps = deps;
  }

  /** @throws `persona_not_found` */
  async read(owner: string, name: string): Promise<ConversationSnapshot> {
    const { given, store } = this.#deps;
    return given.get(name) ?? store.read(owner, personaKey(name));
  }

  /**
   * The state that a conversation began with.
   * @throws `persona_not_found` if the persona is gone, or another one has its name
   */
  async startState(owner: string, { persona, hash }: PersonaStart): Promise<Uint8Array> {
    const found = this.#deps.given.get(persona) ?? (await this.#deps.store.find(owner, personaKey(persona)));
    if (found?.conversation.personaHash === hash) return found.state;
    throw new DenseMambaError(
      "persona_not_found",
      `the conversation began with persona ${persona}, which is no longer here: it cannot be read again from its beginning`,
      { param: "persona" },
    );
  }

  /** In the order of their names. */
  async list(owner: string): Promise<PersonaInfo[]> {
    const { given, store } = this.#deps;
    const infos = [...given].map(([name, snapshot]) => toInfo(name, snapshot, true));
    for (const { id, snapshot } of await store.listPersonas(owner)) {
      if (!given.has(id)) infos.push(toInfo(id, snapshot, false));
    }
    return infos.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws `persona_not_found` */
  async inspect(owner: string, name: string): Promise<PersonaInfo> {
    return toInfo(name, await this.read(owner, name), this.#deps.given.has(name));
  }

  /**
   * Replaces an uploaded one.
   * @throws `invalid_snapshot` (the file), `invalid_value` (a given one's name), `quota_exceeded`
   */
  async put(owner: string, name: string, file: Uint8Array): Promise<PersonaInfo> {
    const { store, quota, bounds, nowMs } = this.#deps;
    this.#checkIsUploaded(name);
    const snapshot = await readPersona(file, name, bounds, nowMs());
    await quota.admit(owner, { numSessions: 0, bytes: bytesOf(snapshot) }, () =>
      store.put(owner, personaKey(name), snapshot),
    );
    return toInfo(name, snapshot, false);
  }

  /** @throws `persona_not_found`, `invalid_value` for a given one's name */
  async delete(owner: string, name: string): Promise<void> {
    this.#checkIsUploaded(name);
    const { store } = this.#deps;
    if (!(await store.delete(owner, personaKey(name)))) await store.read(owner, personaKey(name));
  }

  #checkIsUploaded(name: string): void {
    if (!this.#deps.given.has(name)) return;
    throw new DenseMambaError("invalid_value", `persona ${name} is one that the server was started with`, {
      param: "name",
    });
  }
}

function personaKey(id: string) {
  return { type: "persona", id } as const;
}

function toInfo(name: string, snapshot: ConversationSnapshot, isGiven: boolean): PersonaInfo {
  return { name, numTokens: countTokens(snapshot), createdAtMs: snapshot.conversation.createdAtMs, isGiven };
}

/**
 * An exported session, or an RWKV-7's tuned state.
 * @throws `invalid_snapshot`
 */
export async function readPersona(
  file: Uint8Array,
  name: string,
  bounds: Omit<ImportBounds, "maxCheckpoints">,
  nowMs: number,
): Promise<ConversationSnapshot> {
  const personaHash = createHash("sha256").update(file).digest("hex").slice(0, HASH_LENGTH);
  const times = { createdAtMs: nowMs, lastUsedAtMs: nowMs };
  if (isSnapshot(file)) {
    const snapshot = await (await SessionFile.read(file, { ...bounds, maxCheckpoints: 1 })).flatten();
    if (snapshot.state.length === 0) throw invalid("holds a session that has read nothing");
    return { ...snapshot, conversation: { ...snapshot.conversation, ...times, personaHash } };
  }
  const { manifest } = bounds;
  const state = await readTunedState(file, `persona ${name}`, manifest.state).catch((error: Error) => {
    throw new DenseMambaError("invalid_snapshot", error.message, { cause: error });
  });
  await checkNumbers(state, manifest.state);
  const startedFrom = { persona: name, hash: personaHash };
  const conversation = { ...newConversation(nowMs), personaHash, startedFrom };
  return { ...statelessSnapshot(manifest.modelHash, conversation), state, conversation };
}

function invalid(what: string): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the file ${what}`);
}
