/**
 * The messages of a kept conversation, without their text where its tokens say it: kept is where each stands in the text of
 * a passage, a stretch of tokens. Passages follow one another, so that a message is read without decoding the others. Pure.
 */
import { setImmediate } from "node:timers/promises";
import { z } from "zod";
import { CONTEXT_TOKENS, type Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ChatMessage } from "./message-chain.ts";

/** Of a long past between two turns of the event loop: some milliseconds. */
const PIECES_AT_ONCE = 4096;
const MESSAGES_AT_ONCE = 256;

const who = { role: z.string(), name: z.string().optional() };
const keptMessage = z.union([
  z.object({ ...who, content: z.string() }),
  z.object({ ...who, at: z.int().min(0), length: z.int().min(0) }),
]);

/** Checks what a snapshot holds: a list of passages. */
export const passageList = z.array(z.object({ numTokens: z.int().min(0), messages: z.array(keptMessage) }));

/** JSON-serialisable. */
export interface Passage {
  readonly numTokens: number;
  readonly messages: readonly KeptMessage[];
}

/** By its content, or by where it stands: UTF-16 units of the passage's text, special tokens included. */
export type KeptMessage =
  | ChatMessage
  | (Omit<ChatMessage, "content"> & { readonly at: number; readonly length: number });

/** Tokens `begin` to `end` of a conversation. */
export interface Stretch {
  readonly tokenIds: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** What the tokens say, special ones included, behind those that precede them. */
export function textOf(tokenizer: Pick<Tokenizer, "stream">, stretch: Stretch): string {
  let text = "";
  for (const piece of piecesOf(tokenizer, stretch)) text += piece;
  return text;
}

/** As `textOf`, for a long past: lets others have the event loop now and then. */
async function readText(tokenizer: Pick<Tokenizer, "stream">, stretch: Stretch): Promise<string> {
  let text = "";
  let numPieces = 0;
  for (const piece of piecesOf(tokenizer, stretch)) {
    text += piece;
    if (++numPieces % PIECES_AT_ONCE === 0) await setImmediate();
  }
  return text;
}

function* piecesOf(
  tokenizer: Pick<Tokenizer, "stream">,
  { tokenIds, begin, end }: Stretch,
): Generator<string, void, undefined> {
  const contextIds = tokenIds.slice(Math.max(0, begin - CONTEXT_TOKENS), begin);
  const stream = tokenizer.stream({ skipSpecialTokens: false, contextIds });
  for (let i = begin; i < end; i++) yield stream.push(tokenIds[i]!);
  yield stream.flush();
}

/** @param text of the stretch, as `textOf` has it. What it does not say of the messages is kept as their content. */
export function toPassage(
  { begin, end }: Omit<Stretch, "tokenIds">,
  text: string,
  said: readonly ChatMessage[],
): Passage {
  let from = 0;
  const messages = said.map(({ role, name, content }) => {
    const by = { role, ...(name !== undefined && { name }) };
    const at = text.indexOf(content, from);
    if (at === -1) return { ...by, content };
    from = at + content.length;
    return { ...by, at, length: content.length };
  });
  return { numTokens: end - begin, messages };
}

/**
 * The messages again. Each is decoded when its content is looked at, and then with the others of its passage.
 * @param tokenIds of the whole conversation
 * @param begin where the first passage does
 */
export function messagesOf(
  tokenizer: Pick<Tokenizer, "stream">,
  passages: readonly Passage[],
  tokenIds: readonly number[],
  begin: number,
): ChatMessage[] {
  let end = begin;
  return passages.flatMap(({ numTokens, messages }) => {
    const stretch = { tokenIds, begin: end, end: end + numTokens };
    end = stretch.end;
    let text: string | undefined;
    return messages.map((kept) => {
      if ("content" in kept) return kept;
      const { at, length, ...by } = kept;
      return {
        ...by,
        get content() {
          text ??= textOf(tokenizer, stretch);
          return text.slice(at, at + length);
        },
      };
    });
  });
}

/** As `messagesOf`, decoded. As much work as there is history: lets others have the event loop now and then. */
export async function readMessages(
  tokenizer: Pick<Tokenizer, "stream">,
  passages: readonly Passage[],
  tokenIds: readonly number[],
  begin: number,
): Promise<ChatMessage[]> {
  const read: ChatMessage[] = [];
  let end = begin;
  for (const { numTokens, messages } of passages) {
    const stretch = { tokenIds, begin: end, end: end + numTokens };
    end = stretch.end;
    const text = messages.some(isInTokens) ? await readText(tokenizer, stretch) : "";
    for (const kept of messages) read.push(isInTokens(kept) ? contentIn(text, kept) : kept);
    if (read.length % MESSAGES_AT_ONCE < messages.length) await setImmediate();
  }
  return read;
}

function isInTokens(message: KeptMessage): message is Exclude<KeptMessage, ChatMessage> {
  return !("content" in message);
}

function contentIn(text: string, { at, length, ...by }: Exclude<KeptMessage, ChatMessage>): ChatMessage {
  return { ...by, content: text.slice(at, at + length) };
}

export function countPassageTokens(passages: readonly Passage[]): number {
  return passages.reduce((count, { numTokens }) => count + numTokens, 0);
}
