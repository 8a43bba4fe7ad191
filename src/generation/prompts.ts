/**
 * A prompt's token ids → what the engine reads, within the limits, continuing a stored conversation
 * if there is one.
 */
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import type { ConversationSnapshot, ConversationSoFar } from "../sessions/conversation.ts";
import type { ResumedConversation } from "../sessions/lease.ts";
import { countTokens } from "../sessions/stores/snapshot.ts";
import { CONTEXT_TOKENS, type EncodeLimits, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { promptTooLong } from "./check-request.ts";
import type { GenerationRequest } from "./events.ts";
import type { ReasoningStart } from "./reasoning.ts";
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
  /** It has messages before the last one, which a client may edit. */
  readonly isEditable?: boolean;
  /** The template's own. */
  readonly stopStrings: readonly string[];
  /** Undefined if the answer is not searched for reasoning. */
  readonly reasoning?: ReasoningStart;
  /** Undefined if it is not searched for calls of tools. */
  readonly toolCalls?: ToolCallSearch;
  /** The content that the answer continues, usually none. Undefined: not known. */
  readonly continued: string | undefined;
  readonly conversation: ConversationSoFar;
}

export interface PromptContext {
  readonly tokenizer: Tokenizer;
  /** Tokens to read; what a stored state has read does not count. */
  readonly maxPromptTokens: number;
  /** Aborts encoding. */
  readonly signal: AbortSignal;
}

export type PromptOptions = Pick<
  GenerationRequest,
  "addSpecialTokens" | "names" | "truncatePromptTokens" | "truncationSide" | "sampling" | "returnTokenIds"
>;

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
export type ChatAnswer = Pick<PreparedPrompt, "stopStrings" | "reasoning" | "toolCalls" | "continued">;

/** Makes the prompts of one request ready. */
export class PromptAssembler {
  readonly context: PromptContext;
  readonly options: PromptOptions;
  readonly #loadStart: ResumedConversation["loadStart"];

  /** @param loadStart the state before the first token of the conversation. Default: zeros. */
  constructor(
    context: PromptContext,
    options: PromptOptions,
    loadStart = async () => undefined as Uint8Array | undefined,
  ) {
    this.context = context;
    this.options = options;
    this.#loadStart = loadStart;
  }

  /** A prompt that is truncated is encoded to its end. */
  get encodeLimits(): EncodeLimits {
    const { maxPromptTokens, signal } = this.context;
    return { signal, ...(this.options.truncatePromptTokens === undefined && { maxTokens: maxPromptTokens }) };
  }

  /** @throws `invalid_value` without a token, `prompt_too_long` */
  async assemble(ids: readonly number[], options: AssemblyOptions): Promise<PreparedPrompt> {
    const { resumed, text, isGivenAsTokens = false, conversation } = options;
    const { names, returnTokenIds, sampling } = this.options;
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
      ...(resumed ? { resume: await resumePoint(resumed, newIds, sampling) } : await this.#fromStart()),
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
    return this.context.tokenizer.decode(tokenIds.slice(tokenIds.length - numSampled), { skipSpecialTokens: true });
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
    const { maxPromptTokens } = this.context;
    const { prompts: param } = this.options.names;
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
      ...(await this.#fromStart()),
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

  async #fromStart(): Promise<Pick<PreparedPrompt, "resume">> {
    const state = await this.#loadStart();
    return state === undefined ? {} : { resume: { tokenIds: [], position: 0, state } };
  }

  #withinLimits(ids: readonly number[]): readonly number[] {
    const { maxPromptTokens } = this.context;
    const { names, truncatePromptTokens: most, truncationSide } = this.options;
    const shortened = () => (truncationSide === "right" ? ids.slice(0, most) : ids.slice(-most!));
    const bounded = most === undefined ? ids : shortened();
    if (bounded.length > maxPromptTokens) throw promptTooLong(names.prompts, bounded.length, maxPromptTokens);
    return bounded;
  }
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

export function hasUnreadToken(snapshot: ConversationSnapshot): boolean {
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
