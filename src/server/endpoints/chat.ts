/**
 * `POST /v1/chat/completions`: the body, its way into a `GenerationRequest`, and the
 * `chat.completion` objects of the answer. A choice's first chunk carries the role together with
 * its first text: a client that counts chunks counts tokens.
 */
import * as z from "zod";
import type { DeltaEvent, GenerationUsage } from "../../generation/events.ts";
import type { App, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import {
  type AcceptedEvent,
  type AnswerHead,
  answerHead,
  type ChoiceEnd,
  type ChunkWriter,
  type Collected,
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
  checkTools,
  completionFields,
  defined,
  ignoredFields,
  MAX_LOGPROBS,
  reasoningArguments,
  reasoningEffort,
  reasoningField,
  samplingFields,
  toCompletionsTask,
  toolFields,
} from "../openai/fields.ts";
import { openJson } from "../openai/json-writer.ts";
import { chatLogprobs, lazyChatLogprobs, promptLogprobs } from "../openai/logprobs.ts";
import { chatMessages } from "../openai/messages.ts";
import { REFUSED_ON_CHAT, textFormat, textModalities } from "../openai/refused-fields.ts";
import { addUnsupported, invalid, parseBody, refusals } from "../openai/validate.ts";
import { answerChoices } from "./generate.ts";

/** The server itself sets these when it renders a template. */
const RESERVED_TEMPLATE_ARGUMENTS = ["messages", "chat_template", "add_generation_prompt", "continue_final_message"];

const MAX_TEMPLATE_LENGTH = 64 * 1024;

export function chatRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const schema = chatBody(bounds);

  app.post("/v1/chat/completions", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const task = toChatTask(body, bounds);
    const head = answerHead(deps, "chatcmpl");
    return answerChoices(context, deps, task, {
      chunks: () => new ChatChunks(head, task),
      answer: (collected) => chatAnswer(head, task, collected),
    });
  });
}

export function chatBody(bounds: Bounds) {
  const maxTokens = z.int().min(1).max(bounds.maxOutputTokens).optional();
  const schema = z.object({
    ...completionFields(bounds),
    messages: chatMessages(),
    max_completion_tokens: maxTokens,
    max_tokens: maxTokens,
    logprobs: z.boolean().optional(),
    top_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    add_generation_prompt: z.boolean().optional(),
    continue_final_message: z.boolean().optional(),
    chat_template: requestTemplate(bounds.trustRequestTemplates),
    chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
    ...toolFields(),
    prediction: z.unknown().optional(),
    reasoning_effort: reasoningEffort().optional(),
    reasoning: reasoningField().optional(),
    enable_thinking: z.boolean().optional(),
    verbosity: z.unknown().optional(),
    store: z.unknown().optional(),
    metadata: z.unknown().optional(),
    ...samplingFields(bounds),
    response_format: textFormat(),
    modalities: textModalities(),
    ...ignoredFields(),
  });
  return schema.register(refusals, REFUSED_ON_CHAT);
}

/** An option, since a template is a program; the generation layer limits its time and memory. */
function requestTemplate(isTrusted: boolean) {
  const template = z.string().min(1).max(MAX_TEMPLATE_LENGTH);
  return template
    .superRefine((_template, context) => {
      if (!isTrusted) addUnsupported(context, "is not supported: this server takes no templates from requests", []);
    })
    .optional();
}

type ChatBody = z.output<ReturnType<typeof chatBody>>;

/** @throws `invalid_value` if fields contradict each other */
export function toChatTask(body: ChatBody, bounds: Bounds): CompletionsTask {
  const n = body.n ?? 1;
  checkChoices(1, n, bounds);
  checkTools(body);
  if (body.top_logprobs !== undefined && body.logprobs !== true) {
    throw invalid("top_logprobs", "is only allowed when logprobs is true");
  }
  checkPromptLogprobs(body);
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
  const template = defined({ template: body.chat_template, templateArguments: templateArguments(body) });
  return toCompletionsTask(body, bounds, {
    names: {
      prompts: "messages",
      maxTokens: body.max_completion_tokens === undefined ? "max_tokens" : "max_completion_tokens",
      numLogprobs: "top_logprobs",
    },
    prompts: [{ type: "chat", messages: body.messages, addGenerationPrompt, continueFinalMessage, ...template }],
    numChoices: n,
    bestOf: n,
    maxTokens: body.max_completion_tokens ?? body.max_tokens,
    addSpecialTokens: body.add_special_tokens ?? false,
    echo: false,
    ...defined({
      numLogprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
      numPromptLogprobs: body.prompt_logprobs,
    }),
  });
}

/** The template sees tools even if none may be called, as in vLLM. */
function templateArguments({ tools = [], enable_thinking, ...body }: ChatBody) {
  const all = {
    ...(tools.length > 0 && { tools }),
    ...reasoningArguments(body.reasoning_effort ?? body.reasoning?.effort),
    ...defined({ enable_thinking }),
    ...body.chat_template_kwargs,
  };
  return Object.keys(all).length === 0 ? undefined : all;
}

class ChatChunks implements ChunkWriter {
  readonly wantsEmptyDeltas: boolean;
  readonly #task: CompletionsTask;
  readonly #head: string;
  readonly #tail: string;
  /** Everything before the members of the delta, by choice. */
  readonly #choiceHeads: string[] = [];
  /** Not sent yet: they go out with the first chunk. */
  #promptIds: readonly number[] | undefined;

  constructor(head: AnswerHead, task: CompletionsTask) {
    this.wantsEmptyDeltas = task.request.returnTokenIds === true;
    this.#task = task;
    this.#head = openJson(headObject(head, "chat.completion.chunk"));
    this.#tail = task.includeUsage ? ',"usage":null}' : "}";
  }

  accepted(event: AcceptedEvent): void {
    if (this.#task.request.returnTokenIds) this.#promptIds = event.prompts[0]?.tokenIds ?? [];
  }

  prompt(): undefined {
    return undefined;
  }

  chunk(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): string {
    const isReasoning = delta?.part === "reasoning";
    const text = JSON.stringify(delta?.text ?? "");
    const members = isReasoning ? `"reasoning_content":${text},"reasoning":${text}` : `"content":${text}`;
    let json: string;
    const head = this.#choiceHeads[index];
    if (head === undefined) {
      this.#choiceHeads[index] = `${this.#head},"choices":[{"index":${index},"delta":{`;
      json = `${this.#choiceHeads[index]}"role":"assistant",${isReasoning ? '"content":"",' : ""}${members}}`;
    } else json = text === '""' ? `${head}}` : `${head}${members}}`;

    json += delta?.logprobs ? `,"logprobs":${JSON.stringify(chatLogprobs(delta.logprobs))}` : ',"logprobs":null';
    json += endJson(end);
    if (this.#task.request.returnTokenIds) json += `,"token_ids":${JSON.stringify(delta?.tokenIds ?? [])}`;
    json += "}]";
    if (this.#promptIds !== undefined) json += `,"prompt_token_ids":${JSON.stringify(this.#promptIds)}`;
    this.#promptIds = undefined;
    return json + this.#tail;
  }

  usage(usage: GenerationUsage): string | undefined {
    if (!this.#task.includeUsage) return undefined;
    return `${this.#head},"choices":[],"usage":${JSON.stringify(toUsage(usage))}}`;
  }
}

/** For `answerJson`. */
function chatAnswer(
  head: AnswerHead,
  { request, showsPromptLogprobs }: CompletionsTask,
  { prompts, choices, usage }: Collected,
) {
  return {
    ...headObject(head, "chat.completion"),
    choices: choices.map((choice) => ({
      index: choice.index,
      message: { role: "assistant", content: choice.text, refusal: null, ...reasoningMembers(choice.reasoning) },
      logprobs: request.numLogprobs === undefined ? null : lazyChatLogprobs(choice.logprobs),
      finish_reason: choice.reason,
      stop_reason: choice.stoppedBy ?? null,
      ...(request.returnTokenIds && { token_ids: choice.tokenIds }),
    })),
    usage: toUsage(usage),
    ...(request.returnTokenIds && { prompt_token_ids: prompts[0]?.tokenIds ?? [] }),
    ...(showsPromptLogprobs && { prompt_logprobs: promptLogprobs(choices[0]?.prompt?.logprobs ?? []) }),
  };
}

/** DeepSeek's name and vLLM's: clients read one or the other. */
function reasoningMembers(reasoning: string) {
  return reasoning === "" ? {} : { reasoning_content: reasoning, reasoning };
}
