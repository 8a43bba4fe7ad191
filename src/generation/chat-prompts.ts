/**
 * A chat → token ids. After a stored conversation only the new text is encoded, if the template
 * renders the past as it was; otherwise all of the conversation is read again.
 */
import { DenseMambaError } from "../errors.ts";
import type { ConversationSnapshot, ConversationSoFar, StoredMessages } from "../sessions/conversation.ts";
import type { ResumedConversation } from "../sessions/lease.ts";
import {
  type ChatMessage,
  countSpanTokens,
  decodeMessages,
  messagesOf,
  NO_MESSAGES,
  newMessages,
} from "../sessions/messages.ts";
import { countTokens } from "../sessions/stores/snapshot.ts";
import type { ChatRenderer } from "../tokenizer/chat-template.ts";
import { continuesReasoning } from "../tokenizer/final-message.ts";
import type { ReasoningTags } from "../tokenizer/reasoning-tags.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ToolFormat } from "../tokenizer/tool-formats.ts";
import { type ChatPrompt, ChatText, renderChat } from "./chat-text.ts";
import type { Tools } from "./events.ts";
import {
  type ChatAnswer,
  encodeContinuation,
  hasUnreadToken,
  type PreparedPrompt,
  type PromptAssembler,
} from "./prompts.ts";
import { openingTag } from "./reasoning.ts";
import type { ToolCallSearch } from "./tool-calls.ts";

/** A template may leave out parts of the past, though hardly more than half of it. */
const READ_AGAIN_SLACK = 2;

type ChatSoFar = Omit<Extract<ConversationSoFar, { type: "chat" }>, "stored" | "added">;

export class ChatPreparer {
  readonly #renderer: ChatRenderer;
  readonly #assembler: PromptAssembler;
  readonly #prompt: ChatPrompt;
  readonly #resumed: ResumedConversation | undefined;
  readonly #stored: StoredMessages | undefined;
  /** Messages after the stored ones. */
  readonly #added: readonly ChatMessage[];
  #all: Promise<readonly ChatMessage[]> | undefined;

  constructor(
    renderer: ChatRenderer,
    assembler: PromptAssembler,
    prompt: ChatPrompt,
    resumed: ResumedConversation | undefined,
  ) {
    this.#renderer = renderer;
    this.#assembler = assembler;
    this.#prompt = prompt;
    this.#resumed = resumed;
    this.#stored = resumed && storedMessages(assembler.context.tokenizer, resumed.snapshot);
    this.#added = newMessages(this.#stored?.messages ?? NO_MESSAGES, prompt.messages);
  }

  /** @throws `invalid_value`, `prompt_too_long`, `invalid_checkpoint` */
  async prepare(): Promise<PreparedPrompt> {
    await this.#checkResults();
    const text = this.#text();
    const soFar: ChatSoFar = {
      type: "chat",
      numPreambleTokens: this.#numPreambleTokens,
      continuesFinalMessage: this.#prompt.continueFinalMessage,
      ...(await text.soFar()),
    };
    return (await this.#afterStored(text, soFar)) ?? (await this.#fromBeginning(text, soFar));
  }

  /** Undefined: nothing is stored, or the template renders the past differently. */
  async #afterStored(text: ChatText, soFar: ChatSoFar): Promise<PreparedPrompt | undefined> {
    const resumed = this.#resumed;
    const rest = resumed && (await text.after(resumed.snapshot.conversation));
    if (resumed === undefined || rest === undefined) return undefined;
    const { tokenizer } = this.#assembler.context;
    const ids = await tokenizer.encodeContinuation(rest, this.#assembler.encodeLimits);
    if (ids === undefined || (ids.length === 0 && !hasUnreadToken(resumed.snapshot))) return undefined;
    const conversation = { ...soFar, stored: this.#stored, added: this.#added };
    return this.#assembler.assemble(ids, { resumed, chat: this.#answerAfter(rest), text: rest, conversation });
  }

  async #fromBeginning(text: ChatText, soFar: ChatSoFar): Promise<PreparedPrompt> {
    if (this.#resumed !== undefined) this.#checkCanReadAgain(this.#resumed.snapshot);
    const whole = await text.whole();
    const messages = await this.#messages();
    const conversation = { ...soFar, stored: undefined, added: messages };
    const chat = this.#answerAfter(whole);
    const { context, options, encodeLimits } = this.#assembler;
    const { tokenizer } = context;
    if (this.#resumed === undefined || this.#numPreambleTokens === 0) {
      const { addSpecialTokens } = options;
      const ids = await tokenizer.encode(whole, { ...encodeLimits, addSpecialTokens });
      const findBranchPoint = () => this.#findInstructionsEnd(messages, ids);
      const prepared = await this.#assembler.assemble(ids, { resumed: undefined, chat, text: whole, conversation });
      return { ...prepared, findBranchPoint, isEditable: messages.length > 1 };
    }
    const preamble = (await this.#resumed.loadHistory()).tokenIds.slice(0, this.#numPreambleTokens);
    const ids = preamble.concat(await encodeContinuation(tokenizer, whole, encodeLimits));
    const prepared = await this.#assembler.assemble(ids, { resumed: undefined, chat, conversation });
    const numPreambleTokens =
      options.truncationSide === "right"
        ? Math.min(preamble.length, prepared.numTokens)
        : Math.max(0, preamble.length - (ids.length - prepared.numTokens));
    return { ...prepared, conversation: { ...conversation, numPreambleTokens } };
  }

  get #numPreambleTokens(): number {
    return this.#resumed?.snapshot.conversation.numPreambleTokens ?? 0;
  }

  /** All of them; the stored ones are loaded once. */
  #messages(): Promise<readonly ChatMessage[]> {
    this.#all ??= this.#loadMessages();
    return this.#all;
  }

  async #loadMessages(): Promise<readonly ChatMessage[]> {
    const stored = this.#resumed && (await loadMessages(this.#assembler.context.tokenizer, this.#resumed));
    return [...(stored ?? []), ...this.#added];
  }

  #text(): ChatText {
    const { messages: chain = NO_MESSAGES } = this.#stored ?? {};
    const messages = {
      numStored: chain.count,
      firstRole: chain.firstRole ?? this.#added[0]?.role,
      lastStored: this.#stored?.last.at(-1),
      added: this.#added,
      all: () => this.#messages(),
    };
    const { context, options } = this.#assembler;
    return new ChatText(this.#renderer, this.#prompt, messages, {
      withoutBos: this.#numPreambleTokens > 0,
      messagesName: options.names.prompts,
      signal: context.signal,
    });
  }

  /** @param text that the answer follows */
  #answerAfter(text: string): ChatAnswer {
    const { template, tools, continueFinalMessage } = this.#prompt;
    const tags = this.#renderer.reasoningTags(template);
    const toolCalls = searchFor(tools, this.#renderer.toolFormat(template));
    const stopStrings = this.#renderer.stopStrings(template);
    const final = this.#added.at(-1) ?? this.#stored?.last.at(-1);
    const continued = continueFinalMessage && final && !continuesReasoning(final) ? final.content : "";
    const answer = { stopStrings, continued, ...(toolCalls && { toolCalls }) };
    if (tags === undefined) return answer;
    return { ...answer, reasoning: { tags, seed: reasoningSeed(this.#prompt, { tags, text, final }) } };
  }

  /**
   * Results must be of calls before them. Most are of calls in the last stored message; otherwise
   * all are loaded.
   */
  async #checkResults(): Promise<void> {
    if (firstUnknownCall([...(this.#stored?.last ?? []), ...this.#added]) === undefined) return;
    const unknown = firstUnknownCall(await this.#messages());
    if (unknown === undefined) return;
    const { prompts: param } = this.#assembler.options.names;
    const message = `${param} has the result of a tool call that no message before it makes: ${JSON.stringify(unknown)}`;
    throw new DenseMambaError("invalid_value", message, { param });
  }

  /** Checked before a long conversation is loaded, rendered and encoded for nothing. */
  #checkCanReadAgain(snapshot: ConversationSnapshot): void {
    const { context, options } = this.#assembler;
    const { maxPromptTokens } = context;
    const numTokens = countTokens(snapshot);
    if (options.truncatePromptTokens !== undefined || numTokens <= READ_AGAIN_SLACK * maxPromptTokens) return;
    throw new DenseMambaError(
      "prompt_too_long",
      `under this template or these instructions the conversation would have to be read again from its beginning: it has ${numTokens} tokens, and at most ${maxPromptTokens} may be read`,
      { param: options.names.prompts },
    );
  }

  /**
   * Where the instructions end and the first user message begins: how many tokens this chat shares
   * with one that differs in that message.
   */
  async #findInstructionsEnd(messages: readonly ChatMessage[], ids: readonly number[]): Promise<number> {
    const { instructions, tools } = this.#prompt;
    const isInstruction = ({ role }: ChatMessage) => role === "system" || role === "developer";
    const first = messages.findIndex((message) => !isInstruction(message));
    const hasNone = first === 0 && instructions === undefined && tools === undefined;
    if (first === -1 || hasNone) return 0;
    const content = messages[first]!.content.trimStart().startsWith("a") ? "b" : "a";
    const { context, options } = this.#assembler;
    const { tokenizer, signal } = context;
    try {
      const otherMessages = [...messages.slice(0, first), { ...messages[first]!, content }];
      const rendering = { messagesName: options.names.prompts, signal };
      const { text } = await renderChat(this.#renderer, this.#prompt, otherMessages, rendering);
      const { addSpecialTokens } = options;
      const otherIds = await tokenizer.encode(text, { addSpecialTokens, maxTokens: ids.length, signal });
      const branchPoint = ids.findIndex((id, i) => id !== otherIds[i]);
      return branchPoint === -1 ? 0 : branchPoint;
    } catch {
      // A template may insist on more messages. Then the branch point stays unknown.
      return 0;
    }
  }
}

/** The id of the first result without a call before it. */
function firstUnknownCall(messages: readonly ChatMessage[]): string | undefined {
  const made = new Set<string>();
  for (const { toolCalls = [], toolCallId } of messages) {
    if (toolCallId !== undefined && !made.has(toolCallId)) return toolCallId;
    for (const { id } of toolCalls) made.add(id);
  }
  return undefined;
}

function searchFor(tools: Tools | undefined, format: ToolFormat): ToolCallSearch | undefined {
  if (tools === undefined || tools.allowed.length === 0) return undefined;
  const names = new Set(tools.allowed.map(({ name }) => name));
  return { format, names, isSingle: !tools.parallel || format.isSingle };
}

/** What of the answer's beginning, as far as reasoning is concerned, the prompt already has. */
function reasoningSeed(
  { addGenerationPrompt, continueFinalMessage }: ChatPrompt,
  {
    tags,
    text,
    final,
  }: { readonly tags: ReasoningTags; readonly text: string; readonly final?: ChatMessage | undefined },
): string {
  if (addGenerationPrompt) return openingTag(tags, text);
  if (!continueFinalMessage || final === undefined) return "";
  if (continuesReasoning(final)) return tags.open + final.reasoning;
  return final.content.trim() === "" ? openingTag(tags, text) : final.content;
}

function storedMessages(tokenizer: Tokenizer, snapshot: ConversationSnapshot): StoredMessages {
  const { tokenIds, conversation } = snapshot;
  const { spans, messages } = conversation;
  const last = spans.slice(-1);
  return {
    spans,
    messages,
    numTokens: countTokens(snapshot),
    last: messagesOf(tokenizer, last, tokenIds, tokenIds.length - countSpanTokens(last)),
  };
}

async function loadMessages(
  tokenizer: Tokenizer,
  { snapshot, loadHistory }: ResumedConversation,
): Promise<ChatMessage[]> {
  if (snapshot.conversation.messages.count === 0) return [];
  const { tokenIds, spans } = await loadHistory();
  return decodeMessages(tokenizer, spans, tokenIds, tokenIds.length - countSpanTokens(spans));
}
