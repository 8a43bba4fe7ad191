/**
 * What it is worth that a conversation's whole past is one block of memory: resumed rather than read again, a second turn
 * that does not feel the first one's length, many more conversations than slots, and forks.
 */
import type { BenchContext } from "../context.ts";
import type { Figure } from "../report.ts";
import { randomCheckpoint } from "../rig.ts";
import { benchFork } from "./state-fork.ts";
import { benchHistory } from "./state-history.ts";
import { withState } from "./state-parts.ts";
import { benchResume } from "./state-resume.ts";
import { benchSessions } from "./state-sessions.ts";
import { benchTurns } from "./state-turns.ts";

export async function benchState(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  const run = async (part: string, measured: Promise<Figure[]>) => {
    figures.push(...(await measured));
    context.print(`state: ${part} measured`);
  };
  await withState(context, context.modelDir, async (parts) => {
    const { name } = parts.manifest;
    await run("resuming", benchResume(context, parts, name, 15));
    await run("second turns", benchTurns(parts));
    await run("long histories", benchHistory(context, parts));
    await run("forks", benchFork(context, parts, name));
    await run("sessions", benchSessions(context, parts));
  });
  const { shape } = context;
  await withState(context, await randomCheckpoint(context.cacheDir, shape), async (parts) => {
    await run(`resuming, ${shape}`, benchResume(context, parts, shape, 3));
    await run(`forks, ${shape}`, benchFork(context, parts, shape));
  });
  return figures;
}
