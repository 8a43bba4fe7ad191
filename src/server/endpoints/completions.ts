/**
 * `POST /v1/completions`: the body, its way into a `GenerationRequest`, and the `text_completion`
 * objects of the answer. A stream's constant parts are built once: a token costs one JSON.stringify
 * of its text.
 */
import * as z from "zod";
import type { DeltaEvent, Prompt, PromptEvent } from "../../generation/events.ts";
import { countCharacters } from "../../generation/text-offsets.ts";
import type { App, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import {
  type AcceptedEvent,
  type AnswerHead,
  answerHead,
  type ChoiceEnd,
  type ChunkWriter,
  type Collected,
  type CollectedChoice,
  endJson,
  headObject,
  toUsage,
} from "../openai/choices.ts";
import {
  type Bounds,
  boundsOf,
  type CompletionsTask,
  checkChoices,
  checkModel,
  checkPromptLogprobs,
  checkTokenIds,
  completionFields,
  defined,
  ignoredFields,
  MAX_LOGPROBS,
  maxTokens,
  samplingFields,
  toCompletionsTask,
} from "../openai/fields.ts";
import { openJson } from "../openai/json-writer.ts";
import {
  completionEntries,
  completionLogprobs,
  idName,
  lazyCompletionLogprobs,
  namedByIds,
  promptLogprobs,
  type Scored,
} from "../openai/logprobs.ts";
import { REFUSED_ON_COMPLETIONS } from "../openai/refused-fields.ts";
import { invalid, parseBody, refusals, refuse, show } from "../openai/validate.ts";
import { answerChoices } from "./generate.ts";

const DEFAULT_MAX_TOKENS = 16;

export function completionRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const schema = completionBody(bounds);

  app.post("/v1/completions", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const task = toCompletionTask(body, bounds);
    const tokenText = (id: number) => (task.namesTokensByIds ? idName(id) : deps.generator.tokenizer.tokenText(id));
    const head = answerHead(deps, "cmpl");
    return answerChoices(context, deps, task, {
      chunks: () => new CompletionChunks(head, task, tokenText),
      answer: (collected) => completionAnswer(head, task, collected, tokenText),
    });
  });
}

export function completionBody(bounds: Bounds) {
  const schema = z.object({
    ...completionFields(bounds),
    prompt: z.unknown().transform((value, context) => parsePrompts(value, context, bounds, bounds.maxChoices)),
    max_tokens: maxTokens(bounds, 0).optional(),
    best_of: z.int().min(1).max(bounds.maxChoices).optional(),
    echo: z.boolean().optional(),
    logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    ...samplingFields(bounds),
    ...ignoredFields(),
  });
  return schema.register(refusals, REFUSED_ON_COMPLETIONS);
}

/** string | string[] | int[] | int[][]; whether an empty text is allowed depends on other fields */
export function parsePrompts(
  value: unknown,
  context: z.RefinementCtx,
  { vocabSize }: Pick<Bounds, "vocabSize">,
  maxPrompts: number,
): readonly Prompt[] {
  const tokens = (list: readonly unknown[], path: readonly number[]): Prompt => {
    const tokenIds = checkTokenIds(list, vocabSize, context, path);
    return tokenIds ? { type: "tokens", tokenIds } : z.NEVER;
  };
  if (value === undefined) return refuse(context, "is required");
  if (typeof value === "string") return [{ type: "text", text: value }];
  if (!Array.isArray(value)) {
    const kinds = "a string, a list of strings, a list of token ids or a list of such lists";
    return refuse(context, `must be ${kinds}; got ${show(value)}`);
  }
  if (value.length === 0) return refuse(context, "must not be empty");
  if (typeof value[0] === "number") return [tokens(value, [])];
  if (value.length > maxPrompts) {
    return refuse(context, `must have at most ${maxPrompts} prompts; got ${value.length}`);
  }
  const prompts: Prompt[] = [];
  for (const [index, item] of value.entries()) {
    const isText = typeof item === "string";
    if (!isText && !Array.isArray(item)) {
      return refuse(context, `must be a string or a list of token ids; got ${show(item)}`, [index]);
    }
    if (item.length === 0) return refuse(context, "must not be empty", [index]);
    prompts.push(isText ? { type: "text", text: item } : tokens(item, [index]));
    if (context.issues.length > 0) break;
  }
  return prompts;
}

/** @throws `invalid_value` if fields contradict each other */
export function toCompletionTask(body: z.output<ReturnType<typeof completionBody>>, bounds: Bounds): CompletionsTask {
  // A session may be continued with an empty prompt.
  const [first] = body.prompt;
  const isEmpty = first?.type === "text" && first.text === "";
  if ((body.session_id ?? body.state) === undefined && isEmpty) throw invalid("prompt", "must not be empty");
  const echo = body.echo ?? false;
  const n = body.n ?? 1;
  const bestOf = body.best_of ?? n;
  if (bestOf < n) throw invalid("best_of", `must be at least n (${n}); got ${bestOf}`);
  if (body.stream && bestOf > n) throw invalid("best_of", `must equal n (${n}) when stream is true; got ${bestOf}`);
  checkPromptLogprobs(body);
  checkChoices(body.prompt.length, bestOf, bounds);
  const numTokens = body.max_tokens ?? DEFAULT_MAX_TOKENS;
  if (numTokens === 0 && !echo && body.prompt_logprobs === undefined) {
    throw invalid("max_tokens", "must be at least 1 unless echo is true or prompt_logprobs is set; got 0");
  }
  return toCompletionsTask(body, bounds, {
    names: { prompts: "prompt", maxTokens: "max_tokens", numLogprobs: "logprobs" },
    prompts: body.prompt,
    numChoices: n,
    bestOf,
    maxTokens: numTokens,
    addSpecialTokens: body.add_special_tokens ?? true,
    echo,
    ...defined({
      numLogprobs: body.logprobs,
      numPromptLogprobs: body.prompt_logprobs ?? (echo ? body.logprobs : undefined),
    }),
  });
}

/** The text of a prompt token without a log-probability: the first entry of echoed logprobs. */
type TokenText = (tokenId: number) => string;

class CompletionChunks implements ChunkWriter {
  readonly wantsEmptyDeltas: boolean;
  readonly #task: CompletionsTask;
  readonly #tokenText: TokenText;
  readonly #head: string;
  readonly #choices: ChoiceState[] = [];
  #prompts: AcceptedEvent["prompts"] = [];
  /** Token ids as JSON, rendered once for all choices of a prompt. */
  readonly #promptIdsJson: string[] = [];

  constructor(head: AnswerHead, task: CompletionsTask, tokenText: TokenText) {
    this.wantsEmptyDeltas = task.request.returnTokenIds === true;
    this.#task = task;
    this.#tokenText = tokenText;
    this.#head = openJson(headObject(head, "text_completion"));
  }

  accepted(event: AcceptedEvent): void {
    this.#prompts = event.prompts;
  }

  prompt(event: PromptEvent): string | undefined {
    if (!this.#task.request.echo) return undefined;
    const choice = this.#choice(event.index);
    // A long prompt comes in parts, its text with the first.
    choice.numBefore += countCharacters(event.text);
    const logprobs = event.logprobs ? completionLogprobs(this.#named(event), asEchoed(event, this.#tokenText)) : null;
    const text = `${JSON.stringify(event.text)},"logprobs":${JSON.stringify(logprobs)}`;
    return `${choice.head}${text},"finish_reason":null}]`;
  }

  /** The last text and the reason are one chunk: a client that counts chunks counts tokens. */
  chunks(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): readonly string[] {
    const choice = this.#choice(index);
    let json = choice.head + JSON.stringify(delta?.text ?? "");
    json += delta?.logprobs
      ? `,"logprobs":${JSON.stringify(completionLogprobs(this.#named(delta), choice))}`
      : ',"logprobs":null';
    json += endJson(end);
    if (this.#task.request.returnTokenIds) {
      json += `,"token_ids":${JSON.stringify(delta?.tokenIds ?? [])}`;
      if (!choice.hasSentPromptIds) json += `,"prompt_token_ids":${this.#promptIds(index)}`;
      choice.hasSentPromptIds = true;
    }
    return [`${json}}]`];
  }

  end(): string {
    return `${this.#head},"choices":[]`;
  }

  #named(scored: Scored): Scored {
    return this.#task.namesTokensByIds ? namedByIds(scored) : scored;
  }

  #promptIds(index: number): string {
    const promptIndex = Math.floor(index / this.#task.request.numChoices);
    this.#promptIdsJson[promptIndex] ??= JSON.stringify(this.#prompts[promptIndex]?.tokenIds ?? []);
    return this.#promptIdsJson[promptIndex];
  }

  #choice(index: number): ChoiceState {
    const head = `${this.#head},"choices":[{"index":${index},"text":`;
    this.#choices[index] ??= { head, numBefore: 0, hasSentPromptIds: false };
    return this.#choices[index];
  }
}

interface ChoiceState {
  /** Everything before the text. */
  readonly head: string;
  /** Characters of the echoed prompt. */
  numBefore: number;
  hasSentPromptIds: boolean;
}

/** For `answerJson`. */
export function completionAnswer(
  head: AnswerHead,
  { request, showsPromptLogprobs, namesTokensByIds }: CompletionsTask,
  { prompts, choices, usage }: Collected,
  tokenText: TokenText,
) {
  const { echo, numLogprobs, numChoices, returnTokenIds } = request;
  return {
    ...headObject(head, "text_completion"),
    choices: choices.map((choice) => ({
      index: choice.index,
      text: (echo ? (choice.prompt?.text ?? "") : "") + choice.text,
      logprobs: numLogprobs === undefined ? null : collectedLogprobs(choice, { echo, tokenText, namesTokensByIds }),
      finish_reason: choice.reason,
      stop_reason: choice.stoppedBy ?? null,
      ...(choice.state !== undefined && { state: choice.state }),
      ...(showsPromptLogprobs && { prompt_logprobs: promptLogprobs(choice.prompt?.logprobs ?? []) }),
      ...(returnTokenIds && {
        token_ids: choice.tokenIds,
        prompt_token_ids: prompts[Math.floor(choice.index / numChoices)]?.tokenIds ?? [],
      }),
    })),
    usage: toUsage(usage),
  };
}

function collectedLogprobs(
  choice: CollectedChoice,
  { echo, tokenText, namesTokensByIds }: { echo: boolean; tokenText: TokenText; namesTokensByIds: boolean },
) {
  const named = (scored: Scored) => (namesTokensByIds ? namedByIds(scored) : scored);
  const prompt = echo ? choice.prompt : undefined;
  const numBefore = prompt === undefined ? 0 : countCharacters(prompt.text);
  // Tokens that a stop string cut off begin at the end of the text.
  const shown = { numBefore, length: countCharacters(choice.text) };
  return lazyCompletionLogprobs(function* () {
    if (prompt !== undefined) yield* completionEntries(named(prompt), asEchoed(prompt, tokenText));
    yield* completionEntries(named(choice), shown);
  });
}

function asEchoed({ tokenIds }: PromptEvent, tokenText: TokenText) {
  return { numBefore: 0, tokenText: (position: number) => tokenText(tokenIds[position]!) };
}
