/** A request with a single answer, from the few things that callers without an API's fields say. */
import type { FieldNames, GenerationRequest, Prompt } from "./events.ts";

export interface PlainRequest {
  readonly names: FieldNames;
  readonly prompt: Prompt;
  readonly maxTokens: number | undefined;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly seed: number | undefined;
  readonly stop: readonly string[];
  readonly signal: AbortSignal;
}

export function plainRequest(plain: PlainRequest): GenerationRequest {
  const { names, prompt, maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop, signal } = plain;
  return {
    names,
    prompts: [prompt],
    numChoices: 1,
    bestOf: 1,
    sampling: {
      temperature,
      topK,
      topP,
      minP,
      repetitionPenalty,
      presencePenalty: 0,
      frequencyPenalty: 0,
      logitBias: new Map(),
      seed,
    },
    maxTokens,
    minTokens: 0,
    stopStrings: stop,
    stopTokenIds: [],
    ignoreEos: false,
    includeStopString: false,
    skipSpecialTokens: true,
    addSpecialTokens: true,
    echo: false,
    owner: "",
    signal,
  };
}
