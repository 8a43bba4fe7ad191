/** A fork beside the copy of as many bytes, which is all that it should cost, and beside writing them to the disk. */
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Generator } from "../../generation/generator.ts";
import { MemoryStore } from "../../sessions/stores/memory-store.ts";
import { type Figure, median } from "../report.ts";
import type { Rig } from "../rig.ts";
import { makePrompt } from "../streams.ts";
import { runTurn, type StateParts, session, turnOf, withDiskStore } from "./state-parts.ts";

const NUM_ROUNDS = 30;
const PROMPT_TOKENS = 64;
const GIB = 2 ** 30;
const NOTHING_NEW = { type: "tokens", tokenIds: [] } as const;

/** @param bandwidth of the memory, bytes per second */
export async function benchFork(
  rig: Rig & { readonly bandwidth: number },
  parts: StateParts,
  name: string,
): Promise<Figure[]> {
  const { stateBytes } = parts;
  const inMemory = parts.generatorOn(new MemoryStore({ maxBytes: GIB }));
  return withDiskStore(rig, parts, { memoryBytes: 0, diskBytes: GIB }, async (store, dir) => {
    const onDisk = parts.generatorOn(store);
    const prompt = { type: "tokens", tokenIds: makePrompt(PROMPT_TOKENS, 1) } as const;
    for (const generator of [inMemory, onDisk]) {
      await runTurn(generator, turnOf(prompt, { maxTokens: 1, keepAs: session("trunk") }));
    }
    const rounds: Round[] = [];
    for (let round = 0; round <= NUM_ROUNDS; round++) {
      const measured = {
        copy: timeCopy(stateBytes),
        memory: await timeFork(inMemory),
        goesOn: await timeGoingOn(inMemory),
        write: await timeWrite(join(dir, "..", "plain"), stateBytes),
        disk: await timeFork(onDisk),
      };
      if (round > 0) rounds.push(measured); // the first one warms up
    }
    const of = (value: (round: Round) => number) => median(rounds.map(value));
    const floorMs = (stateBytes / rig.bandwidth) * 1000;
    return [
      { name: `${name}: one state`, value: stateBytes / 1000, unit: "kB" },
      { name: `${name}: to read it, as the bandwidth allows`, value: floorMs, unit: "ms" },
      { name: `${name}: to copy it in memory`, value: of(({ copy }) => copy), unit: "ms" },
      { name: `${name}: to fork a session in memory`, value: of(({ memory }) => memory), unit: "ms" },
      { name: `${name}: the fork's first token`, value: of(({ goesOn }) => goesOn), unit: "ms" },
      { name: `${name}: to write it to the disk, synchronised`, value: of(({ write }) => write), unit: "ms" },
      { name: `${name}: to fork a session on the disk`, value: of(({ disk }) => disk), unit: "ms" },
      { name: `${name}: fork on the disk / write`, value: of(({ disk, write }) => disk / write), unit: "x" },
    ];
  });
}

/** Milliseconds. */
interface Round {
  readonly copy: number;
  readonly memory: number;
  readonly goesOn: number;
  readonly write: number;
  readonly disk: number;
}

/** Out of the caches and into fresh memory, as that of a state that was kept a while ago. */
function timeCopy(numBytes: number): number {
  const numCopies = Math.ceil((64 * 2 ** 20) / numBytes);
  const from = Buffer.alloc(numBytes * numCopies, 1);
  const to = Buffer.alloc(numBytes * numCopies, 2);
  const startMs = performance.now();
  from.copy(to);
  return (performance.now() - startMs) / numCopies;
}

async function timeFork({ conversations }: Generator): Promise<number> {
  const startMs = performance.now();
  await conversations.forkSession("", "trunk", "branch");
  const forkMs = performance.now() - startMs;
  await conversations.deleteSession("", "branch");
  return forkMs;
}

async function timeGoingOn(generator: Generator): Promise<number> {
  await generator.conversations.forkSession("", "trunk", "branch");
  const turn = turnOf(NOTHING_NEW, { maxTokens: 1, resumeFrom: session("branch"), keepAs: session("branch") });
  const { firstTokenMs } = await runTurn(generator, turn);
  await generator.conversations.deleteSession("", "branch");
  return firstTokenMs;
}

async function timeWrite(file: string, numBytes: number): Promise<number> {
  const bytes = Buffer.alloc(numBytes, 1);
  const startMs = performance.now();
  const handle = await open(file, "w");
  try {
    await handle.write(bytes);
    await handle.datasync();
  } finally {
    await handle.close();
  }
  const writeMs = performance.now() - startMs;
  await rm(file);
  return writeMs;
}
