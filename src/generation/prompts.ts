/**
 * A request's prompts → token ids, within the limits, continuing from a kept conversation where there is one. Text and
 * templates end here; below are only ids.
 */
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import { aboutField, DenseMambaError } from "../errors.ts";
import type { ConversationSnapshot, ConversationSoFar, StoredMessages } from "../sessions/conversation.ts";
import type { History } from "../sessions/history.ts";
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
import { CONTEXT_TOKENS, type EncodeLimits, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { type ChatPrompt, ChatText, renderChat } from "./chat-text.ts";
import type { GenerationRequest, Prompt } from "./events.ts";

/** Ready for the engine. */
export interface PreparedPrompt {
  /**
   * What stands before the first sampled token, kept and new: all of it where the request returns token ids, else without
   * what a long conversation keeps apart. Copied only if somebody looks.
   */
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
  readonly findBranchPoint?: () => Promise<number>;
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

/** A template may show less of the past than was read, though hardly less than half of it. */
const READ_AGAIN_SLACK = 2;

/** What a request continues from. */
export interface Origin {
  readonly snapshot: ConversationSnapshot;
  /** Of all tokens, or of so many of the last at least. As much work as there is history. */
  readonly loadHistory: (numTokens?: number) => Promise<History>;
}

type PromptOptions = Pick<
  GenerationRequest,
  "addSpecialTokens" | "names" | "truncatePromptTokens" | "sampling" | "returnTokenIds"
>;

/** @throws `invalid_value`, `prompt_too_long`, `invalid_checkpoint` (a malformed template of the model's own) */
export async function preparePrompt(
  context: PromptContext,
  prompt: Prompt,
  options: PromptOptions,
  origin: Origin | undefined,
): Promise<PreparedPrompt> {
  try {
    switch (prompt.type) {
      case "text":
        return await prepareText(context, prompt.text, options, origin);
      case "tokens":
        return await prepareTokens(context, prompt.tokenIds, options, origin);
      case "chat":
        return await prepareChat(context, prompt, options, origin);
    }
  } catch (error) {
    throw aboutField(error, options.names.prompts); // the tokenizer's
  }
}

async function prepareText(
  context: PromptContext,
  text: string,
  options: PromptOptions,
  origin: Origin | undefined,
): Promise<PreparedPrompt> {
  const limits = encodeLimits(context, options);
  const { addSpecialTokens } = options;
  const ids = origin
    ? await encodeBehind(context.tokenizer, text, limits)
    : await context.tokenizer.encode(text, { ...limits, addSpecialTokens });
  return assemble(origin, ids, { context, options, text, conversation: { type: "completion" } });
}

async function prepareTokens(
  context: PromptContext,
  tokenIds: readonly number[],
  options: PromptOptions,
  origin: Origin | undefined,
): Promise<PreparedPrompt> {
  checkTokenIds(tokenIds, context.vocabSize, options.names.prompts);
  return assemble(origin, tokenIds, { context, options, conversation: { type: "completion" } });
}

async function prepareChat(
  context: PromptContext,
  prompt: ChatPrompt,
  options: PromptOptions,
  origin: Origin | undefined,
): Promise<PreparedPrompt> {
  const { numPreambleTokens = 0, messages: chain = NO_MESSAGES } = origin?.snapshot.conversation ?? {};
  const stored = origin && storedMessages(context, origin.snapshot);
  const added = newMessages(chain, prompt.messages);
  let reading: Promise<readonly ChatMessage[]> | undefined;
  const readAll = async () => [...(origin ? await earlierMessages(context, origin) : []), ...added];
  const all = () => {
    reading ??= readAll();
    return reading;
  };
  const messages = {
    numKept: chain.count,
    firstRole: chain.firstRole ?? added[0]?.role,
    lastKept: stored?.last.at(-1),
    added,
    all,
  };
  const chat = new ChatText(context.renderer, prompt, messages, {
    withoutBos: numPreambleTokens > 0,
    messagesName: options.names.prompts,
    signal: context.signal,
  });
  const { continueFinalMessage: continuesFinalMessage } = prompt;
  const soFar = { type: "chat", numPreambleTokens, continuesFinalMessage, ...(await chat.soFar()) } as const;
  const stopStrings = context.renderer.stopStrings(prompt.template);
  const limits = encodeLimits(context, options);
  const details = { context, options, stopStrings };

  const rest = origin && (await chat.behind(origin.snapshot.conversation));
  if (origin !== undefined && rest !== undefined) {
    const ids = await context.tokenizer.encodeContinuation(rest, limits);
    if (ids !== undefined && (ids.length > 0 || hasUnreadToken(origin.snapshot))) {
      return assemble(origin, ids, { ...details, text: rest, conversation: { ...soFar, stored, added } });
    }
  }
  // Nothing is kept, or the template shows the past otherwise than the state has read it: correct, though slow.
  if (origin !== undefined) checkCanBeReadAgain(context, origin.snapshot, options);
  const full = await chat.whole();
  const everything = await all();
  const conversation = { ...soFar, stored: undefined, added: everything };
  if (origin === undefined || numPreambleTokens === 0) {
    const ids = await context.tokenizer.encode(full, { ...limits, addSpecialTokens: false });
    const { prompts: messagesName } = options.names;
    const findBranchPoint = () => instructionsEnd(context, prompt, everything, { ids, messagesName });
    return { ...(await assemble(undefined, ids, { ...details, text: full, conversation })), findBranchPoint };
  }
  const preamble = (await origin.loadHistory()).tokenIds.slice(0, numPreambleTokens);
  const ids = await encodeBehind(context.tokenizer, full, limits);
  const prepared = await assemble(undefined, preamble.concat(ids), { ...details, conversation });
  const numCut = preamble.length + ids.length - prepared.numTokens;
  return {
    ...prepared,
    conversation: { ...conversation, numPreambleTokens: Math.max(0, numPreambleTokens - numCut) },
  };
}

function storedMessages({ tokenizer }: PromptContext, snapshot: ConversationSnapshot): StoredMessages {
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

async function earlierMessages(
  { tokenizer }: PromptContext,
  { snapshot, loadHistory }: Origin,
): Promise<ChatMessage[]> {
  if (snapshot.conversation.messages.count === 0) return [];
  const { tokenIds, spans } = await loadHistory();
  return decodeMessages(tokenizer, spans, tokenIds, tokenIds.length - countSpanTokens(spans));
}

/** Checked before the whole conversation is fetched, rendered and encoded in vain. */
function checkCanBeReadAgain(
  { maxPromptTokens }: PromptContext,
  snapshot: ConversationSnapshot,
  { names, truncatePromptTokens }: PromptOptions,
): void {
  const numTokens = countTokens(snapshot);
  if (truncatePromptTokens !== undefined || numTokens <= READ_AGAIN_SLACK * maxPromptTokens) return;
  throw new DenseMambaError(
    "prompt_too_long",
    `under this template or these instructions the conversation would have to be read again from its beginning: it has ${numTokens} tokens, and at most ${maxPromptTokens} may be read`,
    { param: names.prompts },
  );
}

/**
 * Where the instructions end, and the first user's words begin: the tokens that this chat and one with other words have in
 * common.
 */
async function instructionsEnd(
  context: PromptContext,
  prompt: ChatPrompt,
  messages: readonly ChatMessage[],
  { ids, messagesName }: { readonly ids: readonly number[]; readonly messagesName: string },
): Promise<number> {
  const isInstruction = ({ role }: ChatMessage) => role === "system" || role === "developer";
  const first = messages.findIndex((message) => !isInstruction(message));
  if (first === -1 || (first === 0 && prompt.instructions === undefined)) return 0;
  const content = messages[first]!.content.trimStart().startsWith("a") ? "b" : "a";
  try {
    const { signal, tokenizer } = context;
    const otherMessages = [...messages.slice(0, first), { ...messages[first]!, content }];
    const { text } = await renderChat(context.renderer, prompt, otherMessages, { messagesName, signal });
    const others = await tokenizer.encode(text, { addSpecialTokens: false, maxTokens: ids.length, signal });
    const parting = ids.findIndex((id, i) => id !== others[i]);
    return parting === -1 ? 0 : parting;
  } catch {
    // A template may insist on more messages than these: then nothing is known, and nothing lost.
    return 0;
  }
}

interface AssemblyDetails {
  readonly context: PromptContext;
  readonly options: PromptOptions;
  /** What `ids` were made of. */
  readonly text?: string;
  readonly stopStrings?: readonly string[];
  readonly conversation: ConversationSoFar;
}

async function assemble(
  origin: Origin | undefined,
  ids: readonly number[],
  details: AssemblyDetails,
): Promise<PreparedPrompt> {
  const { context, options, text, stopStrings = [], conversation } = details;
  const { prompts: param } = options.names;
  const newIds = withinLimits(context, ids, options);
  const snapshot = origin?.snapshot;
  if (newIds.length === 0 && !(snapshot && hasUnreadToken(snapshot))) {
    if (origin !== undefined) return readAgain(origin, details);
    throw new DenseMambaError("invalid_value", `${param} must hold at least one token, given 0`, { param });
  }
  const earlier = snapshot?.tokenIds ?? [];
  const shown = origin !== undefined && options.returnTokenIds ? (await origin.loadHistory()).tokenIds : earlier;
  let joined: readonly number[] | undefined;
  return {
    promptIds: newIds,
    ...(origin && { resume: await goOn(origin, newIds, options) }),
    numTokens: (snapshot === undefined ? 0 : countTokens(snapshot)) + newIds.length,
    get tokenIds() {
      joined ??= shown.length === 0 ? newIds : shown.concat(newIds);
      return joined;
    },
    contextIds: newIds.length < CONTEXT_TOKENS ? earlier.slice(newIds.length - CONTEXT_TOKENS).concat(newIds) : newIds,
    cachedTokens: snapshot?.position ?? 0,
    ...(text !== undefined && newIds.length === ids.length && { echoText: text }),
    echoIds: newIds,
    stopStrings,
    conversation,
  };
}

/**
 * With nothing new on a past that the state has read to its end, as it has where a stop ended the last answer: what comes next
 * is in no state, so the past is read anew. Correct, though slow.
 */
async function readAgain(
  { snapshot, loadHistory }: Origin,
  { context: { maxPromptTokens }, options, conversation }: AssemblyDetails,
): Promise<PreparedPrompt> {
  const { prompts: param } = options.names;
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
    stopStrings: [],
    conversation,
  };
}

/** With nothing new and the same seed, this continues the last request, and so do its random numbers. */
async function goOn(
  { snapshot, loadHistory }: Origin,
  newIds: readonly number[],
  { sampling }: PromptOptions,
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
export async function encodeBehind(tokenizer: Tokenizer, text: string, limits: EncodeLimits = {}): Promise<number[]> {
  return (
    (await tokenizer.encodeContinuation(text, limits)) ??
    (await tokenizer.encode(text, { ...limits, addSpecialTokens: false }))
  );
}

/** A prompt whose beginning is cut off must be encoded to its end. */
function encodeLimits(
  { maxPromptTokens, signal }: PromptContext,
  { truncatePromptTokens }: Pick<PromptOptions, "truncatePromptTokens">,
): EncodeLimits {
  return { signal, ...(truncatePromptTokens === undefined && { maxTokens: maxPromptTokens }) };
}

function withinLimits(
  { maxPromptTokens }: PromptContext,
  ids: readonly number[],
  { names, truncatePromptTokens }: PromptOptions,
): readonly number[] {
  const bounded = truncatePromptTokens === undefined ? ids : ids.slice(-truncatePromptTokens);
  if (bounded.length > maxPromptTokens) throw promptTooLong(names.prompts, bounded.length, maxPromptTokens);
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
