/**
 * Messages → the text that the model reads, by the model's own Jinja template, the request's, or a plain default.
 * Knows nothing of tokens; whoever encodes the result adds no special tokens, for the template writes them.
 */
import { createHash } from "node:crypto";
import { Template } from "@huggingface/jinja";
import { DenseMambaError } from "../errors.ts";
import { cutAtMark, markFinal, pickMark } from "./final-message.ts";
import { strip } from "./python-space.ts";
import { partsOf, type TemplateParts } from "./template-parts.ts";
import { TemplateSandbox } from "./template-sandbox.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * For models without a template, which are base models: a transcript such as they have seen in plain text. The
 * assistant's turn is opened without a trailing space, because pieces of text begin with their space.
 */
export const DEFAULT_CHAT_TEMPLATE = `{{ bos_token }}{% for message in messages %}
{%- if message.role == 'system' or message.role == 'developer' %}{{ message.content | trim }}
{%- else %}{{ message.role | capitalize }}: {{ message.content | trim }}{% endif %}{{ '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}`;

/** With the default template nothing else tells a base model to stop before it speaks for the user. */
const DEFAULT_STOP_STRINGS: readonly string[] = ["\nUser:"];

/** Those that a template may read and a request may not set. */
const RESERVED = ["messages", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"];

export interface TemplateMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
}

export interface ChatRenderOptions {
  readonly messages: readonly TemplateMessage[];
  readonly addGenerationPrompt: boolean;
  /** Leave the last message open, so that the model goes on with it. */
  readonly continueFinalMessage: boolean;
  readonly template?: string;
  readonly templateArguments?: Readonly<Record<string, unknown>>;
}

export interface RenderedChat {
  readonly text: string;
  /** The template's own, besides the request's. */
  readonly stopStrings: readonly string[];
}

export interface TailRenderOptions extends ChatRenderOptions {
  /** The role of the conversation's very first message, which is not among `messages`. */
  readonly firstRole: string;
}

export class ChatRenderer {
  /** Changes with all that a text depends on beside the messages and the request. */
  readonly identity: string;
  readonly #source: string;
  readonly #isDefault: boolean;
  readonly #specialTokens: Readonly<Record<string, string>>;
  readonly #sandbox: TemplateSandbox;
  #compiled: { readonly template: Template; readonly parts: TemplateParts | undefined } | undefined;

  constructor(
    tokenizer: Pick<Tokenizer, "chatTemplate" | "specialTokens" | "addsBos">,
    sandbox = new TemplateSandbox(),
  ) {
    this.#source = tokenizer.chatTemplate ?? DEFAULT_CHAT_TEMPLATE;
    this.#isDefault = tokenizer.chatTemplate === undefined;
    this.#sandbox = sandbox;
    // A model that was not trained with BOS has none in front of its default chats either.
    const { bos_token: bos, ...others } = tokenizer.specialTokens;
    const hasBos = bos !== undefined && (!this.#isDefault || tokenizer.addsBos);
    this.#specialTokens = hasBos ? { ...others, bos_token: bos } : others;
    const content = JSON.stringify([this.#source, this.#specialTokens]);
    this.identity = createHash("sha256").update(content).digest("base64url").slice(0, 22);
  }

  /** @throws `invalid_value` if the messages do not suit the template; `invalid_checkpoint` if the model's is malformed. */
  async render(options: ChatRenderOptions): Promise<RenderedChat> {
    const { messages, addGenerationPrompt, continueFinalMessage, template } = options;
    if (messages.length === 0) throw invalid("messages must hold at least one message, given 0");
    if (continueFinalMessage && addGenerationPrompt) {
      throw invalid(
        "continue_final_message leaves the last message open and add_generation_prompt begins a new one; set only one of them",
        "continue_final_message",
      );
    }
    const mark = continueFinalMessage ? this.#pickMark(options) : undefined;
    const variables = this.#variables(mark === undefined ? options : marked(options, mark));
    const text = template === undefined ? this.#renderOwn(variables) : await this.#sandbox.render(template, variables);
    const shown = mark === undefined ? text : cutAtMark(text, mark, messages.at(-1)!);
    if (shown === undefined) {
      throw invalid(
        "continue_final_message: the chat template does not show the last message's content as it is",
        "continue_final_message",
      );
    }
    return { text: shown, stopStrings: this.stopStrings(template) };
  }

  /**
   * The last `messages` of a conversation, as they stand at the end of its whole text. Takes no longer for a long
   * conversation than for a short one.
   * @returns undefined if that takes the whole conversation: for a request's own template always, and for those of models
   * where what is written of one message may depend on others. Then `render` says what is wrong, if something is.
   */
  renderTail({ firstRole, ...options }: TailRenderOptions): string | undefined {
    const { messages, addGenerationPrompt, continueFinalMessage } = options;
    if (options.template !== undefined || (continueFinalMessage && addGenerationPrompt)) return undefined;
    try {
      const { template, parts } = this.#compile();
      if (parts === undefined) return undefined;
      const first = parts.knowsFirst ? [{ role: firstRole, content: "" }] : [];
      const before = parts.upToMessages.render(this.#variables({ ...options, messages: first }));
      const mark = continueFinalMessage && messages.length > 0 ? this.#pickMark(options) : undefined;
      const shown = mark === undefined ? messages : markFinal(messages, mark);
      const whole = template.render(this.#variables({ ...options, messages: [...first, ...shown] }));
      const tail = whole.slice(before.length);
      if (mark === undefined) return tail;
      const open = cutAtMark(tail, mark, messages.at(-1)!);
      // Of nothing but spaces it is not known how many belong to what stands before.
      return open === undefined || strip(open) === "" ? undefined : open;
    } catch {
      return undefined;
    }
  }

  withoutBos(text: string): string {
    const { bos_token: bos } = this.#specialTokens;
    return bos && text.startsWith(bos) ? text.slice(bos.length) : text;
  }

  /** Those that a chat is stopped by without being asked to. */
  stopStrings(template: string | undefined): readonly string[] {
    return this.#isDefault && template === undefined ? DEFAULT_STOP_STRINGS : [];
  }

  #pickMark({ messages, template = this.#source, templateArguments = {} }: ChatRenderOptions): string {
    const contents = messages.map(({ content }) => content);
    return pickMark([...contents, template, JSON.stringify(templateArguments)]);
  }

  #variables({ messages, addGenerationPrompt, templateArguments = {} }: ChatRenderOptions): Record<string, unknown> {
    const reserved = RESERVED.find((name) => Object.hasOwn(templateArguments, name));
    if (reserved !== undefined) {
      throw invalid(`chat_template_kwargs may not set ${reserved}`, "chat_template_kwargs");
    }
    return {
      bos_token: "",
      eos_token: "",
      ...this.#specialTokens,
      ...templateArguments,
      messages,
      add_generation_prompt: addGenerationPrompt,
    };
  }

  #renderOwn(variables: Record<string, unknown>): string {
    const { template } = this.#compile();
    try {
      return template.render(variables);
    } catch (error) {
      throw invalid(
        `messages cannot be rendered by the model's chat template: ${(error as Error).message}`,
        "messages",
        error,
      );
    }
  }

  /** @throws `invalid_checkpoint` */
  #compile() {
    if (this.#compiled === undefined) {
      const template = compile(this.#source);
      this.#compiled = { template, parts: partsOf(template, this.#source) };
    }
    return this.#compiled;
  }
}

function marked(options: ChatRenderOptions, mark: string): ChatRenderOptions {
  return { ...options, messages: markFinal(options.messages, mark) };
}

function compile(source: string): Template {
  try {
    return new Template(source);
  } catch (error) {
    const message = `the model's chat template is malformed: ${(error as Error).message}`;
    throw new DenseMambaError("invalid_checkpoint", message, { cause: error });
  }
}

function invalid(message: string, param = "messages", cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_value", message, { param, cause });
}
