/**
 * The checkpoints of sessions and their states in the store. A session's snapshot lists its
 * checkpoints, and is itself the current one. Neither locks sessions nor puts them.
 */
import { DenseMambaError } from "../errors.ts";
import {
  addCheckpoint,
  type Checkpoint,
  type CheckpointTree,
  checkpointNotFound,
  findCheckpoint,
  keepCheckpoints,
  nameCheckpoint,
  thinCheckpoints,
} from "./checkpoints.ts";
import type { ConversationSnapshot } from "./conversation.ts";
import type { ConversationStore } from "./conversation-store.ts";
import { bytesOf, type SessionQuota } from "./quota.ts";
import { countTokens } from "./stores/snapshot.ts";
import { isUnavailable } from "./stores/tier.ts";

export interface CheckpointInfo extends Omit<Checkpoint, "number" | "parent"> {
  /** The id of the one that it continued, or of the nearest before that which is still there. */
  readonly parent: string | undefined;
  readonly isCurrent: boolean;
}

export class SessionCheckpoints {
  readonly #store: ConversationStore;
  readonly #quota: SessionQuota;
  /** Of one session, the current one included. */
  readonly #maxCount: number;

  constructor(store: ConversationStore, quota: SessionQuota, maxCount: number) {
    this.#store = store;
    this.#quota = quota;
    this.#maxCount = maxCount;
  }

  /** Those whose states are still there, the oldest first. */
  async list(owner: string, { conversation }: ConversationSnapshot): Promise<CheckpointInfo[]> {
    const { checkpoints: tree } = conversation;
    if (tree === undefined) return [];
    const isThere = await Promise.all(tree.all.map(({ id }) => this.#isThere(owner, tree, id)));
    const stored = keepCheckpoints(tree, (checkpoint) => isThere[tree.all.indexOf(checkpoint)]!);
    return stored.all.map((checkpoint) => toInfo(stored, checkpoint));
  }

  /**
   * The state of one.
   * @param which its id or name
   * @throws `checkpoint_not_found`
   */
  async read(owner: string, session: ConversationSnapshot, which: string): Promise<ConversationSnapshot> {
    const { checkpoints: tree } = session.conversation;
    const { id } = findCheckpoint(tree, which);
    if (id === tree!.current) return session;
    const state = await this.#store.findCheckpoint(owner, id);
    if (state === undefined) throw checkpointNotFound(which);
    return state;
  }

  /**
   * The session with a name for one of its checkpoints.
   * @param which its id or name. Default: the current one
   * @throws `checkpoint_not_found`
   */
  async name(
    owner: string,
    session: ConversationSnapshot,
    name: string,
    which: string = session.conversation.checkpoints?.current ?? "",
  ): Promise<{ readonly named: ConversationSnapshot; readonly info: CheckpointInfo }> {
    const { checkpoints: tree } = session.conversation;
    const { id } = findCheckpoint(tree, which);
    if (!(await this.#isThere(owner, tree!, id))) throw checkpointNotFound(which);
    const named = nameCheckpoint(tree!, id, name);
    return { named: withTree(session, named), info: toInfo(named, findCheckpoint(named, id)) };
  }

  /**
   * The session as it continues from one of its checkpoints; the session itself if that is the
   * current one. Stores the state that it has now.
   * @throws `checkpoint_not_found`, `store_unavailable`
   */
  async rolledBack(
    owner: string,
    session: ConversationSnapshot,
    which: string,
    nowMs: number,
  ): Promise<ConversationSnapshot> {
    const target = await this.read(owner, session, which);
    if (target === session) return session;
    const { checkpoints: tree, createdAtMs, lastUsedAtMs } = session.conversation;
    const isStored = await this.store(owner, session);
    const stored = isStored ? tree! : keepCheckpoints(tree!, ({ id }) => id !== tree!.current);
    const times = { createdAtMs, lastUsedAtMs: Math.max(nowMs, lastUsedAtMs) };
    const checkpoints = { ...stored, current: findCheckpoint(tree, which).id };
    return { ...target, conversation: { ...target.conversation, ...times, checkpoints } };
  }

  /**
   * Stores a session's current checkpoint by itself, before another state takes its place.
   * @returns false if there is no room for it
   * @throws `store_unavailable`
   */
  async store(owner: string, session: ConversationSnapshot): Promise<boolean> {
    const { current } = session.conversation.checkpoints ?? {};
    if (current === undefined || this.#maxCount <= 1) return false;
    try {
      if (await this.#store.hasCheckpoint(owner, current)) return true;
    } catch (error) {
      // A tier that cannot be asked may have it: then it is stored once more, where it can be.
      if (!isUnavailable(error)) throw error;
    }
    const put = () => this.#store.putCheckpoint(owner, current, session);
    try {
      await this.#quota.admit(owner, { numSessions: 0, bytes: bytesOf(session) }, put);
      return true;
    } catch (error) {
      const isFull = error instanceof DenseMambaError && ["quota_exceeded", "invalid_value"].includes(error.code);
      if (isFull) return false;
      throw error;
    }
  }

  /** A session at the end of a turn, with the checkpoint that it is then. */
  advanced(
    next: ConversationSnapshot,
    turn: {
      readonly before: CheckpointTree | undefined;
      /** Whether the state before is stored as a checkpoint. */
      readonly isStored: boolean;
      /** The name of the new one. */
      readonly checkpoint: string | undefined;
    },
  ): ConversationSnapshot {
    const { before, isStored, checkpoint: name } = turn;
    const id = this.#store.newCheckpointId();
    const createdAtMs = next.conversation.lastUsedAtMs;
    const tree = addCheckpoint(before, { id, name, numTokens: countTokens(next), createdAtMs });
    const stored = isStored ? tree : keepCheckpoints(tree, (each) => each.id !== before?.current);
    return withTree(next, thinCheckpoints(stored, this.#maxCount));
  }

  /** In the background. What stays is removed when nothing refers to it any more. */
  deleteDropped(owner: string, before: CheckpointTree | undefined, { conversation }: ConversationSnapshot): void {
    const kept = new Set(conversation.checkpoints?.all.map(({ id }) => id));
    for (const { id } of before?.all ?? []) {
      if (!kept.has(id)) this.#store.deleteCheckpoint(owner, id).catch(() => undefined);
    }
  }

  async #isThere(owner: string, { current }: CheckpointTree, id: string): Promise<boolean> {
    return id === current || this.#store.hasCheckpoint(owner, id);
  }
}

function withTree(session: ConversationSnapshot, checkpoints: CheckpointTree): ConversationSnapshot {
  return { ...session, conversation: { ...session.conversation, checkpoints } };
}

function toInfo({ current, all }: CheckpointTree, checkpoint: Checkpoint): CheckpointInfo {
  const { number: _, parent, ...shown } = checkpoint;
  return { ...shown, parent: all.find(({ number }) => number === parent)?.id, isCurrent: checkpoint.id === current };
}
