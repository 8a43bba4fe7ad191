/**
 * Messages → the text that the model reads, by the model's own Jinja template, the request's, or a
 * plain default. Knows no tokens. Encode the result without special tokens: the template writes
 * them.
 */
import { createHash } from "node:crypto";
import { DenseMambaError } from "../errors.ts";
import { ChatProgram, OutOfSteps, once, type Variables } from "./chat-program.ts";
import { continuesReasoning, cutAtMark, markFinal, pickMark } from "./final-message.ts";
import { TemplateError } from "./jinja/error.ts";
import { strip } from "./jinja/space.ts";
import { findReasoningTags, type ReasoningFormat, type ReasoningTags } from "./reasoning-tags.ts";
import { RenderFailure, RenderProcess } from "./render-process.ts";
import { partsOf, type TemplateParts } from "./template-parts.ts";
import type { DefaultChat, Tokenizer } from "./tokenizer.ts";
import { findToolFormat, knowsCalls, knowsTools, type ToolFormat, type ToolFormatName } from "./tool-formats.ts";
import {
  asPlainMessages,
  callVariables,
  describeTools,
  type ToolCall,
  type ToolDefinition,
  toolVariables,
} from "./tool-messages.ts";

/**
 * For models without a template, that is, base models: a transcript as they have seen in plain
 * text. The assistant's turn opens without a trailing space, because tokens begin with their space.
 */
export const DEFAULT_CHAT_TEMPLATE = `{{ bos_token }}{% for message in messages %}
{%- if message.role == 'system' or message.role == 'developer' %}{{ message.content | trim }}
{%- else %}{{ message.role | capitalize }}: {{ message.content | trim }}{% endif %}{{ '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}`;

/** Nothing else stops a base model from writing the user's turn. */
const DEFAULT_CHAT: DefaultChat = { template: DEFAULT_CHAT_TEMPLATE, stopStrings: ["\nUser:"] };

/** Variables that a template may read but a request may not set. */
const RESERVED = ["messages", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"];

export const MAX_TEMPLATE_LENGTH = 64 * 1024;
/** About a millisecond. */
const INLINE_STEPS = 20_000;
const OWN_TIMEOUT_MS = 20_000;
const REQUEST_TIMEOUT_MS = 1000;
/** In characters. */
const MAX_OWN_LENGTH = 16 * 1024 * 1024;
const MAX_REQUEST_LENGTH = 4 * 1024 * 1024;

export interface TemplateMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
  /** What an assistant thought before. The template decides whether the model reads it again. */
  readonly reasoning?: string;
  /** What an assistant called. */
  readonly toolCalls?: readonly ToolCall[];
  /** Of a message with role `tool`: the call whose result it is. */
  readonly toolCallId?: string;
}

export interface ChatRenderOptions {
  readonly messages: readonly TemplateMessage[];
  /** The client's name for them, for errors. Default: `messages`. */
  readonly messagesName?: string;
  readonly addGenerationPrompt: boolean;
  /** Leave the last message open, so that the model continues it. */
  readonly continueFinalMessage: boolean;
  readonly template?: string;
  readonly templateArguments?: Readonly<Record<string, unknown>>;
  /** Shown to the model: by the template, or in the system message if the template knows none. */
  readonly tools?: readonly ToolDefinition[];
  /** Aborts the rendering. */
  readonly signal?: AbortSignal;
}

export interface RenderedChat {
  readonly text: string;
  /** The template's own, besides the request's. */
  readonly stopStrings: readonly string[];
}

export interface TailRenderOptions extends ChatRenderOptions {
  /** The role of the conversation's first message, which is not in `messages`. */
  readonly firstRole: string;
}

export interface RendererSettings {
  /** Default: `auto`. */
  readonly reasoning?: ReasoningFormat;
  /** Default: `auto`. */
  readonly toolCallParser?: ToolFormatName;
  readonly nowMs?: () => number;
  /** The time limit of one rendering, from its beginning. */
  readonly ownTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
}

export class ChatRenderer {
  /** Changes with everything a text depends on besides the messages and the request. */
  readonly identity: string;
  readonly #source: string;
  /** Undefined for a template of the model's own. */
  readonly #defaultChat: DefaultChat | undefined;
  readonly #specialTokens: Readonly<Record<string, string>>;
  readonly #settings: Required<Omit<RendererSettings, "reasoning" | "toolCallParser">>;
  readonly #reasoning: ReasoningFormat;
  readonly #toolCallParser: ToolFormatName;
  /** Requests' templates have a process of their own, so that they cannot delay the model's. */
  readonly #ownProcess = new RenderProcess();
  readonly #requestProcess = new RenderProcess();
  #compiled: { readonly program: ChatProgram; readonly parts: TemplateParts | undefined } | undefined;

  constructor(
    tokenizer: Pick<Tokenizer, "chatTemplate" | "defaultChat" | "specialTokens" | "addsBos">,
    {
      reasoning = "auto",
      toolCallParser = "auto",
      nowMs = Date.now,
      ownTimeoutMs = OWN_TIMEOUT_MS,
      requestTimeoutMs = REQUEST_TIMEOUT_MS,
    }: RendererSettings = {},
  ) {
    this.#reasoning = reasoning;
    this.#toolCallParser = toolCallParser;
    const { chatTemplate, defaultChat = DEFAULT_CHAT } = tokenizer;
    this.#source = chatTemplate ?? defaultChat.template;
    this.#defaultChat = chatTemplate === undefined ? defaultChat : undefined;
    this.#settings = { nowMs, ownTimeoutMs, requestTimeoutMs };
    // A model that was not trained with BOS gets none before its default chats.
    const { bos_token: bos, ...others } = tokenizer.specialTokens;
    const hasBos = bos !== undefined && (this.#defaultChat === undefined || tokenizer.addsBos);
    this.#specialTokens = hasBos ? { ...others, bos_token: bos } : others;
    const content = JSON.stringify([this.#source, this.#specialTokens]);
    this.identity = createHash("sha256").update(content).digest("base64url").slice(0, 22);
  }

  /**
   * @throws `invalid_value` if the messages do not suit the template, or the request's own template
   * is malformed, fails or exceeds its limits; `invalid_checkpoint` if the model's is malformed;
   * `queue_full`
   */
  async render(given: ChatRenderOptions): Promise<RenderedChat> {
    const { messagesName = "messages", addGenerationPrompt, continueFinalMessage, template, signal } = given;
    const options = { ...given, messages: this.#shownMessages(given) };
    const { messages } = options;
    if (given.messages.length === 0)
      throw invalid(`${messagesName} must hold at least one message, given 0`, messagesName);
    if (continueFinalMessage && addGenerationPrompt) {
      throw invalid(
        "continue_final_message leaves the last message open and add_generation_prompt begins a new one; set only one of them",
        "continue_final_message",
      );
    }
    const mark = continueFinalMessage ? this.#pickMark(options) : undefined;
    const variables = this.#variables(mark === undefined ? options : marked(options, mark));
    const text = await (template === undefined
      ? this.#renderOwn(variables, messagesName, signal)
      : this.#renderGiven(template, variables, signal));
    const isContentRead = (template ?? this.#source).includes("content");
    const shown = mark === undefined ? text : isContentRead ? cutAtMark(text, mark, messages.at(-1)!) : undefined;
    if (shown === undefined) {
      throw invalid(
        `continue_final_message: the chat template does not show the last message's ${continuesReasoning(messages.at(-1)!) ? "reasoning" : "content"} as it is`,
        "continue_final_message",
      );
    }
    return { text: shown, stopStrings: this.stopStrings(template) };
  }

  /**
   * The last `messages` of a conversation as they appear at the end of its whole text. A long
   * conversation takes no longer than a short one.
   * @returns undefined if the whole conversation must be rendered: always for a request's own
   * template, and for a model's if the text of one message may depend on others. `render` then
   * reports errors
   */
  async renderTail({ firstRole: givenRole, ...options }: TailRenderOptions): Promise<string | undefined> {
    const { addGenerationPrompt, continueFinalMessage, signal } = options;
    const messages = this.#plainMessages(options);
    const firstRole = this.#describesTools(options) ? "system" : givenRole;
    if (options.template !== undefined || (continueFinalMessage && addGenerationPrompt)) return undefined;
    try {
      const { parts } = this.#compile();
      if (parts === undefined) return undefined;
      const first = parts.knowsFirst ? [{ role: firstRole, content: "" }] : [];
      const before = await this.#run(this.#variables({ ...options, messages: first }), signal, parts.numStatements);
      const mark = continueFinalMessage && messages.length > 0 ? this.#pickMark({ ...options, messages }) : undefined;
      const shown = mark === undefined ? messages : markFinal(messages, mark);
      const whole = await this.#run(this.#variables({ ...options, messages: [...first, ...shown] }), signal);
      const tail = whole.slice(before.length);
      if (mark === undefined) return tail;
      const open = cutAtMark(tail, mark, messages.at(-1)!);
      // If it is only white space, some of it may belong to the text before.
      return open === undefined || strip(open) === "" ? undefined : open;
    } catch {
      return undefined;
    }
  }

  withoutBos(text: string): string {
    const { bos_token: bos } = this.#specialTokens;
    return bos && text.startsWith(bos) ? text.slice(bos.length) : text;
  }

  /** Those that the model's own template may read: it has their names. */
  argumentsRead(given: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
    return Object.fromEntries(Object.entries(given).filter(([name]) => this.#source.includes(name)));
  }

  /** Stop strings that every chat has. */
  stopStrings(template: string | undefined): readonly string[] {
    return (template === undefined ? this.#defaultChat?.stopStrings : undefined) ?? [];
  }

  /** What surrounds reasoning in the answers to such chats, if they can have any. */
  reasoningTags(template: string | undefined): ReasoningTags | undefined {
    return findReasoningTags(this.#reasoning, template ?? this.#source);
  }

  /** How the model calls tools in such chats. */
  toolFormat(template: string | undefined): ToolFormat {
    return findToolFormat(this.#toolCallParser, template ?? this.#source);
  }

  /** Ends the rendering processes. Nothing can be rendered afterwards. */
  close(): void {
    this.#ownProcess.close();
    this.#requestProcess.close();
  }

  #shownMessages(options: ChatRenderOptions): readonly TemplateMessage[] {
    const messages = this.#plainMessages(options);
    if (!this.#describesTools(options)) return messages;
    return describeTools(messages, options.tools!, this.toolFormat(options.template));
  }

  #plainMessages({ messages, template }: ChatRenderOptions): readonly TemplateMessage[] {
    return knowsCalls(template ?? this.#source) ? messages : asPlainMessages(messages, this.toolFormat(template));
  }

  /** Whether the system message has the tools, since the template knows none. */
  #describesTools({ tools = [], template = this.#source }: ChatRenderOptions): boolean {
    return tools.length > 0 && !knowsTools(template);
  }

  #pickMark({ messages, template = this.#source, templateArguments = {} }: ChatRenderOptions): string {
    const contents = messages.flatMap(({ content, reasoning = "" }) => [content, reasoning]);
    return pickMark([...contents, template, JSON.stringify(templateArguments)]);
  }

  #variables({ messages, addGenerationPrompt, templateArguments = {}, tools = [] }: ChatRenderOptions): Variables {
    const reserved = RESERVED.find((name) => Object.hasOwn(templateArguments, name));
    if (reserved !== undefined) {
      throw invalid(`chat_template_kwargs may not set ${reserved}`, "chat_template_kwargs");
    }
    return {
      // As in transformers when there are none.
      tools: tools.length === 0 ? null : toolVariables(tools),
      documents: null,
      ...this.#specialTokens,
      ...templateArguments,
      messages: messages.map(toVariable),
      add_generation_prompt: addGenerationPrompt,
    };
  }

  async #renderOwn(variables: Variables, messagesName: string, signal: AbortSignal | undefined): Promise<string> {
    this.#compile();
    try {
      return await this.#run(variables, signal);
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof RenderFailure)) throw error;
      const message = `${messagesName} cannot be rendered by the model's chat template: ${error.message}`;
      throw invalid(message, messagesName, error);
    }
  }

  /** Renders here for a small number of steps; what takes longer is rendered in a process. */
  #run(variables: Variables, signal: AbortSignal | undefined, numStatements?: number): Promise<string> {
    const { nowMs, ownTimeoutMs: timeoutMs } = this.#settings;
    const limits = { nowMs: nowMs(), maxLength: MAX_OWN_LENGTH };
    try {
      const { program } = this.#compile();
      return Promise.resolve(program.render(variables, { ...limits, refill: once(INLINE_STEPS) }, numStatements));
    } catch (error) {
      if (!(error instanceof OutOfSteps)) return Promise.reject(error);
    }
    const part = numStatements === undefined ? {} : { numStatements };
    return this.#ownProcess.render({ source: this.#source, ...part, variables, timeoutMs, ...limits }, signal);
  }

  async #renderGiven(source: string, variables: Variables, signal: AbortSignal | undefined): Promise<string> {
    if (source.length > MAX_TEMPLATE_LENGTH) {
      throw invalidTemplate(`has ${source.length} characters; at most ${MAX_TEMPLATE_LENGTH} are allowed`);
    }
    const { nowMs, requestTimeoutMs: timeoutMs } = this.#settings;
    const limits = { nowMs: nowMs(), timeoutMs, maxLength: MAX_REQUEST_LENGTH };
    try {
      return await this.#requestProcess.render({ source, variables, ...limits }, signal);
    } catch (error) {
      if (!(error instanceof RenderFailure)) throw error;
      throw invalidTemplate(`failed: ${error.message}`, error);
    }
  }

  /** @throws `invalid_checkpoint` */
  #compile() {
    if (this.#compiled === undefined) {
      const program = compile(this.#source);
      this.#compiled = { program, parts: partsOf(program.template) };
    }
    return this.#compiled;
  }
}

/**
 * Reasoning under all names that templates use: DeepSeek's and Qwen's, vLLM's, and OpenAI's for
 * gpt-oss.
 */
function toVariable({ reasoning, toolCalls, toolCallId, ...message }: TemplateMessage): object {
  return {
    ...message,
    ...(reasoning !== undefined && { reasoning_content: reasoning, reasoning, thinking: reasoning }),
    ...(toolCalls !== undefined && { tool_calls: callVariables(toolCalls) }),
    ...(toolCallId !== undefined && { tool_call_id: toolCallId }),
  };
}

function compile(source: string): ChatProgram {
  try {
    return new ChatProgram(source);
  } catch (error) {
    const message = `the model's chat template is malformed or not supported: ${(error as Error).message}`;
    throw new DenseMambaError("invalid_checkpoint", message, { cause: error });
  }
}

function marked(options: ChatRenderOptions, mark: string): ChatRenderOptions {
  return { ...options, messages: markFinal(options.messages, mark) };
}

function invalid(message: string, param: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_value", message, { param, cause });
}

function invalidTemplate(what: string, cause?: unknown): DenseMambaError {
  return invalid(`chat_template ${what}`, "chat_template", cause);
}
