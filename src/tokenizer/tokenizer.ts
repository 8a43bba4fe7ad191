/** Tokens ↔ text. Encoding is off the event loop where the native library is present; decoding is synchronous and small. */
export interface Tokenizer {
  /** Ids that text can produce: max id + 1. The model's vocabulary may be padded beyond it. */
  readonly vocabSize: number;
  readonly specialIds: ReadonlySet<number>;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** From tokenizer_config.json (or chat_template.jinja), if the model has one. */
  readonly chatTemplate: string | undefined;
  /** The texts of the special tokens by role: bos_token, eos_token, pad_token, unk_token. */
  readonly specialTokens: Readonly<Record<string, string>>;
  encode(text: string, options: { readonly addSpecialTokens: boolean }): Promise<number[]>;
  /** Broken UTF-8 at either end shows as U+FFFD. */
  decode(ids: readonly number[], options: { readonly skipSpecialTokens: boolean }): string;
  /** The vocabulary's own spelling of a token, e.g. `▁the` or `<0x0A>`; undefined outside the vocabulary. */
  idToToken(id: number): string | undefined;
  /** The text of one token standing in the middle of a text, e.g. ` the`; what logprobs show. */
  tokenText(id: number): string;
  /** Its bytes: a token may be part of a character. */
  tokenBytes(id: number): Uint8Array;
}
