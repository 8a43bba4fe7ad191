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
  /** The tokens of this request's own prompt. */
  readonly echoIds: readonly number[];
  /** The template's own. */
  readonly stopStrings: readonly string[];
  /** What is to be kept of the conversation, up to the answer. */
  conversation(): ConversationSoFar;
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
  const kept = head?.conversation.text ?? "";
  return assemble(context, head, withinLimits(context, ids, options, "prompt"), {
    exactText: ids.length <= (options.truncatePromptTokens ?? ids.length) ? text : undefined,
    toKeep: (newText) => ({ type: "text", text: kept + newText }),
    param: "prompt",
  });
}

async function prepareTokens(
  context: PromptContext,
  tokenIds: readonly number[],
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  checkTokenIds(tokenIds, context.vocabSize, "prompt");
  const kept = head?.conversation.text ?? "";
  return assemble(context, head, withinLimits(context, tokenIds, options, "prompt"), {
    exactText: undefined,
    toKeep: (newText) => ({ type: "text", text: kept + newText }),
    param: "prompt",
  });
}

async function prepareChat(
  context: PromptContext,
  prompt: Extract<Prompt, { type: "chat" }>,
  options: PromptOptions,
  head: Head | undefined,
): Promise<PreparedPrompt> {
  const { preamble = "", messages: history = [], text: kept = "" } = head?.conversation ?? {};
  const messages = [...history, ...newMessages(history, prompt.messages)];
  const rendered = await render(context, prompt, messages);
  // The template writes BOS in front of the messages; behind a preamble it would stand in the middle of the text.
  const full = preamble === "" ? rendered.text : preamble + withoutBos(rendered.text, context.tokenizer);
  const finish = (from: Head | undefined, ids: readonly number[]) => {
    const bounded = withinLimits(context, ids, options, "messages");
    return assemble(context, from, bounded, {
      exactText: bounded.length === ids.length ? full : undefined,
      toKeep: () => ({ type: "chat", preamble, messages, text: full }),
      param: "messages",
      stopStrings: rendered.stopStrings,
    });
  };
  if (head !== undefined && full.startsWith(kept)) {
    const rest = full.slice(kept.length);
    const ids = await context.tokenizer.encodeContinuation(rest);
    if (ids !== undefined && (ids.length > 0 || hasUnreadToken(head))) return finish(head, ids);
  }
  // Nothing is kept, or the template shows the past otherwise than the state has read it: correct, though slow.
  return finish(undefined, await encode(context, full, false));
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
  { tokenizer }: PromptContext,
  head: Head | undefined,
  newIds: readonly number[],
  details: {
    readonly exactText: string | undefined;
    readonly toKeep: (newText: string) => ConversationSoFar;
    readonly param: string;
    readonly stopStrings?: readonly string[];
  },
): PreparedPrompt {
  const { exactText, toKeep, param, stopStrings = [] } = details;
  const feed = head ? goOn(head, newIds) : { promptIds: newIds };
  if (feed.promptIds.length === 0) {
    throw new DenseMambaError("invalid_value", `${param} must hold at least one token, given 0`, { param });
  }
  const keptIds = head?.snapshot.tokenIds ?? [];
  return {
    ...feed,
    tokenIds: keptIds.length === 0 ? newIds : keptIds.concat(newIds),
    cachedTokens: head?.snapshot.position ?? 0,
    ...(exactText !== undefined && { echoText: exactText }),
    echoIds: newIds,
    stopStrings,
    conversation: () => toKeep(exactText ?? decodeAfter(tokenizer, keptIds, newIds)),
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

/** The text of tokens that stand after others. */
export function decodeAfter(tokenizer: Tokenizer, contextIds: readonly number[], ids: readonly number[]): string {
  const stream = tokenizer.stream({ skipSpecialTokens: false, contextIds });
  let text = "";
  for (const id of ids) text += stream.push(id);
  return text + stream.flush();
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
