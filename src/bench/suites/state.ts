/**
 * What it is worth that a conversation's whole past is one block of memory: it is resumed instead
 * of read again, a second turn does not depend on the first one's length, and there are many more
 * conversations than slots. In turns, without HTTP.
 */
import { strict as assert } from "node:assert";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Prompt } from "../../generation/events.ts";
import type { Generator } from "../../generation/generator.ts";
import { PrefixCache } from "../../prefix/prefix-cache.ts";
import type { ChatMessage } from "../../sessions/messages.ts";
import { MemoryStore } from "../../sessions/stores/memory-store.ts";
import type { BenchConfig, SuiteContext } from "../config.ts";
import {
  type ConversationParts,
  dropFromCache,
  runTurn,
  session,
  turnOf,
  withConversations,
  withDiskStore,
} from "../conversations.ts";
import { atMost, type Figure, median } from "../figures.ts";
import { randomCheckpoint, randomPrompt } from "../random-model.ts";
import { inTurns, ratios } from "../rounds.ts";
import { benchFork, benchSessions } from "./state-sessions.ts";

const GIB = 2 ** 30;

export async function benchState(context: SuiteContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  const run = async (part: string, measured: Promise<Figure[]>) => {
    figures.push(...(await measured));
    context.print(`state: measured ${part}`);
  };
  await withConversations(context, context.modelDir, async (parts) => {
    const { name } = parts.manifest;
    await run("resuming", benchResume(context, parts, name, 15));
    await run("second turns", benchSecondTurns(parts));
    await run("forks", benchFork(context, parts, name));
    await run("sessions", benchSessions(context, parts));
  });
  const { shape } = context;
  await withConversations(context, await randomCheckpoint(context.cacheDir, shape), async (parts) => {
    await run(`resuming, ${shape}`, benchResume(context, parts, shape, 3));
    await run(`forks, ${shape}`, benchFork(context, parts, shape));
  });
  return figures;
}

/**
 * Going on with a long conversation, from memory and from the disk, beside reading all of it again.
 */
async function benchResume(
  config: BenchConfig,
  parts: ConversationParts,
  model: string,
  numRounds: number,
): Promise<Figure[]> {
  const numTokens = 8000;
  const history = randomPrompt(numTokens, 1);
  const added = randomPrompt(8, 2);
  const resume = turnOf({ type: "tokens", tokenIds: added }, { maxTokens: 1, resumeFrom: session("long") });
  const readAgain = turnOf({ type: "tokens", tokenIds: [...history, ...added] }, { maxTokens: 1 });
  const resumeOn = async (generator: Generator) => {
    const { cachedTokens, firstTokenMs } = await runTurn(generator, resume);
    assert(cachedTokens === numTokens, `only ${cachedTokens} of ${numTokens} tokens were not read again`);
    return firstTokenMs;
  };

  const inMemory = parts.generatorOn(new MemoryStore({ maxBytes: GIB }));
  // With no memory, every lookup goes to the disk.
  return withDiskStore(config, parts, { memoryBytes: 0, diskBytes: GIB }, async (store, dir) => {
    const onDisk = parts.generatorOn(store);
    const begin = turnOf({ type: "tokens", tokenIds: history }, { maxTokens: 0, saveAs: session("long") });
    for (const generator of [inMemory, onDisk]) await runTurn(generator, begin);
    const files = (await readdir(dir, { recursive: true })).filter((file) => file.endsWith(".dsm"));
    assert(files.length > 0, "the session is in files");

    const { memory, disk, read } = await inTurns(
      {
        memory: () => resumeOn(inMemory),
        disk: () => {
          for (const file of files) dropFromCache(join(dir, file));
          return resumeOn(onDisk);
        },
        read: async () => (await runTurn(inMemory, readAgain)).firstTokenMs,
      },
      { numRounds },
    );
    const percent = (samples: readonly number[]) => median(ratios(samples, read)) * 100;
    return [
      { name: `${model}: first token, ${numTokens} tokens read again`, value: median(read), unit: "ms" },
      { name: `${model}: resumed from memory`, value: median(memory), unit: "ms" },
      { name: `${model}: memory / read again`, value: percent(memory), unit: "%", ...atMost(1) },
      { name: `${model}: resumed from the disk`, value: median(disk), unit: "ms" },
      { name: `${model}: disk / read again`, value: percent(disk), unit: "%", ...atMost(5) },
    ];
  });
}

const SENTENCE = "The fox went down to the river, looked at the water for a while, and said nothing. ";
/** Tokens of a chat's first message. */
const LENGTHS = [100, 1000, 10_000, 100_000];
/** How much the medians of equal times may differ on a machine that others use. */
const NOISE = 1.2;

/**
 * First token of a chat's second turn: as a session, which sends only what is new, and with the
 * whole history sent again.
 */
async function benchSecondTurns(parts: ConversationParts): Promise<Figure[]> {
  const model = { modelHash: parts.manifest.modelHash, stateBytes: parts.stateBytes };
  const prefixCache = new PrefixCache({ store: new MemoryStore({ maxBytes: GIB }), model, nowMs: Date.now });
  const sessions = parts.generatorOn(new MemoryStore({ maxBytes: GIB }));
  const prefixes = parts.generatorOn(new MemoryStore({ maxBytes: GIB }), prefixCache);
  const sentenceIds = await parts.tokenizer.encode(SENTENCE, { addSpecialTokens: false });
  let numAsked = 0;
  /** Another question each time. */
  const question = () => message("user", `And what did she do on the day after, when ${numAsked++} friends came?`);
  const inSession: Record<string, () => Promise<number>> = {};
  const sentAgain: Record<string, () => Promise<number>> = {};
  for (const length of LENGTHS) {
    const story = message("user", SENTENCE.repeat(Math.ceil(length / sentenceIds.length)));
    const saveAs = session(`after-${length}`);
    const first = turnOf(chat([story]), { maxTokens: 16 });
    await runTurn(sessions, { ...first, saveAs });
    const answer = message("assistant", (await runTurn(prefixes, first)).text);
    const ask = async (generator: Generator, prompt: Prompt, resumeFrom?: typeof saveAs) => {
      const turn = await runTurn(generator, turnOf(prompt, { maxTokens: 1, ...(resumeFrom && { resumeFrom }) }));
      assert(turn.cachedTokens >= 0.9 * length, `only ${turn.cachedTokens} of ${length} tokens were not read again`);
      return turn.firstTokenMs;
    };
    inSession[length] = () => ask(sessions, chat([question()]), saveAs);
    sentAgain[length] = () => ask(prefixes, chat([story, answer, question()]));
  }
  const medians = async (measurements: typeof inSession, numRounds: number) => {
    const samples = await inTurns(measurements, { numRounds });
    return LENGTHS.map((length) => median(samples[length]!));
  };
  const sessionMs = await medians(inSession, 101);
  // To tokenize a long history takes much longer, and needs fewer rounds.
  const againMs = await medians(sentAgain, 9);
  return [
    ...LENGTHS.map((length, i) => ({
      name: `first token of a session's second turn, after ${length} tokens`,
      value: sessionMs[i]!,
      unit: "ms",
    })),
    {
      name: `the session's second turn, after ${LENGTHS.at(-1)} tokens / ${LENGTHS[0]}`,
      value: sessionMs.at(-1)! / sessionMs[0]!,
      unit: "x",
      ...atMost(NOISE),
    },
    ...LENGTHS.map((length, i) => ({
      name: `first token if the history is sent again, ${length} tokens`,
      value: againMs[i]!,
      unit: "ms",
    })),
  ];
}

function message(role: "user" | "assistant", content: string): ChatMessage {
  return { role, content };
}

function chat(messages: readonly ChatMessage[]): Prompt {
  return { type: "chat", messages, addGenerationPrompt: true, continueFinalMessage: false };
}
