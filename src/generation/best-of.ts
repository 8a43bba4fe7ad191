/** best_of: of each prompt's samples only the likeliest are shown, so nothing can be shown before all have ended. */
import type { Choice } from "./choice.ts";
import type { GenerationEvent, TokenDetail } from "./events.ts";

interface Sample {
  prompt?: Extract<GenerationEvent, { type: "prompt" }>;
  text: string;
  readonly tokenIds: number[];
  readonly logprobs: TokenDetail[];
  readonly textOffsets: number[];
  finished?: Extract<GenerationEvent, { type: "finished" }>;
}

/**
 * @param choices in the order of prompts, `bestOf` for each
 * @returns the events of the `numChoices` samples of each prompt with the highest mean log-probability, one delta each
 */
export async function* selectBest(
  events: AsyncIterable<GenerationEvent>,
  choices: readonly Choice[],
  { numChoices, bestOf }: { readonly numChoices: number; readonly bestOf: number },
): AsyncGenerator<GenerationEvent> {
  const samples = choices.map((): Sample => ({ text: "", tokenIds: [], logprobs: [], textOffsets: [] }));
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
  else {
    sample.text += event.text;
    sample.tokenIds.push(...event.tokenIds);
    sample.logprobs.push(...(event.logprobs ?? []));
    sample.textOffsets.push(...(event.textOffsets ?? []));
  }
}

function* replay(sample: Sample, index: number): Generator<GenerationEvent> {
  const { prompt, text, tokenIds, logprobs, textOffsets, finished } = sample;
  if (prompt) yield { ...prompt, index };
  if (text !== "" || tokenIds.length > 0) {
    yield { type: "delta", index, text, tokenIds, ...(logprobs.length > 0 && { logprobs, textOffsets }) };
  }
  if (finished) yield { ...finished, index };
}
