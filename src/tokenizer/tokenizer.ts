/** Tokens ↔ text. Encoding happens in other processes; decoding is synchronous and cheap. */
export interface Tokenizer {
  /** Ids that text can produce: max id + 1. The model's vocabulary may be padded beyond it. */
  readonly vocabSize: number;
  readonly specialIds: ReadonlySet<number>;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Whether `encode` with special tokens puts BOS in front. */
  readonly addsBos: boolean;
  /** Ids that end a generation: EOS and whatever generation_config.json adds. */
  readonly endTokenIds: ReadonlySet<number>;
  /** From tokenizer_config.json (or chat_template.jinja), if the model has one. */
  readonly chatTemplate: string | undefined;
  /** The texts of the special tokens by role: bos_token, eos_token, pad_token, unk_token. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /**
   * @throws `aborted`; `invalid_value` for a text that the tokenizer has no ids for, or that is too long to be encoded at
   * once and cannot be cut
   */
  encode(text: string, options: EncodeOptions): Promise<number[]>;
  /**
   * Encodes text that continues from earlier text: no special tokens, and no space of the tokenizer's own in front.
   * Undefined where this tokenizer cannot; encode the whole text then. @throws as `encode`
   */
  encodeContinuation(text: string, limits?: EncodeLimits): Promise<number[] | undefined>;
  /** Broken UTF-8 shows as U+FFFD. Ids without a token decode to nothing. */
  decode(ids: readonly number[], options: { readonly skipSpecialTokens: boolean }): string;
  /**
   * Decodes token by token. `contextIds` stand before the first one: their text is not repeated, but they decide its
   * leading space, and a character they left open is completed.
   */
  stream(options: { readonly skipSpecialTokens: boolean; readonly contextIds?: readonly number[] }): TextStream;
  /** The vocabulary's own spelling of a token, e.g. `▁the` or `<0x0A>`; undefined outside the vocabulary. */
  idToToken(id: number): string | undefined;
  /** The text of one token standing in the middle of a text, e.g. ` the`; what logprobs show. */
  tokenText(id: number): string;
  /** Its bytes: a token may be part of a character. */
  tokenBytes(id: number): Uint8Array;
}

export interface EncodeLimits {
  /** Encoding stops soon after there are more: then the result is only a beginning, and longer than this. */
  readonly maxTokens?: number;
  readonly signal?: AbortSignal;
}

export interface EncodeOptions extends EncodeLimits {
  readonly addSpecialTokens: boolean;
}

/** Enough `contextIds`, by far: decoding asks for the last character, and whether there is any text. */
export const CONTEXT_TOKENS = 256;

/** The deltas and the flush, joined, are what `decode` gives for the whole. */
export interface TextStream {
  /** The text that is certain now; empty while a character is incomplete (at most three bytes are held). */
  push(id: number): string;
  /** Whether a character has begun and is not complete. */
  readonly isOpen: boolean;
  /** What is still held, as U+FFFD. The stream may not be used after. */
  flush(): string;
}
