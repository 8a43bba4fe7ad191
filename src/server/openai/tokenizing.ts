/** `/tokenize` and `/detokenize`, in the spelling of lm-evaluation-harness and vLLM (`prompt`) and llama.cpp (`content`). */
import * as z from "zod";
import type { TextTokenizer } from "../deps.ts";
import { type Bounds, tokenIds } from "./fields.ts";
import { refusedOnTokenize } from "./refused-fields.ts";
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
    ...refusedOnTokenize(),
  });
}

export type TokenizeBody = z.output<ReturnType<typeof tokenizeBody>>;

/** @throws `invalid_value` without a text */
export function textToTokenize({ prompt, content }: TokenizeBody): { readonly field: string; readonly text: string } {
  if (prompt !== undefined) return { field: "prompt", text: prompt };
  if (content !== undefined) return { field: "content", text: content };
  throw invalid("prompt", "is required");
}

export function wantsSpecialTokens(body: TokenizeBody): boolean {
  return body.add_special_tokens ?? body.add_special ?? true;
}

/** The answer's JSON in pieces, between which the event loop may do something else. */
export function* tokensJson(
  tokens: readonly number[],
  body: TokenizeBody,
  tokenizer: TextTokenizer,
  bounds: Bounds,
): Generator<string> {
  yield `{"count":${tokens.length},"max_model_len":${bounds.maxPromptTokens},"tokens":[`;
  yield* joined(tokens, String);
  if (body.return_token_strs) {
    yield '],"token_strs":[';
    yield* joined(tokens, (id) => JSON.stringify(tokenizer.idToToken(id) ?? null));
  }
  yield "]}";
}

/** Items of some milliseconds' work. */
const SLICE = 8192;

function* joined(ids: readonly number[], render: (id: number) => string): Generator<string> {
  for (let from = 0; from < ids.length; from += SLICE) {
    const separator = from === 0 ? "" : ",";
    yield separator +
      ids
        .slice(from, from + SLICE)
        .map(render)
        .join(",");
  }
}

/** The text of many tokens in pieces. */
export function* decodedText(tokenizer: TextTokenizer, body: DetokenizeBody): Generator<string> {
  const stream = tokenizer.stream({ skipSpecialTokens: body.skip_special_tokens ?? false });
  for (let from = 0; from < body.tokens.length; from += SLICE) {
    yield body.tokens
      .slice(from, from + SLICE)
      .map((id) => stream.push(id))
      .join("");
  }
  yield stream.flush();
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

export type DetokenizeBody = z.output<ReturnType<typeof detokenizeBody>>;
