/**
 * A request's prompts → token ids, within the limits, going on from a kept conversation where there is one. Text and
 * templates end here; below are only ids.
 */
import type { ResumePoint } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import type { ChatRenderer, RenderedChat } from "../tokenizer/chat-template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type ConversationSoFar, type Head, newMessages } from "./conversation.ts";
import type { ChatMessage, GenerationRequest, Prompt } from "./events.ts";

/** Ready for the engine. */
export interface PreparedPrompt {
  /** All that stands before the first sampled token, kept and new. */
  readonly tokenIds: readonly number[];
  /** What is fed to the engine; at least one. */
  readonly promptIds: readonly number[];
  readonly resume?: ResumePoint;
  /** Of the tokens, those that the resumed state has read. */
  readonly cachedTokens: number;
  /** What `echo` shows, if it is known better than by decoding `echoIds`. */
  readonly echoText?: string;
  /** The tokens of this request's own prompt, without what a kept conversation holds already. */
  readonly echoIds: readonly number[];
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
}

type PromptOptions = Pick<GenerationRequest, "addSpecialTokens" | "truncatePromptTokens">;

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
  const ids = head
    ? ((await context.tokenizer.encodeContinuation(text)) ?? (await encode(context, text, false)))
    : await encode(context, text, options.addSpecialTokens);
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
  prompt: Extract<Prompt, { type: "chat" }>,
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  const { numPreambleTokens = 0, messages: history = [], text: kept = "" } = head?.conversation ?? {};
  const messages = [...history, ...newMessages(history, prompt.messages)];
  const { text: rendered, stopStrings } = await render(context, prompt, messages);
  // The template writes BOS in front of the messages; behind a preamble it would stand in the middle.
  const full = numPreambleTokens === 0 ? rendered : withoutBos(rendered, context.tokenizer);
  const conversation = { type: "chat", numPreambleTokens, messages, text: full } as const;
  const details = { context, options, param: "messages", stopStrings, conversation };

  if (head !== undefined && full.startsWith(kept)) {
    const rest = full.slice(kept.length);
    const ids = await context.tokenizer.encodeContinuation(rest);
    if (ids !== undefined && (ids.length > 0 || hasUnreadToken(head))) {
      return assemble(head, ids, { ...details, text: rest });
    }
  }
  // Nothing is kept, or the template shows the past otherwise than the state has read it: correct, though slow.
  if (head === undefined || numPreambleTokens === 0) {
    return assemble(undefined, await encode(context, full, false), { ...details, text: full });
  }
  const preamble = head.snapshot.tokenIds.slice(0, numPreambleTokens);
  const ids = (await context.tokenizer.encodeContinuation(full)) ?? (await encode(context, full, false));
  return assemble(undefined, preamble.concat(ids), details);
}

function render(
  { renderer }: PromptContext,
  prompt: Extract<Prompt, { type: "chat" }>,
  messages: readonly ChatMessage[],
): Promise<RenderedChat> {
  const { instructions, addGenerationPrompt, continueFinalMessage, template, templateArguments } = prompt;
  return renderer.render({
    messages: instructions === undefined ? messages : [{ role: "system", content: instructions }, ...messages],
    addGenerationPrompt,
    continueFinalMessage,
    ...(template !== undefined && { template }),
    ...(templateArguments && { templateArguments }),
  });
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
  const feed = head ? goOn(head, newIds) : { promptIds: newIds };
  if (feed.promptIds.length === 0) {
    throw new DenseMambaError("invalid_value", `${param} must hold at least one token, given 0`, { param });
  }
  return {
    ...feed,
    tokenIds: head ? head.snapshot.tokenIds.concat(newIds) : newIds,
    cachedTokens: head?.snapshot.position ?? 0,
    ...(text !== undefined && newIds.length === ids.length && { echoText: text }),
    echoIds: newIds,
    stopStrings,
    conversation,
  };
}

/** Resumes, and feeds at least one token: with nothing new, the last kept one if the state has not read it. */
function goOn(head: Head, newIds: readonly number[]): { promptIds: readonly number[]; resume: ResumePoint } {
  const { tokenIds, position, state } = head.snapshot;
  if (newIds.length > 0 || !hasUnreadToken(head)) return { promptIds: newIds, resume: { tokenIds, position, state } };
  return { promptIds: tokenIds.slice(-1), resume: { tokenIds: tokenIds.slice(0, -1), position, state } };
}

function hasUnreadToken({ snapshot }: Head): boolean {
  return snapshot.position < snapshot.tokenIds.length;
}

function encode({ tokenizer }: PromptContext, text: string, addSpecialTokens: boolean): Promise<number[]> {
  return tokenizer.encode(text, { addSpecialTokens });
}

function withinLimits(
  { maxPromptTokens }: PromptContext,
  ids: readonly number[],
  { truncatePromptTokens }: PromptOptions,
  param: string,
): readonly number[] {
  const bounded = truncatePromptTokens === undefined ? ids : ids.slice(-truncatePromptTokens);
  if (bounded.length <= maxPromptTokens) return bounded;
  throw new DenseMambaError(
    "prompt_too_long",
    `${param} has ${bounded.length} tokens to read; at most ${maxPromptTokens} are allowed`,
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

function withoutBos(text: string, { specialTokens }: Tokenizer): string {
  const bos = specialTokens.bos_token;
  return bos && text.startsWith(bos) ? text.slice(bos.length) : text;
}
