/**
 * Log-probabilities in the shapes of completions, of chat, and of vLLM's `prompt_logprobs`. The sampled token's number is
 * the same one, bit for bit, wherever it appears.
 */
import type { DetailList, TextLogprob, TokenDetail } from "../../generation/events.ts";
import { LazyList } from "./json-writer.ts";

/** JSON has no -Infinity; vLLM's stand-in for it. */
const LOWEST = -9999;

const finite = (logprob: number) => (logprob < LOWEST ? LOWEST : logprob);

export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** Of some tokens: log-probabilities, and where the tokens begin. */
export interface Scored {
  readonly logprobs?: DetailList<TokenDetail | null>;
  readonly textOffsets?: readonly number[];
}

export interface Shown {
  /** Characters of the choice's text before that which the offsets count in. */
  readonly numBefore: number;
  /** Characters of that text: what begins behind it begins at its end. Default: as many as there are. */
  readonly length?: number;
  /** Of a token without a log-probability. */
  readonly tokenText?: (position: number) => string;
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

/** The same of a whole choice, each array made while it is written. @param entries made anew at each call */
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
 * Token text → log-probability of the k likeliest and of the token itself. Two tokens may show the same text: the larger
 * number stays, so that the largest value is always the argmax's.
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

/** The same of a whole choice, made while it is written. */
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
  /** From 1; absent for a token that isn't among the likeliest asked for. */
  readonly rank?: number;
  readonly decoded_token: string;
}

/** vLLM's shape: per prompt token, token id → entry; null for the first. Made while it is written. */
export function promptLogprobs(details: Iterable<TokenDetail | null>): LazyList {
  return new LazyList(() => map(details, promptLogprob));
}

function promptLogprob(detail: TokenDetail | null): Readonly<Record<string, PromptLogprob>> | null {
  if (detail === null) return null;
  const entries: Record<string, PromptLogprob> = {
    [detail.tokenId]: { logprob: finite(detail.logprob), decoded_token: detail.text },
  };
  for (const [index, top] of detail.top.entries()) {
    entries[top.tokenId] = { logprob: finite(top.logprob), rank: index + 1, decoded_token: top.text };
  }
  return entries;
}
