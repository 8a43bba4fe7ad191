/**
 * The second turn of a chat: its first token must not depend on how long the first turn was. The session's way sends what
 * is new; beside it the way of clients that send the whole history again, which must at least be taken apart into tokens.
 */
import { strict as assert } from "node:assert";
import type { Prompt } from "../../generation/events.ts";
import type { Generator } from "../../generation/generator.ts";
import { PrefixCache } from "../../prefix/prefix-cache.ts";
import type { ChatMessage } from "../../sessions/message-chain.ts";
import { MemoryStore } from "../../sessions/stores/memory-store.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { atMost, type Figure, median } from "../report.ts";
import { runTurn, type StateParts, session, turnOf } from "./state-parts.ts";

const LENGTHS = [100, 1000, 10_000, 100_000];
const NUM_ROUNDS = 101;
/** Taking a long history apart takes much longer, and needs less care. */
const NUM_SLOW_ROUNDS = 9;
/** What two medians of equal times may differ by on a machine that others use. */
const NOISE = 1.2;
const GIB = 2 ** 30;
const SENTENCE = "The fox went down to the river, looked at the water for a while, and said nothing. ";

interface Turns {
  readonly length: number;
  /** Ask the second question, another one each round, and give the milliseconds to the first token of the answer. */
  readonly inSession: (round: number) => Promise<number>;
  readonly sentAgain: (round: number) => Promise<number>;
}

export async function benchTurns(parts: StateParts): Promise<Figure[]> {
  const { manifest, stateBytes, tokenizer } = parts;
  const model = { modelHash: manifest.modelHash, stateBytes };
  const prefixCache = new PrefixCache({ store: new MemoryStore({ maxBytes: GIB }), model, nowMs: Date.now });
  const sessions = parts.generatorOn(new MemoryStore({ maxBytes: GIB }));
  const prefixes = parts.generatorOn(new MemoryStore({ maxBytes: GIB }), prefixCache);
  const all: Turns[] = [];
  for (const length of LENGTHS) all.push(await firstTurn({ sessions, prefixes, tokenizer }, length));

  const inSession = await inTurns(all, NUM_ROUNDS, ({ inSession }, round) => inSession(round));
  const sentAgain = await inTurns(all, NUM_SLOW_ROUNDS, ({ sentAgain }, round) => sentAgain(round));
  return [
    ...LENGTHS.map((length, i) => ({
      name: `first token of a session's second turn, behind ${length} tokens`,
      value: inSession[i]!,
      unit: "ms",
    })),
    {
      name: `the session's second turn, behind ${LENGTHS.at(-1)} tokens / ${LENGTHS[0]}`,
      value: inSession.at(-1)! / inSession[0]!,
      unit: "x",
      ...atMost(NOISE),
    },
    ...LENGTHS.map((length, i) => ({
      name: `first token if the history is sent again, ${length} tokens`,
      value: sentAgain[i]!,
      unit: "ms",
    })),
  ];
}

/** Median milliseconds of each length, taken in turns, every other round in reverse order. */
async function inTurns(
  all: readonly Turns[],
  numRounds: number,
  time: (turns: Turns, round: number) => Promise<number>,
): Promise<number[]> {
  const times: number[][] = all.map(() => []);
  for (let round = 0; round <= numRounds; round++) {
    const order = all.map((_, i) => (round % 2 === 0 ? i : all.length - 1 - i));
    for (const i of order) {
      const ms = await time(all[i]!, round);
      if (round > 0) times[i]!.push(ms); // the first round warms up
    }
  }
  return times.map((of) => median(of));
}

async function firstTurn(
  on: { readonly sessions: Generator; readonly prefixes: Generator; readonly tokenizer: Tokenizer },
  length: number,
): Promise<Turns> {
  const sentenceIds = await on.tokenizer.encode(SENTENCE, { addSpecialTokens: false });
  const story: ChatMessage = { role: "user", content: SENTENCE.repeat(Math.ceil(length / sentenceIds.length)) };
  const id = `behind-${length}`;
  const first = turnOf(chat([story]), { maxTokens: 16 });
  await runTurn(on.sessions, { ...first, keepAs: session(id) });
  const { text } = await runTurn(on.prefixes, first);
  const answer: ChatMessage = { role: "assistant", content: text };
  const ask = async (generator: Generator, prompt: Prompt, resumeFrom?: ReturnType<typeof session>) => {
    const turn = await runTurn(generator, turnOf(prompt, { maxTokens: 1, ...(resumeFrom && { resumeFrom }) }));
    assert(turn.cachedTokens >= 0.9 * length, `only ${turn.cachedTokens} of ${length} tokens were not read again`);
    return turn.firstTokenMs;
  };
  return {
    length,
    inSession: (round) => ask(on.sessions, chat([question(round)]), session(id)),
    sentAgain: (round) => ask(on.prefixes, chat([story, answer, question(round)])),
  };
}

function chat(messages: readonly ChatMessage[]): Prompt {
  return { type: "chat", messages, addGenerationPrompt: true, continueFinalMessage: false };
}

function question(round: number): ChatMessage {
  return { role: "user", content: `And what did she do on the day after, when ${round} friends came?` };
}
