/**
 * A chat's text, as its template shows it. Behind a kept conversation only the end of it matters: where the template
 * allows, that alone is rendered, so that a turn costs the same after ten messages and after ten thousand. Between prompts
 * and the renderer; knows no tokens.
 */

import { type Conversation, newText, type TextSoFar } from "../sessions/conversation.ts";
import { type ChatMessage, hashText } from "../sessions/messages.ts";
import type { ChatRenderer } from "../tokenizer/chat-template.ts";
import type { Prompt } from "./events.ts";

export type ChatPrompt = Extract<Prompt, { type: "chat" }>;

/** A conversation's messages, as far as they are needed. */
export interface ChatMessages {
  readonly numKept: number;
  readonly firstRole: string | undefined;
  /** The last of the kept ones. */
  readonly lastKept: ChatMessage | undefined;
  /** Messages after the kept ones. */
  readonly added: readonly ChatMessage[];
  /** All of them. The kept ones are read from the store: as much work as there is history. */
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
   * @param prompt says how the messages are shown
   * @param withoutBos the template writes BOS in front of the messages; behind other tokens it would stand in the middle
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

  /** What follows the text that the kept tokens say. Undefined if this one begins otherwise. @throws as `whole` */
  async behind(kept: Conversation): Promise<string | undefined> {
    if (kept.tailKey === undefined) return newText(kept, await this.whole());
    if (kept.tailKey !== this.#under()) return undefined;
    // The last kept message is the answer: its end, and how it is closed, the state may not have read yet.
    const tail = await this.#tail(this.#messages.numKept - 1);
    return tail === undefined ? undefined : newText(kept, tail);
  }

  /** What is to be kept of it, with the answer that follows. @throws as `whole` */
  async soFar(): Promise<TextSoFar> {
    const { numKept, added } = this.#messages;
    const tail = await this.#tail(numKept + added.length - (this.#prompt.continueFinalMessage ? 1 : 0));
    return tail === undefined ? { text: await this.whole() } : { text: tail, tailKey: this.#under() };
  }

  async #renderWhole(): Promise<string> {
    const { text } = await renderChat(this.#renderer, this.#prompt, await this.#messages.all(), this.#rendering);
    return this.#withoutBos ? this.#renderer.withoutBos(text) : text;
  }

  /** @param numBefore all that are kept at least, but for the last */
  async #tail(numBefore: number): Promise<string | undefined> {
    const { numKept, firstRole, lastKept, added } = this.#messages;
    if (firstRole === undefined || numBefore < 1) return undefined;
    const isBehindKept = numBefore >= numKept;
    const messages = isBehindKept ? added.slice(numBefore - numKept) : [lastKept!, ...added];
    return this.#renderer.renderTail({
      ...renderOptions(this.#prompt, messages, this.#rendering),
      firstRole: this.#prompt.instructions === undefined ? firstRole : INSTRUCTIONS_ROLE,
    });
  }

  /** What decides how a message is shown, beside the message itself. */
  #under(): string {
    const { instructions = null, templateArguments = {} } = this.#prompt;
    return hashText(JSON.stringify([this.#renderer.identity, instructions, templateArguments]));
  }
}

/** Instructions stand in front of the messages, and are not kept with them. */
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
  const { addGenerationPrompt, continueFinalMessage, template, templateArguments } = prompt;
  return {
    messages,
    addGenerationPrompt,
    continueFinalMessage,
    ...rendering,
    ...(template !== undefined && { template }),
    ...(templateArguments && { templateArguments }),
  };
}
