/**
 * What it is worth that a conversation's whole past is one block of memory: resumed rather than read again, a second turn
 * that does not feel the first one's length, many more conversations than slots, and forks.
 */
import type { BenchContext } from "../context.ts";
import type { Figure } from "../report.ts";
import { randomCheckpoint } from "../rig.ts";
import { benchFork } from "./state-fork.ts";
import { withState } from "./state-parts.ts";
import { benchResume } from "./state-resume.ts";
import { benchSessions } from "./state-sessions.ts";
import { benchTurns } from "./state-turns.ts";

export async function benchState(context: BenchContext): Promise<Figure[]> {
  const figures = await withState(context, context.modelDir, async (parts) => [
    ...(await benchResume(context, parts, parts.manifest.name, 15)),
    ...(await benchTurns(parts)),
    ...(await benchFork(context, parts, parts.manifest.name)),
    ...(await benchSessions(context, parts)),
  ]);
  const shapeDir = await randomCheckpoint(context.cacheDir, context.shape);
  const ofShape = await withState(context, shapeDir, async (parts) => [
    ...(await benchResume(context, parts, context.shape, 3)),
    ...(await benchFork(context, parts, context.shape)),
  ]);
  return [...figures, ...ofShape];
}
