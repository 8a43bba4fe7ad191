/** `/tokenize`, `/detokenize`, `/tokenizer_info`: what lm-evaluation-harness asks a server that holds the tokenizer. */
import type { App } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../middleware/body.ts";
import { checkModel } from "../openai/models.ts";
import {
  detokenizeBody,
  textToTokenize,
  tokenizeBody,
  toTokenizerInfo,
  toTokensObject,
  wantsSpecialTokens,
} from "../openai/tokenizing.ts";
import { parseBody } from "../openai/validate.ts";
import { boundsOf } from "./serving.ts";

export function tokenizerRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const tokenize = tokenizeBody();
  const detokenize = detokenizeBody(bounds);
  const { tokenizer } = deps.generator;

  app.post("/tokenize", async (context) => {
    const body = parseBody(tokenize, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const tokens = await tokenizer.encode(textToTokenize(body), { addSpecialTokens: wantsSpecialTokens(body) });
    return context.json(toTokensObject(tokens, body, tokenizer, bounds));
  });

  app.post("/detokenize", async (context) => {
    const body = parseBody(detokenize, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const text = tokenizer.decode(body.tokens, { skipSpecialTokens: body.skip_special_tokens ?? false });
    return context.json({ prompt: text, content: text });
  });

  app.get("/tokenizer_info", (context) => context.json(toTokenizerInfo(tokenizer)));
}
