/**
 * A chat's text, as its template renders it. After a stored conversation only the end of it
 * matters: if the template allows, only that is rendered, so that a turn costs the same after ten
 * messages and after ten thousand. Knows no tokens.
 */
import { type Conversation, newText, type TextSoFar } from "../sessions/conversation.ts";
import { type ChatMessage, hashText } from "../sessions/messages.ts";
import type { ChatRenderer } from "../tokenizer/chat-template.ts";
import type { Prompt } from "./events.ts";

export type ChatPrompt = Extract<Prompt, { type: "chat" }>;

/** What is needed of a conversation's messages. */
export interface ChatMessages {
  readonly numStored: number;
  readonly firstRole: string | undefined;
  /** The last of the stored ones. */
  readonly lastStored: ChatMessage | undefined;
  /** Messages after the stored ones. */
  readonly added: readonly ChatMessage[];
  /** All of them. Reads the stored ones from the store, so the work grows with the history. */
  readonly all: () => Promise<readonly ChatMessage[]>;
}

/** @see ChatRenderOptions */
export interface Rendering {
  readonly messagesName: string;
  readonly signal: AbortSignal;
}

export class ChatText {
  readonly #renderer: ChatRenderer;
  readonly #prompt: ChatPrompt;
  readonly #messages: ChatMessages;
  readonly #withoutBos: boolean;
  readonly #rendering: Rendering;
  #whole: Promise<string> | undefined;

  /**
   * @param prompt says how to render the messages
   * @param withoutBos other tokens precede the chat: the BOS that the template writes is left out
   */
  constructor(
    renderer: ChatRenderer,
    prompt: ChatPrompt,
    messages: ChatMessages,
    { withoutBos, ...rendering }: Rendering & { readonly withoutBos: boolean },
  ) {
    this.#renderer = renderer;
    this.#prompt = prompt;
    this.#messages = messages;
    this.#withoutBos = withoutBos;
    this.#rendering = rendering;
  }

  /** @throws `invalid_value`, `invalid_checkpoint` as the renderer does */
  whole(): Promise<string> {
    this.#whole ??= this.#renderWhole();
    return this.#whole;
  }

  /**
   * What follows the text of the stored tokens. Undefined if this text begins differently.
   * @throws as `whole`
   */
  async after(stored: Conversation): Promise<string | undefined> {
    if (stored.tailKey === undefined) return newText(stored, await this.whole());
    if (stored.tailKey !== this.#tailKey()) return undefined;
    // The last stored message is the answer. The state may not have read its end yet.
    const tail = await this.#tail(this.#messages.numStored - 1);
    return tail === undefined ? undefined : newText(stored, tail);
  }

  /** What is stored of it, with the answer that follows. @throws as `whole` */
  async soFar(): Promise<TextSoFar> {
    const { numStored, added } = this.#messages;
    const tail = await this.#tail(numStored + added.length - (this.#prompt.continueFinalMessage ? 1 : 0));
    return tail === undefined ? { text: await this.whole() } : { text: tail, tailKey: this.#tailKey() };
  }

  async #renderWhole(): Promise<string> {
    const { text } = await renderChat(this.#renderer, this.#prompt, await this.#messages.all(), this.#rendering);
    return this.#withoutBos ? this.#renderer.withoutBos(text) : text;
  }

  /** @param numBefore messages before the tail: at least the stored ones but for the last */
  async #tail(numBefore: number): Promise<string | undefined> {
    const { numStored, firstRole, lastStored, added } = this.#messages;
    if (firstRole === undefined || numBefore < 1) return undefined;
    const isAfterStored = numBefore >= numStored;
    const messages = isAfterStored ? added.slice(numBefore - numStored) : [lastStored!, ...added];
    return this.#renderer.renderTail({
      ...renderOptions(this.#prompt, messages, this.#rendering),
      firstRole: this.#prompt.instructions === undefined ? firstRole : INSTRUCTIONS_ROLE,
    });
  }

  /** Identifies what decides how a message is rendered, besides the message. */
  #tailKey(): string {
    const { instructions = null, templateArguments = {}, tools } = this.#prompt;
    const read = this.#renderer.argumentsRead(templateArguments);
    const decisive = [this.#renderer.identity, instructions, read];
    const shown = tools?.definitions.map(({ name, description, parameters }) => [name, description, parameters]);
    return hashText(JSON.stringify(shown === undefined ? decisive : [...decisive, shown]));
  }
}

/** Instructions precede the messages and are not stored with them. */
const INSTRUCTIONS_ROLE = "system";

/** @throws `invalid_value`, `invalid_checkpoint` as the renderer does */
export function renderChat(
  renderer: ChatRenderer,
  prompt: ChatPrompt,
  messages: readonly ChatMessage[],
  rendering: Rendering,
) {
  const { instructions: content } = prompt;
  const all = content === undefined ? messages : [{ role: INSTRUCTIONS_ROLE, content }, ...messages];
  return renderer.render(renderOptions(prompt, all, rendering));
}

function renderOptions(prompt: ChatPrompt, messages: readonly ChatMessage[], rendering: Rendering) {
  const { addGenerationPrompt, continueFinalMessage, template, templateArguments, tools } = prompt;
  return {
    messages,
    addGenerationPrompt,
    continueFinalMessage,
    ...rendering,
    ...(template !== undefined && { template }),
    ...(templateArguments && { templateArguments }),
    ...(tools && { tools: tools.definitions }),
  };
}
