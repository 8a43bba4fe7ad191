/**
 * The request fields that several endpoints share, in OpenAI's and vLLM's spelling, with their bounds. Bounds are checked
 * here once; everything behind takes the values as valid.
 */
import * as z from "zod";
import type { RequestLimits } from "../deps.ts";
import { addIssue, isRecord, show, unsupportedUnless } from "./validate.ts";

/** What the bounds of a request depend on. */
export interface Bounds extends RequestLimits {
  readonly vocabSize: number;
  readonly trustRequestTemplates: boolean;
}

export const MAX_LOGPROBS = 20;
const MAX_LOGIT_BIAS_ENTRIES = 1024;
const MAX_STOP_TOKEN_IDS = 1024;
const MAX_SESSION_ID_LENGTH = 128;
const MAX_CACHE_SALT_LENGTH = 256;
const MAX_TOOLS = 128;
export const NO_TOOLS = "this model calls no tools";

const ignored = () => z.unknown().optional();

/** Sampling and stopping: every generating endpoint has these. */
export function samplingFields(bounds: Bounds) {
  return {
    temperature: z.number().min(0).max(2).optional(),
    top_p: z.number().min(0).max(1).optional(),
    top_k: z.int().min(-1).optional(),
    min_p: z.number().min(0).max(1).optional(),
    repetition_penalty: z.number().gt(0).max(10).optional(),
    presence_penalty: z.number().min(-2).max(2).optional(),
    frequency_penalty: z.number().min(-2).max(2).optional(),
    logit_bias: logitBias(bounds).optional(),
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
    model: z.string().optional(),
    n: z.int().min(1).max(bounds.maxChoices).optional(),
    stream: z.boolean().optional(),
    stream_options: streamOptions().optional(),
    prompt_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    return_token_ids: z.boolean().optional(),
    truncate_prompt_tokens: z.int().min(1).optional(),
    add_special_tokens: z.boolean().optional(),
    session_id: sessionId().optional(),
    cache_salt: cacheSalt().optional(),
  };
}

function streamOptions() {
  return z.object({
    include_usage: z.boolean().nullish(),
    continuous_usage_stats: unsupportedUnless(
      (value) => value === null || value === false,
      "usage comes once, at the end",
    ),
  });
}

/** Accepted because clients send them; nothing here depends on them. */
export function ignoredFields() {
  return {
    user: ignored(),
    safety_identifier: ignored(),
    prompt_cache_key: ignored(),
    prompt_cache_options: ignored(),
    prompt_cache_retention: ignored(),
    priority: ignored(),
    service_tier: ignored(),
  };
}

/** Tools are taken where the client itself rules out that one is called: see `checkTools`. */
export function toolFields() {
  return {
    tools: z.array(z.record(z.string(), z.unknown())).max(MAX_TOOLS).optional(),
    tool_choice: unsupportedUnless((value) => value === "none" || value === "auto", NO_TOOLS),
    parallel_tool_calls: z.boolean().optional(),
  };
}

/** Requests with the same one share what they have read before; those with another cannot tell, by the time it takes. */
export function cacheSalt() {
  return z.string().min(1).max(MAX_CACHE_SALT_LENGTH);
}

export function sessionId() {
  return z
    .string()
    .max(MAX_SESSION_ID_LENGTH)
    .superRefine((id, context) => {
      if (!/^[A-Za-z0-9][A-Za-z0-9._:-]*$/.test(id)) {
        addIssue(
          context,
          `must be of letters, digits, ".", "_", ":" and "-", and begin with one of the first two; got ${show(id)}`,
        );
      }
      if (id === "import") addIssue(context, 'must not be "import": that is where sessions are imported');
    });
}

/** A list of token ids below the vocabulary's size. Written out: zod would report every bad entry of a long list. */
export function tokenIds(bounds: Pick<Bounds, "vocabSize">, maxLength: number) {
  return z.array(z.unknown()).transform((list, context): readonly number[] => {
    if (list.length > maxLength) {
      addIssue(context, `must have at most ${maxLength} items; got ${list.length}`);
      return z.NEVER;
    }
    return checkTokenIds(list, bounds.vocabSize, context, []) ?? z.NEVER;
  });
}

/** The list itself if all of it are token ids; otherwise reports the first that isn't. */
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

/** An empty one stops nothing: clients send it for "none". */
function stopStrings(bounds: Bounds) {
  const text = z.string().max(bounds.maxStopLength);
  return z
    .union([text, z.array(text).max(bounds.maxStopStrings)])
    .transform((stop) => (typeof stop === "string" ? [stop] : stop).filter((text) => text !== ""));
}

/** `parseJson` reads it as a bigint where a number would round it. */
function seed() {
  return z.unknown().transform((value, context): number | bigint => {
    if (typeof value === "number" && Number.isSafeInteger(value)) return value;
    if (typeof value === "bigint" && value === BigInt.asIntN(64, value)) return value;
    const isInteger = typeof value === "bigint" || Number.isInteger(value);
    addIssue(context, `must be an integer${isInteger ? " from -2^63 to 2^63 - 1" : ""}; got ${show(value)}`);
    return z.NEVER;
  });
}

function logitBias(bounds: Bounds) {
  return z.unknown().transform((biases, context): ReadonlyMap<number, number> => {
    const result = new Map<number, number>();
    if (!isRecord(biases)) {
      addIssue(context, `must be an object from token ids to biases; got ${show(biases)}`);
      return z.NEVER;
    }
    const entries = Object.entries(biases);
    if (entries.length > MAX_LOGIT_BIAS_ENTRIES) {
      addIssue(context, `must have at most ${MAX_LOGIT_BIAS_ENTRIES} entries; got ${entries.length}`);
      return z.NEVER;
    }
    for (const [key, bias] of entries) {
      const id = /^\d{1,9}$/.test(key) ? Number(key) : -1;
      if (id < 0 || id >= bounds.vocabSize) {
        addIssue(context, `has keys that are token ids from 0 to ${bounds.vocabSize - 1}; got ${show(key)}`);
        return z.NEVER;
      }
      if (typeof bias !== "number" || !(bias >= -100 && bias <= 100)) {
        addIssue(context, `must be a number from -100 to 100; got ${show(bias)}`, [key]);
        return z.NEVER;
      }
      result.set(id, bias);
    }
    return result;
  });
}

export type SamplingBody = z.output<z.ZodObject<ReturnType<typeof samplingFields>>>;
