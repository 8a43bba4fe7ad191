/**
 * A chat's text, as its template shows it. Behind a kept conversation only the end of it matters: where the template
 * allows, that alone is rendered, so that a turn costs the same after ten messages and after ten thousand. Between prompts
 * and the renderer; knows no tokens.
 */
import type { ChatRenderer } from "../tokenizer/chat-template.ts";
import { type Conversation, hashOf, newText, type TextSoFar } from "./conversation.ts";
import type { ChatMessage, Prompt } from "./events.ts";
import { countMessages } from "./passages.ts";

export type ChatPrompt = Extract<Prompt, { type: "chat" }>;

export class ChatText {
  readonly #renderer: ChatRenderer;
  readonly #prompt: ChatPrompt;
  readonly #messages: readonly ChatMessage[];
  readonly #withoutBos: boolean;
  #whole: Promise<string> | undefined;

  /**
   * @param messages all of them, the kept ones too; `prompt` says how they are shown
   * @param withoutBos the template writes BOS in front of the messages; behind other tokens it would stand in the middle
   */
  constructor(
    renderer: ChatRenderer,
    prompt: ChatPrompt,
    messages: readonly ChatMessage[],
    { withoutBos }: { readonly withoutBos: boolean },
  ) {
    this.#renderer = renderer;
    this.#prompt = prompt;
    this.#messages = messages;
    this.#withoutBos = withoutBos;
  }

  /** @throws `invalid_value`, `invalid_checkpoint` as the renderer does */
  whole(): Promise<string> {
    this.#whole ??= this.#renderWhole();
    return this.#whole;
  }

  /** What follows the text that the kept tokens say. Undefined if this one begins otherwise. @throws as `whole` */
  async behind(kept: Conversation): Promise<string | undefined> {
    if (kept.tailUnder === undefined) return newText(kept, await this.whole());
    if (kept.tailUnder !== this.#under()) return undefined;
    // The last kept message is the answer: its end, and how it is closed, the state may not have read yet.
    const tail = this.#tail(countMessages(kept.passages) - 1);
    return tail === undefined ? undefined : newText(kept, tail);
  }

  /** What is to be kept of it, with the answer that follows. @throws as `whole` */
  async soFar(): Promise<TextSoFar> {
    const tail = this.#tail(this.#messages.length - (this.#prompt.continueFinalMessage ? 1 : 0));
    return tail === undefined ? { text: await this.whole() } : { text: tail, tailUnder: this.#under() };
  }

  async #renderWhole(): Promise<string> {
    const { text } = await renderChat(this.#renderer, this.#prompt, this.#messages);
    return this.#withoutBos ? this.#renderer.withoutBos(text) : text;
  }

  #tail(numBefore: number): string | undefined {
    const first = this.#messages[0];
    if (first === undefined || numBefore < 1) return undefined;
    return this.#renderer.renderTail({
      ...renderOptions(this.#prompt, this.#messages.slice(numBefore)),
      firstRole: this.#prompt.instructions === undefined ? first.role : INSTRUCTIONS_ROLE,
    });
  }

  /** What decides how a message is shown, beside the message itself. */
  #under(): string {
    const { instructions = null, templateArguments = {} } = this.#prompt;
    return hashOf(JSON.stringify([this.#renderer.identity, instructions, templateArguments]));
  }
}

/** Instructions stand in front of the messages, and are not kept with them. */
const INSTRUCTIONS_ROLE = "system";

/** @throws `invalid_value`, `invalid_checkpoint` as the renderer does */
export function renderChat(renderer: ChatRenderer, prompt: ChatPrompt, messages: readonly ChatMessage[]) {
  const { instructions: content } = prompt;
  const all = content === undefined ? messages : [{ role: INSTRUCTIONS_ROLE, content }, ...messages];
  return renderer.render(renderOptions(prompt, all));
}

function renderOptions(prompt: ChatPrompt, messages: readonly ChatMessage[]) {
  const { addGenerationPrompt, continueFinalMessage, template, templateArguments } = prompt;
  return {
    messages,
    addGenerationPrompt,
    continueFinalMessage,
    ...(template !== undefined && { template }),
    ...(templateArguments && { templateArguments }),
  };
}
