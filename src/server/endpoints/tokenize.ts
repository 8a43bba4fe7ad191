/** `/tokenize`, `/detokenize`, `/tokenizer_info`: what lm-evaluation-harness asks a server that holds the tokenizer. */
import { setImmediate } from "node:timers/promises";
import { promptTooLong } from "../../generation/prompts.ts";
import type { App, AppContext } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { shuttingDown } from "../http/stopping.ts";
import { checkModel } from "../openai/models.ts";
import {
  decodedText,
  detokenizeBody,
  textToTokenize,
  tokenizeBody,
  tokensJson,
  toTokenizerInfo,
  wantsSpecialTokens,
} from "../openai/tokenizing.ts";
import { parseBody } from "../openai/validate.ts";
import { boundsOf } from "./generate.ts";

export function tokenizerRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const tokenize = tokenizeBody();
  const detokenize = detokenizeBody(bounds);
  const { tokenizer } = deps.generator;

  app.post("/tokenize", async (context) => {
    const body = parseBody(tokenize, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const signal = AbortSignal.any([context.req.raw.signal, deps.stopping.signal]);
    const { maxPromptTokens: maxTokens } = bounds;
    const addSpecialTokens = wantsSpecialTokens(body);
    const { field, text } = textToTokenize(body);
    const encoding = tokenizer.encode(text, { addSpecialTokens, maxTokens, signal });
    const tokens = await encoding.catch((error: unknown) => {
      throw deps.stopping.signal.aborted ? shuttingDown() : error;
    });
    if (tokens.length > maxTokens) throw promptTooLong(field, tokens.length, maxTokens);
    return json(context, await unhurried(tokensJson(tokens, body, tokenizer, bounds)));
  });

  app.post("/detokenize", async (context) => {
    const body = parseBody(detokenize, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const text = JSON.stringify((await unhurried(decodedText(tokenizer, body))).join(""));
    return json(context, [`{"prompt":${text},"content":${text}}`]);
  });

  app.get("/tokenizer_info", (context) => context.json(toTokenizerInfo(tokenizer)));
}

/** Other work runs between the pieces. */
async function unhurried(pieces: Iterable<string>): Promise<string[]> {
  const all: string[] = [];
  for (const piece of pieces) {
    all.push(piece);
    await setImmediate();
  }
  return all;
}

function json(context: AppContext, pieces: readonly string[]): Response {
  return context.body(pieces.join(""), 200, { "content-type": "application/json" });
}
