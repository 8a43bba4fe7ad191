/** Going on with a long conversation: from memory, and from the disk, beside reading it again. In turns. */
import { strict as assert } from "node:assert";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { MemoryStore } from "../../sessions/stores/memory-store.ts";
import { atMost, type Figure, median } from "../report.ts";
import type { Rig } from "../rig.ts";
import { makePrompt } from "../streams.ts";
import { dropFromCache, runTurn, type StateParts, session, turnOf, withDiskStore } from "./state-parts.ts";

const NUM_TOKENS = 8000;
const GIB = 2 ** 30;
/** What the turn adds to the conversation. */
const NEW_TOKENS = { type: "tokens", tokenIds: [3, 4, 5, 6, 7, 8, 9, 10] } as const;

/** @param name of the model, in the figures */
export async function benchResume(rig: Rig, parts: StateParts, name: string, numRounds: number): Promise<Figure[]> {
  const history = { type: "tokens", tokenIds: makePrompt(NUM_TOKENS, 1) } as const;
  const whole = { type: "tokens", tokenIds: [...history.tokenIds, ...NEW_TOKENS.tokenIds] } as const;
  const again = turnOf(whole, { maxTokens: 1 });
  const resumed = turnOf(NEW_TOKENS, { maxTokens: 1, resumeFrom: session("long") });
  const kept = turnOf(history, { maxTokens: 0, keepAs: session("long") });

  const inMemory = parts.generatorOn(new MemoryStore({ maxBytes: GIB }));
  // Without memory every question goes to the disk.
  return withDiskStore(rig, parts, { memoryBytes: 0, diskBytes: GIB }, async (store, dir) => {
    const onDisk = parts.generatorOn(store);
    for (const generator of [inMemory, onDisk]) await runTurn(generator, kept);
    const files = (await readdir(dir, { recursive: true })).filter((file) => file.endsWith(".dsm"));
    assert(files.length > 0, "what is kept lies in files");

    const rounds: Round[] = [];
    for (let round = 0; round <= numRounds; round++) {
      const memory = await runTurn(inMemory, resumed);
      for (const file of files) dropFromCache(join(dir, file));
      const disk = await runTurn(onDisk, resumed);
      const read = await runTurn(inMemory, again);
      assert(memory.cachedTokens === NUM_TOKENS && disk.cachedTokens === NUM_TOKENS, "the conversation was resumed");
      // The first round warms up.
      if (round > 0) rounds.push({ read: read.firstTokenMs, memory: memory.firstTokenMs, disk: disk.firstTokenMs });
    }
    const of = (value: (round: Round) => number) => median(rounds.map(value));
    const share = (value: (round: Round) => number) => of((round) => (value(round) / round.read) * 100);
    return [
      { name: `${name}: first token, ${NUM_TOKENS} tokens read again`, value: of(({ read }) => read), unit: "ms" },
      { name: `${name}: resumed from memory`, value: of(({ memory }) => memory), unit: "ms" },
      { name: `${name}: memory / read again`, value: share(({ memory }) => memory), unit: "%", ...atMost(1) },
      { name: `${name}: resumed from the disk`, value: of(({ disk }) => disk), unit: "ms" },
      { name: `${name}: disk / read again`, value: share(({ disk }) => disk), unit: "%", ...atMost(5) },
    ];
  });
}

/** Milliseconds to the first token. */
interface Round {
  readonly read: number;
  readonly memory: number;
  readonly disk: number;
}
