/**
 * Log-probabilities in the shapes of completions, of chat, and of vLLM's `prompt_logprobs`. The sampled token's number is
 * the same one, bit for bit, wherever it appears.
 */
import type { TextLogprob, TokenDetail } from "../../generation/events.ts";

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
  readonly logprobs?: readonly (TokenDetail | null)[];
  readonly textOffsets?: readonly number[];
}

/**
 * @param numBefore characters of the choice's text before that which the offsets count in
 * @param tokenText of a token without a log-probability
 */
export function completionLogprobs(
  { logprobs = [], textOffsets = [] }: Scored,
  numBefore: number,
  tokenText?: (position: number) => string,
): CompletionLogprobs {
  return {
    tokens: logprobs.map((detail, position) => detail?.text ?? tokenText?.(position) ?? ""),
    token_logprobs: logprobs.map((detail) => detail && finite(detail.logprob)),
    top_logprobs: logprobs.map((detail) => detail && topMap(detail)),
    text_offset: textOffsets.map((offset) => numBefore + offset),
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

export function chatLogprobs(details: readonly TokenDetail[]): ChatLogprobs {
  return { content: tokenLogprobs(details), refusal: null };
}

export function tokenLogprobs(details: readonly TokenDetail[]): ChatLogprobs["content"] {
  return details.map((detail) => ({ ...chatEntry(detail), top_logprobs: detail.top.map(chatEntry) }));
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

/** vLLM's shape: per prompt token, token id → entry; null for the first. */
export function promptLogprobs(
  details: readonly (TokenDetail | null)[],
): (Readonly<Record<string, PromptLogprob>> | null)[] {
  return details.map((detail) => {
    if (detail === null) return null;
    const entries: Record<string, PromptLogprob> = {
      [detail.tokenId]: { logprob: finite(detail.logprob), decoded_token: detail.text },
    };
    for (const [index, top] of detail.top.entries()) {
      entries[top.tokenId] = { logprob: finite(top.logprob), rank: index + 1, decoded_token: top.text };
    }
    return entries;
  });
}
