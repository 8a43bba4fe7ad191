/** `POST /v1/chat/completions`: the body's schema and its way into a `GenerationRequest`. */
import * as z from "zod";
import type { GenerationRequest } from "../../generation/events.ts";
import { type Bounds, completionFields, ignoredFields, MAX_LOGPROBS, samplingFields, toolFields } from "./fields.ts";
import { chatMessages } from "./messages.ts";
import {
  checkChoices,
  checkTools,
  sessionFields,
  toCacheSalt,
  toSampling,
  toStopping,
  wantsUsageChunk,
} from "./parts.ts";
import { refusedOnChat } from "./refused-fields.ts";
import { addUnsupported, invalid } from "./validate.ts";

/** Set by the server itself when it renders a template. */
const RESERVED_TEMPLATE_ARGUMENTS = ["messages", "chat_template", "add_generation_prompt", "continue_final_message"];

const MAX_TEMPLATE_LENGTH = 64 * 1024;

export function chatBody(bounds: Bounds) {
  return z.object({
    ...completionFields(bounds),
    messages: chatMessages(),
    max_completion_tokens: z.int().min(1).max(bounds.maxOutputTokens).optional(),
    max_tokens: z.int().min(1).max(bounds.maxOutputTokens).optional(),
    logprobs: z.boolean().optional(),
    top_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    add_generation_prompt: z.boolean().optional(),
    continue_final_message: z.boolean().optional(),
    chat_template: requestTemplate(bounds.trustRequestTemplates),
    chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
    ...toolFields(),
    prediction: z.unknown().optional(),
    reasoning_effort: z.unknown().optional(),
    verbosity: z.unknown().optional(),
    store: z.unknown().optional(),
    metadata: z.unknown().optional(),
    ...samplingFields(bounds),
    ...refusedOnChat(),
    ...ignoredFields(),
  });
}

/** Behind the option since a template is a program; the generation layer runs it with limits on time and memory. */
function requestTemplate(trusted: boolean) {
  return z
    .string()
    .min(1)
    .max(MAX_TEMPLATE_LENGTH)
    .superRefine((_template, context) => {
      if (!trusted) addUnsupported(context, "is not supported: this server takes no templates from requests", []);
    })
    .optional();
}

export type ChatBody = z.output<ReturnType<typeof chatBody>>;

export interface ChatTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal">;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly returnTokenIds: boolean;
  readonly promptLogprobs: boolean;
}

/** @throws `invalid_value` where fields contradict each other */
export function toChatTask(body: ChatBody, bounds: Bounds): ChatTask {
  const stream = body.stream ?? false;
  const n = body.n ?? 1;
  checkChoices(1, n, bounds);
  checkTools(body);
  if (body.top_logprobs !== undefined && body.logprobs !== true) {
    throw invalid("top_logprobs", "is only allowed when logprobs is true");
  }
  if (stream && body.prompt_logprobs !== undefined)
    throw invalid("prompt_logprobs", "is not allowed when stream is true");
  const continueFinalMessage = body.continue_final_message ?? false;
  const addGenerationPrompt = body.add_generation_prompt ?? !continueFinalMessage;
  if (continueFinalMessage && addGenerationPrompt) {
    throw invalid("continue_final_message", "can't be true together with add_generation_prompt");
  }
  for (const name of RESERVED_TEMPLATE_ARGUMENTS) {
    if (body.chat_template_kwargs && Object.hasOwn(body.chat_template_kwargs, name)) {
      throw invalid(`chat_template_kwargs.${name}`, "is set by the server and can't be given");
    }
  }
  return {
    stream,
    includeUsage: wantsUsageChunk(body),
    returnTokenIds: body.return_token_ids ?? false,
    promptLogprobs: body.prompt_logprobs !== undefined,
    request: {
      names: {
        prompts: "messages",
        maxTokens: body.max_completion_tokens === undefined ? "max_tokens" : "max_completion_tokens",
        numLogprobs: "top_logprobs",
      },
      returnTokenIds: body.return_token_ids ?? false,
      prompts: [
        {
          type: "chat",
          messages: body.messages,
          addGenerationPrompt,
          continueFinalMessage,
          ...(body.chat_template === undefined ? {} : { template: body.chat_template }),
          ...templateArguments(body),
        },
      ],
      numChoices: n,
      bestOf: n,
      sampling: toSampling(body, bounds.vocabSize),
      ...toStopping(body, body.max_completion_tokens ?? body.max_tokens),
      addSpecialTokens: body.add_special_tokens ?? false,
      echo: false,
      ...(body.logprobs ? { numLogprobs: body.top_logprobs ?? 0 } : {}),
      ...(body.prompt_logprobs === undefined ? {} : { numPromptLogprobs: body.prompt_logprobs }),
      ...(body.truncate_prompt_tokens === undefined ? {} : { truncatePromptTokens: body.truncate_prompt_tokens }),
      ...toCacheSalt(body),
      ...sessionFields(body.session_id, 1, n),
    },
  };
}

/** Tools that may not be called are shown to the template all the same, as vLLM does. */
function templateArguments({ tools = [], chat_template_kwargs: given }: ChatBody) {
  if (tools.length === 0) return given === undefined ? {} : { templateArguments: given };
  return { templateArguments: { tools, ...given } };
}
