/**
 * `POST /v1/chat/completions`: the body, its way into a `GenerationRequest`, and the
 * `chat.completion` objects of the answer.
 */
import * as z from "zod";
import type { DeltaEvent, Prompt } from "../../generation/events.ts";
import type { ToolCall } from "../../tokenizer/tool-messages.ts";
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
  completionFields,
  defined,
  ignoredFields,
  MAX_LOGPROBS,
  maxTokens,
  reasoningArguments,
  reasoningEffort,
  reasoningField,
  samplingFields,
  toCompletionsTask,
} from "../openai/fields.ts";
import { openJson } from "../openai/json-writer.ts";
import { byIds, chatLogprobs, lazyChatLogprobs, promptLogprobs } from "../openai/logprobs.ts";
import { chatMessages } from "../openai/messages.ts";
import { REFUSED_ON_CHAT, textModalities } from "../openai/refused-fields.ts";
import { type ToolBody, toolFields, toTools } from "../openai/tools.ts";
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
  const schema = z.object({
    ...completionFields(bounds),
    ...chatPromptFields(bounds),
    max_completion_tokens: maxTokens(bounds).optional(),
    max_tokens: maxTokens(bounds).optional(),
    logprobs: z.boolean().optional(),
    top_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    ...toolFields("chat"),
    prediction: z.unknown().optional(),
    verbosity: z.unknown().optional(),
    store: z.unknown().optional(),
    metadata: z.unknown().optional(),
    ...samplingFields(bounds),
    modalities: textModalities(),
    ...ignoredFields(),
  });
  return schema.register(refusals, REFUSED_ON_CHAT);
}

/** What a chat is rendered from. */
export function chatPromptFields(bounds: Bounds) {
  return {
    messages: chatMessages(),
    add_generation_prompt: z.boolean().optional(),
    continue_final_message: z.boolean().optional(),
    chat_template: requestTemplate(bounds.trustRequestTemplates),
    chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
    tools: toolFields("chat").tools,
    reasoning_effort: reasoningEffort().optional(),
    reasoning: reasoningField().optional(),
    enable_thinking: z.boolean().optional(),
  };
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
type ChatPromptBody = z.output<z.ZodObject<ReturnType<typeof chatPromptFields>>>;

/** @throws `invalid_value` if fields contradict each other */
export function toChatPrompt(body: ChatPromptBody & Partial<ToolBody>): Prompt {
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
  const options = defined({
    template: body.chat_template,
    templateArguments: templateArguments(body),
    tools: toTools(body),
  });
  return { type: "chat", messages: body.messages, addGenerationPrompt, continueFinalMessage, ...options };
}

/** @throws `invalid_value` if fields contradict each other */
export function toChatTask(body: ChatBody, bounds: Bounds): CompletionsTask {
  const n = body.n ?? 1;
  checkChoices(1, n, bounds);
  if (body.top_logprobs !== undefined && body.logprobs !== true) {
    throw invalid("top_logprobs", "is only allowed when logprobs is true");
  }
  checkPromptLogprobs(body);
  return toCompletionsTask(body, bounds, {
    names: {
      prompts: "messages",
      maxTokens: body.max_completion_tokens === undefined ? "max_tokens" : "max_completion_tokens",
      numLogprobs: "top_logprobs",
    },
    prompts: [toChatPrompt(body)],
    numChoices: n,
    bestOf: n,
    maxTokens: body.max_completion_tokens ?? body.max_tokens,
    addSpecialTokens: body.add_special_tokens ?? false,
    echo: false,
    scoresStopToken: false,
    ...defined({
      numLogprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
      numPromptLogprobs: body.prompt_logprobs,
    }),
  });
}

function templateArguments({ enable_thinking, ...body }: ChatPromptBody) {
  const all = {
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
  /** Everything before the delta, by choice. */
  readonly #choiceHeads: string[] = [];
  /** Calls that have begun, by choice. */
  readonly #numCalls: number[] = [];
  /** Not sent yet: they go out with the first chunk. */
  #promptIds: readonly number[] | undefined;

  constructor(head: AnswerHead, task: CompletionsTask) {
    this.wantsEmptyDeltas = task.request.returnTokenIds === true;
    this.#task = task;
    this.#head = openJson(headObject(head, "chat.completion.chunk"));
  }

  accepted(event: AcceptedEvent): void {
    if (this.#task.request.returnTokenIds) this.#promptIds = event.prompts[0]?.tokenIds ?? [];
  }

  prompt(): undefined {
    return undefined;
  }

  /**
   * The text stands between a first chunk with the role and a last one with the reason: clients
   * skip the text of both.
   */
  chunks(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): readonly string[] {
    const chunks: string[] = [];
    if (this.#choiceHeads[index] === undefined) {
      this.#choiceHeads[index] = `${this.#head},"choices":[{"index":${index},"delta":`;
      chunks.push(this.#chunk(index, '{"role":"assistant","content":""}'));
    }
    if (delta !== undefined) chunks.push(this.#chunk(index, this.#deltaJson(delta), delta));
    if (end !== undefined) chunks.push(this.#chunk(index, "{}", undefined, end));
    return chunks;
  }

  #chunk(index: number, members: string, delta?: DeltaEvent, end?: ChoiceEnd): string {
    let json = this.#choiceHeads[index]! + members;
    const { namesTokensByIds } = this.#task;
    const details = delta?.logprobs && (namesTokensByIds ? byIds(delta.logprobs) : delta.logprobs);
    json += details ? `,"logprobs":${JSON.stringify(chatLogprobs(details))}` : ',"logprobs":null';
    json += endJson(end);
    if (this.#task.request.returnTokenIds) json += `,"token_ids":${JSON.stringify(delta?.tokenIds ?? [])}`;
    json += "}]";
    if (this.#promptIds !== undefined) json += `,"prompt_token_ids":${JSON.stringify(this.#promptIds)}`;
    this.#promptIds = undefined;
    return json;
  }

  /** Empty for a token without text. A call's id and name come before its arguments. */
  #deltaJson({ index, part, text, call }: DeltaEvent): string {
    if (text === "" && call === undefined) return "{}";
    const json = JSON.stringify(text);
    if (part === undefined) return `{"content":${json}}`;
    if (part === "reasoning") return `{"reasoning_content":${json},"reasoning":${json}}`;
    if (call !== undefined) this.#numCalls[index] = (this.#numCalls[index] ?? 0) + 1;
    const callIndex = this.#numCalls[index]! - 1;
    const begun = call ? `"id":${JSON.stringify(call.id)},"type":"function",` : "";
    const name = call ? `"name":${JSON.stringify(call.name)},` : "";
    return `{"tool_calls":[{"index":${callIndex},${begun}"function":{${name}"arguments":${json}}}]}`;
  }

  end(): string {
    return `${this.#head},"choices":[]`;
  }
}

/** For `answerJson`. */
function chatAnswer(
  head: AnswerHead,
  { request, showsPromptLogprobs, namesTokensByIds }: CompletionsTask,
  { prompts, choices, usage }: Collected,
) {
  const detailsOf = ({ logprobs }: Collected["choices"][number]) => (namesTokensByIds ? byIds(logprobs) : logprobs);
  return {
    ...headObject(head, "chat.completion"),
    choices: choices.map((choice) => ({
      index: choice.index,
      message: {
        role: "assistant",
        content: choice.text === "" && choice.calls.length > 0 ? null : choice.text,
        refusal: null,
        ...reasoningMembers(choice.reasoning),
        ...(choice.calls.length > 0 && { tool_calls: choice.calls.map(toCallObject) }),
      },
      logprobs: request.numLogprobs === undefined ? null : lazyChatLogprobs(detailsOf(choice)),
      finish_reason: choice.reason,
      stop_reason: choice.stoppedBy ?? null,
      ...(choice.state !== undefined && { state: choice.state }),
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

function toCallObject({ id, name, arguments: json }: ToolCall) {
  return { id, type: "function", function: { name, arguments: json } };
}
