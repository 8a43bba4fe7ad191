/**
 * Forks, beside copying and writing as many bytes; and ten thousand sessions: what each takes on
 * the disk, and how fast many more of them than there are slots go on in rotation, beside sequences
 * that never leave their slots.
 */
import { open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Generator } from "../../generation/generator.ts";
import { MemoryStore } from "../../sessions/stores/memory-store.ts";
import type { TieredStore } from "../../sessions/stores/tiered-store.ts";
import { type BenchConfig, MAX_BATCH, type SuiteContext } from "../config.ts";
import {
  type ConversationParts,
  NOTHING_NEW,
  runTurn,
  session,
  tokens,
  turnOf,
  withDiskStore,
} from "../conversations.ts";
import { atLeast, atMost, type Figure, median } from "../figures.ts";
import { inTurns, ratios } from "../rounds.ts";

const PROMPT_TOKENS = 64;
const GIB = 2 ** 30;

export async function benchFork(context: SuiteContext, parts: ConversationParts, model: string): Promise<Figure[]> {
  const { stateBytes } = parts;
  const inMemory = parts.generatorOn(new MemoryStore({ maxBytes: GIB }));
  return withDiskStore(context, parts, { memoryBytes: 0, diskBytes: GIB }, async (store, dir) => {
    const onDisk = parts.generatorOn(store);
    for (const generator of [inMemory, onDisk]) {
      await runTurn(generator, turnOf(tokens(PROMPT_TOKENS, 1), { maxTokens: 1, saveAs: session("trunk") }));
    }
    const { copy, memory, goOn, write, disk } = await inTurns(
      {
        copy: async () => timeCopy(stateBytes),
        memory: () => timeFork(inMemory),
        goOn: () => timeForkedTurn(inMemory),
        write: () => timeWrite(join(dir, "..", "plain"), stateBytes),
        disk: () => timeFork(onDisk),
      },
      { numRounds: 30 },
    );
    const floorMs = (stateBytes / context.bandwidth) * 1000;
    return [
      { name: `${model}: one state`, value: stateBytes / 1000, unit: "kB" },
      { name: `${model}: to read it, as the bandwidth allows`, value: floorMs, unit: "ms" },
      { name: `${model}: to copy it in memory`, value: median(copy), unit: "ms" },
      { name: `${model}: to fork a session in memory`, value: median(memory), unit: "ms" },
      { name: `${model}: the fork's first token`, value: median(goOn), unit: "ms" },
      { name: `${model}: to write it to the disk, synchronised`, value: median(write), unit: "ms" },
      { name: `${model}: to fork a session on the disk`, value: median(disk), unit: "ms" },
      { name: `${model}: fork on the disk / write`, value: median(ratios(disk, write)), unit: "x" },
    ];
  });
}

/**
 * Out of the processor's caches and into fresh memory, like that of a state that was stored a while
 * ago.
 */
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

async function timeForkedTurn(generator: Generator): Promise<number> {
  await generator.conversations.forkSession("", "trunk", "branch");
  const branch = session("branch");
  const { firstTokenMs } = await runTurn(
    generator,
    turnOf(NOTHING_NEW, { maxTokens: 1, resumeFrom: branch, saveAs: branch }),
  );
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

const NUM_SESSIONS = 10_000;
/** Read by the model; the others are forks of these. */
const NUM_ORIGINALS = 200;
const NUM_ACTIVE = 200;
const FORKS_AT_ONCE = 16;
const TURN_TOKENS = 64;
/** Of all sessions together in a round that is timed. */
const ROUND_TOKENS = 20_000;

export async function benchSessions(config: BenchConfig, parts: ConversationParts): Promise<Figure[]> {
  // Memory holds half of the active ones: in rotation, with the least recently used evicted, it
  // never has the next one.
  const memoryBytes = (NUM_ACTIVE / 2) * parts.stateBytes;
  const diskBytes = 2 * NUM_SESSIONS * parts.stateBytes + GIB;
  return withDiskStore(config, parts, { memoryBytes, diskBytes }, async (store, dir) => {
    const generator = parts.generatorOn(store);
    const forkMs = await makeSessions(generator);
    const size = await sizeOf(dir, store);
    const { rotation, resident } = await inTurns(
      {
        rotation: () => measureRate((onToken, isOver) => rotate(generator, onToken, isOver)),
        resident: () => measureRate((onToken, isOver) => stay(generator, onToken, isOver)),
      },
      { numRounds: 5 },
    );
    // A fork and a turn have the prompt and one answer each.
    const numTokens = PROMPT_TOKENS + TURN_TOKENS;
    return [
      { name: `sessions stored, of ${numTokens} tokens`, value: size.numFiles, unit: "files" },
      { name: "bytes of each", value: size.fileBytes, unit: "B" },
      {
        name: "bytes of each beside state and ids",
        value: size.fileBytes - parts.stateBytes - numTokens * 4,
        unit: "B",
        ...atMost(1023),
      },
      { name: "whole blocks of the file system, each", value: size.blockBytes, unit: "B" },
      { name: "to fork one onto the disk, many at once", value: forkMs, unit: "ms" },
      { name: `${MAX_BATCH} that stay in their slots`, value: median(resident), unit: "tokens/s" },
      {
        name: `${NUM_ACTIVE} of them in rotation, ${TURN_TOKENS} tokens a turn, each from the disk and back`,
        value: median(rotation),
        unit: "tokens/s",
      },
      { name: "rotation / stay", value: median(ratios(rotation, resident)), unit: "x", ...atLeast(0.8) },
    ];
  });
}

/** @returns milliseconds per fork, with many at once */
async function makeSessions(generator: Generator): Promise<number> {
  await inParallel(NUM_ORIGINALS, MAX_BATCH, async (i) => {
    await runTurn(generator, turnOf(tokens(PROMPT_TOKENS, i), { maxTokens: TURN_TOKENS, saveAs: session(nameOf(i)) }));
  });
  const startMs = performance.now();
  const numForks = NUM_SESSIONS - NUM_ORIGINALS;
  await inParallel(numForks, FORKS_AT_ONCE, async (i) => {
    await generator.conversations.forkSession("", nameOf(i % NUM_ORIGINALS), nameOf(NUM_ORIGINALS + i));
  });
  return (performance.now() - startMs) / numForks;
}

/** All active sessions ask again and again to go on; there are slots for some. */
async function rotate(generator: Generator, onToken: () => void, isOver: AbortSignal): Promise<void> {
  const clients = Array.from({ length: NUM_ACTIVE }, async (_, i) => {
    const id = session(nameOf(Math.floor((i * NUM_SESSIONS) / NUM_ACTIVE)));
    const turn = turnOf(NOTHING_NEW, { maxTokens: TURN_TOKENS, resumeFrom: id, saveAs: id });
    while (!isOver.aborted) await runTurn(generator, turn, onToken);
  });
  await Promise.all(clients);
}

/** As many sequences as there are slots, without end. */
async function stay(generator: Generator, onToken: () => void, isOver: AbortSignal): Promise<void> {
  const streams = Array.from({ length: MAX_BATCH }, async (_, i) => {
    const turn = turnOf(tokens(PROMPT_TOKENS, i), { maxTokens: 1_000_000 });
    await runTurn(generator, { ...turn, signal: isOver }, onToken);
  });
  await Promise.all(streams);
}

/**
 * Tokens per second of `load` after a tenth as a warm-up. How long it takes to end when it is told
 * to does not count.
 */
export async function measureRate(
  load: (onToken: () => void, isOver: AbortSignal) => Promise<void>,
  numTokens = ROUND_TOKENS,
): Promise<number> {
  const over = new AbortController();
  const warmUp = Math.ceil(numTokens / 10);
  let count = 0;
  let fromMs = 0;
  let toMs = 0;
  const onToken = () => {
    count++;
    if (count === warmUp) fromMs = performance.now();
    if (count !== warmUp + numTokens) return;
    toMs = performance.now();
    over.abort();
  };
  await load(onToken, over.signal);
  return (numTokens / (toMs - fromMs)) * 1000;
}

async function sizeOf(dir: string, store: TieredStore) {
  const names = (await readdir(dir)).filter((file) => file.endsWith(".dsm"));
  let bytes = 0;
  for (const name of names) bytes += (await stat(join(dir, name))).size;
  const disk = store.stats().tiers.find(({ name }) => name === "disk")!;
  return { numFiles: names.length, fileBytes: bytes / names.length, blockBytes: disk.bytes / disk.numSnapshots };
}

/** `work(0)` … `work(count - 1)`, some of them at once. */
async function inParallel(count: number, atOnce: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

function nameOf(i: number): string {
  return `session-${i}`;
}
