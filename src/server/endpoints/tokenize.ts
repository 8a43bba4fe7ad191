/**
 * `/tokenize`, `/detokenize` and `/tokenizer_info`, in the spelling of lm-evaluation-harness and
 * vLLM (`prompt`, `messages`) and of llama.cpp (`content`). Long texts are handled in pieces,
 * between which the event loop runs other work.
 */
import { setImmediate } from "node:timers/promises";
import * as z from "zod";
import { aboutField } from "../../errors.ts";
import { promptTooLong } from "../../generation/check-request.ts";
import type { EncodeOptions } from "../../tokenizer/tokenizer.ts";
import type { App, AppContext, ServerDeps, TextTokenizer } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { shuttingDown } from "../http/error-answers.ts";
import { type Bounds, boundsOf, checkModel, tokenIds } from "../openai/fields.ts";
import { REFUSED_ON_TOKENIZE } from "../openai/refused-fields.ts";
import { invalid, parseBody, refusals } from "../openai/validate.ts";
import { chatPromptFields, toChatPrompt } from "./chat.ts";

/** Tokens of a piece: some milliseconds' work. */
const PIECE_TOKENS = 8192;

export function tokenizerRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const [tokenize, detokenize] = [tokenizeBody(bounds), detokenizeBody(bounds)];
  const { generator } = deps;
  const { tokenizer } = generator;

  const encode = async (body: TokenizeBody, owner: string, signal: AbortSignal): Promise<readonly number[]> => {
    const { messages, prompt, content = prompt } = body;
    const givenSpecial = body.add_special_tokens ?? body.add_special;
    if (messages !== undefined) {
      if (content !== undefined) throw invalid("messages", "can't be given together with prompt or content");
      const prompts = [toChatPrompt({ ...body, messages })];
      const names = { prompts: "messages", maxTokens: "max_tokens", numLogprobs: "logprobs" };
      const addSpecialTokens = givenSpecial ?? false;
      return (await generator.encodePrompt({ names, prompts, addSpecialTokens, owner, signal })).tokenIds;
    }
    if (content === undefined) throw invalid("prompt", "is required, or messages");
    const field = prompt === undefined ? "content" : "prompt";
    return encodeText(field, prompt ?? content, { addSpecialTokens: givenSpecial ?? true, signal });
  };

  const encodeText = async (field: string, text: string, options: EncodeOptions) => {
    const { maxPromptTokens: maxTokens } = bounds;
    const tokens = await tokenizer.encode(text, { ...options, maxTokens }).catch((error: unknown) => {
      throw aboutField(error, field);
    });
    if (tokens.length > maxTokens) throw promptTooLong(field, tokens.length, maxTokens);
    return tokens;
  };

  app.post("/tokenize", async (context) => {
    const body = parseBody(tokenize, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const signal = AbortSignal.any([context.req.raw.signal, deps.stopping.signal]);
    const tokens = await encode(body, context.get("owner"), signal).catch((error: unknown) => {
      throw deps.stopping.signal.aborted ? shuttingDown() : error;
    });
    return json(context, await yielding(tokensJson(tokens, body, tokenizer, bounds.maxPromptTokens)));
  });

  app.post("/detokenize", async (context) => {
    const body = parseBody(detokenize, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const text = JSON.stringify((await yielding(decodedText(tokenizer, body))).join(""));
    return json(context, [`{"prompt":${text},"content":${text}}`]);
  });

  app.get("/tokenizer_info", (context) => context.json(toTokenizerInfo(tokenizer)));
}

export function tokenizeBody(bounds: Bounds) {
  const { messages, ...chatFields } = chatPromptFields(bounds);
  const schema = z.object({
    model: z.string().optional(),
    messages: messages.optional(),
    ...chatFields,
    prompt: z.string().optional(),
    content: z.string().optional(),
    add_special_tokens: z.boolean().optional(),
    /** llama.cpp's name for the same. */
    add_special: z.boolean().optional(),
    return_token_strs: z.boolean().optional(),
  });
  return schema.register(refusals, REFUSED_ON_TOKENIZE);
}

type TokenizeBody = z.output<ReturnType<typeof tokenizeBody>>;

export function detokenizeBody(bounds: Bounds) {
  return z.object({
    model: z.string().optional(),
    tokens: tokenIds(bounds, bounds.maxPromptTokens),
    skip_special_tokens: z.boolean().optional(),
  });
}

type DetokenizeBody = z.output<ReturnType<typeof detokenizeBody>>;

/** The answer's JSON. */
function* tokensJson(
  tokens: readonly number[],
  { return_token_strs }: TokenizeBody,
  tokenizer: TextTokenizer,
  maxTokens: number,
): Generator<string> {
  yield `{"count":${tokens.length},"max_model_len":${maxTokens},"tokens":[`;
  yield* joined(tokens, String);
  if (return_token_strs) {
    yield '],"token_strs":[';
    yield* joined(tokens, (id) => JSON.stringify(tokenizer.idToToken(id) ?? null));
  }
  yield "]}";
}

function* joined(ids: readonly number[], render: (id: number) => string): Generator<string> {
  for (const [index, piece] of pieces(ids).entries()) yield (index === 0 ? "" : ",") + piece.map(render).join(",");
}

function* decodedText(tokenizer: TextTokenizer, body: DetokenizeBody): Generator<string> {
  const stream = tokenizer.stream({ skipSpecialTokens: body.skip_special_tokens ?? false });
  for (const piece of pieces(body.tokens)) yield piece.map((id) => stream.push(id)).join("");
  yield stream.flush();
}

function pieces(ids: readonly number[]): (readonly number[])[] {
  const numPieces = Math.ceil(ids.length / PIECE_TOKENS);
  return Array.from({ length: numPieces }, (_, n) => ids.slice(n * PIECE_TOKENS, (n + 1) * PIECE_TOKENS));
}

/** Lets other work run between the parts. */
async function yielding(parts: Iterable<string>): Promise<string[]> {
  const all: string[] = [];
  for (const part of parts) {
    all.push(part);
    await setImmediate();
  }
  return all;
}

function json(context: AppContext, parts: readonly string[]): Response {
  return context.body(parts.join(""), 200, { "content-type": "application/json" });
}

function toTokenizerInfo({ className, specialTokens, chatTemplate, vocabSize }: TextTokenizer) {
  return {
    tokenizer_class: className ?? null,
    bos_token: specialTokens.bos_token ?? null,
    eos_token: specialTokens.eos_token ?? null,
    pad_token: specialTokens.pad_token ?? null,
    unk_token: specialTokens.unk_token ?? null,
    chat_template: chatTemplate ?? null,
    vocab_size: vocabSize,
  };
}
