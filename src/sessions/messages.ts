/**
 * The messages of a conversation as they are stored. A hash chain tells whether a client sends all
 * of them again. Their text is stored only where the tokens do not give it: a span of tokens says
 * where each of its messages is in the decoded text. Pure.
 */
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { z } from "zod";
import { CONTEXT_TOKENS, type Tokenizer } from "../tokenizer/tokenizer.ts";

type Decoder = Pick<Tokenizer, "stream">;

/** Between two turns of the event loop: some milliseconds. */
const TOKENS_AT_ONCE = 4096;
const MESSAGES_AT_ONCE = 256;

const toolCall = z.object({ id: z.string(), name: z.string(), arguments: z.string() });
/** What is stored of a message besides its texts. */
const author = {
  role: z.string(),
  name: z.string().exactOptional(),
  /** What an assistant called. */
  toolCalls: z.array(toolCall).exactOptional(),
  /** Of a tool's result: the call. */
  toolCallId: z.string().exactOptional(),
};
/** In UTF-16 units of the span's text, which includes special tokens. */
const place = { at: z.int().min(0), length: z.int().min(0) };
const chatMessage = z.object({
  ...author,
  content: z.string(),
  /** What an assistant thought before. */
  reasoning: z.string().exactOptional(),
});
const locatedMessage = z.object({
  ...author,
  ...place,
  reasoning: z.union([z.string(), z.object(place)]).exactOptional(),
});
const messageSpan = z.object({
  numTokens: z.int().min(0),
  messages: z.array(z.union([chatMessage, locatedMessage])),
});

export const messageSpans = z.array(messageSpan);

export const messageChain = z.object({
  count: z.int().min(0),
  firstRole: z.string().exactOptional(),
  /** Of all messages in order. */
  hash: z.string().max(22),
  /** Of all but the last, which may be continued. */
  hashBeforeLast: z.string().max(22),
});

/** Not zod's `readonly()`, which freezes every object and takes three times as long. */
export type DeepReadonly<T> = { readonly [Key in keyof T]: DeepReadonly<T[Key]> };

export type ChatMessage = DeepReadonly<z.infer<typeof chatMessage>>;
type LocatedMessage = DeepReadonly<z.infer<typeof locatedMessage>>;
export type MessageSpan = DeepReadonly<z.infer<typeof messageSpan>>;
export type MessageChain = DeepReadonly<z.infer<typeof messageChain>>;

export const NO_MESSAGES: MessageChain = { count: 0, hash: "", hashBeforeLast: "" };

export interface TextDigest {
  readonly textLength: number;
  readonly textHash: string;
}

export function digestText(text: string): TextDigest {
  return { textLength: text.length, textHash: hashText(text) };
}

/** 128 bits of sha256: nobody can make two texts with one hash. */
export function hashText(text: string): string {
  return createHash("sha256").update(text).digest("base64url").slice(0, 22);
}

export function addMessages(chain: MessageChain, messages: readonly ChatMessage[]): MessageChain {
  return messages.reduce(
    ({ count, firstRole, hash }, message) => ({
      count: count + 1,
      firstRole: firstRole ?? message.role,
      hash: nextHash(hash, message),
      hashBeforeLast: hash,
    }),
    chain,
  );
}

/** @param chain of at least one message */
export function replaceLast(chain: MessageChain, last: ChatMessage): MessageChain {
  return { ...chain, hash: nextHash(chain.hashBeforeLast, last) };
}

/** Those not in the chain: a client may send only them, or the whole conversation again. */
export function newMessages(chain: MessageChain, given: readonly ChatMessage[]): readonly ChatMessage[] {
  const { count, firstRole, hash } = chain;
  if (count === 0 || given.length < count || given[0]!.role !== firstRole) return given;
  return addMessages(NO_MESSAGES, given.slice(0, count)).hash === hash ? given.slice(count) : given;
}

/**
 * Clients trim answers before they send them back, and so do templates. Reasoning does not count:
 * many clients leave it out. Nor do the ids of calls, and the white space in their arguments.
 */
function nextHash(previous: string, { role, name, content, toolCalls = [] }: ChatMessage): string {
  const said = [previous, role, name ?? null, role === "assistant" ? content.trim() : content];
  const called = toolCalls.map((call) => [call.name, withoutSpaces(call.arguments)]);
  return hashText(JSON.stringify(called.length === 0 ? said : [...said, called]));
}

function withoutSpaces(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json));
  } catch {
    return json;
  }
}

/** Tokens `begin` to `end` of `tokenIds`. */
export interface TokenRange {
  readonly tokenIds: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** The decoded text, including special tokens, as it continues what precedes the range. */
export function textOf(tokenizer: Decoder, range: TokenRange): string {
  let text = "";
  for (const piece of decode(tokenizer, range)) text += piece;
  return text;
}

function* decode(tokenizer: Decoder, { tokenIds, begin, end }: TokenRange): Generator<string, void, undefined> {
  const contextIds = tokenIds.slice(Math.max(0, begin - CONTEXT_TOKENS), begin);
  const stream = tokenizer.stream({ skipSpecialTokens: false, contextIds });
  for (let i = begin; i < end; i++) yield stream.push(tokenIds[i]!);
  yield stream.flush();
}

/** @param text of the range. A message whose content is not in it is stored with its content. */
export function toSpan(
  { begin, end }: Pick<TokenRange, "begin" | "end">,
  text: string,
  messages: readonly ChatMessage[],
): MessageSpan {
  let from = 0;
  const locate = (part: string) => {
    const at = text.indexOf(part, from);
    if (at === -1) return undefined;
    from = at + part.length;
    return { at, length: part.length };
  };
  const located = messages.map(({ content, reasoning, ...by }) => {
    const thought = reasoning === undefined ? undefined : (locate(reasoning) ?? reasoning);
    const place = locate(content);
    if (place !== undefined) return { ...by, ...place, ...(thought !== undefined && { reasoning: thought }) };
    return { ...by, content, ...(reasoning !== undefined && { reasoning }) };
  });
  return { numTokens: end - begin, messages: located };
}

/**
 * The messages of consecutive spans. A span is decoded when a content in it is first read.
 * @param tokenIds of the whole conversation
 * @param begin of the first span
 */
export function messagesOf(
  tokenizer: Decoder,
  spans: readonly MessageSpan[],
  tokenIds: readonly number[],
  begin: number,
): ChatMessage[] {
  return [...rangesOf(spans, tokenIds, begin)].flatMap(({ range, messages }) => {
    let text: string | undefined;
    const readText = () => {
      text ??= textOf(tokenizer, range);
      return text;
    };
    return messages.map((message) => (isLocated(message) ? withTexts(message, readText) : message));
  });
}

/** Like `messagesOf`, all decoded, without blocking the event loop: a history may be long. */
export async function decodeMessages(
  tokenizer: Decoder,
  spans: readonly MessageSpan[],
  tokenIds: readonly number[],
  begin: number,
): Promise<ChatMessage[]> {
  const all: ChatMessage[] = [];
  for (const { range, messages } of rangesOf(spans, tokenIds, begin)) {
    let text = "";
    let numPieces = 0;
    for (const piece of messages.some(isLocated) ? decode(tokenizer, range) : []) {
      text += piece;
      if (++numPieces % TOKENS_AT_ONCE === 0) await setImmediate();
    }
    for (const message of messages) {
      all.push(isLocated(message) ? { ...withTexts(message, () => text) } : message);
    }
    if (all.length % MESSAGES_AT_ONCE < messages.length) await setImmediate();
  }
  return all;
}

function* rangesOf(spans: readonly MessageSpan[], tokenIds: readonly number[], begin: number) {
  let end = begin;
  for (const { numTokens, messages } of spans) {
    const range: TokenRange = { tokenIds, begin: end, end: end + numTokens };
    end = range.end;
    yield { range, messages };
  }
}

/** Its texts are cut out when they are read. */
function withTexts({ at, length, reasoning, ...by }: LocatedMessage, text: () => string): ChatMessage {
  const cut = (place: DeepReadonly<{ at: number; length: number }>) => text().slice(place.at, place.at + place.length);
  const located = {
    ...by,
    get content() {
      return cut({ at, length });
    },
  };
  if (reasoning === undefined) return located;
  return Object.defineProperty(located, "reasoning", {
    enumerable: true,
    get: () => (typeof reasoning === "string" ? reasoning : cut(reasoning)),
  });
}

function isLocated(message: ChatMessage | LocatedMessage): message is LocatedMessage {
  return !("content" in message);
}

export function countSpanTokens(spans: readonly MessageSpan[]): number {
  return spans.reduce((count, { numTokens }) => count + numTokens, 0);
}
