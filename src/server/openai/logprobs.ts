/**
 * Log-probabilities in the shapes of completions, of chat, and of vLLM's `prompt_logprobs`. The
 * number of the sampled token is the same, bit for bit, wherever it appears.
 */
import type { TextLogprob, TokenDetail } from "../../generation/events.ts";
import { LazyList } from "./json-writer.ts";

/** JSON has no -Infinity; vLLM writes this number. */
const LOWEST = -9999;

export const finite = (logprob: number) => (logprob < LOWEST ? LOWEST : logprob);

export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** Log-probabilities of some tokens, and where the tokens begin. */
export interface Scored {
  readonly logprobs?: Iterable<TokenDetail | null>;
  readonly textOffsets?: readonly number[];
}

export interface Shown {
  /** Characters of the choice before the text that the offsets refer to. */
  readonly numBefore: number;
  /** Characters of that text; larger offsets are moved to its end. Default: no limit. */
  readonly length?: number;
  /** The text of a token without a log-probability. */
  readonly tokenText?: (position: number) => string;
}

/** How a token is named by its id. */
export function idName(tokenId: number): string {
  return `token_id:${tokenId}`;
}

/** The same details, whose tokens have their ids for texts. It can be iterated again. */
export function byIds<T extends TokenDetail | null>(details: Iterable<T>): Iterable<T> {
  const named = <L extends TextLogprob>(token: L): L => ({ ...token, text: idName(token.tokenId) });
  return {
    *[Symbol.iterator]() {
      for (const detail of details) yield detail && { ...named(detail), top: detail.top.map(named) };
    },
  };
}

export function namedByIds({ logprobs, textOffsets = [] }: Scored): Scored {
  return { ...(logprobs && { logprobs: byIds(logprobs) }), textOffsets };
}

interface Entry {
  readonly text: string;
  readonly detail: TokenDetail | null;
  readonly offset: number;
}

export function* completionEntries({ logprobs = [], textOffsets = [] }: Scored, shown: Shown): Generator<Entry> {
  const { numBefore, length = Number.POSITIVE_INFINITY, tokenText } = shown;
  let position = 0;
  for (const detail of logprobs) {
    const text = detail?.text ?? tokenText?.(position) ?? "";
    yield { text, detail, offset: numBefore + Math.min(textOffsets[position]!, length) };
    position++;
  }
}

export function completionLogprobs(scored: Scored, shown: Shown): CompletionLogprobs {
  const logprobs: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  for (const { text, detail, offset } of completionEntries(scored, shown)) {
    logprobs.tokens.push(text);
    logprobs.token_logprobs.push(detail && finite(detail.logprob));
    logprobs.top_logprobs.push(detail && topMap(detail));
    logprobs.text_offset.push(offset);
  }
  return logprobs;
}

/**
 * The same for a whole choice, rendered while it is written.
 * @param entries starts anew at each call
 */
export function lazyCompletionLogprobs(entries: () => Iterable<Entry>) {
  const column = (cell: (entry: Entry) => unknown) => new LazyList(() => map(entries(), cell));
  return {
    tokens: column(({ text }) => text),
    token_logprobs: column(({ detail }) => detail && finite(detail.logprob)),
    top_logprobs: column(({ detail }) => detail && topMap(detail)),
    text_offset: column(({ offset }) => offset),
  };
}

/**
 * Token text → log-probability, for the k likeliest tokens and the token itself. If two tokens have
 * the same text, the larger number stays, so that the largest value is always the argmax's.
 */
function topMap(detail: TokenDetail): Record<string, number> {
  // Entries first: as a plain object's key, `__proto__` would be lost.
  const entries = new Map<string, number>();
  for (const { text, logprob } of [...detail.top, detail]) {
    const known = entries.get(text);
    if (known === undefined || finite(logprob) > known) entries.set(text, finite(logprob));
  }
  return Object.fromEntries(entries);
}

export interface ChatTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: number[];
}

export interface ChatLogprobs {
  readonly content: (ChatTokenLogprob & { readonly top_logprobs: ChatTokenLogprob[] })[];
  readonly refusal: null;
}

export function chatLogprobs(details: Iterable<TokenDetail>): ChatLogprobs {
  return { content: tokenLogprobs(details), refusal: null };
}

/** The same for a whole choice, rendered while it is written. */
export function lazyChatLogprobs(details: Iterable<TokenDetail>) {
  return { content: new LazyList(() => map(details, tokenLogprob)), refusal: null };
}

export function tokenLogprobs(details: Iterable<TokenDetail>): ChatLogprobs["content"] {
  return [...map(details, tokenLogprob)];
}

function tokenLogprob(detail: TokenDetail): ChatLogprobs["content"][number] {
  return { ...chatEntry(detail), top_logprobs: detail.top.map(chatEntry) };
}

function* map<In, Out>(items: Iterable<In>, make: (item: In) => Out): Generator<Out> {
  for (const item of items) yield make(item);
}

function chatEntry(entry: TextLogprob): ChatTokenLogprob {
  return { token: entry.text, logprob: finite(entry.logprob), bytes: [...entry.bytes] };
}

export interface PromptLogprob {
  readonly logprob: number;
  /** From 1, among all tokens. */
  readonly rank: number | undefined;
  readonly decoded_token: string;
}

/**
 * vLLM's shape: per prompt token, token id → entry; null for the first. Rendered while it is
 * written.
 */
export function promptLogprobs(details: Iterable<TokenDetail | null>): LazyList {
  return new LazyList(() => map(details, promptLogprob));
}

function promptLogprob(detail: TokenDetail | null): Readonly<Record<string, PromptLogprob>> | null {
  if (detail === null) return null;
  const entries: Record<string, PromptLogprob> = {
    [detail.tokenId]: { logprob: finite(detail.logprob), rank: detail.rank, decoded_token: detail.text },
  };
  for (const [index, top] of detail.top.entries()) {
    entries[top.tokenId] = { logprob: finite(top.logprob), rank: index + 1, decoded_token: top.text };
  }
  return entries;
}
