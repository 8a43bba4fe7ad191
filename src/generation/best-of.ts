/** best_of: of each prompt's samples only the likeliest are shown, so nothing can be shown before all have ended. */
import { setImmediate } from "node:timers/promises";
import type { Choice } from "./choice.ts";
import type { GenerationEvent, PromptEvent } from "./events.ts";
import { GatheredChoice } from "./gathered-choice.ts";
import type { TokenNames } from "./token-details.ts";

const TOKENS_PER_DELTA = 256;

interface Sample {
  prompt?: PromptEvent;
  readonly answer: GatheredChoice;
  finished?: Extract<GenerationEvent, { type: "finished" }>;
}

/**
 * @param choices in the order of prompts, `bestOf` for each
 * @returns the events of the `numChoices` samples of each prompt with the highest mean log-probability
 */
export async function* selectBest(
  events: AsyncIterable<GenerationEvent>,
  choices: readonly Choice[],
  names: TokenNames,
  { numChoices, bestOf }: { readonly numChoices: number; readonly bestOf: number },
): AsyncGenerator<GenerationEvent> {
  const samples = choices.map((): Sample => ({ answer: new GatheredChoice(names) }));
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

/** The text comes with the first delta. Lets other work run between deltas. */
async function* replay(sample: Sample, index: number): AsyncGenerator<GenerationEvent> {
  const { prompt, answer, finished } = sample;
  const { text, tokenIds, logprobs, textOffsets } = answer;
  if (prompt) yield { ...prompt, index };
  for (let start = 0; start < Math.max(tokenIds.length, text === "" ? 0 : 1); start += TOKENS_PER_DELTA) {
    const end = start + TOKENS_PER_DELTA;
    const delta = { index, text: start === 0 ? text : "", tokenIds: tokenIds.slice(start, end) };
    const scores = { logprobs: logprobs.slice(start, end), textOffsets: textOffsets.slice(start, end) };
    yield { type: "delta", ...delta, ...(logprobs.length > 0 && scores) };
    await setImmediate();
  }
  if (finished) yield { ...finished, index };
}
