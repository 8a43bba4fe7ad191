/** `/tokenize` and `/detokenize`, in the spelling of lm-evaluation-harness and vLLM (`prompt`) and llama.cpp (`content`). */
import * as z from "zod";
import type { TextTokenizer } from "../deps.ts";
import { type Bounds, tokenIds } from "./fields.ts";
import { invalid } from "./validate.ts";

export function tokenizeBody() {
  return z.object({
    model: z.string().optional(),
    prompt: z.string().optional(),
    content: z.string().optional(),
    add_special_tokens: z.boolean().optional(),
    /** llama.cpp's name for the same. */
    add_special: z.boolean().optional(),
    return_token_strs: z.boolean().optional(),
  });
}

export type TokenizeBody = z.output<ReturnType<typeof tokenizeBody>>;

/** @throws `invalid_value` without a text */
export function textToTokenize(body: TokenizeBody): string {
  const text = body.prompt ?? body.content;
  if (text === undefined) throw invalid("prompt", "is required");
  return text;
}

export function wantsSpecialTokens(body: TokenizeBody): boolean {
  return body.add_special_tokens ?? body.add_special ?? true;
}

export function toTokensObject(
  tokens: readonly number[],
  body: TokenizeBody,
  tokenizer: TextTokenizer,
  bounds: Bounds,
) {
  return {
    tokens,
    count: tokens.length,
    max_model_len: bounds.maxPromptTokens,
    ...(body.return_token_strs && { token_strs: tokens.map((id) => tokenizer.idToToken(id) ?? null) }),
  };
}

export function toTokenizerInfo({ specialTokens, chatTemplate, vocabSize }: TextTokenizer) {
  return {
    bos_token: specialTokens.bos_token ?? null,
    eos_token: specialTokens.eos_token ?? null,
    pad_token: specialTokens.pad_token ?? null,
    unk_token: specialTokens.unk_token ?? null,
    chat_template: chatTemplate ?? null,
    vocab_size: vocabSize,
  };
}

export function detokenizeBody(bounds: Bounds) {
  return z.object({
    model: z.string().optional(),
    tokens: tokenIds(bounds, bounds.maxPromptTokens),
    skip_special_tokens: z.boolean().optional(),
  });
}
