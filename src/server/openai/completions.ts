/** `POST /v1/completions`: the body's schema and its way into a `GenerationRequest`. */
import * as z from "zod";
import type { GenerationRequest, Prompt } from "../../generation/events.ts";
import { type Bounds, checkTokenIds, completionFields, ignoredFields, MAX_LOGPROBS, samplingFields } from "./fields.ts";
import { checkChoices, sessionFields, toCacheSalt, toSampling, toStopping, wantsUsageChunk } from "./parts.ts";
import { refusedOnCompletions } from "./refused-fields.ts";
import { addIssue, invalid, show } from "./validate.ts";

const DEFAULT_MAX_TOKENS = 16;

export function completionBody(bounds: Bounds) {
  return z.object({
    ...completionFields(bounds),
    prompt: z.unknown().transform((value, context) => parsePrompts(value, context, bounds)),
    max_tokens: z.int().min(0).max(bounds.maxOutputTokens).optional(),
    best_of: z.int().min(1).max(bounds.maxChoices).optional(),
    echo: z.boolean().optional(),
    logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    ...samplingFields(bounds),
    ...refusedOnCompletions(),
    ...ignoredFields(),
  });
}

export type CompletionBody = z.output<ReturnType<typeof completionBody>>;

export interface CompletionTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal">;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly echo: boolean;
  readonly returnTokenIds: boolean;
  readonly promptLogprobs: boolean;
}

/** @throws `invalid_value` where fields contradict each other */
export function toCompletionTask(body: CompletionBody, bounds: Bounds): CompletionTask {
  // Nothing to add is fine where there is a session to go on with.
  if (body.session_id === undefined && isEmptyText(body.prompt[0])) throw invalid("prompt", "must not be empty");
  const stream = body.stream ?? false;
  const echo = body.echo ?? false;
  const n = body.n ?? 1;
  const bestOf = body.best_of ?? n;
  if (bestOf < n) throw invalid("best_of", `must be at least n (${n}); got ${bestOf}`);
  if (stream && bestOf > n) throw invalid("best_of", `must equal n (${n}) when stream is true; got ${bestOf}`);
  if (stream && body.prompt_logprobs !== undefined)
    throw invalid("prompt_logprobs", "is not allowed when stream is true");
  checkChoices(body.prompt.length, bestOf, bounds);

  const maxTokens = body.max_tokens ?? DEFAULT_MAX_TOKENS;
  if (maxTokens === 0 && !echo && body.prompt_logprobs === undefined) {
    throw invalid("max_tokens", "must be at least 1 unless echo is true or prompt_logprobs is set; got 0");
  }
  const numPromptLogprobs = body.prompt_logprobs ?? (echo ? body.logprobs : undefined);
  return {
    stream,
    includeUsage: wantsUsageChunk(body),
    echo,
    returnTokenIds: body.return_token_ids ?? false,
    promptLogprobs: body.prompt_logprobs !== undefined,
    request: {
      names: { prompts: "prompt", maxTokens: "max_tokens", numLogprobs: "logprobs" },
      returnTokenIds: body.return_token_ids ?? false,
      prompts: body.prompt,
      numChoices: n,
      bestOf,
      sampling: toSampling(body, bounds.vocabSize),
      ...toStopping(body, maxTokens),
      addSpecialTokens: body.add_special_tokens ?? true,
      echo,
      ...(body.logprobs === undefined ? {} : { numLogprobs: body.logprobs }),
      ...(numPromptLogprobs === undefined ? {} : { numPromptLogprobs }),
      ...(body.truncate_prompt_tokens === undefined ? {} : { truncatePromptTokens: body.truncate_prompt_tokens }),
      ...toCacheSalt(body),
      ...sessionFields(body.session_id, body.prompt.length, bestOf),
    },
  };
}

function isEmptyText(prompt: Prompt | undefined): boolean {
  return prompt?.type === "text" && prompt.text === "";
}

/** string | string[] | int[] | int[][]; an empty text is for the caller to judge */
function parsePrompts(value: unknown, context: z.RefinementCtx, bounds: Bounds): readonly Prompt[] {
  const refuse = (message: string, path: readonly number[] = []) => {
    addIssue(context, message, path);
    return z.NEVER;
  };
  const tokens = (list: readonly unknown[], path: readonly number[]): Prompt | undefined => {
    const tokenIds = checkTokenIds(list, bounds.vocabSize, context, path);
    return tokenIds && { type: "tokens", tokenIds };
  };
  if (value === undefined) return refuse("is required");
  if (typeof value === "string") return [{ type: "text", text: value }];
  if (!Array.isArray(value)) {
    return refuse(
      `must be a string, a list of strings, a list of token ids or a list of such lists; got ${show(value)}`,
    );
  }
  if (value.length === 0) return refuse("must not be empty");
  if (typeof value[0] === "number") {
    const prompt = tokens(value, []);
    return prompt ? [prompt] : z.NEVER;
  }
  if (value.length > bounds.maxChoices) {
    return refuse(`must have at most ${bounds.maxChoices} prompts; got ${value.length}`);
  }
  const prompts: Prompt[] = [];
  for (const [index, item] of value.entries()) {
    if (typeof item === "string" || Array.isArray(item)) {
      if (item.length === 0) return refuse("must not be empty", [index]);
      const prompt: Prompt | undefined =
        typeof item === "string" ? { type: "text", text: item } : tokens(item, [index]);
      if (prompt === undefined) return z.NEVER;
      prompts.push(prompt);
    } else return refuse(`must be a string or a list of token ids; got ${show(item)}`, [index]);
  }
  return prompts;
}
