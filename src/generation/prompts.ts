/**
 * A request's prompts → token ids, within the limits, going on from a kept conversation where there is one. Text and
 * templates end here; below are only ids.
 */
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import type { ChatRenderer } from "../tokenizer/chat-template.ts";
import { CONTEXT_TOKENS, type EncodeLimits, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { type ChatPrompt, ChatText, renderChat } from "./chat-text.ts";
import { type ConversationSoFar, type Head, newMessages } from "./conversation.ts";
import type { ChatMessage, GenerationRequest, Prompt } from "./events.ts";
import { messagesOf } from "./passages.ts";

/** Ready for the engine. */
export interface PreparedPrompt {
  /** All that stands before the first sampled token, kept and new. A long past is copied only if somebody looks. */
  readonly tokenIds: readonly number[];
  readonly numTokens: number;
  /** The last of the tokens: enough to decode those that follow. */
  readonly contextIds: readonly number[];
  /** What is fed to the engine; at least one, unless `resume` has left one unread. */
  readonly promptIds: readonly number[];
  readonly resume?: ResumePoint;
  readonly checkpoints?: Checkpoints;
  /** Of the tokens, those that the resumed state has read. */
  readonly cachedTokens: number;
  /** What `echo` shows, if it is known better than by decoding `echoIds`. */
  readonly echoText?: string;
  /** The tokens of this request's own prompt, without what a kept conversation holds already. */
  readonly echoIds: readonly number[];
  /** How many of the tokens any chat with the same instructions begins with; 0: unknown. */
  readonly findJunction?: () => Promise<number>;
  /** The template's own. */
  readonly stopStrings: readonly string[];
  readonly conversation: ConversationSoFar;
}

export interface PromptContext {
  readonly tokenizer: Tokenizer;
  readonly renderer: ChatRenderer;
  readonly vocabSize: number;
  /** Of the tokens to read; what a kept state has read does not count. */
  readonly maxPromptTokens: number;
  /** Aborts encoding. */
  readonly signal: AbortSignal;
}

type PromptOptions = Pick<GenerationRequest, "addSpecialTokens" | "truncatePromptTokens" | "sampling">;

/** @throws `invalid_value`, `prompt_too_long`, `invalid_checkpoint` (a malformed template of the model's own) */
export function preparePrompt(
  context: PromptContext,
  prompt: Prompt,
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  switch (prompt.type) {
    case "text":
      return prepareText(context, prompt.text, options, head);
    case "tokens":
      return prepareTokens(context, prompt.tokenIds, options, head);
    case "chat":
      return prepareChat(context, prompt, options, head);
  }
}

async function prepareText(
  context: PromptContext,
  text: string,
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  const limits = encodeLimits(context, options);
  const { addSpecialTokens } = options;
  const ids = head
    ? await encodeBehind(context.tokenizer, text, limits)
    : await context.tokenizer.encode(text, { ...limits, addSpecialTokens });
  return assemble(head, ids, { context, options, param: "prompt", text, conversation: { type: "completion" } });
}

async function prepareTokens(
  context: PromptContext,
  tokenIds: readonly number[],
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  checkTokenIds(tokenIds, context.vocabSize, "prompt");
  return assemble(head, tokenIds, { context, options, param: "prompt", conversation: { type: "completion" } });
}

async function prepareChat(
  context: PromptContext,
  prompt: ChatPrompt,
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  const { numPreambleTokens = 0, passages = [] } = head?.conversation ?? {};
  const history = head ? messagesOf(context.tokenizer, passages, head.snapshot.tokenIds, numPreambleTokens) : [];
  const messages = [...history, ...newMessages(history, prompt.messages)];
  const chat = new ChatText(context.renderer, prompt, messages, { withoutBos: numPreambleTokens > 0 });
  const { continueFinalMessage: continuesFinalMessage } = prompt;
  const soFar = { type: "chat", numPreambleTokens, messages, continuesFinalMessage, ...(await chat.soFar()) } as const;
  const stopStrings = context.renderer.stopStrings(prompt.template);
  const limits = encodeLimits(context, options);
  const details = { context, options, param: "messages", stopStrings, conversation: { ...soFar, passages: [] } };

  const rest = head && (await chat.behind(head.conversation));
  if (head !== undefined && rest !== undefined) {
    const ids = await context.tokenizer.encodeContinuation(rest, limits);
    if (ids !== undefined && (ids.length > 0 || hasUnreadToken(head))) {
      return assemble(head, ids, { ...details, text: rest, conversation: { ...soFar, passages } });
    }
  }
  // Nothing is kept, or the template shows the past otherwise than the state has read it: correct, though slow.
  const full = await chat.whole();
  if (head === undefined || numPreambleTokens === 0) {
    const ids = await context.tokenizer.encode(full, { ...limits, addSpecialTokens: false });
    const findJunction = () => instructionsEnd(context, prompt, messages, ids);
    return { ...assemble(undefined, ids, { ...details, text: full }), findJunction };
  }
  const preamble = head.snapshot.tokenIds.slice(0, numPreambleTokens);
  const ids = await encodeBehind(context.tokenizer, full, limits);
  const prepared = assemble(undefined, preamble.concat(ids), details);
  const numCut = preamble.length + ids.length - prepared.numTokens;
  const conversation = { ...details.conversation, numPreambleTokens: Math.max(0, numPreambleTokens - numCut) };
  return { ...prepared, conversation };
}

/**
 * Where the instructions end, and the first user's words begin: the tokens that this chat and one with other words have in
 * common.
 */
async function instructionsEnd(
  context: PromptContext,
  prompt: ChatPrompt,
  messages: readonly ChatMessage[],
  ids: readonly number[],
): Promise<number> {
  const isInstruction = ({ role }: ChatMessage) => role === "system" || role === "developer";
  const first = messages.findIndex((message) => !isInstruction(message));
  if (first === -1 || (first === 0 && prompt.instructions === undefined)) return 0;
  const content = messages[first]!.content.trimStart().startsWith("a") ? "b" : "a";
  try {
    const { text } = await renderChat(context.renderer, prompt, [
      ...messages.slice(0, first),
      { ...messages[first]!, content },
    ]);
    const { signal, tokenizer } = context;
    const others = await tokenizer.encode(text, { addSpecialTokens: false, maxTokens: ids.length, signal });
    const parting = ids.findIndex((id, i) => id !== others[i]);
    return parting === -1 ? 0 : parting;
  } catch {
    // A template may insist on more messages than these: then nothing is known, and nothing lost.
    return 0;
  }
}

function assemble(
  head: Head | undefined,
  ids: readonly number[],
  details: {
    readonly context: PromptContext;
    readonly options: PromptOptions;
    readonly param: string;
    /** What `ids` were made of. */
    readonly text?: string;
    readonly stopStrings?: readonly string[];
    readonly conversation: ConversationSoFar;
  },
): PreparedPrompt {
  const { context, options, param, text, stopStrings = [], conversation } = details;
  const newIds = withinLimits(context, ids, options, param);
  const past = head?.snapshot.tokenIds ?? [];
  let joined: readonly number[] | undefined;
  if (newIds.length === 0 && !(head && hasUnreadToken(head))) {
    throw new DenseMambaError("invalid_value", `${param} must hold at least one token, given 0`, { param });
  }
  return {
    promptIds: newIds,
    ...(head && { resume: goOn(head, newIds, options) }),
    numTokens: past.length + newIds.length,
    get tokenIds() {
      joined ??= past.length === 0 ? newIds : past.concat(newIds);
      return joined;
    },
    contextIds: newIds.length < CONTEXT_TOKENS ? past.slice(newIds.length - CONTEXT_TOKENS).concat(newIds) : newIds,
    cachedTokens: head?.snapshot.position ?? 0,
    ...(text !== undefined && newIds.length === ids.length && { echoText: text }),
    echoIds: newIds,
    stopStrings,
    conversation,
  };
}

/** With nothing new and the seed of the last request this is that request, going on: its random numbers do too. */
function goOn({ snapshot, conversation }: Head, newIds: readonly number[], { sampling }: PromptOptions): ResumePoint {
  const { tokenIds, position, state, sampler } = snapshot;
  const isSame = newIds.length === 0 && sampler !== undefined && sampler.seed === sampling.seed;
  if (!isSame) return { tokenIds, position, state };
  return { tokenIds, position, state, sampler: { ...sampler, numSampled: conversation.numSampled ?? 0 } };
}

function hasUnreadToken({ snapshot }: Head): boolean {
  return snapshot.position < snapshot.tokenIds.length;
}

async function encodeBehind(tokenizer: Tokenizer, text: string, limits: EncodeLimits): Promise<number[]> {
  return (
    (await tokenizer.encodeContinuation(text, limits)) ??
    (await tokenizer.encode(text, { ...limits, addSpecialTokens: false }))
  );
}

/** What is cut from its beginning must be encoded to its end. */
function encodeLimits(
  { maxPromptTokens, signal }: PromptContext,
  { truncatePromptTokens }: Pick<PromptOptions, "truncatePromptTokens">,
): EncodeLimits {
  return { signal, ...(truncatePromptTokens === undefined && { maxTokens: maxPromptTokens }) };
}

function withinLimits(
  { maxPromptTokens }: PromptContext,
  ids: readonly number[],
  { truncatePromptTokens }: PromptOptions,
  param: string,
): readonly number[] {
  const bounded = truncatePromptTokens === undefined ? ids : ids.slice(-truncatePromptTokens);
  if (bounded.length > maxPromptTokens) throw promptTooLong(param, bounded.length, maxPromptTokens);
  return bounded;
}

/**
 * In the words by which clients tell that a prompt is too long.
 * @param numTokens of the prompt, or of its beginning: a text is not encoded further than it may go
 */
export function promptTooLong(param: string, numTokens: number, maxPromptTokens: number): DenseMambaError {
  return new DenseMambaError(
    "prompt_too_long",
    `This model's maximum context length is ${maxPromptTokens} tokens. However, ${param} has at least ${numTokens} tokens to read.`,
    { param },
  );
}

/** @throws `invalid_value` naming the first id that is none. */
export function checkTokenIds(ids: readonly number[], vocabSize: number, param: string): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new DenseMambaError(
      "invalid_value",
      `${param}[${i}] must be a token id from 0 to ${vocabSize - 1}, given ${id}`,
      { param },
    );
  }
}
