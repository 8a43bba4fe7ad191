/**
 * Ten thousand conversations at rest: what each takes on the disk, and how fast many more of them than there are slots go on
 * in rotation, beside sequences that never leave their slots.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Generator } from "../../generation/generator.ts";
import type { TieredStore } from "../../sessions/stores/tiered-store.ts";
import { atLeast, atMost, type Figure, median } from "../report.ts";
import { MAX_BATCH, type Rig } from "../rig.ts";
import { makePrompt } from "../streams.ts";
import { runTurn, type StateParts, session, turnOf, withDiskStore } from "./state-parts.ts";

const NUM_SESSIONS = 10_000;
/** Read for real; the others are forks of these. */
const NUM_ORIGINALS = 200;
const NUM_ACTIVE = 200;
const FORKS_AT_ONCE = 16;
const PROMPT_TOKENS = 64;
const TURN_TOKENS = 64;
/** Of a round that is timed, together. */
const ROUND_TOKENS = 20_000;
const NUM_ROUNDS = 5;
const GIB = 2 ** 30;
const NOTHING_NEW = { type: "tokens", tokenIds: [] } as const;

export async function benchSessions(rig: Rig, parts: StateParts): Promise<Figure[]> {
  // Of the active ones memory holds half: in rotation, the least recently used leaving first, it never has the next one.
  const memoryBytes = (NUM_ACTIVE / 2) * parts.stateBytes;
  const diskBytes = 2 * NUM_SESSIONS * parts.stateBytes + GIB;
  return withDiskStore(rig, parts, { memoryBytes, diskBytes }, async (store, dir) => {
    const generator = parts.generatorOn(store);
    const forksMs = await makeSessions(generator);
    const size = await sizeOf(dir, store);
    const rounds: { readonly rotation: number; readonly resident: number }[] = [];
    for (let round = 0; round <= NUM_ROUNDS; round++) {
      const rotation = await measureRate((onToken, isOver) => rotate(generator, onToken, isOver));
      const resident = await measureRate((onToken, isOver) => stay(generator, onToken, isOver));
      if (round > 0) rounds.push({ rotation, resident }); // the first one warms up
    }
    // A fork and a turn have the prompt and one answer each.
    const idsBytes = (PROMPT_TOKENS + TURN_TOKENS) * 4;
    return [
      { name: `sessions kept, of ${PROMPT_TOKENS + TURN_TOKENS} tokens`, value: size.numFiles, unit: "files" },
      { name: "bytes of each", value: size.fileBytes, unit: "B" },
      {
        name: "bytes of each beside state and ids",
        value: size.fileBytes - parts.stateBytes - idsBytes,
        unit: "B",
        ...atMost(1023),
      },
      { name: "whole blocks of the file system, each", value: size.blockBytes, unit: "B" },
      { name: "to fork one onto the disk, many at once", value: forksMs, unit: "ms" },
      { name: `${MAX_BATCH} that stay in their slots`, value: median(rounds.map((r) => r.resident)), unit: "tokens/s" },
      {
        name: `${NUM_ACTIVE} of them in rotation, ${TURN_TOKENS} tokens a turn, each from the disk and back`,
        value: median(rounds.map((r) => r.rotation)),
        unit: "tokens/s",
      },
      {
        name: "rotation / stay",
        value: median(rounds.map((r) => r.rotation / r.resident)),
        unit: "x",
        ...atLeast(0.8),
      },
    ];
  });
}

/** @returns milliseconds of a fork, as they came out one behind the other */
async function makeSessions(generator: Generator): Promise<number> {
  await inParallel(NUM_ORIGINALS, MAX_BATCH, async (i) => {
    const prompt = { type: "tokens", tokenIds: makePrompt(PROMPT_TOKENS, i) } as const;
    await runTurn(generator, turnOf(prompt, { maxTokens: TURN_TOKENS, keepAs: session(nameOf(i)) }));
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
    const turn = turnOf(NOTHING_NEW, { maxTokens: TURN_TOKENS, resumeFrom: id, keepAs: id });
    while (!isOver.aborted) await runTurn(generator, turn, onToken);
  });
  await Promise.all(clients);
}

/** As many as there are slots, through the same house, answering without end. */
async function stay(generator: Generator, onToken: () => void, isOver: AbortSignal): Promise<void> {
  const streams = Array.from({ length: MAX_BATCH }, async (_, i) => {
    const prompt = { type: "tokens", tokenIds: makePrompt(PROMPT_TOKENS, i) } as const;
    await runTurn(generator, { ...turnOf(prompt, { maxTokens: 1_000_000 }), signal: isOver }, onToken);
  });
  await Promise.all(streams);
}

/** Tokens per second of `load` behind its first tenth. It ends when it is told, in its own time, which does not count. */
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
