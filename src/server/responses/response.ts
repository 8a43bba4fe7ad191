/**
 * A response as data: what is fixed when it begins, what comes of it, and both as OpenAI's
 * `response` object. The schemas are those of the stored record, so that a response and its record
 * cannot differ; everything is JSON-serialisable.
 */
import * as z from "zod";
import type { GenerationUsage } from "../../generation/events.ts";

const head = z.object({ id: z.string(), itemId: z.string(), createdS: z.number(), model: z.string() });

/** What a response remembers of its request; the response object repeats most of it. */
const settings = z.object({
  instructions: z.string().nullable(),
  previousResponseId: z.string().nullable(),
  /** That it belongs to. Default: none. */
  conversationId: z.string().optional(),
  maxOutputTokens: z.number().nullable(),
  temperature: z.number(),
  topP: z.number(),
  topLogprobs: z.number(),
  truncation: z.enum(["auto", "disabled"]),
  store: z.boolean(),
  background: z.boolean(),
  /** False: it reads its input, for others to continue from, and answers nothing. */
  generates: z.boolean(),
  metadata: z.record(z.string(), z.string()),
  /** What the answer had to match, as it was given. Default: any text. */
  textFormat: z.record(z.string(), z.unknown()).optional(),
  parallelToolCalls: z.boolean(),
  /** As the response shows it. Default: "auto". */
  toolChoice: z.union([z.string(), z.record(z.string(), z.unknown())]).optional(),
  /** Default: none was asked for. */
  reasoningEffort: z.string().optional(),
  /** Default: 0. */
  presencePenalty: z.number().optional(),
  frequencyPenalty: z.number().optional(),
  /** Of the client's own, without effect: repeated. Default: null. */
  maxToolCalls: z.number().nullish(),
  user: z.string().nullish(),
  safetyIdentifier: z.string().nullish(),
  promptCacheKey: z.string().nullish(),
  /** As the response shows them. Default: none. */
  tools: z.array(z.record(z.string(), z.unknown())).optional(),
});

const functionCall = z.object({ callId: z.string(), name: z.string() });

const inputItem = z.union([
  functionCall.extend({ id: z.string(), type: z.literal("function_call"), arguments: z.string() }),
  z.object({
    id: z.string(),
    type: z.literal("function_call_output"),
    callId: z.string(),
    /** One per content part. */
    texts: z.array(z.string()),
  }),
  z.object({
    id: z.string(),
    /** Default: a message. */
    type: z.literal("reasoning").optional(),
    role: z.enum(["system", "developer", "user", "assistant"]),
    texts: z.array(z.string()),
  }),
]);

/**
 * What there is of an output item: the texts of its events, the last of which may be to come. The
 * text of a call is its arguments.
 */
const outputItem = z.object({
  kind: z.enum(["reasoning", "message", "function_call"]),
  pieces: z.array(z.string()),
  /**
   * Of a message, the JSON of one list per piece, if log-probabilities were asked for. As text,
   * since half a million objects take long to measure, store and render.
   */
  logprobs: z.array(z.string()).nullable(),
  call: functionCall.optional(),
  /** Whatever happened to the response afterwards. */
  closedAs: z.enum(["completed", "incomplete"]).nullable(),
});

/**
 * What determines all events. They come in this order: `numLead` that tell of the beginning; those
 * of each item that has been opened; the last, if the response has ended.
 */
const transcriptState = z.object({
  numLead: z.int().min(0).max(3),
  /** Only the last one may not be closed. */
  items: z.array(outputItem),
  status: z.enum(["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]),
  usage: z
    .object({
      promptTokens: z.number(),
      cachedTokens: z.number(),
      completionTokens: z.number(),
      reasoningTokens: z.number().exactOptional(),
      stateBytes: z.number(),
    })
    .nullable(),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  completedAtS: z.number().nullable(),
});

/** All that it takes to retrieve a response, to replay its events and to list its input. */
export const responseRecord = z.object({
  version: z.literal(2),
  head,
  settings,
  input: z.array(inputItem),
  transcript: transcriptState,
  /**
   * Of a response that was still running when it was stored: when it will have ended at the latest.
   */
  endsByMs: z.number().optional(),
});

export type ResponseHead = Readonly<z.infer<typeof head>>;
export type ResponseSettings = Readonly<z.infer<typeof settings>>;
export type InputItem = Readonly<z.infer<typeof inputItem>>;
export type TranscriptState = z.infer<typeof transcriptState>;
export type ItemState = z.infer<typeof outputItem>;
export type ResponseStatus = TranscriptState["status"];
export type ResponseRecord = Readonly<z.infer<typeof responseRecord>>;

type ResponseProgress = Pick<TranscriptState, "status" | "usage" | "error" | "completedAtS"> & {
  /** Empty until the first token. */
  readonly output: readonly object[];
};

export function responseObject(head: ResponseHead, settings: ResponseSettings, progress: ResponseProgress) {
  return {
    id: head.id,
    object: "response",
    created_at: head.createdS,
    completed_at: progress.completedAtS,
    ...(settings.conversationId !== undefined && { conversation: { id: settings.conversationId } }),
    status: progress.status,
    background: settings.background,
    error: progress.error,
    frequency_penalty: settings.frequencyPenalty ?? 0,
    incomplete_details: progress.status === "incomplete" ? { reason: "max_output_tokens" } : null,
    instructions: settings.instructions,
    max_output_tokens: settings.maxOutputTokens,
    max_tool_calls: settings.maxToolCalls ?? null,
    metadata: settings.metadata,
    model: head.model,
    output: progress.output,
    parallel_tool_calls: settings.parallelToolCalls,
    presence_penalty: settings.presencePenalty ?? 0,
    previous_response_id: settings.previousResponseId,
    prompt_cache_key: settings.promptCacheKey ?? null,
    reasoning: { effort: settings.reasoningEffort ?? null, summary: null },
    safety_identifier: settings.safetyIdentifier ?? null,
    service_tier: "default",
    store: settings.store,
    temperature: settings.temperature,
    text: { format: settings.textFormat ?? { type: "text" } },
    tool_choice: settings.toolChoice ?? "auto",
    tools: settings.tools ?? [],
    top_logprobs: settings.topLogprobs,
    top_p: settings.topP,
    truncation: settings.truncation,
    usage: progress.usage ? toUsage(progress.usage) : null,
    user: settings.user ?? null,
  };
}

export type ResponseObject = ReturnType<typeof responseObject>;

function toUsage(usage: GenerationUsage) {
  return {
    input_tokens: usage.promptTokens,
    // Caching costs nothing: no tokens count as written to a cache.
    input_tokens_details: { cached_tokens: usage.cachedTokens, cache_write_tokens: 0 },
    output_tokens: usage.completionTokens,
    output_tokens_details: { reasoning_tokens: usage.reasoningTokens ?? 0 },
    total_tokens: usage.promptTokens + usage.completionTokens,
    state_bytes: usage.stateBytes,
  };
}

/** As clients send it, and as it is listed. */
export function toInputItemObject(item: InputItem) {
  const { id, type } = item;
  switch (type) {
    case "reasoning":
      return { id, type, summary: [], content: item.texts.map((text) => ({ type: "reasoning_text", text })) };
    case "function_call": {
      const { callId, name, arguments: json } = item;
      return { id, type, call_id: callId, name, arguments: json, status: "completed" };
    }
    case "function_call_output": {
      const parts = item.texts.map((text) => ({ type: "input_text", text }));
      const output = item.texts.length === 1 ? item.texts[0] : parts;
      return { id, type, call_id: item.callId, output, status: "completed" };
    }
    default: {
      const toPart = (text: string) =>
        item.role === "assistant" ? { type: "output_text", text, annotations: [] } : { type: "input_text", text };
      return { id, type: "message", role: item.role, status: "completed", content: item.texts.map(toPart) };
    }
  }
}
