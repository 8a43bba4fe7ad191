/** `POST /v1/responses` and the WebSocket's `response.create`: the body's schema and its way into a `GenerationRequest`. */
import * as z from "zod";
import type { GenerationRequest } from "../../generation/events.ts";
import { type Bounds, cacheSalt, ignoredFields, MAX_LOGPROBS, samplingFields, toolFields } from "../openai/fields.ts";
import { checkTools, toCacheSalt, toSampling, toStopping } from "../openai/parts.ts";
import { refusedOnResponses, textFormat } from "../openai/refused-fields.ts";
import { addIssue, invalid, isRecord, show } from "../openai/validate.ts";
import { parseInput, type ResponseInput } from "./input-items.ts";
import type { ResponseSettings } from "./response.ts";

const MAX_METADATA_PAIRS = 16;
const MAX_METADATA_KEY = 64;
const MAX_METADATA_VALUE = 512;
const LOGPROBS_INCLUDE = "message.output_text.logprobs";
/** Tokens and log-probabilities: five events and the record hold all of them in one piece each, some 5 MB. */
const MAX_LOGPROB_ENTRIES = 65_536;

export function responseBody(bounds: Bounds) {
  return z.object({
    model: z.string().optional(),
    input: z.unknown().transform(parseInput),
    instructions: z.string().optional(),
    previous_response_id: z.string().min(1).max(128).optional(),
    store: z.boolean().optional(),
    stream: z.boolean().optional(),
    stream_options: z.object({ include_obfuscation: z.boolean().nullish() }).optional(),
    max_output_tokens: z.int().min(1).max(bounds.maxOutputTokens).optional(),
    metadata: metadata().optional(),
    truncation: z.enum(["auto", "disabled"]).optional(),
    text: z
      .object({
        format: textFormat(),
        verbosity: z.unknown().optional(),
      })
      .optional(),
    top_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    include: z.array(z.string()).max(32).optional(),
    background: z.boolean().optional(),
    generate: z.boolean().optional(),
    max_tool_calls: z.unknown().optional(),
    reasoning: z.unknown().optional(),
    cache_salt: cacheSalt().optional(),
    ...toolFields(),
    ...samplingFields(bounds),
    ...refusedOnResponses(),
    ...ignoredFields(),
  });
}

export type ResponseBody = z.output<ReturnType<typeof responseBody>>;

export interface ResponseTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal" | "resumeFrom" | "keepAs">;
  readonly stream: boolean;
  readonly input: ResponseInput["items"];
  readonly settings: ResponseSettings;
}

/** @throws `invalid_value` where fields contradict each other */
export function toResponseTask(body: ResponseBody, bounds: Bounds): ResponseTask {
  const logprobs = body.include?.includes(LOGPROBS_INCLUDE) ?? false;
  if (body.top_logprobs !== undefined && body.top_logprobs > 0 && !logprobs) {
    throw invalid("top_logprobs", `needs ${show(LOGPROBS_INCLUDE)} in include`);
  }
  checkTools(body);
  const background = body.background ?? false;
  const generates = body.generate ?? true;
  if (background && body.store === false) throw invalid("background", "needs store to be true: it is retrieved later");
  const sampling = toSampling(body, bounds.vocabSize);
  return {
    stream: body.stream ?? false,
    input: body.input.items,
    settings: {
      instructions: body.instructions ?? null,
      previousResponseId: body.previous_response_id ?? null,
      maxOutputTokens: body.max_output_tokens ?? null,
      temperature: sampling.temperature,
      topP: sampling.topP,
      topLogprobs: body.top_logprobs ?? 0,
      truncation: body.truncation ?? "disabled",
      store: body.store ?? true,
      background,
      generates,
      metadata: body.metadata ?? {},
      parallelToolCalls: body.parallel_tool_calls ?? true,
      toolChoice: body.tool_choice === "none" ? "none" : "auto",
      tools: body.tools ?? [],
    },
    request: {
      names: { prompts: "input", maxTokens: "max_output_tokens", numLogprobs: "top_logprobs" },
      prompts: [
        {
          type: "chat",
          messages: body.input.messages,
          // Without an answer the last message stays open: whatever comes next goes on behind it.
          addGenerationPrompt: generates,
          continueFinalMessage: !generates,
          ...(body.instructions === undefined ? {} : { instructions: body.instructions }),
        },
      ],
      numChoices: 1,
      bestOf: 1,
      sampling,
      ...toStopping(body, generates ? body.max_output_tokens : 0),
      addSpecialTokens: false,
      echo: false,
      ...toCacheSalt(body),
      ...(logprobs ? { numLogprobs: body.top_logprobs ?? 0, maxAnswerTokens: MAX_LOGPROB_ENTRIES } : {}),
      ...(body.truncation === "auto" ? { truncatePromptTokens: bounds.maxPromptTokens } : {}),
    },
  };
}

function metadata() {
  // Counted first: to check thousands of pairs takes long.
  const few = z.unknown().superRefine((value, context) => {
    const numPairs = isRecord(value) ? Object.keys(value).length : 0;
    if (numPairs <= MAX_METADATA_PAIRS) return;
    addIssue(context, `must have at most ${MAX_METADATA_PAIRS} pairs; got ${numPairs}`);
  });
  const pairs = z.record(z.string(), z.string().max(MAX_METADATA_VALUE)).superRefine((value, context) => {
    const long = Object.keys(value).find((key) => key.length > MAX_METADATA_KEY);
    if (long === undefined) return;
    addIssue(context, `must have keys of at most ${MAX_METADATA_KEY} characters; got one of ${long.length}`);
  });
  return few.pipe(pairs);
}
