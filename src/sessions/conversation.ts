/**
 * What the text layer stores with a state, and how a new prompt continues from it. A chat template
 * renders a whole conversation; the state has read its beginning; only what follows is new. Pure:
 * no store, no engine.
 */
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ToolCall } from "../tokenizer/tool-messages.ts";
import { checkpointTree } from "./checkpoints.ts";
import {
  addMessages,
  type ChatMessage,
  countSpanTokens,
  type DeepReadonly,
  digestText,
  hashText,
  messageChain,
  messageSpans,
  NO_MESSAGES,
  replaceLast,
  type TextDigest,
  type TokenRange,
  textOf,
  toSpan,
} from "./messages.ts";
import { countTokens, madeByAnother, type Snapshot, type Tokens } from "./stores/snapshot.ts";

const conversation = z.object({
  /** Tokens before the first message: plain completions in the same session. */
  numPreambleTokens: z.int().min(0),
  /** Of the last messages, which are not in segments. The last span ends the conversation. */
  spans: messageSpans,
  /** All messages after the preamble. */
  messages: messageChain,
  /** Digest of the text after the preamble, to compare with the messages rendered again. */
  textLength: z.int().min(0),
  textHash: z.string(),
  /**
   * Set where the template renders each message by itself. Then the digest is only of what
   * follows all messages but the last, and this identifies all else that decides the text: the
   * template, its arguments, the instructions.
   */
  tailKey: z.string().exactOptional(),
  /** How many of the last tokens the last request sampled, if it had a seed. */
  numSampled: z.int().min(0).exactOptional(),
  createdAtMs: z.number(),
  lastUsedAtMs: z.number(),
  /** Of a session with tokens. */
  checkpoints: checkpointTree.exactOptional(),
  /** The persona whose state it began with, if that had read no tokens. */
  startedFrom: z.object({ persona: z.string(), hash: z.string() }).exactOptional(),
  /** Of a persona: tells its content from others'. */
  personaHash: z.string().exactOptional(),
});

/** JSON-serialisable: the `conversation` of a snapshot. */
export type Conversation = DeepReadonly<z.infer<typeof conversation>>;

export interface ConversationSnapshot extends Snapshot {
  readonly conversation: Conversation;
}

/** Nothing has been said. */
export function newConversation(nowMs: number): Conversation {
  const times = { createdAtMs: nowMs, lastUsedAtMs: nowMs };
  return { numPreambleTokens: 0, spans: [], messages: NO_MESSAGES, ...digestText(""), ...times };
}

/** @throws `invalid_snapshot` for another model, or a malformed or contradictory conversation */
export function parseConversation(snapshot: Snapshot, modelHash: string): ConversationSnapshot {
  if (snapshot.modelHash !== modelHash) {
    throw invalid(`the conversation ${madeByAnother(snapshot.modelHash, modelHash)}`);
  }
  const { data, error } = conversation.safeParse(snapshot.conversation);
  if (data === undefined) throw invalid(`the stored conversation is malformed: ${error.message}`, error);
  const numSpanTokens = countSpanTokens(data.spans);
  const [numClaimed, numTokens] = [data.numPreambleTokens + numSpanTokens, countTokens(snapshot)];
  if (numSpanTokens > snapshot.tokenIds.length || numClaimed > numTokens) {
    throw invalid(`the stored conversation claims ${numClaimed} tokens; the snapshot holds ${numTokens}`);
  }
  return { ...snapshot, conversation: data };
}

function invalid(message: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", message, { cause });
}

/** What of `rendered` follows the stored text. Undefined if it does not begin with it. */
export function newText(stored: TextDigest, rendered: string): string | undefined {
  const { textLength, textHash } = stored;
  const isSame = rendered.length >= textLength && hashText(rendered.slice(0, textLength)) === textHash;
  return isSame ? rendered.slice(textLength) : undefined;
}

/** A conversation before its answer. */
export type ConversationSoFar = { readonly type: "completion" } | ({ readonly type: "chat" } & ChatSoFar);

type ChatSoFar = Pick<Conversation, "numPreambleTokens"> &
  TextSoFar & {
    /** What is continued; undefined if everything before the answer was read again. */
    readonly stored: StoredMessages | undefined;
    /** The messages that follow those. */
    readonly added: readonly ChatMessage[];
    readonly continuesFinalMessage: boolean;
  };

/** What a turn needs to know of the messages that it continues. */
export interface StoredMessages extends Pick<Conversation, "spans" | "messages"> {
  /** All tokens up to their end. */
  readonly numTokens: number;
  /** The messages of the last span. */
  readonly last: readonly ChatMessage[];
}

/** The text between preamble and answer; with `tailKey` only its end, as in `Conversation`. */
export type TextSoFar = Pick<Conversation, "tailKey"> & { readonly text: string };

export interface Answer extends Tokens {
  /** All tokens before the answer. */
  readonly numPromptTokens: number;
  /** What the client was sent, and what reasoning before that, if any. */
  readonly sentText: string;
  readonly sentReasoning?: string;
  readonly sentCalls?: readonly ToolCall[];
}

/** After a completion all tokens are preamble: no template will ever render them. */
export function buildConversation(tokenizer: Pick<Tokenizer, "stream">, soFar: ConversationSoFar, answer: Answer) {
  if (soFar.type === "completion") {
    return { numPreambleTokens: countTokens(answer), spans: [], messages: NO_MESSAGES, ...digestText("") };
  }
  const { numPreambleTokens, tailKey, continuesFinalMessage } = soFar;
  // Unlike what the client was sent, with stop strings and special tokens.
  const text = textOf(tokenizer, rangeOf(answer, answer.numPromptTokens));
  return {
    numPreambleTokens,
    ...(continuesFinalMessage
      ? withContinuedMessage(tokenizer, soFar, answer)
      : withAnswer(tokenizer, soFar, answer, text)),
    ...digestText(soFar.text + text),
    ...(tailKey !== undefined && { tailKey }),
  };
}

type Messages = Pick<Conversation, "spans" | "messages">;

/** The request's messages make one span, the answer another. */
function withAnswer(
  tokenizer: Pick<Tokenizer, "stream">,
  { numPreambleTokens, stored, added }: ChatSoFar,
  answer: Answer,
  text: string,
): Messages {
  const { spans, messages, numTokens } = stored ?? nothingStored(numPreambleTokens);
  const prompt = rangeOf(answer, numTokens, answer.numPromptTokens);
  const isEmpty = prompt.begin === prompt.end && added.length === 0;
  const { sentText: content, sentReasoning: reasoning = "", sentCalls: toolCalls = [] } = answer;
  const message = {
    role: "assistant",
    content,
    ...(reasoning !== "" && { reasoning }),
    ...(toolCalls.length > 0 && { toolCalls }),
  };
  return {
    spans: [
      ...spans,
      ...(isEmpty ? [] : [toSpan(prompt, textOf(tokenizer, prompt), added)]),
      toSpan(rangeOf(answer, answer.numPromptTokens), text, [message]),
    ],
    messages: addMessages(messages, [...added, message]),
  };
}

/** The answer continues the last message: from the beginning of its span, all is one span. */
function withContinuedMessage(
  tokenizer: Pick<Tokenizer, "stream">,
  { numPreambleTokens, stored, added }: ChatSoFar,
  answer: Answer,
): Messages {
  const { spans, messages, numTokens, last: lastStored } = stored ?? nothingStored(numPreambleTokens);
  const replacesStored = added.length === 0 && lastStored.length > 0;
  const before = replacesStored ? lastStored : added;
  const last = before.at(-1) ?? { role: "assistant", content: "" };
  const reasoning = (last.reasoning ?? "") + (answer.sentReasoning ?? "");
  const content = last.content + answer.sentText;
  const toolCalls = [...(last.toolCalls ?? []), ...(answer.sentCalls ?? [])];
  const final = {
    ...last,
    content,
    ...(reasoning !== "" && { reasoning }),
    ...(toolCalls.length > 0 && { toolCalls }),
  };
  const whole = [...before.slice(0, -1), final];
  const range = rangeOf(answer, replacesStored ? numTokens - spans.at(-1)!.numTokens : numTokens);
  return {
    spans: [...(replacesStored ? spans.slice(0, -1) : spans), toSpan(range, textOf(tokenizer, range), whole)],
    messages: replacesStored ? replaceLast(messages, whole.at(-1)!) : addMessages(messages, whole),
  };
}

function nothingStored(numPreambleTokens: number): StoredMessages {
  return { spans: [], messages: NO_MESSAGES, numTokens: numPreambleTokens, last: [] };
}

/** @param begin counted from the very beginning; in the result, from the first of `tokenIds` */
function rangeOf(tokens: Tokens, begin: number, end = countTokens(tokens)): TokenRange {
  const { tokenIds } = tokens;
  const numBefore = countTokens(tokens) - tokenIds.length;
  return { tokenIds, begin: begin - numBefore, end: end - numBefore };
}
