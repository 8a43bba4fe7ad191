/** The event streams of a request's choices as one stream: in order of arrival, or ranked. */
import { setImmediate } from "node:timers/promises";
import type { Choice } from "./choice.ts";
import { CollectedDeltas } from "./collected-deltas.ts";
import type { GenerationEvent, PromptEvent } from "./events.ts";
import type { TokenNames } from "./token-details.ts";

/**
 * Once this many events are unread the queues of the choices fill, and the engine suspends them.
 */
const MAX_UNREAD = 64;
const TOKENS_PER_DELTA = 256;

/** Ends when all have ended. The first failure fails the stream; the caller aborts the others. */
export function mergeChoices(choices: readonly Choice[]): AsyncIterable<GenerationEvent> {
  // Nearly every request has one choice, which needs no queue and no second promise per token.
  return choices.length === 1 ? eventsOf(choices[0]!) : mergeSeveral(choices);
}

async function* eventsOf(choice: Choice): AsyncGenerator<GenerationEvent> {
  const out: GenerationEvent[] = [];
  for await (const event of choice.events) {
    out.length = 0;
    choice.accept(event, out);
    for (const made of out) yield made;
  }
}

async function* mergeSeveral(choices: readonly Choice[]): AsyncGenerator<GenerationEvent> {
  let out: GenerationEvent[] = [];
  let numOpen = choices.length;
  let failure: { readonly error: unknown } | undefined;
  let wake: () => void = () => {};
  /** Pumps that wait until the unread events have been read. */
  const paused: (() => void)[] = [];

  const pump = async (choice: Choice): Promise<void> => {
    try {
      for await (const event of choice.events) {
        choice.accept(event, out);
        wake();
        if (out.length >= MAX_UNREAD) await new Promise<void>((resolve) => paused.push(resolve));
      }
    } catch (error) {
      failure ??= { error };
    } finally {
      numOpen--;
      wake();
    }
  };
  for (const choice of choices) void pump(choice);

  while (true) {
    const ready = out;
    out = [];
    yield* ready;
    for (const resume of paused.splice(0)) resume();
    if (failure) throw failure.error;
    if (out.length > 0) continue;
    if (numOpen === 0) return;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}

interface Sample {
  prompt?: PromptEvent;
  readonly answer: CollectedDeltas;
  finished?: Extract<GenerationEvent, { type: "finished" }>;
}

/**
 * For `best_of`. Yields nothing before all choices have ended.
 * @param choices in the order of prompts, `bestOf` for each
 * @returns the events of each prompt's `numChoices` samples with the highest mean log-probability
 */
export async function* selectBest(
  events: AsyncIterable<GenerationEvent>,
  choices: readonly Choice[],
  names: TokenNames,
  { numChoices, bestOf }: { readonly numChoices: number; readonly bestOf: number },
): AsyncGenerator<GenerationEvent> {
  const samples = choices.map((): Sample => ({ answer: new CollectedDeltas(names) }));
  for await (const event of events) collect(samples, event);

  for (let first = 0; first < choices.length; first += bestOf) {
    const ranked = choices.slice(first, first + bestOf).sort((a, b) => b.meanLogprob - a.meanLogprob);
    const promptIndex = first / bestOf;
    for (let rank = 0; rank < numChoices; rank++) {
      yield* replay(samples[ranked[rank]!.index]!, promptIndex * numChoices + rank);
    }
  }
}

function collect(samples: readonly Sample[], event: GenerationEvent): void {
  if (!("index" in event)) return;
  const sample = samples[event.index]!;
  if (event.type === "prompt") sample.prompt = event;
  else if (event.type === "finished") sample.finished = event;
  else sample.answer.push(event);
}

/** The first delta has all of the text. Other work runs between deltas. */
async function* replay(sample: Sample, index: number): AsyncGenerator<GenerationEvent> {
  const { prompt, answer, finished } = sample;
  const { text, reasoning, calls, tokenIds, logprobs, textOffsets } = answer;
  if (prompt) yield { ...prompt, index };
  if (reasoning !== "") yield { type: "delta", part: "reasoning", index, text: reasoning, tokenIds: [] };
  for (let start = 0; start < Math.max(tokenIds.length, text === "" ? 0 : 1); start += TOKENS_PER_DELTA) {
    const end = start + TOKENS_PER_DELTA;
    const delta = { index, text: start === 0 ? text : "", tokenIds: tokenIds.slice(start, end) };
    const scores = { logprobs: logprobs.slice(start, end), textOffsets: textOffsets.slice(start, end) };
    yield { type: "delta", ...delta, ...(logprobs.length > 0 && scores) };
    await setImmediate();
  }
  for (const { id, name, arguments: json } of calls) {
    yield { type: "delta", part: "call", index, call: { id, name }, text: json, tokenIds: [] };
  }
  if (finished) yield { ...finished, index };
}
