/**
 * The checkpoints of a session: the states after its turns, which it can go back to and be forked
 * from. They make a tree, since nothing is discarded when a session goes back. This is what a
 * session stores of them besides their states. Pure.
 */
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import type { DeepReadonly } from "./messages.ts";

const CHECKPOINT_ID = /^ckpt_[0-9A-Za-z_-]{1,64}$/;
const CHECKPOINT_NAME = /^(?!ckpt_)[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

const checkpoint = z.object({
  id: z.string().regex(CHECKPOINT_ID),
  name: z.string().regex(CHECKPOINT_NAME).exactOptional(),
  /** Rises by one with each. */
  number: z.int().min(1),
  /** The number of the one that this one continued. */
  parent: z.int().min(1).exactOptional(),
  numTokens: z.int().min(0),
  createdAtMs: z.number(),
});

/** JSON-serialisable. */
export const checkpointTree = z.object({
  /** What the session's own snapshot is. Its state need not be stored a second time. */
  current: z.string(),
  /** The oldest first, the current one included. */
  all: z.array(checkpoint),
});

export type Checkpoint = DeepReadonly<z.infer<typeof checkpoint>>;
export type CheckpointTree = DeepReadonly<z.infer<typeof checkpointTree>>;

export interface NewCheckpoint {
  readonly id: string;
  readonly name?: string | undefined;
  readonly numTokens: number;
  readonly createdAtMs: number;
}

/** It continues the current one, and is the current one from now on. */
export function addCheckpoint(tree: CheckpointTree | undefined, { name, ...added }: NewCheckpoint): CheckpointTree {
  const { current, all = [] } = tree ?? {};
  const number = (all.at(-1)?.number ?? 0) + 1;
  const parent = all.find(({ id }) => id === current)?.number;
  const checkpoint = { ...added, number, ...(parent !== undefined && { parent }) };
  const next = { current: added.id, all: [...all, checkpoint] };
  return name === undefined ? next : nameCheckpoint(next, added.id, name);
}

/** A name that another one has moves. */
export function nameCheckpoint(tree: CheckpointTree, id: string, name: string): CheckpointTree {
  const all = tree.all.map((checkpoint) => {
    if (checkpoint.id === id) return { ...checkpoint, name };
    if (checkpoint.name !== name) return checkpoint;
    const { name: _, ...unnamed } = checkpoint;
    return unnamed;
  });
  return { ...tree, all };
}

/** @param which its id or name. @throws `checkpoint_not_found` */
export function findCheckpoint(tree: CheckpointTree | undefined, which: string): Checkpoint {
  const found = tree?.all.find(({ id, name }) => id === which || name === which);
  if (found === undefined) throw checkpointNotFound(which);
  return found;
}

/** Without those that `isKept` is false for; what continued one continues its parent. */
export function keepCheckpoints(tree: CheckpointTree, isKept: (checkpoint: Checkpoint) => boolean): CheckpointTree {
  const dropped = new Map(tree.all.filter((each) => !isKept(each)).map(({ number, parent }) => [number, parent]));
  if (dropped.size === 0) return tree;
  const all = tree.all.flatMap((checkpoint) => {
    if (dropped.has(checkpoint.number)) return [];
    const { parent: given, ...rest } = checkpoint;
    let parent = given;
    while (parent !== undefined && dropped.has(parent)) parent = dropped.get(parent);
    return [{ ...rest, ...(parent !== undefined && { parent }) }];
  });
  return { ...tree, all };
}

/**
 * At most `maxCount`, at least the current one. The newer half stays as it is; of the older half
 * those go whose neighbours are closest, so that what is left is spread evenly. Those with a name
 * go last.
 */
export function thinCheckpoints(tree: CheckpointTree, maxCount: number): CheckpointTree {
  const left = [...tree.all];
  while (left.length > Math.max(1, maxCount)) {
    const older = left.slice(0, Math.ceil(left.length / 2));
    const canGo = (checkpoint: Checkpoint) => checkpoint.id !== tree.current;
    const isPlain = (checkpoint: Checkpoint) => canGo(checkpoint) && checkpoint.name === undefined;
    const candidates = [older.filter(isPlain), left.filter(isPlain), left.filter(canGo)].find(
      ({ length }) => length > 0,
    )!;
    let [closest, smallest] = [candidates[0]!, Number.POSITIVE_INFINITY];
    for (const candidate of candidates) {
      const at = left.indexOf(candidate);
      const gap = (left[at + 1]?.number ?? Number.POSITIVE_INFINITY) - (left[at - 1]?.number ?? 0);
      if (gap < smallest) [closest, smallest] = [candidate, gap];
    }
    left.splice(left.indexOf(closest), 1);
  }
  const kept = new Set(left);
  return keepCheckpoints(tree, (checkpoint) => kept.has(checkpoint));
}

/** What a name must be, if this is none. */
export function checkpointNameProblem(name: string): string | undefined {
  if (CHECKPOINT_NAME.test(name)) return undefined;
  return 'must be 1 to 128 letters, digits, ".", "_", ":" and "-", begin with one of the first two, and not with "ckpt_"';
}

export function checkpointNotFound(which: string): DenseMambaError {
  const given = JSON.stringify(which.slice(0, 140));
  return new DenseMambaError("checkpoint_not_found", `the session has no checkpoint ${given}, or no longer has it`, {
    param: "checkpoint",
  });
}
