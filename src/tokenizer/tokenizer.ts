/** Tokens ↔ text. Encoding runs in other processes; decoding is synchronous and cheap. */
export interface Tokenizer {
  /** Max id + 1 of the ids that a text can have. The model's vocabulary may be padded beyond it. */
  readonly vocabSize: number;
  /** How many more ids its models may have, where that is known. */
  readonly maxPadding?: number | undefined;
  /** transformers' class for it, where the model names one. */
  readonly className?: string | undefined;
  readonly specialIds: ReadonlySet<number>;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Whether `encode` with special tokens begins with BOS. */
  readonly addsBos: boolean;
  /** Ids that end a generation: EOS and those of generation_config.json. */
  readonly endTokenIds: ReadonlySet<number>;
  /** From tokenizer_config.json (or chat_template.jinja), if the model has one. */
  readonly chatTemplate: string | undefined;
  /**
   * What such models are used with where they have no template, if that is known of all that have
   * this tokenizer.
   */
  readonly defaultChat?: DefaultChat | undefined;
  /** The texts of the special tokens by role: bos_token, eos_token, pad_token, unk_token. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /**
   * @throws `aborted`; `invalid_value` if the tokenizer has no ids for the text, or if the text is
   * too long and cannot be cut
   */
  encode(text: string, options: EncodeOptions): Promise<number[]>;
  /**
   * Encodes text that continues earlier text, without special tokens and without a leading space of
   * the tokenizer's own. Undefined if this tokenizer cannot; then encode the whole text.
   * @throws as `encode`
   */
  encodeContinuation(text: string, limits?: EncodeLimits): Promise<number[] | undefined>;
  /** Broken UTF-8 becomes U+FFFD. Ids without a token become nothing. */
  decode(ids: readonly number[], options: { readonly skipSpecialTokens: boolean }): string;
  /**
   * Decodes token by token. `contextIds` precede the first one: their text is not repeated, but
   * they decide its leading space, and an incomplete character of theirs is completed.
   */
  stream(options: { readonly skipSpecialTokens: boolean; readonly contextIds?: readonly number[] }): TextStream;
  /**
   * The vocabulary's own spelling of a token, e.g. `▁the` or `<0x0A>`; undefined outside the
   * vocabulary.
   */
  idToToken(id: number): string | undefined;
  /** The text of one token in the middle of a text, e.g. ` the`; used by logprobs. */
  tokenText(id: number): string;
  /** Its bytes: a token may be part of a character. */
  tokenBytes(id: number): Uint8Array;
}

export interface DefaultChat {
  readonly template: string;
  /** What ends an answer, since no token of its own does. */
  readonly stopStrings: readonly string[];
}

export interface EncodeLimits {
  /** Encoding stops soon after this many: the result is then incomplete, and longer than this. */
  readonly maxTokens?: number;
  readonly signal?: AbortSignal;
}

export interface EncodeOptions extends EncodeLimits {
  readonly addSpecialTokens: boolean;
}

/**
 * More than enough `contextIds`: decoding needs the last character, and whether there is any text.
 */
export const CONTEXT_TOKENS = 256;

/** The deltas and the flush, joined, are what `decode` gives for the whole. */
export interface TextStream {
  /**
   * The text that is complete; empty while a character is incomplete (at most three bytes are held
   * back).
   */
  push(id: number): string;
  /** Whether a character has begun and is not complete. */
  readonly isOpen: boolean;
  /** The incomplete rest, as U+FFFD. The stream may not be used afterwards. */
  flush(): string;
}
