/**
 * A turn behind a thousand tokens and behind ten million: it must take as long and write as many bytes, in a session and in
 * a chain of responses, in memory and on the disk.
 */
import { strict as assert } from "node:assert";
import type { Generator } from "../../generation/generator.ts";
import { MAX_PART_TOKENS } from "../../sessions/history.ts";
import type { ConversationKey } from "../../sessions/keys.ts";
import { decodeSnapshot, encodeSnapshot } from "../../sessions/stores/codec.ts";
import { MemoryStore } from "../../sessions/stores/memory-store.ts";
import type { Snapshot, StateStore } from "../../sessions/stores/store.ts";
import type { BenchContext } from "../context.ts";
import { atMost, type Figure, median } from "../report.ts";
import { makePrompt } from "../streams.ts";
import { runTurn, type StateParts, session, turnOf, withDiskStore } from "./state-parts.ts";

const LENGTHS = [1000, 100_000, 10_000_000];
const NUM_ROUNDS = 41;
const GIB = 2 ** 30;
/** Of the shortest one's. */
const MAX_RATIO = 1.2;
const ADDED = { type: "tokens", tokenIds: [3, 4, 5, 6, 7, 8, 9, 10] } as const;

export async function benchHistory(context: BenchContext, parts: StateParts): Promise<Figure[]> {
  const inMemory = await measure("memory", new MemoryStore({ maxBytes: GIB }), parts);
  const onDisk = await withDiskStore(context, parts, { memoryBytes: GIB, diskBytes: 2 * GIB }, (store) =>
    measure("disk", store, parts),
  );
  return [...inMemory, ...onDisk];
}

async function measure(tier: string, store: StateStore, parts: StateParts): Promise<Figure[]> {
  const counted = countPuts(store);
  const generator = parts.generatorOn(counted.store);
  for (const length of LENGTHS) await begin(generator, parts, length);
  const figures: Figure[] = [];
  for (const [kind, turn] of [
    ["session", inSession],
    ["response", inResponses],
  ] as const) {
    const times: number[][] = LENGTHS.map(() => []);
    for (let round = 0; round <= NUM_ROUNDS; round++) {
      for (const [i, length] of LENGTHS.entries()) {
        const ms = await turn(generator, length, round);
        if (round > 0) times[i]!.push(ms); // the first round warms up
      }
    }
    const bytes: number[] = [];
    for (const length of LENGTHS) {
      counted.start();
      await turn(generator, length, NUM_ROUNDS + 1);
      bytes.push(counted.bytes());
    }
    const ms = times.map((of) => median(of));
    figures.push(
      ...LENGTHS.map((length, i) => ({
        name: `${tier}: a ${kind}'s turn behind ${length} tokens`,
        value: ms[i]!,
        unit: "ms",
      })),
      {
        name: `${tier}: a ${kind}'s turn, longest / shortest`,
        value: ms.at(-1)! / ms[0]!,
        unit: "x",
        ...atMost(MAX_RATIO),
      },
      {
        name: `${tier}: bytes that it writes, longest / shortest`,
        value: bytes.at(-1)! / bytes[0]!,
        unit: "x",
        ...atMost(MAX_RATIO),
      },
    );
  }
  return figures;
}

/** A session and a response behind so many tokens: the model reads a thousand, a file says that more came before. */
async function begin(generator: Generator, { manifest, stateBytes }: StateParts, length: number): Promise<void> {
  const short = session(`short ${length}`.replace(" ", "-"));
  const prompt = { type: "tokens", tokenIds: makePrompt(LENGTHS[0]!, 1) } as const;
  await runTurn(generator, turnOf(prompt, { maxTokens: 1, keepAs: short }));
  const file = await generator.conversations.exportSession("", short.id);
  const snapshot = decodeSnapshot(file, { modelHash: manifest.modelHash, stateBytes });
  const numBefore = length - LENGTHS[0]!;
  await generator.conversations.importSession("", fileBehind(snapshot, numBefore), `behind-${length}`);
  const resumeFrom = session(`behind-${length}`);
  await runTurn(generator, turnOf(ADDED, { maxTokens: 1, resumeFrom, keepAs: response(length, 0) }));
}

function fileBehind(snapshot: Snapshot, numTokens: number): Uint8Array {
  if (numTokens === 0) return encodeSnapshot(snapshot);
  const pieces: Buffer[] = [];
  const past = (count: number) => (count === 0 ? {} : { past: { key: "-", numTokens: count } });
  for (let at = 0; at < numTokens; at += MAX_PART_TOKENS) {
    const tokenIds = makePrompt(Math.min(MAX_PART_TOKENS, numTokens - at), at);
    const rest = { position: 0, state: new Uint8Array(0), conversation: { passages: [] }, isPart: true };
    pieces.push(encodeSnapshot({ modelHash: snapshot.modelHash, ...past(at), tokenIds, ...rest }));
  }
  const position = snapshot.position + numTokens;
  pieces.push(encodeSnapshot({ ...snapshot, ...past(numTokens), position }));
  return Buffer.concat(pieces);
}

async function inSession(generator: Generator, length: number): Promise<number> {
  const at = session(`behind-${length}`);
  const { totalMs, cachedTokens } = await runTurn(
    generator,
    turnOf(ADDED, { maxTokens: 1, resumeFrom: at, keepAs: at }),
  );
  assert(cachedTokens >= length, `only ${cachedTokens} of ${length} tokens were not read again`);
  return totalMs;
}

async function inResponses(generator: Generator, length: number, round: number): Promise<number> {
  const resumeFrom = response(length, round);
  const keepAs = response(length, round + 1);
  return (await runTurn(generator, turnOf(ADDED, { maxTokens: 1, resumeFrom, keepAs }))).totalMs;
}

function response(length: number, round: number): ConversationKey {
  return { type: "response", id: `${length}-${round}` };
}

function countPuts(store: StateStore) {
  let numBytes: number | undefined;
  const counted = new Proxy(store, {
    get(target, name) {
      if (name !== "put") {
        const value: unknown = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      }
      return (...args: Parameters<StateStore["put"]>) => {
        if (numBytes !== undefined) numBytes += encodeSnapshot(args[1]).length;
        return target.put(...args);
      };
    },
  });
  return {
    store: counted,
    start: () => {
      numBytes = 0;
    },
    bytes: () => {
      const counted = numBytes ?? 0;
      numBytes = undefined;
      return counted;
    },
  };
}
