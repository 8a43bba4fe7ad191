/**
 * A request's prompts → token ids, within the limits, continuing a stored conversation if there is
 * one. Text and templates end here: the engine sees ids only.
 */
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import { aboutField, DenseMambaError } from "../errors.ts";
import type { ConversationSnapshot, ConversationSoFar, StoredMessages } from "../sessions/conversation.ts";
import type { ResumedConversation } from "../sessions/conversations.ts";
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
import { CONTEXT_TOKENS, type EncodeLimits, type Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ToolFormat } from "../tokenizer/tool-formats.ts";
import { type ChatPrompt, ChatText, renderChat } from "./chat-text.ts";
import { checkTokenIds, promptTooLong } from "./check-request.ts";
import type { GenerationRequest, Prompt, Tools } from "./events.ts";
import { openingTag, type ReasoningStart } from "./reasoning.ts";
import type { ToolCallSearch } from "./tool-calls.ts";

/** Ready for the engine. */
export interface PreparedPrompt {
  /**
   * All tokens before the first sampled one, stored and new. Without `returnTokenIds`, those of a
   * long conversation that are stored in segments are left out. Joined when first read.
   */
  readonly tokenIds: readonly number[];
  readonly numTokens: number;
  /** The last of the tokens: enough to decode those that follow. */
  readonly contextIds: readonly number[];
  /** What the engine reads; at least one, unless `resume` has a token left to read. */
  readonly promptIds: readonly number[];
  readonly resume?: ResumePoint;
  readonly checkpoints?: Checkpoints;
  /** How many of the tokens the resumed state has read. */
  readonly cachedTokens: number;
  /** The text for `echo`, if it is known without decoding `echoIds`. */
  readonly echoText?: string;
  /** The tokens of this request's own prompt. */
  readonly echoIds: readonly number[];
  /** The client wrote them itself, so that special tokens are part of the echo. */
  readonly isGivenAsTokens?: boolean;
  /** How many tokens any chat with the same instructions begins with; 0: unknown. */
  readonly findBranchPoint?: () => Promise<number>;
  /** The template's own. */
  readonly stopStrings: readonly string[];
  /** Undefined if the answer is not searched for reasoning. */
  readonly reasoning?: ReasoningStart;
  /** Undefined if it is not searched for calls of tools. */
  readonly toolCalls?: ToolCallSearch;
  /** The content that the answer continues, mostly none. Undefined: not known. */
  readonly continued: string | undefined;
  readonly conversation: ConversationSoFar;
}

export interface PromptContext {
  readonly tokenizer: Tokenizer;
  readonly renderer: ChatRenderer;
  readonly vocabSize: number;
  /** Tokens to read; what a stored state has read does not count. */
  readonly maxPromptTokens: number;
  /** Aborts encoding. */
  readonly signal: AbortSignal;
}

type PromptOptions = Pick<
  GenerationRequest,
  "addSpecialTokens" | "names" | "truncatePromptTokens" | "truncationSide" | "sampling" | "returnTokenIds"
>;

/** A template may leave out parts of the past, though hardly more than half of it. */
const READ_AGAIN_SLACK = 2;

interface AssemblyOptions {
  /** What the ids follow. */
  readonly resumed: ResumedConversation | undefined;
  /** What the ids encode. */
  readonly text?: string;
  readonly isGivenAsTokens?: boolean;
  readonly chat?: ChatAnswer;
  readonly conversation: ConversationSoFar;
}

/** What a chat's template says of the answer. */
type ChatAnswer = Pick<PreparedPrompt, "stopStrings" | "reasoning" | "toolCalls" | "continued">;

/** Prepares the prompts of one request. */
export class PromptPreparer {
  readonly #context: PromptContext;
  readonly #options: PromptOptions;
  readonly #resumed: ResumedConversation | undefined;

  constructor(context: PromptContext, options: PromptOptions, resumed: ResumedConversation | undefined) {
    this.#context = context;
    this.#options = options;
    this.#resumed = resumed;
  }

  /**
   * @throws `invalid_value`, `prompt_too_long`, `invalid_checkpoint` (the model's template is
   * malformed)
   */
  async prepare(prompt: Prompt): Promise<PreparedPrompt> {
    try {
      switch (prompt.type) {
        case "text":
          return await this.#prepareText(prompt.text);
        case "tokens":
          return await this.#prepareTokens(prompt.tokenIds);
        case "chat":
          return await this.#prepareChat(prompt);
      }
    } catch (error) {
      throw aboutField(error, this.#options.names.prompts); // the tokenizer's
    }
  }

  async #prepareText(text: string): Promise<PreparedPrompt> {
    const { tokenizer } = this.#context;
    const resumed = this.#resumed;
    const { addSpecialTokens } = this.#options;
    const ids = resumed
      ? await encodeContinuation(tokenizer, text, this.#encodeLimits)
      : await tokenizer.encode(text, { ...this.#encodeLimits, addSpecialTokens });
    return this.#assemble(ids, { resumed, text, conversation: { type: "completion" } });
  }

  #prepareTokens(tokenIds: readonly number[]): Promise<PreparedPrompt> {
    checkTokenIds(tokenIds, this.#context.vocabSize, this.#options.names.prompts);
    const conversation = { type: "completion" } as const;
    return this.#assemble(tokenIds, { resumed: this.#resumed, isGivenAsTokens: true, conversation });
  }

  async #prepareChat(prompt: ChatPrompt): Promise<PreparedPrompt> {
    const { tokenizer, renderer, signal } = this.#context;
    const resumed = this.#resumed;
    const { numPreambleTokens = 0, messages: chain = NO_MESSAGES } = resumed?.snapshot.conversation ?? {};
    const stored = resumed && storedMessages(tokenizer, resumed.snapshot);
    const added = newMessages(chain, prompt.messages);
    let loading: Promise<readonly ChatMessage[]> | undefined;
    const loadAll = async () => [...(resumed ? await loadMessages(tokenizer, resumed) : []), ...added];
    const all = () => {
      loading ??= loadAll();
      return loading;
    };
    await this.#checkResults(added, stored?.last ?? [], all);
    const messages = {
      numStored: chain.count,
      firstRole: chain.firstRole ?? added[0]?.role,
      lastStored: stored?.last.at(-1),
      added,
      all,
    };
    const chat = new ChatText(renderer, prompt, messages, {
      withoutBos: numPreambleTokens > 0,
      messagesName: this.#options.names.prompts,
      signal,
    });
    const { continueFinalMessage: continuesFinalMessage } = prompt;
    const soFar = { type: "chat", numPreambleTokens, continuesFinalMessage, ...(await chat.soFar()) } as const;
    const answerAfter = (text: string): ChatAnswer => {
      const tags = renderer.reasoningTags(prompt.template);
      const toolCalls = searchFor(prompt.tools, renderer.toolFormat(prompt.template));
      const stopStrings = renderer.stopStrings(prompt.template);
      const final = added.at(-1) ?? stored?.last.at(-1);
      const continued = continuesFinalMessage && final && !continuesReasoning(final) ? final.content : "";
      const answer = { stopStrings, continued, ...(toolCalls && { toolCalls }) };
      if (tags === undefined) return answer;
      return { ...answer, reasoning: { tags, seed: reasoningSeed(prompt, { tags, text, final }) } };
    };

    const rest = resumed && (await chat.after(resumed.snapshot.conversation));
    if (resumed !== undefined && rest !== undefined) {
      const ids = await tokenizer.encodeContinuation(rest, this.#encodeLimits);
      if (ids !== undefined && (ids.length > 0 || hasUnreadToken(resumed.snapshot))) {
        const conversation = { ...soFar, stored, added };
        return this.#assemble(ids, { resumed, chat: answerAfter(rest), text: rest, conversation });
      }
    }
    // Nothing is stored, or the template renders the past differently: all of it is read again.
    if (resumed !== undefined) this.#checkCanReadAgain(resumed.snapshot);
    const full = await chat.whole();
    const everything = await all();
    const conversation = { ...soFar, stored: undefined, added: everything };
    const answer = answerAfter(full);
    if (resumed === undefined || numPreambleTokens === 0) {
      const { addSpecialTokens } = this.#options;
      const ids = await tokenizer.encode(full, { ...this.#encodeLimits, addSpecialTokens });
      const findBranchPoint = () => this.#findInstructionsEnd(prompt, everything, ids);
      const prepared = await this.#assemble(ids, { resumed: undefined, chat: answer, text: full, conversation });
      return { ...prepared, findBranchPoint };
    }
    const preamble = (await resumed.loadHistory()).tokenIds.slice(0, numPreambleTokens);
    const ids = await encodeContinuation(tokenizer, full, this.#encodeLimits);
    const prepared = await this.#assemble(preamble.concat(ids), { resumed: undefined, chat: answer, conversation });
    const numCut = preamble.length + ids.length - prepared.numTokens;
    const isCutLeft = this.#options.truncationSide !== "right";
    const numLeft = isCutLeft
      ? Math.max(0, numPreambleTokens - numCut)
      : Math.min(numPreambleTokens, prepared.numTokens);
    return { ...prepared, conversation: { ...conversation, numPreambleTokens: numLeft } };
  }

  /**
   * Results must be of calls before them. Most are of calls in the last stored message; otherwise
   * all are loaded.
   */
  async #checkResults(
    added: readonly ChatMessage[],
    last: readonly ChatMessage[],
    all: () => Promise<readonly ChatMessage[]>,
  ): Promise<void> {
    if (firstUnknownCall([...last, ...added]) === undefined) return;
    const unknown = firstUnknownCall(await all());
    if (unknown === undefined) return;
    const { prompts: param } = this.#options.names;
    const message = `${param} has the result of a tool call that no message before it makes: ${JSON.stringify(unknown)}`;
    throw new DenseMambaError("invalid_value", message, { param });
  }

  /** Checked before a long conversation is loaded, rendered and encoded for nothing. */
  #checkCanReadAgain(snapshot: ConversationSnapshot): void {
    const { maxPromptTokens } = this.#context;
    const { names, truncatePromptTokens } = this.#options;
    const numTokens = countTokens(snapshot);
    if (truncatePromptTokens !== undefined || numTokens <= READ_AGAIN_SLACK * maxPromptTokens) return;
    throw new DenseMambaError(
      "prompt_too_long",
      `under this template or these instructions the conversation would have to be read again from its beginning: it has ${numTokens} tokens, and at most ${maxPromptTokens} may be read`,
      { param: names.prompts },
    );
  }

  /**
   * Where the instructions end and the first user message begins: how many tokens this chat shares
   * with one that differs in that message.
   */
  async #findInstructionsEnd(
    prompt: ChatPrompt,
    messages: readonly ChatMessage[],
    ids: readonly number[],
  ): Promise<number> {
    const { tokenizer, renderer, signal } = this.#context;
    const isInstruction = ({ role }: ChatMessage) => role === "system" || role === "developer";
    const first = messages.findIndex((message) => !isInstruction(message));
    const hasNone = first === 0 && prompt.instructions === undefined && prompt.tools === undefined;
    if (first === -1 || hasNone) return 0;
    const content = messages[first]!.content.trimStart().startsWith("a") ? "b" : "a";
    try {
      const otherMessages = [...messages.slice(0, first), { ...messages[first]!, content }];
      const messagesName = this.#options.names.prompts;
      const { text } = await renderChat(renderer, prompt, otherMessages, { messagesName, signal });
      const { addSpecialTokens } = this.#options;
      const otherIds = await tokenizer.encode(text, { addSpecialTokens, maxTokens: ids.length, signal });
      const branchPoint = ids.findIndex((id, i) => id !== otherIds[i]);
      return branchPoint === -1 ? 0 : branchPoint;
    } catch {
      // A template may insist on more messages. Then the branch point stays unknown.
      return 0;
    }
  }

  async #assemble(ids: readonly number[], options: AssemblyOptions): Promise<PreparedPrompt> {
    const { resumed, text, isGivenAsTokens = false, conversation } = options;
    const { names, returnTokenIds, sampling } = this.#options;
    const newIds = this.#withinLimits(ids);
    const snapshot = resumed?.snapshot;
    // A completion without a prompt of its own goes on with the last answer.
    const lastAnswer = snapshot !== undefined && newIds.length === 0 ? this.#lastAnswer(snapshot) : "";
    const chat = options.chat ?? { stopStrings: [], continued: lastAnswer };
    if (newIds.length === 0 && !(snapshot && hasUnreadToken(snapshot))) {
      if (resumed !== undefined) return this.#readAgain(resumed, chat, conversation);
      const message = `${names.prompts} must hold at least one token, given 0`;
      throw new DenseMambaError("invalid_value", message, { param: names.prompts });
    }
    const earlier = snapshot?.tokenIds ?? [];
    const returned = resumed !== undefined && returnTokenIds ? (await resumed.loadHistory()).tokenIds : earlier;
    let joined: readonly number[] | undefined;
    return {
      promptIds: newIds,
      ...(resumed && { resume: await resumePoint(resumed, newIds, sampling) }),
      numTokens: (snapshot === undefined ? 0 : countTokens(snapshot)) + newIds.length,
      get tokenIds() {
        joined ??= returned.length === 0 ? newIds : returned.concat(newIds);
        return joined;
      },
      contextIds:
        newIds.length < CONTEXT_TOKENS ? earlier.slice(newIds.length - CONTEXT_TOKENS).concat(newIds) : newIds,
      cachedTokens: snapshot?.position ?? 0,
      ...(text !== undefined && newIds.length === ids.length && { echoText: text }),
      echoIds: newIds,
      isGivenAsTokens,
      ...chat,
      conversation,
    };
  }

  /** As far as the snapshot tells: it counts the tokens of an answer with a seed. */
  #lastAnswer({ tokenIds, conversation: { numSampled } }: ConversationSnapshot): string | undefined {
    if (numSampled === undefined || numSampled > tokenIds.length) return undefined;
    return this.#context.tokenizer.decode(tokenIds.slice(tokenIds.length - numSampled), { skipSpecialTokens: true });
  }

  /**
   * For a prompt without new tokens after a state that has read everything, as after an answer that
   * a stop ended: the logits that come next are not stored, so the past is read again.
   */
  async #readAgain(
    { snapshot, loadHistory }: ResumedConversation,
    chat: ChatAnswer,
    conversation: ConversationSoFar,
  ): Promise<PreparedPrompt> {
    const { maxPromptTokens } = this.#context;
    const { prompts: param } = this.#options.names;
    const numTokens = countTokens(snapshot);
    if (numTokens > maxPromptTokens) {
      throw new DenseMambaError(
        "prompt_too_long",
        `${param} is empty, and the state has read all of the past: to continue, its ${numTokens} tokens must be read again, and at most ${maxPromptTokens} may be`,
        { param },
      );
    }
    const { tokenIds } = await loadHistory();
    return {
      promptIds: tokenIds,
      numTokens,
      tokenIds,
      contextIds: tokenIds.slice(-CONTEXT_TOKENS),
      cachedTokens: 0,
      echoText: "",
      echoIds: [],
      ...chat,
      conversation,
    };
  }

  /** A prompt that is truncated is encoded to its end. */
  get #encodeLimits(): EncodeLimits {
    const { maxPromptTokens, signal } = this.#context;
    return { signal, ...(this.#options.truncatePromptTokens === undefined && { maxTokens: maxPromptTokens }) };
  }

  #withinLimits(ids: readonly number[]): readonly number[] {
    const { maxPromptTokens } = this.#context;
    const { names, truncatePromptTokens: most, truncationSide } = this.#options;
    const shortened = () => (truncationSide === "right" ? ids.slice(0, most) : ids.slice(-most!));
    const bounded = most === undefined ? ids : shortened();
    if (bounded.length > maxPromptTokens) throw promptTooLong(names.prompts, bounded.length, maxPromptTokens);
    return bounded;
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

/** With no new tokens and the same seed the random numbers of the last request continue. */
async function resumePoint(
  { snapshot, loadHistory }: ResumedConversation,
  newIds: readonly number[],
  sampling: GenerationRequest["sampling"],
): Promise<ResumePoint> {
  const { history, tokenIds, position, state, sampler } = snapshot;
  const resume = { ...(history && { history }), tokenIds, position, state };
  const isSame = newIds.length === 0 && sampler !== undefined && sampler.seed === sampling.seed;
  if (!isSame) return resume;
  const { numSampled = 0 } = snapshot.conversation;
  const isCounted = sampling.frequencyPenalty !== 0 || sampling.presencePenalty !== 0;
  if (history === undefined || numSampled <= tokenIds.length || !isCounted) {
    return { ...resume, sampler: { ...sampler, numSampled } };
  }
  const sampledInPast = (await loadHistory(numSampled)).tokenIds.slice(-numSampled, -tokenIds.length || undefined);
  return { ...resume, sampler: { ...sampler, numSampled, sampledInPast } };
}

function hasUnreadToken(snapshot: ConversationSnapshot): boolean {
  return snapshot.position < countTokens(snapshot);
}

/** Encodes a text that continues other text. */
export async function encodeContinuation(
  tokenizer: Tokenizer,
  text: string,
  limits: EncodeLimits = {},
): Promise<number[]> {
  return (
    (await tokenizer.encodeContinuation(text, limits)) ??
    (await tokenizer.encode(text, { ...limits, addSpecialTokens: false }))
  );
}
