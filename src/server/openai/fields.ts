/**
 * The request fields that several endpoints share, in OpenAI's and vLLM's spelling: their bounds,
 * the rules between them, and the parts of a `GenerationRequest` made from them. Bounds are checked
 * here once; other code relies on them.
 */
import * as z from "zod";
import { DenseMambaError } from "../../errors.ts";
import type { GenerationRequest } from "../../generation/events.ts";
import type { SamplingParams } from "../../sampling/params.ts";
import { checkpointNameProblem } from "../../sessions/checkpoints.ts";
import type { RequestLimits, ServedModel, ServerDeps } from "../deps.ts";
import { constraintFields, toConstraint } from "./constraints.ts";
import { addIssue, invalid, isRecord, refuse, show, unsupportedUnless } from "./validate.ts";

/** What the bounds of a request depend on. */
export interface Bounds extends RequestLimits {
  readonly vocabSize: number;
  readonly trustRequestTemplates: boolean;
}

export function boundsOf({ options, model }: ServerDeps): Bounds {
  const { limits, trustRequestTemplates } = options;
  return { ...limits, vocabSize: model.manifest.sizes.vocabSize, trustRequestTemplates };
}

export const MAX_LOGPROBS = 20;
const MAX_LOGIT_BIAS_ENTRIES = 1024;
const MAX_STOP_TOKEN_IDS = 1024;
const MAX_SESSION_ID_LENGTH = 128;
const MAX_CACHE_SALT_LENGTH = 256;
const MAX_BAD_WORDS = 256;
const MAX_BAD_WORD_LENGTH = 256;

const ignored = () => z.unknown().optional();

/** Sampling and stopping, on every endpoint that generates. */
export function samplingFields(bounds: Bounds) {
  return {
    temperature: z.number().min(0).max(2).optional(),
    top_p: z.number().min(0).max(1).optional(),
    top_k: z.int().min(-1).optional(),
    min_p: z.number().min(0).max(1).optional(),
    repetition_penalty: repetitionPenalty().optional(),
    /** llama.cpp's name for the same. */
    repeat_penalty: repetitionPenalty().optional(),
    presence_penalty: z.number().min(-2).max(2).optional(),
    frequency_penalty: z.number().min(-2).max(2).optional(),
    logit_bias: logitBias(bounds).optional(),
    allowed_token_ids: tokenIds(bounds, bounds.vocabSize).optional(),
    bad_words: z.array(z.string().min(1).max(MAX_BAD_WORD_LENGTH)).max(MAX_BAD_WORDS).optional(),
    seed: seed().optional(),
    stop: stopStrings(bounds).optional(),
    stop_token_ids: tokenIds(bounds, MAX_STOP_TOKEN_IDS).optional(),
    min_tokens: z.int().min(0).max(bounds.maxOutputTokens).optional(),
    ignore_eos: z.boolean().optional(),
    include_stop_str_in_output: z.boolean().optional(),
    skip_special_tokens: z.boolean().optional(),
  };
}

/** Completions and chat, beyond sampling. */
export function completionFields(bounds: Bounds) {
  return {
    ...constraintFields(),
    model: z.string().optional(),
    n: z.int().min(1).max(bounds.maxChoices).optional(),
    stream: z.boolean().optional(),
    stream_options: streamOptions().optional(),
    prompt_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    return_token_ids: z.boolean().optional(),
    truncate_prompt_tokens: truncatedLength(bounds).optional(),
    truncation_side: z.enum(["left", "right"]).optional(),
    return_tokens_as_token_ids: z.boolean().optional(),
    add_special_tokens: z.boolean().optional(),
    session_id: sessionId().optional(),
    checkpoint: checkpointName().optional(),
    persona: personaName().optional(),
    state: z.string().min(1).optional(),
    return_state: z.boolean().optional(),
    cache_salt: cacheSalt().optional(),
  };
}

function streamOptions() {
  return z.object({
    include_usage: z.boolean().nullish(),
    continuous_usage_stats: z.boolean().nullish(),
  });
}

/** -1 is the longest prompt that the server reads. */
export function truncatedLength({ maxPromptTokens }: Bounds) {
  return z
    .int()
    .superRefine((value, context) => {
      if (value >= 1 || value === -1) return;
      addIssue(context, `must be at least 1, or -1 for the longest prompt; got ${value}`);
    })
    .transform((value) => (value === -1 ? maxPromptTokens : value));
}

function repetitionPenalty() {
  return z.number().gt(0).max(10);
}

/** The tokens of an answer: more than the server's limit is that limit, and so is -1. */
export function maxTokens({ maxOutputTokens }: Pick<Bounds, "maxOutputTokens">, min = 1) {
  return z
    .int()
    .superRefine((value, context) => {
      if (value >= min || value === -1) return;
      addIssue(context, `must be at least ${min}, or -1 for the server's limit; got ${value}`);
    })
    .transform((value) => (value === -1 ? maxOutputTokens : Math.min(value, maxOutputTokens)));
}

/** Accepted because clients send them; nothing here depends on them. */
export function ignoredFields() {
  return {
    user: ignored(),
    safety_identifier: ignored(),
    prompt_cache_key: ignored(),
    prompt_cache_options: ignored(),
    prompt_cache_retention: ignored(),
    /** Where there are several models, `several-models.ts` has read it. */
    keep_alive: ignored(),
    priority: ignored(),
    service_tier: ignored(),
  };
}

/** As far as the chat template knows it. */
export function reasoningEffort() {
  return z.enum(["none", "minimal", "low", "medium", "high", "xhigh", "max"]);
}

/** There are no summaries to choose. */
export function reasoningField() {
  return z.object({
    effort: reasoningEffort().nullish(),
    summary: z.enum(["auto", "concise", "detailed"]).nullish(),
    generate_summary: z.enum(["auto", "concise", "detailed"]).nullish(),
    /** OpenRouter's. */
    max_tokens: harmless([], "reasoning counts towards the tokens of the answer"),
    exclude: harmless([false], "reasoning is returned beside the content"),
    enabled: harmless([true], "use effort"),
  });
}

function harmless(values: readonly unknown[], what: string) {
  return unsupportedUnless((value) => value === null || values.includes(value), what);
}

/** What templates call it: OpenAI's, Qwen's and DeepSeek's. */
export function reasoningArguments(effort: string | null | undefined): Readonly<Record<string, unknown>> {
  if (effort == null) return {};
  const thinks = effort !== "none";
  return { reasoning_effort: effort, enable_thinking: thinks, thinking: thinks };
}

/**
 * Requests with the same salt share cached prefixes. A request with another salt cannot tell by its
 * timing what they hold.
 */
export function cacheSalt() {
  return z.string().min(1).max(MAX_CACHE_SALT_LENGTH);
}

export function sessionId() {
  return storedName().superRefine((id, context) => {
    if (id === "import") addIssue(context, 'must not be "import": that is where sessions are imported');
  });
}

/** Of a conversation to begin from. */
export function personaName() {
  return storedName();
}

function storedName() {
  return z
    .string()
    .max(MAX_SESSION_ID_LENGTH)
    .superRefine((name, context) => {
      const rule = 'must be of letters, digits, ".", "_", ":" and "-", and begin with one of the first two';
      if (!/^[A-Za-z0-9][A-Za-z0-9._:-]*$/.test(name)) addIssue(context, `${rule}; got ${show(name)}`);
    });
}

/** Of a checkpoint to be made. */
export function checkpointName() {
  return z.string().superRefine((name, context) => {
    const problem = checkpointNameProblem(name);
    if (problem !== undefined) addIssue(context, `${problem}; got ${show(name)}`);
  });
}

/** The name or the id of a checkpoint. */
export function checkpointRef() {
  return z.string().min(1).max(MAX_SESSION_ID_LENGTH);
}

/**
 * Token ids below the vocabulary's size. Checked by hand: zod would report every bad entry of a
 * long list.
 */
export function tokenIds(bounds: Pick<Bounds, "vocabSize">, maxLength: number) {
  return z.array(z.unknown()).transform((list, context): readonly number[] => {
    if (list.length > maxLength) {
      return refuse(context, `must have at most ${maxLength} items; got ${list.length}`);
    }
    return checkTokenIds(list, bounds.vocabSize, context, []) ?? z.NEVER;
  });
}

/** Returns the list if all its items are token ids; otherwise reports the first that is not. */
export function checkTokenIds(
  list: readonly unknown[],
  vocabSize: number,
  context: z.RefinementCtx,
  path: readonly (string | number)[],
): readonly number[] | undefined {
  for (let index = 0; index < list.length; index++) {
    const id = list[index];
    if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    addIssue(context, `must be a token id, an integer from 0 to ${vocabSize - 1}; got ${show(id)}`, [...path, index]);
    return undefined;
  }
  return list as readonly number[];
}

/** An empty string stops nothing: clients send it for "none". */
export function stopStrings(bounds: Bounds) {
  const text = z.string().max(bounds.maxStopLength);
  return z
    .union([text, z.array(text).max(bounds.maxStopStrings)])
    .transform((stop) => (typeof stop === "string" ? [stop] : stop).filter((text) => text !== ""));
}

/**
 * `parseJson` reads a seed as a bigint if a number would round it. One of unsigned 64 bits counts as
 * the signed one with the same bits.
 */
function seed() {
  return z.unknown().transform((value, context): number | bigint => {
    if (typeof value === "number" && Number.isSafeInteger(value)) return value;
    if (typeof value === "bigint" && value >= -(2n ** 63n) && value < 2n ** 64n) return BigInt.asIntN(64, value);
    const isInteger = typeof value === "bigint" || Number.isInteger(value);
    return refuse(context, `must be an integer${isInteger ? " from -2^63 to 2^64 - 1" : ""}; got ${show(value)}`);
  });
}

function logitBias(bounds: Bounds) {
  return z.unknown().transform((biases, context): ReadonlyMap<number, number> => {
    if (!isRecord(biases)) {
      return refuse(context, `must be an object from token ids to biases; got ${show(biases)}`);
    }
    const entries = Object.entries(biases);
    if (entries.length > MAX_LOGIT_BIAS_ENTRIES) {
      return refuse(context, `must have at most ${MAX_LOGIT_BIAS_ENTRIES} entries; got ${entries.length}`);
    }
    const result = new Map<number, number>();
    for (const [key, bias] of entries) {
      const id = /^\d{1,9}$/.test(key) ? Number(key) : -1;
      if (id < 0 || id >= bounds.vocabSize) {
        return refuse(context, `has keys that are token ids from 0 to ${bounds.vocabSize - 1}; got ${show(key)}`);
      }
      if (typeof bias !== "number" || !(bias >= -100 && bias <= 100)) {
        return refuse(context, `must be a number from -100 to 100; got ${show(bias)}`, [key]);
      }
      result.set(id, bias);
    }
    return result;
  });
}

type SamplingBody = z.output<z.ZodObject<ReturnType<typeof samplingFields>>>;
type CompletionsBody = SamplingBody & z.output<z.ZodObject<ReturnType<typeof completionFields>>>;

/**
 * @throws `model_not_found`; a request without a model, or with an empty name, means the one that
 * is served
 */
export function checkModel(requested: string | undefined, model: ServedModel): void {
  if (!requested || model.takesAnyName || requested === model.name || model.aliases.includes(requested)) return;
  const [asked, served] = [requested.slice(0, 128), model.name].map((name) => JSON.stringify(name));
  const message = `the model ${asked} does not exist here; this server has ${served}`;
  throw new DenseMambaError("model_not_found", message, { param: "model" });
}

/** Without the members that are undefined. */
export function defined<T extends object>(members: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as never;
}

export function toSampling(body: SamplingBody, vocabSize: number): SamplingParams {
  const topK = body.top_k ?? 0;
  return {
    temperature: body.temperature ?? 1,
    topK: topK === -1 || topK >= vocabSize ? 0 : topK,
    topP: body.top_p ?? 1,
    minP: body.min_p ?? 0,
    repetitionPenalty: body.repetition_penalty ?? body.repeat_penalty ?? 1,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    logitBias: body.logit_bias ?? new Map(),
    ...(body.allowed_token_ids?.length && { allowedTokenIds: body.allowed_token_ids }),
    seed: body.seed,
  };
}

export function toStopping(body: SamplingBody, maxTokens: number | undefined) {
  return {
    maxTokens,
    minTokens: body.min_tokens ?? 0,
    stopStrings: body.stop ?? [],
    stopTokenIds: body.stop_token_ids ?? [],
    ignoreEos: body.ignore_eos ?? false,
    includeStopString: body.include_stop_str_in_output ?? false,
    skipSpecialTokens: body.skip_special_tokens ?? true,
    badWords: body.bad_words ?? [],
  };
}

/** A request for choices, and what its answer is to show. */
export interface CompletionsTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal">;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Every chunk has the usage so far. */
  readonly showsUsageSoFar: boolean;
  /** In log-probabilities tokens are named `token_id:5`, which tells those of one text apart. */
  readonly namesTokensByIds: boolean;
  readonly showsPromptLogprobs: boolean;
}

/** The parts of a request that completions and chat tell apart. */
type OwnRequest = Pick<
  GenerationRequest,
  "names" | "prompts" | "numChoices" | "bestOf" | "addSpecialTokens" | "echo" | "maxTokens"
> &
  Partial<Pick<GenerationRequest, "numLogprobs" | "numPromptLogprobs" | "scoresStopToken">>;

/** @throws `invalid_value` if fields contradict each other */
export function toCompletionsTask(body: CompletionsBody, { vocabSize }: Bounds, own: OwnRequest): CompletionsTask {
  const { constraint, field } = toConstraint(body);
  return {
    stream: body.stream ?? false,
    includeUsage: wantsUsageChunk(body),
    showsUsageSoFar: wantsUsageChunk(body) && body.stream_options?.continuous_usage_stats === true,
    namesTokensByIds: body.return_tokens_as_token_ids ?? false,
    showsPromptLogprobs: body.prompt_logprobs !== undefined,
    request: {
      ...own,
      ...(constraint && { constraint, names: { ...own.names, ...(field !== undefined && { constraint: field }) } }),
      ...toStopping(body, own.maxTokens),
      returnTokenIds: body.return_token_ids ?? false,
      ranksPrompt: body.prompt_logprobs !== undefined,
      sampling: toSampling(body, vocabSize),
      ...defined({
        truncatePromptTokens: body.truncate_prompt_tokens,
        truncationSide: body.truncation_side,
        cacheSalt: body.cache_salt,
      }),
      ...conversationKeys(body, own.prompts.length, own.bestOf),
    },
  };
}

/** @throws `invalid_value` if `stream_options` comes without `stream` */
function wantsUsageChunk(body: CompletionsBody): boolean {
  if (body.stream_options !== undefined && body.stream !== true) {
    throw invalid("stream_options", "is only allowed when stream is true");
  }
  return body.stream_options?.include_usage === true;
}

/** What a request continues and leaves: at most one conversation. */
function conversationKeys(
  { session_id: id, checkpoint, persona, state, return_state: returnsState = false }: CompletionsBody,
  numPrompts: number,
  bestOf: number,
): Pick<GenerationRequest, "resumeFrom" | "saveAs" | "checkpoint" | "returnsState"> {
  const begun = Object.entries(defined({ session_id: id, persona, state })).map(([name]) => name);
  if (begun.length > 1) throw invalid(begun[1]!, `can't be given together with ${begun[0]}`);
  if (returnsState && id !== undefined) {
    throw invalid("return_state", "can't be true together with session_id: a session is exported");
  }
  if (checkpoint !== undefined && id === undefined) throw invalid("checkpoint", "needs a session_id");
  // One conversation has one prompt and one choice.
  const single = id === undefined ? (state === undefined ? returnsState && "return_state" : "state") : "session_id";
  if (single && numPrompts !== 1) throw invalid(single, `needs exactly one prompt; got ${numPrompts}`);
  if (single && bestOf !== 1) throw invalid(single, `needs n and best_of to be 1; got ${bestOf}`);
  if (id !== undefined) {
    return { resumeFrom: { type: "session", id }, saveAs: { type: "session", id }, ...defined({ checkpoint }) };
  }
  return {
    ...(persona !== undefined && { resumeFrom: { type: "persona", id: persona } }),
    ...(state !== undefined && { resumeFrom: { type: "given", id: state } }),
    ...(returnsState && { returnsState }),
  };
}

/** @throws `invalid_value` */
export function checkPromptLogprobs({ stream, prompt_logprobs }: CompletionsBody): void {
  if (stream && prompt_logprobs !== undefined) throw invalid("prompt_logprobs", "is not allowed when stream is true");
}

/** @throws `invalid_value` if one request asks for more sequences than the server admits */
export function checkChoices(numPrompts: number, bestOf: number, { maxChoices }: Bounds): void {
  const total = numPrompts * bestOf;
  if (total <= maxChoices) return;
  const message = `asks for too many choices: prompts x best_of must be at most ${maxChoices}; got ${total}`;
  throw invalid(bestOf > 1 ? "n" : "prompt", message);
}
