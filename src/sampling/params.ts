/** How the next token is chosen. Bounds are checked in the server; here the values are valid. */
export interface SamplingParams {
  /** 0 means greedy. */
  readonly temperature: number;
  /** 0 means all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  /** 1 means none. Over prompt and output, as in Hugging Face and vLLM. */
  readonly repetitionPenalty: number;
  /** Over output tokens only, as OpenAI defines them. */
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** Added to the logits, token id → bias in [-100, 100]. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** No other tokens are chosen. Default: all may be. */
  readonly allowedTokenIds?: readonly number[];
  /** The last token of such a sequence is not chosen after its first ones. Each has at least one. */
  readonly bannedSequences?: readonly (readonly number[])[];
  /** A bigint beyond 2^53. Undefined: drawn by the engine from its random source. */
  readonly seed: number | bigint | undefined;
}

export const GREEDY: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  seed: undefined,
};
