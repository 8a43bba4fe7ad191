/** `/tokenize` and `/detokenize`, in the spelling of lm-evaluation-harness and vLLM (`prompt`) and llama.cpp (`content`). */
import * as z from "zod";
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

export function detokenizeBody(bounds: Bounds) {
  return z.object({
    model: z.string().optional(),
    tokens: tokenIds(bounds, bounds.maxPromptTokens),
    skip_special_tokens: z.boolean().optional(),
  });
}
